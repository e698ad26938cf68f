"""An operation executed by programs: one for the output, one for each gradient.

The output is differentiable to any order. Outside of compilers and function transforms one autograd node holds it all,
so that nothing is kept but input and weights, sums are made in place, and each gradient may have a program of its own.
Elsewhere, for the gradient of a gradient and for complex numbers, the program of the output is composed of
differentiable operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pyconv_search.arch.plans.pieces import Piece, columns
from pyconv_search.ops.packing import pack, unpack
from pyconv_search.ops.program import Channels, Program, Step, Sums
from pyconv_search.ops.sound import conv2d, layout, skips, transformed, unsound, widened
from pyconv_search.ops.sums import fold, joined, take, taken, write

# Each thread of a CPU takes images in portions of which the input has this many bytes, so that what a step puts out is
# still in the cache when it is added.
PORTION = 2 * 2**20
# A portion is so many times as large as the weights at least, since every convolution reads these anew.
FEWEST = 4


# Takes channels from a tensor.
Take = Callable[[Tensor, Channels], Tensor]


class Programs(NamedTuple):
    """What computes the output, the gradient of the input, and that of the weights."""

    output: Program
    input: Program
    weight: Program


def execute(x: Tensor, weights: Sequence[Tensor], programs: Programs) -> Tensor:
    """The operation of ``programs`` on N×C×H×W, without bias."""
    if _composed() or x.is_complex():
        return compose(x, weights, programs.output)
    if not torch.is_grad_enabled():
        return output(x, pack(weights, programs.output), programs.output)
    return _Executed.apply(programs, x, *weights)


def _composed() -> bool:
    """Whether something looks at the single operations, or transforms them."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    proxies = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    return proxies or transformed()


def compose(x: Tensor, weights: Sequence[Tensor], program: Program) -> Tensor:
    """The output by a program, from differentiable operations that change nothing in place."""
    return joined(_outputs(x, pack(weights, program), program, take, conv2d), program.output)


def _outputs(
    x: Tensor, packed: Sequence[Tensor], program: Program, take: Take, conv: Callable[..., Tensor] = F.conv2d
) -> list[Tensor]:
    """What every step puts out, by ``conv``. Channels that several steps take in the same order are taken once."""
    sources: dict[tuple[int, ...], Tensor] = {}
    found = []
    for step, weight in zip(program.steps, packed, strict=True):
        piece = step.piece
        if piece.source not in sources:
            sources[piece.source] = take(x, step.source)
        found.append(fold(_convolved(sources[piece.source], weight, step, program, conv), step.target.times))
    return found


def _convolved(x: Tensor, weight: Tensor, step: Step, program: Program, conv: Callable[..., Tensor]) -> Tensor:
    """What the convolution of a step puts out."""
    piece, stride = step.piece, program.operation.stride
    if piece.strip == 1:
        return conv(x, weight, None, stride, step.padding, (piece.dilation, piece.dilation), piece.groups)
    width = out_side(x.shape[3], stride[1])
    x = widened(x, (columns(piece, width) - width) * stride[1])
    strides = (stride[0], stride[1] * piece.strip)
    return laid_out(conv(x, weight, None, strides, step.padding, (1, 1), piece.groups), piece)[..., :width]


