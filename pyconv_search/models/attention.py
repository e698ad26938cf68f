"""Channel and non-local attention as modules; :mod:`pyconv_search.arch.blocks` holds their layers in closed form."""

from __future__ import annotations

from torch import Tensor, nn

from pyconv_search.arch.blocks import non_local_pool
from pyconv_search.arch.spec import SqueezeExcite
from pyconv_search.models.dimensions import average, conv, norm


class SqueezeExcitation(nn.Module):
    """Scales every channel by a gate computed from all channels' averages (Hu, Shen, Sun 2018); keeps the shape."""

    def __init__(self, width: int, se: SqueezeExcite, dimensions: int) -> None:
        super().__init__()
        self.pool = average(dimensions)
        self.reduce = nn.Linear(width, width // se.reduction, se.bias)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Linear(width // se.reduction, width, se.bias)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(self.expand(self.act(self.reduce(self.pool(x).flatten(1)))))
        return x * gates.unflatten(1, (-1, *(1,) * (x.dim() - 2)))


class NonLocal(nn.Module):
    """Adds to every position a mean of others, weighted by embedded Gaussian similarity; keeps the shape.

    Wang, Girshick, Gupta, He: Non-local Neural Networks, 2018, figure 2. The normalisation before the addition starts
    with weight 0, so that the block begins as the identity (section 4.1); keys and values are subsampled (section 3.3).
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        window, stride = non_local_pool(dimensions)
        self.pool = (nn.MaxPool2d if dimensions == 2 else nn.MaxPool3d)(window, stride)
        self.query, self.key, self.value = (conv(dimensions, width, width // 2, 1, bias=True) for _ in range(3))
        self.out = conv(dimensions, width // 2, width, 1, bias=True)
        self.norm = norm(dimensions, width)

    def reset_gate(self) -> None:
        """Begin as the identity."""
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        few = self.pool(x)
        query, key, value = (f(y).flatten(2) for f, y in ((self.query, x), (self.key, few), (self.value, few)))
        weights = (query.transpose(1, 2) @ key).softmax(-1)
        seen = (value @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.norm(self.out(seen))
