"""Multi-scale convolutions on NVIDIA GPUs, in Triton: PyConv, PSConv and all between them in one pass over the input.

:mod:`~pyconv_search.ops.kernels.plan` lays a convolution out as one list of small matrix products, ``choice`` picks the
cheapest layout, ``gemm`` has the kernels, ``launch`` runs them and ``operators`` makes them known to torch. Triton is
imported when the first convolution runs, so that everything else works without it.
"""

from pyconv_search.ops.kernels.choice import Work, executed_macs
from pyconv_search.ops.kernels.device import available
from pyconv_search.ops.kernels.function import multi_scale_conv2d
from pyconv_search.ops.kernels.level import Level

__all__ = ["Level", "Work", "available", "executed_macs", "multi_scale_conv2d"]
