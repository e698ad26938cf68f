"""Where the kernels can run."""

from __future__ import annotations

import functools
import os

import torch

from pyconv_search.errors import UserError

OLDEST = (3, 4)


def available(device: torch.device | str) -> str | None:
    """None if the kernels can run on ``device``, else why they cannot.

    They need Triton 3.4 or newer and an NVIDIA GPU of compute capability 8.0 or more. With TRITON_INTERPRET=1 in the
    environment Triton's interpreter runs them on any device, slowly.
    """
    return _available(torch.device(device))


@functools.cache
def _available(device: torch.device) -> str | None:
    try:
        import triton
    except ImportError:
        return "Triton is not installed: pip install 'pyconv-search[gpu]'"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        return f"Triton must be {'.'.join(map(str, OLDEST))} or newer, but is {triton.__version__}"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda" or torch.version.hip:
        return f"an NVIDIA GPU is needed, but the device is {device}"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"compute capability 8.0 or more is needed, but {device} has {capability[0]}.{capability[1]}"
    return None


def require(device: torch.device) -> None:
    """Raise UserError if the kernels cannot run on ``device``."""
    reason = available(device)
    if reason is not None:
        raise UserError(f"the Triton kernels cannot run here: {reason}")
