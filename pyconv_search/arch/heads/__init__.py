"""What may stand behind the stages of a network, by kind."""

from __future__ import annotations

from typing import Any

from pyconv_search.arch.heads.classifier import Classifier

HEADS: dict[str, type[Any]] = {"classifier": Classifier}
