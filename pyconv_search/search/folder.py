"""The folder of a run: made, recognised, and protected from another study's rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyconv_search
from pyconv_search.errors import UserError
from pyconv_search.files import read_json
from pyconv_search.results.files import replace
from pyconv_search.results.records import records
from pyconv_search.results.store import JOURNAL, LOCK, MOST_STUDY, STUDY, Journal, Store, store_of
from pyconv_search.search.proposals import entries, still_held
from pyconv_search.study.plan import Candidate, candidate, candidates, planned_trials
from pyconv_search.study.recipe import Recipe, essence
from pyconv_search.study.recipe import to_dict as recipe_to_dict
from pyconv_search.study.study import Study, study_to_dict
from pyconv_search.training import data
from pyconv_search.training.data.at_hand import counted_study

# What makes rows comparable. The rest (seeds, rows, objectives, scheduler) may change: a study can be extended.
IDENTITY = ("name", "data", "recipe", "network", "space_recipe", "input", "classes", "computes_on")

_log = logging.getLogger(__name__)


def open_folder(study: Study, folder: Path, command: str) -> tuple[Study, dict[str, Any]]:
    """Make ``folder`` the folder of this study, or recognise it as that.

    Returns the study with its data located and counted, and the plain values of its ``study.json``, which only the
    holder of the journal's lock may write.

    Raises:
        UserError: if the data set is missing or damaged, the folder cannot be written, or it holds another study's run.
    """
    found = data.load(**study.data.key)
    if found.passed:
        first = found.passed[0]
        _log.warning(
            "%s: %s passed over, such as %s, which %s; `data check` names all",
            found.found_at,
            f"{len(found.passed):,} entries are" if len(found.passed) > 1 else "one entry is",
            first.name,
            first.why,
        )
    study = counted_study(study, found.info)
    known = candidates(study)  # only now, since they are kept for these very data
    values = study_to_dict(study) | {"command": command, "planned": planned_trials(study, len(known))}
    values |= {"networks": entries(study, known), "baseline": _baseline(study)}
    study = _located(study, Path(found.found_at))
    values["data"] |= {"fingerprint": data.fingerprint(found), "found_at": study.data.root, "train": len(found.train)}
    values["identity"] = _identity(study, values)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = sorted(p.name for p in folder.iterdir() if p.name != LOCK and p.stat().st_size)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --out") from None
    if (there := _there(folder)) is not None:
        _compare(folder, there, values)
    elif any(name in (STUDY, JOURNAL) for name in strangers):
        _compare_identity(folder, values)
    elif strangers:
        raise UserError(
            f"{folder}: is not empty and not the folder of a run (it holds {strangers[0]}); choose another with --out"
        )
    return study, values


def begin(
    study: Study, values: dict[str, Any], journal: Journal, time: str
) -> tuple[dict[str, Any], Store, list[Candidate]]:
    """Write ``study.json`` and note the start: its values, what the folder holds, and the networks of earlier searches.

    These are what an adaptive search has proposed until now and the study still has. Those beyond the number that it
    asks for are its surplus; they come back when it asks for more.
    """
    found, proposed = list(records(journal.path)), []
    if study.search.kind == "tpe":
        every = still_held(study, found)
        proposed, surplus = every[: study.search.trials], every[study.search.trials :]
        values = values | {"networks": entries(study, proposed), "surplus": [row.config for row in surplus]}
    values = write_study(journal.folder, values)
    start = {"command": values["command"], "time": time, "identity": values["identity"], **provenance(study)}
    journal.append_event("start", **start)
    return values, store_of(journal.folder, values, [*found, {"name": "start", **start}]), proposed


def _baseline(study: Study) -> dict[str, Any] | None:
    """The configuration that the study names as its baseline; its file was checked when it was read."""
    network = None if study.baseline is None else candidate(study, study.baseline)
    return None if network is None else {"config": network.config, "parameters": network.values}


def _located(study: Study, found_at: Path) -> Study:
    """The study with the place of its data written out, because workers look from other folders than this process.

    The data that come with this package are left to each machine's own installation.
    """
    if found_at.is_relative_to(Path(pyconv_search.__file__).parent):
        return study
    return dataclasses.replace(study, data=dataclasses.replace(study.data, root=str(found_at)))


def write_study(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Write ``study.json``; the values as they are read from it."""
    text = json.dumps(values, indent=2)
    replace(folder / STUDY, f"{text}\n".encode())
    return dict(json.loads(text))


