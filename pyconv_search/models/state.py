"""The tensors of a checkpoint that someone else wrote, read without running what it may hold."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pyconv_search.errors import UserError
from pyconv_search.fields import kind_of, shown
from pyconv_search.files import expanded, open_plain
from pyconv_search.models.tensors import check_header


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, on the CPU, and what to call the checkpoint in a message.

    Takes ``state_dict`` out of what else was saved, and ``module.`` (of nn.DataParallel) off every name.

    Raises:
        UserError: if the file cannot be read, or something in it is no tensor of weights.
    """
    named = isinstance(source, (str, Path))
    name = str(source) if named else "the checkpoint"
    values = _read(expanded(str(source))) if named else source
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    if not isinstance(values, Mapping) or not values:
        raise UserError(f"{name}: must hold tensors by name, but holds {kind_of(values)}")
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(f"{name}: must hold tensors by name, but {shown(key)} is {kind_of(value)}")
        if value.is_meta or not (value.is_floating_point() or key.endswith("num_batches_tracked")):
            what = "holds no numbers" if value.is_meta else f"is of {value.dtype}"
            raise UserError(f"{name}: must hold floating-point weights, but {shown(key)} {what}")
    wrapped = all(key.startswith("module.") for key in values)
    return {key.removeprefix("module.") if wrapped else key: v.detach().cpu() for key, v in values.items()}, name


def _read(file: Path) -> Any:
    os.close(open_plain(file))
    try:
        if file.suffix == ".safetensors":
            check_header(file)
            return safetensors.torch.load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's own message recommends to run whatever the file holds.
        raise UserError(
            f"{file}: cannot be read: no checkpoint of tensors alone; if you trust it, save its state_dict by itself"
        ) from None
    except UserError:
        raise
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{file}: cannot be read: {shown(' '.join(str(error).split()), 200)}") from None
