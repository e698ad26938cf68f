"""Whether a folder holds the whole of a study already, found out without Ray, torch, or working out its networks."""

from __future__ import annotations

import json
from pathlib import Path

import pyconv_search
from pyconv_search.errors import UserError
from pyconv_search.files import read_json
from pyconv_search.results import store
from pyconv_search.results.store import JOURNAL, MOST_STUDY, STUDY, Store
from pyconv_search.study.study import Study, study_to_dict
from pyconv_search.training import data

# What a run leaves beside its journal, in the order in which it is written.
FILES = ("optuna.journal", "rows.parquet", "epochs.parquet", "report.html")


def settled(study: Study, folder: Path) -> Store | None:
    """What ``folder`` holds, if its last run was of this very study and left nothing to do; else None.

    None is no verdict: a run finds out what there is to do, and what is wrong with the folder.
    """
    try:
        if not _newest(folder, FILES[-1]) or not _same(study, folder):
            return None
        found = store.read(folder)
    except (UserError, OSError):
        return None
    starts = [event for event in found.events if event["name"] == "start"]
    version = (starts[-1].get("environment") or {}).get("pyconv-search") if starts else None
    if found.state != "finished" or version != pyconv_search.__version__ or found.listing is None:
        return None
    listed = found.listing.configs.values()
    ended = {row.trial for row in found.rows}
    whole = len(listed) == study.searched if study.search.kind == "tpe" else bool(listed)
    whole = whole and all(len(each.trials) == len(study.seeds) and ended.issuperset(each.trials) for each in listed)
    return found if whole and any(row.status == "complete" for row in found.current().rows) else None


def _newest(folder: Path, name: str) -> bool:
    """Whether every file is there, and this one no older than the journal."""
    times = {each: (folder / each).stat().st_mtime_ns for each in (*FILES, JOURNAL)}
    return times[name] >= times[JOURNAL]


def _same(study: Study, folder: Path) -> bool:
    """Whether ``study.json`` is of this very study, down to its text, and of these very data."""
    there = read_json(folder / STUDY, MOST_STUDY, "a study")
    values = json.loads(json.dumps(study_to_dict(study)))
    own = values.pop("data")
    known = there.get("data") if isinstance(there, dict) else None
    if not isinstance(known, dict) or any(there.get(key) != value for key, value in values.items()):
        return False
    if any(known.get(key) != value for key, value in own.items()):
        return False
    return bool(known.get("fingerprint") == data.fingerprint(data.load(**study.data.key)))
