"""The core operators as torch modules."""

from pyconv_search.ops.build import build_conv
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d

__all__ = ["PSConv2d", "PyConv2d", "build_conv"]
