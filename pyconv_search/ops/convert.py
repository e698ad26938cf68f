"""Poly-scale convolutions in a network that has been trained with standard ones (PSConv, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pyconv_search.errors import UserError
from pyconv_search.fields import Problems
from pyconv_search.ops.arguments import checked_pattern, odd_pair
from pyconv_search.ops.plain import PLAIN
from pyconv_search.ops.psconv import PSConv2d


def convert(
    model: nn.Module,
    pattern: Sequence[int] = (1, 2, 1, 4),
    axes: str = "both",
    where: Callable[[str, nn.Conv2d], bool] | None = None,
) -> list[str]:
    """Turn standard convolutions of ``model`` into :class:`PSConv2d` in place; returns the names of those it turned.

    The modules stay the same objects with the same parameters, hooks, training flag, device and dtype, so that an
    optimizer or a wrapper that holds them goes on working; a module that stands in several places is turned once, under
    its first name. The state dict keeps its keys and shapes.

    Args:
        model: any network; it may itself be a convolution, whose name is the empty text.
        pattern, axes: as in :class:`PSConv2d`.
        where: says of each ``nn.Conv2d`` that is no PSConv2d yet, by name and module, whether to turn it. Without it
            the 3×3 convolutions are turned that are undilated and zero-padded by one, as in the paper, whose networks
            keep their 7×7 stem.

    Raises:
        UserError: if the pattern or axes are out of their range, ``where`` picks a convolution that cannot become
            one, with the name of each, or channels of the model are sorted; the model is then as it was.
    """
    checked_pattern(pattern, axes)
    if any(isinstance(module, PSConv2d) and (module.sorted_in or module.sorted_out) for module in model.modules()):
        # The pattern of a new one beside it would run along channels that stand in another order.
        raise UserError("model must have its channels as built, but they are sorted; unsort_channels(model) first")
    picked = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not isinstance(module, PSConv2d)
        if (_by_default(module) if where is None else where(name, module))
    ]
    problems = Problems()
    for name, conv in picked:
        obstacle = _obstacle(conv)
        if obstacle:
            problems.add((name or "the model itself",), f"cannot become a PSConv2d: {obstacle}")
    problems.check()
    for _, conv in picked:
        _become(conv, _template(conv, pattern, axes))
    return [name for name, _ in picked]


def _by_default(conv: nn.Conv2d) -> bool:
    return tuple(conv.kernel_size) == (3, 3) and _obstacle(conv) is None


def _obstacle(conv: nn.Conv2d) -> str | None:
    """Why the convolution cannot become a PSConv2d with the same outputs' shape, or None."""
    if type(conv) not in PLAIN:
        return f"it is a {type(conv).__name__}, whose own computation would be lost; only nn.Conv2d itself can"
    try:
        height, width = odd_pair("kernel_size", (conv.kernel_size[0], conv.kernel_size[1]))
    except UserError as error:
        return str(error)
    half = (height // 2, width // 2)
    if conv.dilation != (1, 1):
        return f"dilation must be (1, 1), since the pattern says it, but got {conv.dilation}"
    if conv.padding not in (half, "same"):
        return f"padding must be {half}, half the kernel, but got {conv.padding!r}"
    if conv.padding_mode != "zeros":
        return f"padding_mode must be 'zeros', but got {conv.padding_mode!r}"
    return None


def _template(conv: nn.Conv2d, pattern: Sequence[int], axes: str) -> PSConv2d:
    """What the convolution shall be, without memory for its weights."""
    kernel, stride = (conv.kernel_size[0], conv.kernel_size[1]), (conv.stride[0], conv.stride[1])
    bias = conv.bias is not None
    return PSConv2d(
        conv.in_channels, conv.out_channels, kernel, stride, conv.groups, bias, pattern, axes, device="meta"
    )


def _become(conv: nn.Conv2d, template: PSConv2d) -> None:
    """Give ``conv`` the class and the settings of ``template``; its tensors and hooks stay."""
    settings = {key: value for key, value in vars(template).items() if not key.startswith("_") and key != "training"}
    # A new class for the same object is the one change that no holder of the module has to know of.
    conv.__class__ = PSConv2d
    vars(conv).update(settings)
