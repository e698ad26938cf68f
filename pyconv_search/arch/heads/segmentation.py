"""Heads for semantic segmentation: PyConvPH of PyConvSegNet and those that the PyConv paper compares it with.

``conv3x3``: one 3×3 convolution, the baseline of PSPNet. ``aspp``: atrous spatial pyramid pooling (Chen et al. 2017,
Rethinking Atrous Convolution, figure 5). ``ppm``: the pyramid pooling module (Zhao et al. 2017, PSPNet, figure 3).
``pyconvph``: the PyConv parsing head (PyConv, figures 5 and 6). All end with dropout, a 1×1 classification with bias
and then bilinear interpolation to the size of the image: PyConv's text has these two the other way round, but its
released code and its operation counts have them so.

The auxiliary head on the stage before the last is called in training only: its parameters and its part of ``thop`` are
in the paper's tables and in ours, its multiply-adds in neither ``macs`` nor ``executed``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.pyramid import StageKeys, conv
from pyconv_search.arch.spec import Conv, Level, pointwise, settled_conv
from pyconv_search.arch.trace import Shape, Tensor, Trace
from pyconv_search.fields import Fields, Path, Problems, integers, suggestion

AUXILIARY_WIDTH = 256


@dataclass(frozen=True, slots=True)
class SegmentationHead:
    """What reads the last stage and puts out one number a class for every pixel: classes×height×width of the image.

    ``width`` counts the channels that are classified, ``branch`` those of every parallel branch. ``rates`` are the
    dilations of ASPP's 3×3 convolutions. ``bins`` are the sides to which branches average the features: any number of
    them in PPM, one in PyConvPH, whose branches each surround a pyramid (``local_pyramid`` on the features themselves,
    ``global_pyramid`` on their averages) by 1×1 convolutions. A field that the ``kind`` does not use is None.
    ``auxiliary`` adds, in training, a 3×3 convolution and a classification of the stage before the last.
    """

    kind: str
    width: int
    branch: int | None = None
    rates: tuple[int, ...] | None = None
    bins: tuple[int, ...] | None = None
    local_pyramid: Conv | None = None
    global_pyramid: Conv | None = None
    auxiliary: bool = True

    def __post_init__(self) -> None:
        for name in ("local_pyramid", "global_pyramid"):
            if isinstance(pyramid := getattr(self, name), Conv) and self.branch is not None:
                object.__setattr__(self, name, settled_conv(pyramid, {self.branch}))

    def taps(self, stages: int) -> tuple[int, ...]:
        return (stages - 2, stages - 1) if self.auxiliary else (stages - 1,)

    def check(self, features: Sequence[Shape], path: Path, problems: Problems) -> None:
        """The fields are those of the kind, and fit images of two or more stages and enough positions."""
        before = len(problems.found)
        self._check_fields(path, problems)
        if self.auxiliary and len(features) < 2:
            problems.add(
                (*path, "auxiliary"), "reads the stage before the last, but the network has one stage; nearest: false"
            )
        if len(problems.found) == before:
            self._check_sizes(features[-1], path, problems)

    def _check_fields(self, path: Path, problems: Problems) -> None:
        if self.kind not in KINDS:
            known = f"must be one of {', '.join(KINDS)}"
            problems.add((*path, "kind"), f"{known}, but got {self.kind!r}{suggestion(self.kind, KINDS)}")
            return
        used = KINDS[self.kind].fields
        for name in ("branch", "rates", "bins", "local_pyramid", "global_pyramid"):
            if (getattr(self, name) is None) == (name in used):
                text = "is required by" if name in used else "must be left out of"
                problems.add((*path, name), f"{text} a head of kind {self.kind}")
        if self.kind == "pyconvph" and self.bins and len(self.bins) > 1:
            problems.add((*path, "bins"), f"pyconvph averages once, but got {list(self.bins)}; nearest: one number")

    def _check_sizes(self, features: Shape, path: Path, problems: Problems) -> None:
        from pyconv_search.arch.check import check_conv  # it reads the table that this value stands in

        side = min(features[1:])
        for i, bins in enumerate(self.bins or ()):
            if bins > side:
                size = "×".join(map(str, features[1:]))
                problems.add(
                    (*path, "bins", i),
                    f"cannot average {size} features to {bins}×{bins}; nearest: {side}, or a larger image",
                )
        for name in ("local_pyramid", "global_pyramid"):
            if getattr(self, name) is not None:
                check_conv(getattr(self, name), {self.branch or 0}, 2, (*path, name), problems)

    def trace(self, t: Trace, features: Sequence[Tensor], classes: int, image: Shape) -> Sequence[Tensor]:
        """The logits, and those of the auxiliary head where there is one; each classes×height×width."""
        t = t.within("head")
        x = KINDS[self.kind].trace(t.within("context"), features[-1], self)
        outputs = [_classified(t, x, classes, image)]
        if self.auxiliary:
            t = t.within("auxiliary", training=True)
            x = _unit(t, "context", features[0], spatial(AUXILIARY_WIDTH))
            outputs.append(_classified(t, x, classes, image))
        return outputs


def spatial(width: int, rate: int = 1) -> Conv:
    """A 3×3 convolution with one dilation."""
    return Conv((Level(3, width, pattern=(rate,)),))


def _unit(t: Trace, name: str, x: Tensor, conv: Conv) -> Tensor:
    """A convolution, normalised and rectified."""
    t = t.within(name)
    return t.relu("act", t.norm("norm", t.convolution("conv", x, conv)))


def _classified(t: Trace, x: Tensor, classes: int, image: Shape) -> Tensor:
    return t.resize(t.conv("classify", t.dropout("dropout", x), classes, 1, bias=True), image[1:])


# Which fields of the head below are there depends on its kind; its check has seen that they are.
def _conv3x3(t: Trace, x: Tensor, head: Any) -> Tensor:
    return _unit(t, "out", x, spatial(head.width))


def _aspp(t: Trace, x: Tensor, head: Any) -> Tensor:
    width = head.branch
    branches = [_unit(t, "pointwise", x, pointwise(width))]
    branches += [_unit(t, f"atrous.{i}", x, spatial(width, rate)) for i, rate in enumerate(head.rates)]
    image = _unit(t, "image", t.adaptive_pool("pool", x), pointwise(width))
    return _unit(t, "out", t.cat([*branches, t.resize(image, x.shape[1:])]), pointwise(head.width))


def _ppm(t: Trace, x: Tensor, head: Any) -> Tensor:
    parts = [x]
    for i, bins in enumerate(head.bins):
        y = _unit(t, f"branches.{i}", t.adaptive_pool(f"pools.{i}", x, bins), pointwise(head.branch))
        parts.append(t.resize(y, x.shape[1:]))
    return _unit(t, "out", t.cat(parts), spatial(head.width))


def _pyconvph(t: Trace, x: Tensor, head: Any) -> Tensor:
    local = _surrounded(t.within("local_branch"), x, head.branch, head.local_pyramid)
    averages = t.adaptive_pool("pool", x, head.bins[0])
    whole = _surrounded(t.within("global_branch"), averages, head.branch, head.global_pyramid)
    return _unit(t, "out", t.cat([local, t.resize(whole, x.shape[1:])]), spatial(head.width))


def _surrounded(t: Trace, x: Tensor, width: int, pyramid: Conv) -> Tensor:
    """A pyramid between 1×1 convolutions of ``width`` channels (PyConv, figure 6)."""
    x = _unit(t, "pyramid", _unit(t, "reduce", x, pointwise(width)), pyramid)
    return _unit(t, "fuse", x, pointwise(width))


class Kind(NamedTuple):
    """The layers between the features and the classification, the fields that they use and their published width."""

    trace: Callable[[Trace, Tensor, Any], Tensor]
    fields: tuple[str, ...]
    width: int


KINDS = {
    "conv3x3": Kind(_conv3x3, (), 512),
    "aspp": Kind(_aspp, ("branch", "rates"), 256),
    "ppm": Kind(_ppm, ("branch", "bins"), 512),
    "pyconvph": Kind(_pyconvph, ("branch", "bins", "local_pyramid", "global_pyramid"), 256),
}


def read(kind: str, fields: Fields, backbone: Backbone) -> SegmentationHead:
    """The head of one of ``KINDS`` that ``fields`` describes; every key has its published default.

    Those depend on the backbone where the papers' do: PPM's branches share the channels of the last stage (Zhao et
    al. 2017, section 3.2), and ASPP's rates are (6, 12, 18) at an output stride of 16, twice that at 8 (Chen et al.
    2017, section 3.3). The pyramids take the keys of a stage's convolution: levels, kernels, groups, …;
    without them they are PyConv4, as in the released PyConvSegNet. Mistakes go to the problems of ``fields``.
    """
    own: dict[str, Any] = {}
    if kind == "aspp":
        rates = tuple(max(rate * 16 // backbone.stride, 1) for rate in (6, 12, 18))
        own = {"branch": fields.integer("branch", 256), "rates": _numbers(fields, "rates", rates)}
    elif kind == "ppm":
        bins = _numbers(fields, "bins", (1, 2, 3, 6))
        own = {"branch": fields.integer("branch", max(backbone.width // max(len(bins), 1), 1)), "bins": bins}
    elif kind == "pyconvph":
        branch = fields.integer("branch", 512)
        own = {"branch": branch, "bins": _numbers(fields, "bins", (9,))}
        own |= {name: _pyramid(fields, name, branch) for name in ("local_pyramid", "global_pyramid")}
    width = fields.integer("width", KINDS[kind].width)
    return SegmentationHead(kind, width, **own, auxiliary=fields.flag("auxiliary", True))


def _numbers(fields: Fields, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return integers(fields.take(key, default), (*fields.path, key), fields.problems)


def _pyramid(fields: Fields, name: str, width: int) -> Conv:
    own = fields.section(name, None)
    levels = own.take("levels", None)
    if isinstance(levels, (list, tuple)) and not all(isinstance(level, dict) for level in levels):
        own.add("levels", f"must be one number, or a list with a mapping for each level, but got {list(levels)}")
        return pointwise(width)
    default = {} if "kernels" in own else {"levels": 4}
    found = conv(StageKeys(own, Fields(default, own.path, own.problems), 0), width, {width})
    own.close()
    return found
