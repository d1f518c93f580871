"""What a layer's own roundings add to the error of its inputs, at their worst over intervals of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.graph import Node

from .layer import Layer
from .rules import RULES
from .rules.arithmetic import magnitude, merged, roundings
from .rules.common import Radius, radius_of, reach
from .rules.constants import ETA, U

_AT_LOW = ("leaky_relu", "_prelu_kernel", "elu", "celu", "selu", "log", "log1p", "sqrt", "rsqrt")
"""Their roundings depend on how small the argument may be; those of the others grow with its size."""
_EXACT_AT_ZERO = ("add", "sub", "mul", "div")
"""Where their result is 0 for exact operands, no rounding can make it another number."""


def own_roundings(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius], largest: Tensor) -> Tensor:
    """What a layer's own roundings add for any inputs within e, whose exact results reach ``largest``."""
    node = layer.expected
    ends = [reach(part, radius) for part, radius in zip(z, e, strict=True)]
    if len(layer.source_nodes) > 1:
        return merged(layer.source_nodes, node, ends[0], None, largest)
    if node.op == "linear" and "weight" in node.tensors:
        return _inner_product(node, ends[0], largest)
    if node.op in _AT_LOW:
        ends = [z[0] - radius_of(e[0], z[0])]
    own = RULES[node.op](node, ends, [None] * len(ends), largest).expand(largest.shape)
    return torch.where(largest == 0, 0.0, own) if node.op in _EXACT_AT_ZERO else own


def _inner_product(node: Node, x: Tensor, largest: Tensor) -> Tensor:
    """The roundings of Σ w·x + b, in any order, for inputs up to x and sums up to ``largest``; k terms are not 0.

    Each product is rounded once: u·A, A = Σ|w·x| + |b|. Each of k - 1 sums is rounded once, relative to itself, and is
    the sum of some of the terms: it lies between the sum of the negative ones and that of the positive ones, of which
    the larger is (A + |Σ w·x + b|) / 2; what was rounded before, at most γ_k·A, comes on top. So half of Higham's
    γ_k·A (2002, eq. 3.5) where the terms cancel. Constants, products and sums may be flushed.
    """
    n = node.tensors["weight"].values.shape[-1]
    k = (x > 0).sum(dim=-1, keepdim=True).double() + (roundings(node) - n)
    g, terms = torch.where(k * U < 1, k * U / (1 - k * U), torch.inf), magnitude(node, x)
    sums = torch.minimum((terms + largest) / 2, terms)
    own = U * terms + (k - 1).clamp(min=0) * U * (sums + g * terms)
    return own + (n + 1) * ETA * (1 + x.sum(dim=-1, keepdim=True))
