"""The heads as modules, by kind: each is made from (head, shapes of its features, classes).

``forward`` takes the features that the head taps (in evaluation, those that inference reads) and the height and width
of the image. A head whose convolutions do not start as the network's do has a method ``reset_head``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pyconv_search.models.heads.fpn import FPNHead
from pyconv_search.models.heads.segmentation import CONTEXTS, Segmentation
from pyconv_search.models.heads.ssd import SSDHead

HEADS: dict[str, Callable[[Any, Any, int], nn.Module]] = {
    **dict.fromkeys(CONTEXTS, Segmentation),
    "ssd": SSDHead,
    "fpn": FPNHead,
}