class _Executed(torch.autograd.Function):
    """One node for the whole operation."""

    @staticmethod
    def forward(ctx: Any, programs: Programs, x: Tensor, *weights: Tensor) -> Tensor:
        packed = pack(weights, programs.output)
        # Packed once a step, if the gradient of the input goes by the same plan.
        again = packed if programs.input is programs.output and ctx.needs_input_grad[1] else []
        ctx.programs, ctx.levels = programs, len(weights)
        ctx.save_for_backward(x, *weights, *again)
        # Strips end in a view, which autograd would not let a caller change in place.
        return output(x, packed, programs.output).detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        weights, packed = saved[: ctx.levels], saved[ctx.levels :]
        programs, wanted = ctx.programs, ctx.needs_input_grad[1:]
        # Gradients of many outputs at once (is_grads_batched) are transformed by a mechanism of their own.
        batched = torch._C._functorch.is_legacy_batchedtensor(grads[0])
        if torch.is_grad_enabled() or batched or _composed():
            return None, *_differentiable(grads[0], x, weights, programs.output, wanted)
        grad = grads[0].contiguous(memory_format=layout(x))
        input = None
        if wanted[0]:
            input = input_gradient(grad, x, packed or pack(weights, programs.input), programs.input)
        if any(wanted[1:]):
            return None, input, *weight_gradients(grad, x, weights, programs.weight)
        return None, input, *[None for _ in weights]


def _differentiable(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor], program: Program, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients, as functions of all that they are computed from where gradients are recorded."""
    inputs = [each for each, needed in zip([x, *weights], wanted, strict=True) if needed]
    # Where autocast was on in the forward pass, all have its type already.
    device = x.device.type
    off = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
    with torch.enable_grad(), off:
        out = compose(x, weights, program)
    found = iter(torch.autograd.grad(out, inputs, grad, create_graph=torch.is_grad_enabled()))
    return [next(found) if needed else None for needed in wanted]


def output(x: Tensor, packed: Sequence[Tensor], program: Program) -> Tensor:
    """The output by a program, N×C'×H'×W', from its packed weights; sums are made in place."""
    sums, parts = program.output, portions(x, program, program.output)
    if parts == (None,) and (sums.one or sums.apart):
        return joined(_outputs(x, packed, program, taken), sums).contiguous(memory_format=layout(x))
    sides = [out_side(n, stride) for n, stride in zip(x.shape[2:], program.operation.stride, strict=True)]
    whole = _empty(x, program.operation.conv.width, *sides)
    for part in parts:
        write(images(whole, part), _outputs(images(x, part), packed, program, taken), sums)
    return whole


def _empty(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """As many images of this size as ``x`` has, of its type and layout."""
    shape = (len(x), channels, height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout(x))


def input_gradient(grad: Tensor, x: Tensor, packed: Sequence[Tensor], program: Program) -> Tensor:
    """The gradient of the input, N×C×H×W, from that of the output, by a program with its packed weights."""
    sums, parts = program.input, portions(x, program, program.input)
    if parts == (None,) and sums.one:
        return _inputs(grad, x, packed, program)[0].contiguous(memory_format=layout(x))
    whole = _empty(x, *x.shape[1:])
    for part in parts:
        write(images(whole, part), _inputs(images(grad, part), images(x, part), packed, program), sums)
    return whole


def _inputs(grad: Tensor, x: Tensor, packed: Sequence[Tensor], program: Program) -> list[Tensor]:
    """What every step puts out for the gradient of the input."""
    found = []
    for step, weight in zip(program.steps, packed, strict=True):
        like = _empty(x, len(step.piece.source), *x.shape[2:])
        found.append(_backward(taken(grad, step.target), like, weight, step, program, of_input=True))
    return found


def weight_gradients(grad: Tensor, x: Tensor, weights: Sequence[Tensor], program: Program) -> list[Tensor]:
    """The gradients of the levels' weights from that of the output; those of 16 bits are added up in 32."""
    found: list[Tensor] = []
    exact = torch.promote_types(x.dtype, torch.float32)
    for part in portions(x, program):
        sources: dict[tuple[int, ...], Tensor] = {}
        for i, step in enumerate(program.steps):
            piece = step.piece
            if piece.source not in sources:
                sources[piece.source] = taken(images(x, part), step.source)
            filters, width = len(piece.target) * piece.strip, piece.kernel[1] + piece.extra
            like = x.new_empty(filters, piece.fan_in, piece.kernel[0], width)
            asked = taken(images(grad, part), step.target)
            own = _backward(asked, sources[piece.source], like, step, program, of_input=False)
            if part is None:
                found.append(own)
            elif part.start == 0:
                found.append(own.to(exact))
            else:
                found[i].add_(own)
    return unpack([total.to(x.dtype) for total in found], weights, program)


def _backward(grad: Tensor, x: Tensor, weight: Tensor, step: Step, program: Program, of_input: bool) -> Tensor:
    """The gradient of the input or of the weight of one step, of which the other is read."""
    piece, stride, width = step.piece, program.operation.stride, x.shape[3]
    if piece.swapped and not of_input:
        return _swapped(grad, x, weight, step)
    if not of_input and unsound(x.device, x.dtype, piece.fan_in, piece.dilation):
        grad, x = grad.contiguous(), x.contiguous()
    if not of_input and skips(x.device, weight, stride, step.padding):
        x, stride = x[..., :: stride[0], :: stride[1]], (1, 1)
    if piece.strip > 1:
        x = widened(x, (columns(piece, grad.shape[3]) - grad.shape[3]) * stride[1])
        grad, stride = in_strips(grad, piece), (stride[0], stride[1] * piece.strip)
    dilation, wanted = (piece.dilation, piece.dilation), (of_input, not of_input, False)
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, step.padding, dilation, False, (0, 0), piece.groups, wanted
    )
    return found[0][..., :width] if of_input else found[1]


