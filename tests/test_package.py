"""The package's own names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pyconv_search


@pytest.mark.parametrize("name", pyconv_search.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(pyconv_search, name) is not None
    assert name in dir(pyconv_search)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        pyconv_search.frobnicate  # noqa: B018


def test_looking_at_costs_and_spaces_needs_no_torch() -> None:
    code = (
        "import sys, pyconv_search as p\n"
        "p.cost(p.preset('pyconvresnet-50')); p.load_space('spaces/pyconv_levels.yaml').size\n"
        "print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
