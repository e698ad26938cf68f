"""A trained network from the file that its trial left behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from pyconv_search.arch.canonical import from_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import shown
from pyconv_search.files import expanded
from pyconv_search.models import build
from pyconv_search.models.tensors import check_header

MOST_TEXT = 2**20  # bytes of an architecture's JSON


def load_model(file: str | Path) -> nn.Module:
    """The network whose weights are in ``file``, such as ``DIR/weights/<trial>.safetensors``, in evaluation mode.

    The file's header names its architecture, so nothing else is needed. A network is built only if the file holds as
    many numbers as it has, so that a small file never asks for much time or memory.

    Raises:
        UserError: if the file is missing, damaged, or not one of ours.
    """
    file = expanded(file)
    check_header(file)
    try:
        with safe_open(str(file), "pt") as opened:
            return _loaded(file, opened)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read: {shown(' '.join(str(error).split()), 300)}") from None


def _loaded(file: str | Path, opened: Any) -> nn.Module:
    text = (opened.metadata() or {}).get("architecture")
    if text is None:
        raise UserError(f"{file}: does not name its architecture; weights of a trial do")
    try:
        if len(text) > MOST_TEXT:
            raise ValueError(f"its architecture has {len(text):,} characters, of which {MOST_TEXT:,} at most are read")
        arch = from_dict(json.loads(text))
        _check_size(arch, {name: opened.get_slice(name).get_shape() for name in opened.keys()})  # noqa: SIM118
        model = build(arch)
        model.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 – no mapping
    except (ValueError, RecursionError, RuntimeError) as error:
        raise UserError(f"{file}: is not a network of ours: {shown(' '.join(str(error).split()), 300)}") from None
    return model.eval()


def _check_size(arch: Architecture, shapes: dict[str, list[int]]) -> None:
    """ValueError unless so many tensors of these shapes can be those of ``arch``."""
    there, needed = sum(map(math.prod, shapes.values())), cost(arch).params
    # The statistics of normalisation are no parameters: two numbers a channel and one a layer.
    if not needed <= there <= 3 * needed:
        raise ValueError(f"it holds {there:,} numbers, but its architecture has {needed:,} parameters")
    blocks = sum(stage.blocks for stage in arch.stages)
    if len(shapes) < 2 * blocks:
        raise ValueError(f"it holds {len(shapes):,} tensors, but its architecture has {blocks:,} blocks")
