"""Where a training runs, in which numbers, and that it runs the same way every time."""

from __future__ import annotations

import os
from typing import Any

import torch

from pyconv_search.errors import UserError
from pyconv_search.study.recipe import Recipe


def find_device(name: str) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one).

    Raises:
        UserError: for any other name, and for ``cuda`` on a machine without.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device must be auto, cpu or cuda, but got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device cuda: PyTorch finds no CUDA device on this machine; use cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def settle(device: torch.device, threads: int, deterministic: bool = True) -> None:
    """Let this process compute on ``threads`` CPU threads, and the same numbers every time if ``deterministic``.

    Else cuDNN measures which of its algorithms is fastest. fp32 means fp32, not TF32.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    # What is never read need not be filled: that took 5 to 7 % of a training step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    if device.type == "cuda":
        # cuBLAS reads this when it starts (NVIDIA, cuBLAS 10.2 and later: results reproducibility).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def broken(error: BaseException) -> bool:
    """Whether ``error`` has left this process unable to compute: after a CUDA fault every further call fails."""
    if not isinstance(error, RuntimeError) or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def precision(recipe: Recipe, device: torch.device) -> str:
    """``fp32``, ``bf16`` or ``fp16`` as the recipe has it; ``auto`` is bf16 where it is computed in hardware.

    On CUDA that is compute capability 8.0 and later; on CPUs it is AVX512-BF16, where bf16 trained so many times as
    many images a second as fp32 (this loop on one thread of an AMD EPYC of family 26, PyTorch 2.13, batch 128,
    channels_last; bottleneck ResNets, best of 5 rounds):

        input   depth   stem   MMACs     standard   pyramids (3, 2, 1)   pattern (1, 2, 1, 4)
        32×32    20     16        33       1.93           1.64                  1.54
        28×28    20     16        25       1.66           1.50                  1.39
        32×32    20      8       8.6       1.37           1.19                  1.22
        28×28    20      8       6.4       1.40           1.16                  1.21
        28×28    11      8       3.9       1.37           1.22
        28×28    20     16 /2    2.0       1.05           0.70
        28×28    20      8 /2    0.5       0.97           0.73

    (stem: its width, /2 with stride 2.) So fp32 is worth writing down for networks of 2 MMACs and less; ``auto`` does
    not look at the network, lest one study mix the two. A PyTorch without ``torch.cpu.get_capabilities`` counts as a
    CPU without bf16.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if capabilities.get("avx512_bf16", False) else "fp32"
