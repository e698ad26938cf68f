"""The convolutions of networks against float64: random ones, at degenerate sizes too, in every type of training.

    python -m benchmarks.gradients --count 2000 [--seed 0] [--kinds plain,video] [--torch]

Every case is a module as networks hold it (``plain``: stems, shortcuts, branches and heads; ``pyramid``, ``poly-scale``
and ``video``), called alone, under autocast, by ``torch.func.grad``, or for the members of a stack by ``vmap``, in any
layout. Its output and the gradients of images, weights and bias are compared with those of the same module in float64.
Memory that is handed out is filled with large numbers before (``MALLOC_PERTURB_``), so that what reads memory that
nobody has written is seen to. ``--torch`` asks the same of ``nn.Conv2d`` and ``nn.Conv3d`` themselves.

A case that ends its process is a mistake, too: cases run in processes of their own, a hundred each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from mmap import mmap

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from pyconv_search.ops import PSConv2d, PyConv2d, PyConv3d
from pyconv_search.ops.plain import Conv2d, Conv3d
from pyconv_search.training.stacked_call import stacked_call

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The largest difference that is allowed, in parts of the largest number of a tensor.
ALLOWED = {"bf16": 0.04, "fp16": 0.01, "fp32": 1e-4}
KINDS = ("plain", "pyramid", "poly-scale", "video")
AROUND = ("alone", "autocast", "grad", "vmap")
MEMBERS = 3
# Multiply-adds of a case, so that thousands take minutes.
MOST = 300_000


@dataclass(frozen=True)
class Case:
    """One convolution and how it is called; ``hw`` has three numbers for video."""

    kind: str
    around: str
    dtype: str
    batch: int
    channels: tuple[int, int]
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: int
    hw: tuple[int, ...]
    padded: bool
    bias: bool
    images_last: bool
    weights_last: bool
    direction: str


def drawn(seed: int, index: int, kinds: tuple[str, ...] = KINDS) -> Case:
    """A case by its number."""
    r = random.Random(f"{seed} {index}")
    kind = r.choice(kinds)
    sides = 3 if kind == "video" else 2
    groups, channels = _channels(r)
    odd = (1, 3, 3, 5, 7, 9)
    kernel = (r.choice(odd),) * sides if r.random() < 0.8 else tuple(r.choice((1, 3, 7)) for _ in range(sides))
    stride = (r.choice((1, 1, 2, 2, 3)),) * sides if r.random() < 0.8 else tuple(r.choice((1, 2)) for _ in range(sides))
    dilation = r.choice((1, 1, 1, 2, 3, 4, 8)) if max(kernel) > 1 and sides == 2 else 1
    hw = tuple(r.choice((1, 1, 2, 3, 4, 4, 5, 7, 8, 14)) for _ in range(sides))
    padded = (
        kind != "plain" or r.random() < 0.9 or any(n <= dilation * (k - 1) for n, k in zip(hw, kernel, strict=True))
    )
    batch = r.choice((1, 1, 2, 3, 4, 8))
    taps, pixels = 1, 1
    for n, k in zip(hw, kernel, strict=True):
        taps, pixels = taps * k, pixels * n
    batch = max(1, min(batch, MOST // (taps * pixels * channels[0] // groups * channels[1])))
    dtype, around = r.choice(("bf16", "bf16", "bf16", "fp16", "fp32")), r.choice(AROUND)
    if dtype == "fp32" and around == "autocast":
        around = "alone"
    rest = (padded, r.random() < 0.3, r.random() < 0.6, r.random() < 0.6, r.choice(("first", "last", "expanded")))
    return Case(kind, around, dtype, batch, channels, groups, kernel, stride, dilation, hw, *rest)


def _channels(r: random.Random) -> tuple[int, tuple[int, int]]:
    """Groups, and channels in and out: ordinary, in groups, depthwise."""
    what = r.random()
    if what < 0.2:
        groups = r.choice((2, 4, 8))
        return groups, (groups * r.choice((1, 2, 4, 8, 12, 16, 20)), groups * r.choice((1, 2, 4, 8, 16)))
    if what < 0.3:
        groups = r.choice((4, 8, 16, 24))
        return groups, (groups, groups * r.choice((1, 2)))
    some = (1, 3, 4, 8, 12, 16, 20, 24, 32, 48, 64)
    return 1, (r.choice(some), r.choice(some))


def module_of(case: Case, own: bool = True) -> nn.Module:
    """The module; ``own`` is false for PyTorch's convolution in its place."""
    into, out = case.channels
    padding = tuple(k // 2 * case.dilation for k in case.kernel) if case.padded else 0
    if case.kind == "video" and own and out >= 2 and out // 2 % case.groups == 0:
        return PyConv3d(into, [out // 2] * 2, [case.kernel, 1], [case.groups] * 2, case.stride, case.bias)  # type: ignore[arg-type]
    if case.kind in ("plain", "video") or not own:
        two, three = (Conv2d, Conv3d) if own else (nn.Conv2d, nn.Conv3d)
        kind: Callable[..., nn.Module] = two if len(case.hw) == 2 else three
        return kind(into, out, case.kernel, case.stride, padding, case.dilation, case.groups, case.bias)
    pattern = (case.dilation, 1, case.dilation + 1)[: 1 + case.batch % 3]
    if case.kind == "poly-scale" or out < 2 or out // 2 % case.groups:
        return PSConv2d(into, out, case.kernel, case.stride, case.groups, case.bias, pattern)  # type: ignore[arg-type]
    kernels = [case.kernel, (3, 3)]
    return PyConv2d(into, [out // 2] * 2, kernels, [case.groups] * 2, case.stride, case.bias, [pattern, (1,)])  # type: ignore[arg-type]


def errors(case: Case, own: bool = True) -> dict[str, float]:
    """Of every tensor the largest difference from float64, in parts of its largest number.

    Where terms cancel out the rounding of their sum does not: then in parts of the root of the sum of their squares.
    """
    torch.manual_seed(0)
    dtype, module = DTYPES[case.dtype], module_of(case, own)
    members = [deepcopy(module) for _ in range(MEMBERS if case.around == "vmap" else 1)]
    for one in members:
        for parameter in one.parameters():
            nn.init.normal_(parameter).data.copy_(parameter.detach().to(dtype))
    images = [torch.randn(case.batch, case.channels[0], *case.hw).to(dtype) for _ in members]
    wanted: dict[str, list[Tensor]] = {}
    squares: dict[str, float] = {}
    directions = []
    for one, x in zip(members, images, strict=True):
        exact = deepcopy(one).double()
        directions.append(_direction(case, torch.randn_like(exact(x.double())).to(dtype)))
        for name, tensor in _derived(exact, x.double(), directions[-1].double()).items():
            wanted.setdefault(name, []).append(tensor)
        for parameter in exact.parameters():
            parameter.data.square_()
        for name, tensor in _derived(exact, x.double().square(), directions[-1].double().square()).items():
            squares[name] = max(squares.get(name, 0.0), float(tensor.max()))
    given = _CALLS[case.around](case, members, images, directions)
    return {n: _distance(tensor, torch.stack(wanted[n]), squares[n] ** 0.5) for n, tensor in given.items()}


def _derived(module: nn.Module, x: Tensor, direction: Tensor) -> dict[str, Tensor]:
    """The output of a module and the gradients of its images and parameters, by name."""
    leaf = x.requires_grad_()
    out, names = module(leaf), dict(module.named_parameters())
    found = torch.autograd.grad(out, [leaf, *names.values()], direction)
    return dict(zip(("output", "images", *names), (out.detach(), *found), strict=True))


def _distance(found: Tensor, exact: Tensor, least: float) -> float:
    """The largest error in parts of the largest number, or of ``least`` if that is more."""
    far = (found.detach().double() - exact).abs().max() / exact.abs().max().clamp_min(max(least, 1e-3))
    return float(far.nan_to_num(float("inf")))


def _laid_out(tensor: Tensor, last: bool) -> Tensor:
    if tensor.dim() < 4 or not last:
        return tensor.contiguous()
    return tensor.contiguous(memory_format=torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d)


def _direction(case: Case, tensor: Tensor) -> Tensor:
    """The gradient of the output, as what follows may lay it out."""
    if case.direction == "expanded":
        return tensor[:1, :1].mean().expand_as(tensor)
    return _laid_out(tensor, case.direction == "last")


def _ready(case: Case, module: nn.Module, cast: bool = True) -> nn.Module:
    module = module.to(DTYPES[case.dtype]) if cast else module
    for parameter in module.parameters():
        parameter.data = _laid_out(parameter.data, case.weights_last)
    return module


def _alone(case: Case, members: list[nn.Module], images: list[Tensor], directions: list[Tensor]) -> dict[str, Tensor]:
    cast = case.around != "autocast"
    module = _ready(case, members[0], cast)
    leaf = _laid_out(images[0] if cast else images[0].float(), case.images_last).requires_grad_()
    with torch.autocast("cpu", DTYPES[case.dtype], enabled=not cast):
        out = module(leaf)
    names = dict(module.named_parameters())
    found = torch.autograd.grad(out, [leaf, *names.values()], directions[0])
    return {name: t[None] for name, t in zip(("output", "images", *names), (out, *found), strict=True)}


def _by_grad(case: Case, members: list[nn.Module], images: list[Tensor], directions: list[Tensor]) -> dict[str, Tensor]:
    module, x = _ready(case, members[0]), _laid_out(images[0], case.images_last)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(module, weights, x).float() * directions[0].float()).sum()

    weights, leaf = grad(loss, (0, 1))({name: p.detach() for name, p in module.named_parameters()}, x)
    return {name: tensor[None] for name, tensor in {"images": leaf, **weights}.items()}


def _by_vmap(case: Case, members: list[nn.Module], images: list[Tensor], directions: list[Tensor]) -> dict[str, Tensor]:
    own = [_ready(case, one, cast=False) for one in members]
    stacked = {
        name: torch.stack([one.get_parameter(name).detach() for one in own]).requires_grad_()
        for name, _ in own[0].named_parameters()
    }
    x = _laid_out(torch.cat([each.float() for each in images], 1), case.images_last).requires_grad_()
    with torch.autocast("cpu", DTYPES[case.dtype], enabled=case.dtype != "fp32"):
        out = stacked_call(own[0], 1)(stacked, {}, x.unflatten(1, (len(own), -1)))
    found = torch.autograd.grad(out, [x, *stacked.values()], torch.stack(directions).to(out.dtype))
    parts = found[0].unflatten(1, (len(own), -1)).transpose(0, 1)
    return dict(zip(("output", "images", *stacked), (out, parts, *found[1:]), strict=True))


_CALLS = {"alone": _alone, "autocast": _alone, "grad": _by_grad, "vmap": _by_vmap}


def wrong(case: Case, own: bool = True) -> dict[str, float]:
    """The errors that are too large."""
    return {name: error for name, error in errors(case, own).items() if not error < ALLOWED[case.dtype]}


def mistakes(cases: list[Case], own: bool = True) -> Iterator[tuple[Case, dict[str, float]]]:
    """The cases that are wrong, by what; those that end their process by ``process``."""
    begun, done = mmap(-1, 8), 0
    while done < len(cases):
        sys.stdout.flush()
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            with os.fdopen(write, "w") as pipe:
                for i in range(done, min(done + 100, len(cases))):
                    begun[:8] = struct.pack("q", i)
                    found = wrong(cases[i], own)
                    if found:
                        print(json.dumps([i, found]), file=pipe, flush=True)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            for line in pipe:
                i, found = json.loads(line)
                yield cases[i], found
        done = min(done + 100, len(cases))
        if os.waitpid(pid, 0)[1]:
            (last,) = struct.unpack("q", begun[:8])
            yield cases[last], {"process": float("inf")}
            done = last + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--torch", action="store_true", help="PyTorch's own convolutions in the place of ours")
    options = parser.parse_args()
    if "MALLOC_PERTURB_" not in os.environ:
        os.environ["MALLOC_PERTURB_"] = "128"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gradients", *sys.argv[1:]])
    torch.set_num_threads(1)
    cases = [drawn(options.seed, i, tuple(options.kinds.split(","))) for i in range(options.count)]
    counts: Counter[str] = Counter()
    for case, found in mistakes(cases, not options.torch):
        counts.update(found)
        print(json.dumps({"wrong": found, **asdict(case)}), flush=True)
    print(f"{len(cases)} cases; wrong: {dict(counts) or 'none'}")
    sys.exit(bool(counts))


if __name__ == "__main__":
    main()
