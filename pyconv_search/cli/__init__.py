"""The command line: arguments to calls, nothing else. What imports torch or ray is imported where it is used."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyconv_search import __version__
from pyconv_search.cli import benches
from pyconv_search.cli.options import (
    AsJson,
    ChannelsLast,
    Device,
    Dtype,
    Network,
    file_or_name,
    print_out,
    read_network,
    read_space,
)
from pyconv_search.errors import UserError
from pyconv_search.fields import SpecError, printable
from pyconv_search.files import expanded

if TYPE_CHECKING:
    from pyconv_search.arch.plans.choice import Choice, Setting
    from pyconv_search.arch.plans.network import Fused
    from pyconv_search.search.runner import Outcome
    from pyconv_search.study.study import Study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
space_app = typer.Typer(help="Look at a search space before anything is spent on it.", no_args_is_help=True)
data_app = typer.Typer(help="Which data sets are known, and where they are.", no_args_is_help=True)
app.add_typer(space_app, name="space")
app.add_typer(data_app, name="data")
app.add_typer(benches.app, name="bench")

File = Annotated[
    Path, typer.Argument(metavar="FILE", parser=expanded, help="A space in YAML, such as spaces/pyconv_levels.yaml.")
]
StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY", parser=expanded, help="A study in YAML, such as studies/quickstart.yaml.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", parser=expanded, help="The folder of a run.")]
Root = Annotated[Path | None, typer.Option(metavar="PATH", parser=expanded, help="Folder or archive that holds it.")]
Classes = Annotated[int | None, typer.Option(help="A subset of so many classes lies there.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the random draws.")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="At the input size and classes of this data set, as a study of it; default: those in the space.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pyconv-search {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Architecture search and ablation sweeps for multi-scale convolutions (PyConv, PSConv)."""


@space_app.command("check")
def space_check(file: File, data: Data = None, classes: Classes = None, as_json: AsJson = False) -> None:
    """Validate a space; every mistake with file:line:column, the key, the value and what would be right."""
    from pyconv_search.report.words import count
    from pyconv_search.study.joint import check_space

    space, _ = read_space(file, data, classes)
    check_space(space)
    said = {"space": space.name, "parameters": len(space.parameters), "size": space.size}
    sizes = f"{count(len(space.parameters), 'parameter')}, {count(space.size, 'assignment')}"
    print_out(said if as_json else f"{file}: ok: {space.name}, {sizes}")


@space_app.command("describe")
def space_describe(
    file: File, data: Data = None, classes: Classes = None, seed: Seed = 0, as_json: AsJson = False
) -> None:
    """The exact size, the costs, what each constraint lets through, and three samples."""
    from pyconv_search.cli import text
    from pyconv_search.space.describe import check, describe

    space, whose = read_space(file, data, classes)
    check(space, may_be_empty=True)
    described = describe(space, seed)
    print_out(text.description_dict(space, described) if as_json else text.description_text(space, described, whose))


@space_app.command("sample")
def space_sample(
    file: File,
    n: Annotated[int, typer.Option("-n", min=1, help="How many networks.")] = 1,
    data: Data = None,
    classes: Classes = None,
    seed: Seed = 0,
) -> None:
    """Different random networks that satisfy the constraints, one canonical JSON object a line."""
    from pyconv_search.arch.canonical import to_dict
    from pyconv_search.space.describe import check
    from pyconv_search.space.sampling import sample

    space, _ = read_space(file, data, classes)
    check(space)
    for found in sample(space, n, seed):
        arch = found.architecture
        line = {"arch_id": arch.arch_id, "parameters": found.values, "architecture": to_dict(arch)}
        if space.recipe:
            line["recipe"] = space.overrides(found.values)
        print(json.dumps(line, sort_keys=True, separators=(",", ":")), flush=True)


