"""The bounds of values picked by whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node
from export.graph import Tensor as Constant
from export.proof.rounding import Radius, Rule

from .parts import exact, nothing, radius_of, rows_of

_TABLES = {"embedding": "weight", "index_select": "self", "gather": "self"}


def _picked(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Radii are picked as their values are, those of a constant table are 0; of a place that may be another nothing is
    known."""
    if exact(e):
        return nothing(y)
    role = _TABLES[node.op]
    held = node.tensors.get(role)
    if held is None:
        node_of_radii, given = node, [radius_of(e[0], z[0]), *z[1:]]
        places = e[1:]
    else:
        zeros = Constant(held.name, np.zeros(held.values.shape, np.float32))
        node_of_radii, given, places = replace(node, tensors={**node.tensors, role: zeros}), list(z), e
    if any(radius is not None and bool((radius > 0).any()) for radius in places):
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    return evaluate(node_of_radii, given, precision=torch.float64, rows=rows_of(node, y))


def _ordered(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Values in order are among those given; moved by at most e each, every one of them is too, since the k-th largest
    of numbers is 1-Lipschitz in the largest difference.
    """
    dim = node.attributes["dim"]
    return nothing(y) if e[0] is None else e[0].amax(dim, keepdim=True).expand(y.shape)


RULES: dict[str, Rule] = {**dict.fromkeys(_TABLES, _picked), "sort": _ordered, "topk": _ordered}
