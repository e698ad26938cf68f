"""Multi-scale convolutions on NVIDIA GPUs, in Triton: PyConv, PSConv and all between them in one pass over the input.

:mod:`~pyconv_search.ops.kernels.plan` lays a convolution out as one list of small matrix products, ``choice`` picks the
cheapest layout, ``gemm`` has the kernels, ``launch`` runs them and ``operators`` makes them known to torch. Triton is
imported when the first convolution runs, so that everything else works without it.

Multiply-adds executed over the convolution's own (:func:`executed_macs`), for the layers of the papers' 50-layer
networks by channels and image side: forward, by the input, by the weights. ``sorted`` PSConv layers, of pattern
(1, 2, 1, 4), have their classes in the order (0, 2, 1, 3) on both sides.

    PSConv sorted        64 56   2.56 2.56 2.56
    PSConv sorted       128 28   1.44 1.44 1.44
    PSConv sorted       256 14   1.00 1.00 1.44
    PSConv sorted       512  7   1.00 1.00 1.00
    PSConv interleaved   64 56   2.78 2.78 2.78
    PSConv interleaved  128 28   2.78 2.78 2.78
    PSConv interleaved  256 14   2.78 2.78 2.78
    PSConv interleaved  512  7   1.00 1.00 1.00
    PyConv 3-5-7-9       64 56   4.27 4.39 8.02
    PyConv 3-5-7        128 28   2.63 1.98 3.69
    PyConv 3-5          256 14   1.64 1.28 1.64

The surplus is chosen: by the model in ``choice`` narrower products would execute less and take longer, since pixels
have to pass through shared memory once for every tap and block of columns, whatever is multiplied. Where interleaved
channels execute no more than their own, they are fetched one by one. None of this has been timed on a GPU.
"""

from pyconv_search.ops.kernels.choice import Work, executed_macs
from pyconv_search.ops.kernels.device import available
from pyconv_search.ops.kernels.function import DTYPES, multi_scale_conv2d
from pyconv_search.ops.kernels.level import Level

__all__ = ["DTYPES", "Level", "Work", "available", "executed_macs", "multi_scale_conv2d"]
