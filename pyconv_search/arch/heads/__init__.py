"""What may stand behind the stages of a network, by kind. A head is one file and one line in each table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyconv_search.arch.heads import fpn, segmentation, ssd
from pyconv_search.arch.heads.classifier import Classifier
from pyconv_search.arch.heads.head import Backbone
from pyconv_search.fields import Fields, Path, Problems

HEADS: dict[str, type[Any]] = {
    "classifier": Classifier,
    **dict.fromkeys(segmentation.KINDS, segmentation.SegmentationHead),
    "ssd": ssd.SSD,
    "fpn": fpn.FPN,
}

# From a kind, its settings and what stands before it to the head.
READERS: dict[str, Callable[[str, Fields, Backbone], Any]] = {
    **dict.fromkeys(segmentation.KINDS, segmentation.read),
    **dict.fromkeys(ssd.LEVELS, ssd.read),
    "fpn": fpn.read,
}


def read(value: Any, path: Path, problems: Problems, backbone: Backbone) -> Any:
    """The head that a network's ``head`` says: a kind, or a mapping of ``kind`` and its settings; None for none."""
    if value is None:
        return None
    fields = Fields(value if isinstance(value, Mapping) else {"kind": value}, path, problems)
    kind = fields.text("kind", choices=("classifier", *READERS))
    if kind is None:  # a mistake that is noted; which keys there are depends on it
        return None
    reader = READERS.get(kind)
    head = reader(kind, fields, backbone) if reader else None
    fields.close()
    return head