@app.command()
def cost(
    network: Network,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", parser=expanded, help="Draw the network into this file.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once, for memory and bytes.")] = 1,
    dtype: Annotated[Dtype, typer.Option(help="Type of the numbers.")] = Dtype.float32,
    device: Annotated[Device, typer.Option(help="Where the plans are executed.")] = Device.cpu,
    channels_last: ChannelsLast = True,
    instructions: Annotated[
        str | None, typer.Option(help="Vector instructions of a CPU, such as AVX512; default: this machine's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a network costs, whole and by part: parameters, multiply-adds, activations, memory, receptive field.

    And what the plans chosen for its convolutions execute and move on a device, beside the nominal figures.
    """
    from pyconv_search.arch.cost import cost
    from pyconv_search.arch.plans.network import executions
    from pyconv_search.cli import costs, plans

    arch = read_network(network)
    found, wanted = cost(arch), (batch, dtype.value)
    setting = _setting(device.value, dtype.value, channels_last, instructions)
    executed = executions(arch, setting, batch, costs.ITEMSIZES[dtype.value], _fused(device))
    if as_json:
        print_out({**costs.cost_dict(arch, found, *wanted), "plans": plans.plans_dict(executed, setting, batch)})
    else:
        print_out(costs.cost_text(network, arch, found, *wanted) + "\n\n" + plans.plans_text(executed, setting, batch))
    if draw is not None:
        from pyconv_search.report.drawing.picture import write_drawing

        print(write_drawing(arch, draw, network), file=sys.stderr)


@app.command()
def networks(
    network: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|NAME]", parser=file_or_name, help="Draw this network's stages instead."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every network that the papers print: printed against computed parameters and GFLOPs."""
    from pyconv_search.arch.cost import cost
    from pyconv_search.cli import catalogue, layers

    if network is not None:
        if as_json:
            raise UserError("networks NAME draws for people; `cost NAME --json` gives the network as JSON")
        arch = read_network(network)
        print_out(layers.network_text(network, arch, cost(arch)))
        return
    found = catalogue.published()
    print_out(catalogue.networks_dict(found) if as_json else catalogue.networks_text(found))


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Every value of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """The training recipes that have names: those of the papers, and a fast one for small images."""
    from pyconv_search.cli import recipe_list

    names = recipe_list.named(name)
    if as_json:
        found = [recipe_list.recipe_dict(each) for each in names]
        print_out(found[0] if name else found)
    else:
        print_out(recipe_list.recipe_text(name) if name else recipe_list.recipes_text(names))


@app.command()
def plan(
    study: StudyFile,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Train some of the networks for seconds, to tell the hours.")
    ] = True,
    images_per_second: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="At which one trial of the median network trains on what a trial takes (not a GPU that several trials "
            "share): gives the hours without measuring.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a study will run, before anything runs, and the hours that it takes on a machine like this."""
    from pyconv_search.cli import estimates, planned
    from pyconv_search.study.study import load_study
    from pyconv_search.training.data.at_hand import at_hand

    known = at_hand(load_study(study))
    found = estimates.found(known.study, measure, images_per_second)
    print_out(planned.plan_dict(known, found) if as_json else planned.plan_text(known, found))


@app.command()
def run(
    study: StudyFile,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=expanded, help="Folder of the run; default: runs/ and the study's file name."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Join the Ray cluster at HOST:PORT instead of this machine.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Join it even if it answers without a token, so is open to everybody.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run the trials that failed before once more.")
    ] = False,
    alone: Annotated[bool, typer.Option("--alone", help="With a whole device for each of those.")] = False,
    accumulate: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Of those, the ones out of memory: each batch in N parts.")
    ] = None,
) -> None:
    """Run a study, or go on where it stopped. Ctrl-C stops in order; the same command goes on."""
    from pyconv_search.search import interrupts

    if (alone or accumulate) and not retry_failed:
        given = "--alone" if alone else f"--accumulate {accumulate}"
        raise UserError(f"{given}: says how failed trials are run once more; it goes with --retry-failed")
    if insecure and address is None:
        raise UserError("--insecure: says that a cluster may be joined as it is; it goes with --address")
    again = (alone, accumulate or 0) if retry_failed else None
    with interrupts.heard() as heard:
        try:
            ran = _run(study, out or Path("runs") / study.stem, address, insecure, again)
            with heard.orderly():
                if ran is not None:
                    _finish(dataclasses.replace(ran[0], interrupted=bool(heard.received)), ran[1])
        except KeyboardInterrupt:
            interrupts.ignore()
            with contextlib.suppress(OSError):
                print("interrupted; the same command goes on", file=sys.stderr)
            raise typer.Exit(130) from None


def _run(
    study: Path, folder: Path, address: str | None, insecure: bool, again: tuple[bool, int] | None
) -> tuple[Outcome, Path] | None:
    """Run the study and write its report; ``again``: how failed trials are tried once more, if they are.

    None where nothing was left to run, which is reported.
    """
    from pyconv_search.search import interrupts, waiting

    console = waiting.console()
    with interrupts.heard() as heard:
        with heard.held():  # by the threads that NumPy starts, for as long as they live
            import numpy  # noqa: F401
        with waiting.waiting("reading the study", console):
            from pyconv_search.study.study import load_study

            loaded = load_study(study)
        if again is None and _nothing_left(loaded, folder):
            return None
        with waiting.waiting("importing PyTorch and Ray", console):
            from pyconv_search.report.page import write_report
            from pyconv_search.search import runner
            from pyconv_search.search.joining import Cluster
            from pyconv_search.search.retry import Retry

        cluster = None if address is None else Cluster(address, insecure)
        outcome = runner.run(loaded, folder, cluster, Retry(*again) if again else False, console)
        asked = loaded.search.trials * len(loaded.seeds)
        if outcome.planned < asked:
            waiting.say(console, f"the space holds no more than {outcome.planned:,} of the {asked:,} trials asked for")
        with heard.orderly(), waiting.waiting("writing the report", console):
            return outcome, write_report(folder)


def _nothing_left(study: Study, folder: Path) -> bool:
    """Whether the folder holds all that the study asks for, with its report; then it is reported."""
    from pyconv_search.search.settled import settled

    found = settled(study, folder)
    if found is None:
        return False
    ended = len(found.current().rows)
    print(f"nothing left to run: {ended} of {found.study['planned']} trials have ended", file=sys.stderr)
    print((folder / "report.html").resolve())
    return True


@app.command()
def status(
    folder: Folder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until the run ends or Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds between two looks, with --watch.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """How a study stands: running, interrupted, killed or finished; the best so far, the time left, what is running."""
    from pyconv_search.cli import standing as said
    from pyconv_search.results import store

    if watch:
        said.watch(folder, every, as_json)
        return
    found = store.read(folder)
    print_out(said.status_dict(found) if as_json else said.status_text(found))


@app.command()
def report(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=expanded, help="The HTML file; default: report.html in the folder."),
    ] = None,
) -> None:
    """One self-contained HTML file of a run, finished or not."""
    from pyconv_search.report.page import write_report

    print(write_report(folder, out))


