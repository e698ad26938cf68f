"""The heads as modules, by kind: each is made from (head, shapes of its features, classes).

``forward`` takes the features that the head taps (in evaluation, those that inference reads) and the height and width
of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pyconv_search.models.heads.segmentation import CONTEXTS, Segmentation

HEADS: dict[str, Callable[[Any, Any, int], nn.Module]] = {**dict.fromkeys(CONTEXTS, Segmentation)}
