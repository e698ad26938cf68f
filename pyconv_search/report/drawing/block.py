"""One block of a stage: its layers downwards, its shortcut on the left, their sum at the bottom.

Small words at the arrows are the normalisations and activations, in the order in which the traced block calls them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyconv_search.arch.blocks import Place, main_branch
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.inception import BRANCHES, TRANSITIONS, Branch, Branches, linear, width_of
from pyconv_search.arch.spec import Architecture, Stage
from pyconv_search.arch.trace import Layer
from pyconv_search.report.drawing.anatomy import is_inception, marks, order, se_words, shortcut_words, step_words
from pyconv_search.report.drawing.flow import PAD, box, column, framed, mark, mark_width, parallel, plus, step
from pyconv_search.report.drawing.pen import EDGE, LINE, PAPER, Piece, arrow, at, lines, rect, text
from pyconv_search.report.drawing.slab import Scale, convolution

GUTTER = 38.0
LAYERS = {"max pool": ("max",), "1×1 conv": ("1×1", "BN")}


def block(arch: Architecture, stage: Stage, in_width: int, layers: Sequence[Layer], scale: Scale) -> Piece:
    """The first block of a stage, whose ``layers`` are traced."""
    shortcut = [small for words in shortcut_words(stage, in_width) for small in LAYERS[words]]
    after = [box(se_words(stage.se))] if stage.se else []
    if is_inception(stage):
        branches = BRANCHES[stage.block]
        up = box(f"1×1, {stage.out}")
        main = column([_branches(branches), box("concatenate"), up, *after])
        return _summed(main, ("", "scaled", "" if linear(stage, Place(True, False, False)) else "ReLU"), shortcut)
    uses = main_branch(stage, in_width, True, FAMILIES[arch.family].BLOCKS)
    before, *between, last, tail = marks(order(layers))
    main = column([*(convolution(use.conv, use.in_width, scale) for use in uses), *after], between)
    return _summed(main, (before, last, tail), shortcut)


def _summed(main: Piece, told: tuple[str, str, str], shortcut: Sequence[str]) -> Piece:
    """A main branch with its shortcut; ``told`` are the marks before it, behind it and behind the sum."""
    before, behind, tail = told
    centre, top = GUTTER + main.centre, 7 + step(before) + 2
    end = top + main.height + step(behind) + 7
    gutter, bottom = PAD + 11, end + 7 + step(tail) + 3
    width = max(GUTTER + main.width, centre + max(map(mark_width, told))) + PAD
    parts = [
        rect(0, 0, width, bottom, PAPER, LINE, 8),
        lines([[(centre, 0), (centre, top)]]) if main.open else arrow([(centre, 0), (centre, top)]),
        arrow([(centre, 7), (gutter, 7), (gutter, end), (centre - 7, end)]),
        at(main, GUTTER, top),
        arrow([(centre, top + main.height), (centre, end - 7)]),
        mark(centre, top - 8, before),
        mark(centre, top + main.height + 11, behind),
        mark(centre, end + 7 + 11, tail),
        plus(centre, end),
        arrow([(centre, end + 7), (centre, bottom)]),
    ]
    for i, words in enumerate(shortcut):
        y = (7 + end) / 2 + (i - len(shortcut) / 2) * 20
        parts.append(rect(gutter - 13, y, 26, 15, PAPER, EDGE, 3))
        parts.append(text(gutter, y + 10.5, words, 8.5, "middle"))
    return Piece("".join(parts), width, bottom, axis=centre)


def around(arch: Architecture, index: int, first: Piece) -> Piece:
    """The first block of stage ``index`` (from 0), the transition before and the non-local block behind all blocks."""
    stage, pieces, told = arch.stages[index], [first], []
    if arch.family == "inception-resnet":
        before = arch.stages[index - 1].out if index else arch.stem.width
        branches = TRANSITIONS[index]
        both = column([_branches(branches), box(f"concatenate, {width_of(branches, before)}")])
        pieces.insert(0, framed(both, "transition"))
        told.append("")
    if stage.non_local:
        pieces.append(box("non-local block"))
        told.append("after the last" if stage.blocks > 1 else "")
    return column(pieces, told)


def chain(steps: Branch) -> Piece:
    """Fixed layers one below the other, as boxes."""
    return column([box(step_words(one)) for one in steps])


def _branches(branches: Branches) -> Piece:
    return parallel([chain(branch) for branch in branches])
