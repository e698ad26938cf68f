"""The core operators as torch modules."""

from pyconv_search.ops.build import build_conv
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d
from pyconv_search.ops.video import PyConv3d

__all__ = ["PSConv2d", "PyConv2d", "PyConv3d", "build_conv"]
