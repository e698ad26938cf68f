"""The commands under ``bench``: what this machine makes of operators and networks, measured."""

from __future__ import annotations

from typing import Annotated

import typer

from pyconv_search.cli.options import (
    AsJson,
    ChannelsLast,
    Device,
    Dtype,
    Network,
    file_or_name,
    print_out,
    read_network,
)
from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure this machine."""


Threads = Annotated[
    int | None,
    typer.Option(min=1, help="Threads of a CPU; default: as many cores as it may use."),
]


@app.command("ops")
def bench_ops(
    operators: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OPERATOR]...", help="Such as psconv-64; default: all that have names."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", parser=file_or_name, help="The spatial convolutions of a network instead."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.cpu,
    dtype: Annotated[Dtype, typer.Option(help="Type of the numbers.")] = Dtype.float32,
    channels_last: ChannelsLast = True,
    batch: Annotated[int | None, typer.Option(min=1, help="Images at once; default: 16, on CUDA 200.")] = None,
    threads: Threads = None,
    seconds: Annotated[float, typer.Option(min=0.001, max=3600, help="At least, for each operator and mode.")] = 1.0,
    plan: Annotated[str, typer.Option(metavar="WAY", help="Force a way of execution, such as masked.")] = "",
    all_plans: Annotated[bool, typer.Option("--all-plans", help="Every way that can be forced, in turns.")] = False,
    as_json: AsJson = False,
) -> None:
    """Time operators by their plans: beside nn.Conv2d 3×3 in the same rounds, and as a share of the roofline.

    Forward, and training: forward and the gradients of input and weights. Ctrl-C ends with what is measured so far.
    On Linux the process starts anew at first, with freed memory kept (glibc's variables MALLOC_… and GLIBC_TUNABLES,
    as in the trials of `run`), unless these variables are set.
    """
    from pyconv_search.arch.plans import operators as catalogue
    from pyconv_search.training import allocator

    if operators and network:
        raise UserError(f"either operators or --network, but got {' '.join(operators)} and --network {network}")
    found = catalogue.operators(read_network(network)) if network else catalogue.named(operators or ())
    if device is Device.cpu:
        allocator.restart_with_it()
    import torch

    from pyconv_search.cli import bench as said
    from pyconv_search.ops import bench
    from pyconv_search.ops.roofline import measure_roofline

    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))
    torch.backends.cudnn.benchmark = True  # both sides at their best
    numbers, images = getattr(torch, dtype.value), batch or (16 if device is Device.cpu else 200)
    place = bench.Place(torch.device(device.value), numbers, channels_last, images, seconds)
    bench.check_way(found, plan, place)
    roofline = measure_roofline(device.value, numbers, min(3.0, seconds))
    comparisons = bench.bench(found, place, roofline, plan, all_plans)
    rows, complete = said.follow(
        comparisons, len(found) * len(bench.MODES), lambda row: f"{row.operator.name} {row.mode}"
    )
    measured = (rows, roofline, place, complete)
    print_out(said.bench_dict(*measured) if as_json else said.bench_text(*measured))
    if not complete:
        raise typer.Exit(130)


@app.command("train")
def bench_train(
    network: Network,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A named recipe; default: the papers' for images of this size, or video."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="The network for this data set's images and classes.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=2, help="Images of a step; default: the recipe's, on a CPU 128 at most, of large 16."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.cpu,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, fp16, or auto: bf16 where the device computes in it.")
    ] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last/--contiguous", help="Default: as the recipe has it.")
    ] = None,
    compile: Annotated[str | None, typer.Option(metavar="MODE", help="A mode of torch.compile, or none.")] = None,
    threads: Threads = None,
    seconds: Annotated[float, typer.Option(min=0.001, max=3600, help="At least, for each mode.")] = 5.0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Beside a plain loop: float32, contiguous, eager, in the same rounds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Time whole networks as `run` uses them: evaluation, and steps of training with augmentation and optimizer.

    On random images. Images a second, the time of a step, memory, and MFU: the network's multiply-adds (three times as
    many in training) a second over the highest rate that this machine reaches. Ctrl-C ends with what is measured so
    far. On Linux the process starts anew at first, with freed memory kept, as in the trials of `run`.
    """
    from pyconv_search.cli import bench_train as said
    from pyconv_search.study import datasets
    from pyconv_search.training import allocator

    arch = read_network(network, None if data is None else datasets.get(data))
    given = {"batch": batch, "precision": precision, "channels_last": channels_last, "compile": compile}
    chosen, wanted = said.recipe_for(arch, recipe, given, device.value)
    if device is Device.cpu:
        allocator.restart_with_it()
    import torch

    from pyconv_search.cli.bench import follow
    from pyconv_search.ops.roofline import measure_roofline
    from pyconv_search.training import device as devices
    from pyconv_search.training import speed

    place = devices.find_device(device.value)
    case = speed.Case(arch, wanted, place, threads or min(torch.get_num_threads(), usable_cores()))
    rows, complete = follow(speed.measure(case, seconds, plain), len(speed.MODES), lambda row: row.mode)
    dtype = said.dtype_of(case)
    roofline = measure_roofline(place, dtype, min(3.0, seconds)) if complete else None
    found = said.Measured(network, chosen, case, tuple(rows), roofline)
    print_out(said.train_dict(found) if as_json else said.train_text(found))
    if not complete:
        raise typer.Exit(130)