def _there(folder: Path) -> dict[str, Any] | None:
    """What an earlier run wrote; None where it is missing or damaged."""
    try:
        found = read_json(folder / STUDY, MOST_STUDY, "a study")
    except UserError:
        return None
    return found if isinstance(found, dict) else None


def _identity(study: Study, values: dict[str, Any]) -> str:
    """A digest of what makes rows comparable, which each start notes in the journal, in case study.json is lost."""
    own = {key: values[key] for key in IDENTITY} | {"recipe": essence(study.recipe)}
    own["data"] = {key: values["data"][key] for key in ("name", "validation", "fingerprint")}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def _compare_identity(folder: Path, values: dict[str, Any]) -> None:
    """Whether a folder without a readable study.json holds this study's run, by what its last start noted."""
    starts = [each for each in records(folder / JOURNAL) if isinstance(each, dict) and each["name"] == "start"]
    noted = next((each["identity"] for each in reversed(starts) if "identity" in each), None)
    if noted == values["identity"]:
        return
    other = "it was of another study" if noted else "and its journal does not say of which study it was"
    raise UserError(
        f"{folder / STUDY}: is missing or damaged, {other}; restore it from a copy, or choose another folder with --out"
    )


def _compare(folder: Path, there: dict[str, Any], values: dict[str, Any]) -> None:
    difference = _difference(
        {key: _filled(key, there.get(key)) for key in IDENTITY}, {key: values[key] for key in IDENTITY}
    )
    if difference is not None:
        key, old, new = difference
        raise UserError(
            f"{folder}: holds the run of another study: {key} is {old!r} there and {new!r} here; "
            f"choose another folder with --out"
        )


def _filled(key: str, value: Any) -> Any:
    """What an earlier version wrote, with the values of a recipe that it did not know at their defaults."""
    return recipe_to_dict(Recipe(epochs=0)) | value if key == "recipe" and isinstance(value, dict) else value


def _difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first key in which two plain values differ. Where the data lie does not matter, what they are does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if path == "data" and key in ("root", "found_at", "about", "train"):
                continue
            found = _difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found is not None:
                return found
        return None
    return None if old == new else (path, old, new)


def provenance(study: Study) -> dict[str, Any]:
    """What a report needs to say how rows came about: the git state around the study's file, the versions at work."""
    versions = {name: metadata.version(name) for name in ("torch", "ray", "optuna", "numpy")}
    versions["pyconv-search"] = pyconv_search.__version__
    return {
        "git": _git(Path(study.document.file).resolve()),
        "environment": {"python": platform.python_version(), **versions, "platform": platform.platform()},
    }


def _git(file: Path) -> dict[str, Any] | None:
    """The commit that the study's file stands in; dirty where the file, or a change around it, is not committed."""

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(file.parent), *words],
            capture_output=True,
            text=True,
            errors="replace",  # names of files, which git can be set to give as they are
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        changed = bool(ask("status", "--porcelain", "--untracked-files=no"))
        return {"sha": ask("rev-parse", "HEAD"), "dirty": changed or not ask("ls-files", "--", file.name)}
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def noted_end(journal: Journal) -> Iterator[None]:
    """Note in the journal what ends a run by an exception, so that it does not pass for one that was killed."""
    try:
        yield
    except BaseException as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        name = "interrupted" if isinstance(error, KeyboardInterrupt) else "aborted"
        with suppress(UserError):  # of a full disk, which may have been the reason
            journal.append_event(name, time=datetime.now(UTC).isoformat(timespec="seconds"), reason=reason[:2000])
        raise


def command_line() -> str:
    """The command as the user gave it, or that the run was started from Python."""
    known = Path(sys.argv[0]).name in ("pyconv-search", "__main__.py")
    return shlex.join(["pyconv-search", *sys.argv[1:]]) if known else "pyconv_search.run(…)"
