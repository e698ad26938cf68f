"""The heads as modules, by kind: each is made from (head, shapes of its features, classes).

``forward`` takes the features that the head taps and the height and width of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

HEADS: dict[str, Callable[[Any, Any, int], nn.Module]] = {}
