"""Architecture search and ablation sweeps for multi-scale convolutions (PyConv, PSConv).

The verbs of the command line are here for Python too. Each is imported when it is first asked for, so that looking at a
space or a report needs neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "load_space": "pyconv_search.space.space",
    "load_study": "pyconv_search.study.study",
    "cost": "pyconv_search.arch.cost",
    "preset": "pyconv_search.arch.presets",
    "to_dict": "pyconv_search.arch.canonical",
    "from_dict": "pyconv_search.arch.canonical",
    "build": "pyconv_search.models",
    "load_model": "pyconv_search.models.load",
    "load_released": "pyconv_search.models.released",
    "convert": "pyconv_search.ops.convert",
    "sort_channels": "pyconv_search.models.sorting",
    "unsort_channels": "pyconv_search.models.sorting",
    "draw": "pyconv_search.report.drawing.picture",
    "run": "pyconv_search.search.runner",
    "read": "pyconv_search.results.store",
    "tables": "pyconv_search.results.store",
    "write_report": "pyconv_search.report.page",
    "PyConv2d": "pyconv_search.ops",
    "PyConv3d": "pyconv_search.ops",
    "PSConv2d": "pyconv_search.ops",
    "dilation_matrix": "pyconv_search.arch.dilation",
}

__all__ = ["__version__", *_VERBS]


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_VERBS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
