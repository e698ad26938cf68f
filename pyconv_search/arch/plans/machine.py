"""What the choice of a plan must know of this machine, found out without PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What PyTorch asks of an x86 processor (compute_cpu_capability in its ATen/native/DispatchStub.cpp), best first.
NEEDED = {
    "AVX512": {"avx512vl", "avx512bw", "avx512dq", "fma"},
    "AVX2": {"avx2", "fma"},
    "DEFAULT": set(),
}


def cpu_instructions(cpuinfo: Path = CPUINFO) -> str:
    """The vector instructions that PyTorch uses on this CPU, as ``torch.backends.cpu.get_cpu_capability`` names them.

    Empty where the system does not tell them: elsewhere than on Linux, and on processors that are no x86. As for
    PyTorch, the variable ``ATEN_CPU_CAPABILITY`` may ask for less.
    """
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)
    if flags is None:
        return ""
    asked = os.environ.get("ATEN_CPU_CAPABILITY", "").upper()
    return asked if asked in NEEDED else next(name for name, needed in NEEDED.items() if needed <= flags)
