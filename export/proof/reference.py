"""What each block computes, in the precision of its input: in float64 it is the exact value that a proof compares with.

The functions are PyTorch's own; options and constants come from the traced module, never from the exported file. That
the blocks together are the module as it is called is checked by ``export.proof.calling``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from export.graph import Graph, Node

from .rows import joined, split

Block = Callable[[Node, Sequence[Tensor], Mapping[str, float]], Tensor]
_CHUNK = 2**20
"""Weights are widened in parts of this many elements, so that a large layer does not need three times its memory."""


def constant(node: Node, role: str, like: Tensor) -> Tensor | None:
    """A tensor of the block in the precision of its input; None where the block has no such tensor."""
    held = node.tensors.get(role)
    return None if held is None else torch.from_numpy(np.ascontiguousarray(held.values)).to(like.dtype)


def options(node: Node, *, rounded: bool) -> dict[str, float]:
    """The numbers among the block's options; ``rounded`` gives them as the float32 that a kernel works with."""
    numbers = {key: float(v) for key, v in node.attributes.items() if isinstance(v, int | float)}
    return {key: float(np.float32(value)) for key, value in numbers.items()} if rounded else numbers


def times(weight: np.ndarray, z: Tensor, *, absolute: bool = False) -> Tensor:
    """z @ weightᵀ, or z @ abs(weight)ᵀ, for z (batch, in) and weight (out, in); without a gradient.

    The weights are widened part by part into one buffer: a new one each time would leave the heap in pieces.
    """
    step = max(1, _CHUNK // max(1, weight.shape[1]))
    buffer = torch.empty(min(step, len(weight)), weight.shape[1], dtype=z.dtype)
    y = torch.empty(len(z), len(weight), dtype=z.dtype)
    with torch.no_grad():
        for start in range(0, len(weight), step):
            held = torch.from_numpy(np.ascontiguousarray(weight[start : start + step]))
            part = buffer[: len(held)].copy_(held)
            y[:, start : start + step] = z @ (part.abs_() if absolute else part).T
    return y


class _Product(torch.autograd.Function):
    """``times`` with a gradient that widens the weights again instead of keeping them wide."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: np.ndarray) -> Tensor:
        ctx.weight = weight
        return times(weight, z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return times(ctx.weight.T, gradients[0]), None


def _linear(node: Node, z: Sequence[Tensor], given: Mapping[str, float]) -> Tensor:
    weight, bias = node.tensors["weight"].values, constant(node, "bias", z[0])
    if weight.size <= _CHUNK or z[0].dtype == torch.float32:  # as nn.Linear calls it
        return F.linear(z[0], torch.from_numpy(np.ascontiguousarray(weight)).to(z[0].dtype), bias)
    y = _Product.apply(z[0], weight)
    return y if bias is None else y + bias


def _batch_norm(node: Node, z: Sequence[Tensor], given: Mapping[str, float]) -> Tensor:
    mean, var, weight, bias = (constant(node, r, z[0]) for r in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(z[0], mean, var, weight, bias, False, 0.0, given["eps"])


def _layer_norm(node: Node, z: Sequence[Tensor], given: Mapping[str, float]) -> Tensor:
    weight, bias = constant(node, "weight", z[0]), constant(node, "bias", z[0])
    return F.layer_norm(z[0], z[0].shape[-1:], weight, bias, given["eps"])


def _in_turn(*steps: tuple[str, Callable[[Tensor, Any], Tensor]]) -> Block:
    """Elementwise operations with the constant of a role each, those that the block has."""

    def block(node: Node, z: Sequence[Tensor], given: Mapping[str, float]) -> Tensor:
        y = z[0]
        for role, operation in steps:
            held = constant(node, role, y)
            if held is not None or role in given:
                y = operation(y, given[role] if held is None else held)
        return y

    return block


BLOCKS: dict[str, Block] = {
    "linear": _linear,
    "sigmoid": lambda node, z, given: torch.sigmoid(z[0]),
    "relu": lambda node, z, given: torch.relu(z[0]),
    "leaky_relu": lambda node, z, given: F.leaky_relu(z[0], given["negative_slope"]),
    "elu": lambda node, z, given: F.elu(z[0], given["alpha"]),
    "tanh": lambda node, z, given: torch.tanh(z[0]),
    "gelu": lambda node, z, given: F.gelu(z[0], approximate=str(node.attributes["approximate"])),
    "silu": lambda node, z, given: F.silu(z[0]),
    "softplus": lambda node, z, given: F.softplus(z[0], given["beta"], given["threshold"]),
    "softmax": lambda node, z, given: torch.softmax(z[0], dim=-1),
    "relu6": lambda node, z, given: F.relu6(z[0]),
    "hardsigmoid": lambda node, z, given: F.hardsigmoid(z[0]),
    "clip": lambda node, z, given: F.hardtanh(z[0], given["min_val"], given["max_val"]),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "flatten": lambda node, z, given: z[0].flatten(1),
    "standardize": _in_turn(("mean", operator.sub), ("std", operator.truediv)),
    "scale": _in_turn(("factor", operator.mul), ("offset", operator.add)),
    "add": lambda node, z, given: z[0] + z[1],
    "subtract": lambda node, z, given: z[0] - z[1],
    "multiply": lambda node, z, given: z[0] * z[1],
    "concat": lambda node, z, given: torch.cat(list(z), dim=1),
    "dropout": lambda node, z, given: z[0],
    "identity": lambda node, z, given: z[0],
}
"""What every block computes in evaluation mode; the names are those of the table in ``export.blocks``."""


def evaluate(node: Node, inputs: Sequence[Tensor], *, rounded: bool = True) -> Tensor:
    """The block's value for inputs (batch, *row), in their precision."""
    return BLOCKS[node.op](node, inputs, options(node, rounded=rounded))


def follow(nodes: Sequence[Node], values: Mapping[str, Tensor], *, rounded: bool = True) -> dict[str, Tensor]:
    """The values of the nodes, one after the other, besides the ``values`` they start from."""
    held = dict(values)
    for node in nodes:
        held[node.output] = evaluate(node, [held[name] for name in node.inputs], rounded=rounded)
    return held


def whole(graph: Graph, x: Tensor, *, rounded: bool = True) -> Tensor:
    """The rows of all outputs of the network for rows x of all its inputs (``export.proof.rows``)."""
    values = follow(graph.nodes, split(x, graph.inputs), rounded=rounded)
    return joined([values[value] for value in graph.outputs.values()])
