"""The core operators as torch modules, and how they are executed."""

from pyconv_search.arch.plans.choice import Setting
from pyconv_search.ops.build import build_conv
from pyconv_search.ops.planning import Plans, executed_as, plan
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d
from pyconv_search.ops.video import PyConv3d

__all__ = ["PSConv2d", "Plans", "PyConv2d", "PyConv3d", "Setting", "build_conv", "executed_as", "plan"]
