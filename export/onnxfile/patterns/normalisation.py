"""Rows brought to mean 0 or to size 1."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from .language import Constant, OneOf, Op, Pattern, Tensor, X, op, option, patterns
from .reductions import reduced


def _layer_norm(node: Node) -> list[Pattern]:
    """One operator from opset 17 on, or in steps."""
    count, rank = len(node.attributes["normalized_shape"]), len(node.shape)
    eps, inputs = option("eps"), (X, Tensor("weight", default=1.0), Tensor("bias"))
    found = [op("LayerNormalization", *inputs, epsilon=eps, axis=OneOf((-count, rank - count)))]
    dims = tuple(range(rank - count, rank))
    for mean in reduced(node, "ReduceMean", X, dims, rank):
        off = op("Sub", X, mean)
        for square in (op("Mul", off, off), op("Pow", off, 2.0)):
            for variance in reduced(node, "ReduceMean", square, dims, rank):
                found += _ends(node, off, op("Sqrt", op("Add", variance, Constant(eps))))
    return patterns(*found)


def _ends(node: Node, x: Op | str, deviation: Op) -> list[Op]:
    """The quotient, times the weight, plus the bias."""
    ends = [op("Div", x, deviation), op("Mul", x, op("Reciprocal", deviation)), op("Mul", x, op("Div", 1.0, deviation))]
    for name, role in (("Mul", "weight"), ("Add", "bias")):
        ends = [op(name, end, Tensor(role)) if role in node.tensors else end for end in ends]
    return ends


def _rms_norm(node: Node) -> list[Pattern]:
    rank, eps = len(node.shape), Constant(option("eps"))
    found = []
    for square in (op("Mul", X, X), op("Pow", X, 2.0)):
        for mean in reduced(node, "ReduceMean", square, (rank - 1,), rank):
            found += _ends(node, X, op("Sqrt", op("Add", mean, eps)))
    weight = Tensor("weight", default=1.0)
    found.append(op("RMSNormalization", X, weight, epsilon=option("eps"), axis=OneOf((-1, rank - 1))))
    return patterns(*found)


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {"layer_norm": _layer_norm, "rms_norm": _rms_norm}
