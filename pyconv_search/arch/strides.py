"""The resolution of the last features: strides taken out of a network, and dilation in their place."""

from __future__ import annotations

import itertools
from dataclasses import replace

from pyconv_search.arch.spec import Conv, Stage, Stem
from pyconv_search.fields import Fields, nearest


def with_output_stride(stem: Stem, stages: tuple[Stage, ...], fields: Fields) -> tuple[Stage, ...]:
    """The stages so that one of the last features stands for ``output_stride`` pixels along each side.

    The last stages' strides become 1 and, unless ``dilate`` is false, the dilations of all their convolutions grow by
    what was taken out up to there, so that each filter sees what it saw (Yu, Koltun, Funkhouser 2017; PyConv, section
    4.2). The max pooling in the shortcut of a stage that lost its stride to dilation stays, with stride 1: PyConv's
    printed operations count it.
    """
    wanted, dilate = fields.integer("output_stride", None, low=None), fields.flag("dilate", True)
    if wanted is None:
        return stages
    legal = list(itertools.accumulate((stage.stride for stage in stages), lambda a, b: a * b, initial=stem.reduces))
    if wanted not in legal:
        has = ", ".join(map(str, sorted(set(legal))))
        fields.add(
            "output_stride",
            f"must be one of {has} for these strides, but got {wanted}; nearest: {nearest(wanted, legal)}",
        )
        return stages
    made, reached, dilation = [], stem.reduces, 1
    for stage in stages:
        if dilation == 1 and reached * stage.stride <= wanted:
            reached *= stage.stride
            made.append(stage)
            continue
        dilation *= stage.stride
        conv = _dilated(stage.conv, dilation) if dilate else stage.conv
        made.append(replace(stage, stride=1, conv=conv, keeps_pool=dilate and stage.stride > 1))
    return tuple(made)


def _dilated(conv: Conv, factor: int) -> Conv:
    levels = (replace(level, pattern=tuple(factor * d for d in level.pattern)) for level in conv.levels)
    return Conv(tuple(levels))