@app.command()
def repair(folder: Folder, as_json: AsJson = False) -> None:
    """Set damaged lines of a run's journal aside, into journal.damaged, and say what is lost with them."""
    from pyconv_search.results.repair import repair as repaired

    found = repaired(folder)
    print_out(dataclasses.asdict(found) if as_json else str(found))


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """The known data sets, and where each was found or looked for."""
    from pyconv_search.cli import text
    from pyconv_search.training import data

    rows = data.listing()
    print_out([dataclasses.asdict(row) for row in rows] if as_json else text.data_list_text(rows))


@data_app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set that `data list` names.")],
    root: Root = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Read a data set in full, every image of it, and say what is in it or which images are broken."""
    from pyconv_search.cli import text
    from pyconv_search.training import data

    with _progress("decoded") as progress:
        found = data.check(name, root, classes, progress)
    print_out(dataclasses.asdict(found) if as_json else text.data_check_text(found))


@data_app.command("pack")
def data_pack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set whose images are files, such as imagenet.")],
    root: Root = None,
    classes: Classes = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=expanded,
            help="Folder of the pack; default: the data set's own with the suffix .pack.",
        ),
    ] = None,
    side: Annotated[int, typer.Option(min=8, max=8192, help="The shorter side of an image, in pixels, at most.")] = 256,
    workers: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; default: one a core.")] = None,
) -> None:
    """Pack a data set's images into one file, smaller and faster to decode; broken off, the same call goes on.

    A pack beside the data set's folder is used from then on; elsewhere, give its folder as the data's root.
    """
    from pyconv_search.training import data

    with _progress("packed") as progress:
        found = data.make_pack(name, data.PackOrder(out, side, workers), root, classes, progress)
    print(found)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, on a terminal alone, fed with how many images are done and how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(f"images {what}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _setting(device: str, dtype: str, channels_last: bool, instructions: str | None) -> Setting:
    """Where plans are executed; the instructions of this machine's CPU if none are named."""
    from pyconv_search.arch.plans.choice import Setting
    from pyconv_search.arch.plans.machine import NEEDED, cpu_instructions

    if instructions is not None and (device != "cpu" or instructions not in NEEDED):
        legal = f"must be one of {', '.join(NEEDED)}" if device == "cpu" else "is for --device cpu only"
        raise UserError(f"--instructions {legal}, but got {instructions}")
    own = cpu_instructions() if device == "cpu" and instructions is None else instructions or ""
    return Setting(device, dtype, channels_last, own)


def _fused(device: Device) -> tuple[Choice, Fused] | None:
    """The kernels of a GPU; their work is computed where PyTorch is imported."""
    if device is not Device.cuda:
        return None
    from pyconv_search.ops.fused_work import CHOICE, fused_work

    return CHOICE, fused_work


def _finish(outcome: Outcome, report: Path) -> None:
    """Say where the results are, and leave with the status that the outcome asks for."""
    if outcome.interrupted:
        said = f"stopped with {outcome.ended} of {outcome.planned} trials; the same command goes on"
        with contextlib.suppress(OSError):  # Who reads may have ended by the same signal.
            print(report.resolve(), flush=True)
            print(said, file=sys.stderr)
        raise typer.Exit(130)
    print(report.resolve())
    if outcome.shortfall:
        raise UserError(outcome.shortfall)
    if not outcome.complete:
        raise UserError(f"{outcome.folder}: no trial completed; the report tells why each failed")


def main() -> None:
    """The entry point: a mistake of the user's is its message on standard error and exit status 1."""
    try:
        _main()
    except SystemExit as ending:
        _close_streams()
        supervision = sys.modules.get("pyconv_search.search.supervision")
        if supervision is not None and supervision.abandoned():
            # Python's own ending would wait for Ray, of which a part has died.
            os._exit(ending.code if isinstance(ending.code, int) else 1)
        raise


def _close_streams() -> None:
    """Write out what is left, where there is still somebody to read it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except ValueError:  # closed
            continue
        except OSError:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no × or ± still shows the rest
    try:
        app()
    except SpecError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(1)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"error: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