def _swapped(grad: Tensor, x: Tensor, weight: Tensor, step: Step) -> Tensor:
    """The gradient of the weight from that of the convolution which leads from the output to the input."""
    piece = step.piece
    groups, dilation = piece.groups, (piece.dilation, piece.dilation)
    fan_in = len(piece.target) // groups
    like = weight.new_empty(len(piece.source), fan_in, *piece.kernel)
    if unsound(x.device, x.dtype, fan_in, piece.dilation):
        grad, x = grad.contiguous(), x.contiguous()
    back = torch.ops.aten.convolution_backward(
        x, grad, like, None, (1, 1), step.padding, dilation, False, (0, 0), groups, (False, True, False)
    )[1]
    return back.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)


def out_side(side: int, stride: int) -> int:
    """The height or width of what an operation puts out."""
    return (side - 1) // stride + 1


def laid_out(out: Tensor, piece: Piece) -> Tensor:
    """Strips that were computed as further filters, as pixels."""
    strips = out.unflatten(1, (piece.groups, piece.strip, -1))
    return strips.permute(0, 1, 3, 4, 5, 2).flatten(4, 5).flatten(1, 2)


def in_strips(grad: Tensor, piece: Piece) -> Tensor:
    """The adjoint of :func:`laid_out`, after columns of zeros that make the last strip whole."""
    grad = widened(grad, columns(piece, grad.shape[3]) - grad.shape[3])
    strips = grad.unflatten(1, (piece.groups, -1)).unflatten(4, (-1, piece.strip))
    return strips.permute(0, 1, 5, 2, 3, 4).flatten(1, 3)


def portions(x: Tensor, program: Program, sums: Sums | None = None) -> tuple[slice | None, ...]:
    """Images in portions that fit the cache; None, which is all of them, also where no ``sums`` are to be made of what
    the steps put out, nor anything else.
    """
    simple = all(step.piece.strip == step.target.times == 1 for step in program.steps)
    alone = simple and sums is not None and (sums.apart or sums.one)
    count = len(x)
    numbers = max(PORTION // x.element_size() * torch.get_num_threads(), FEWEST * program.weights)
    each = max(1, numbers * count // max(1, x.numel()))
    if alone or count <= each or x.device.type != "cpu":
        return (None,)
    return tuple(slice(begin, min(begin + each, count)) for begin in range(0, count, each))


def images(x: Tensor, part: slice | None) -> Tensor:
    """One of :func:`portions`."""
    return x if part is None else x[part]
