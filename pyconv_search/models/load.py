"""A trained network from the file that its trial left behind."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from pyconv_search.arch.canonical import from_dict
from pyconv_search.errors import UserError
from pyconv_search.fields import shown
from pyconv_search.files import expanded
from pyconv_search.models import build


def load_model(file: str | Path) -> nn.Module:
    """The network whose weights are in ``file``, such as ``DIR/weights/<trial>.safetensors``, in evaluation mode.

    The file's header names its architecture, so nothing else is needed.

    Raises:
        UserError: if the file is missing, damaged, or not one of ours.
    """
    try:
        with safe_open(str(expanded(file)), "pt") as opened:
            metadata = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 – no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    if "architecture" not in metadata:
        raise UserError(f"{file}: does not name its architecture; weights of a trial do")
    try:
        model = build(from_dict(json.loads(metadata["architecture"])))
        model.load_state_dict(weights)
    except (ValueError, RecursionError, RuntimeError) as error:
        raise UserError(f"{file}: is not a network of ours: {shown(' '.join(str(error).split()), 300)}") from None
    return model.eval()
