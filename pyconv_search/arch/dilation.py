"""The dilation matrix of a poly-scale convolution (PSConv, equation 3 and section 3.2)."""

from __future__ import annotations

AXES = ("both", "input", "output")


def dilation_matrix(
    in_channels: int, out_channels: int, pattern: tuple[int, ...], axes: str = "both", groups: int = 1
) -> tuple[tuple[int, ...], ...]:
    """The matrix D of PSConv equation 3: the dilation of every kernel of one convolution.

    Args:
        in_channels, out_channels: channels of the convolution.
        pattern: dilations of one cyclic interval, ``{d_1, …, d_t}`` of the paper.
        axes: ``both`` shifts the pattern by one channel from each filter to the next, ``input`` varies it along the
            input channels alone, ``output`` along the output channels alone (Table 5).
        groups: convolution groups; every group carries the same matrix. In a depthwise convolution
            (``groups == in_channels``) the pattern runs over the groups instead, whatever ``axes`` says (appendix A).

    Returns:
        An out_channels-by-(in_channels / groups) matrix, laid out as the first two axes of ``nn.Conv2d.weight``. With c
        the output and k the input channel counted from 0 inside their group, and t the length of the pattern, the entry
        is ``pattern[(k - c) mod t]`` for ``both``, ``pattern[k mod t]`` for ``input`` and ``pattern[c mod t]`` for
        ``output``; in group g of a depthwise convolution it is ``pattern[g mod t]``.

    Raises:
        ValueError: if groups does not divide the channels, a dilation is below 1, or ``axes`` is unknown.
    """
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide the channels, but got {in_channels} and {out_channels} for {groups} groups"
        )
    if not pattern or min(pattern) < 1:
        raise ValueError(f"pattern must hold dilations of 1 or more, but got {pattern}")
    if axes not in AXES:
        raise ValueError(f"axes must be one of {', '.join(AXES)}, but got {axes!r}")
    t, fan_in, fan_out = len(pattern), in_channels // groups, out_channels // groups
    if groups == in_channels and groups > 1:
        return tuple((pattern[(c // fan_out) % t],) for c in range(out_channels))
    into, out = axes != "output", axes != "input"
    sign = -1 if into else 1
    return tuple(
        tuple(pattern[(k * into + sign * c * out) % t] for k in range(fan_in))
        for c in (channel % fan_out for channel in range(out_channels))
    )


def dilations_used(
    in_channels: int, out_channels: int, pattern: tuple[int, ...], axes: str = "both", groups: int = 1
) -> frozenset[int]:
    """The distinct entries of the dilation matrix, without building it (a short row may not hold the whole pattern)."""
    t, fan_in, fan_out = len(pattern), in_channels // groups, out_channels // groups
    if groups == in_channels and groups > 1:
        return frozenset(pattern[:groups])
    if axes == "input":
        return frozenset(pattern[:fan_in])
    if axes == "output":
        return frozenset(pattern[:fan_out])
    return frozenset(pattern[offset % t] for offset in range(max(1 - fan_out, 1 - t), min(fan_in, t)))
