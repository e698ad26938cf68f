"""The files of this folder as plain values in which every scalar is a text, so that no printed digit is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


def read(name: str) -> Any:
    """The value of a file that comes with the package, such as ``networks.yaml``."""
    return yaml.load((FOLDER / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
