"""Normalisation of rows: LayerNorm and RMSNorm."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from .language import Constant, NodeTensor, OneOf, Op, Pattern, X, is_filled_with, op, option, patterns
from .reductions import reduced


def _layer_norm(node: Node) -> list[Pattern]:
    """One operator from opset 17 on, or its formula."""
    count, rank = len(node.attributes["normalized_shape"]), len(node.shape)
    eps, inputs = option("eps"), (X, NodeTensor("weight", default=1.0), NodeTensor("bias"))
    taken = [inputs, *([inputs[:2]] if is_filled_with(node, "bias", 0) else [])]
    roots = [op("LayerNormalization", *given, epsilon=eps, axis=OneOf((-count, rank - count))) for given in taken]
    dims = tuple(range(rank - count, rank))
    for mean in reduced(node, "ReduceMean", X, dims, rank):
        deviation = op("Sub", X, mean)
        for square in (op("Mul", deviation, deviation), op("Pow", deviation, 2.0)):
            for variance in reduced(node, "ReduceMean", square, dims, rank):
                roots += _scaled(node, deviation, op("Sqrt", op("Add", variance, Constant(eps))))
    return patterns(*roots)


def _scaled(node: Node, x: Op | str, divisor: Op) -> list[Op]:
    """The quotient, times the weight, plus the bias; simplifiers leave out a weight of ones and a bias of zeros."""
    roots = [op("Div", x, divisor), op("Mul", x, op("Reciprocal", divisor)), op("Mul", x, op("Div", 1.0, divisor))]
    for name, role, neutral in (("Mul", "weight", 1), ("Add", "bias", 0)):
        if role in node.tensors:
            kept = roots if is_filled_with(node, role, neutral) else []
            roots = [*(op(name, root, NodeTensor(role)) for root in roots), *kept]
    return roots


def _rms_norm(node: Node) -> list[Pattern]:
    rank, eps = len(node.shape), Constant(option("eps"))
    roots: list[Op] = []
    for square in (op("Mul", X, X), op("Pow", X, 2.0)):
        for mean in reduced(node, "ReduceMean", square, (rank - 1,), rank):
            roots += _scaled(node, X, op("Sqrt", op("Add", mean, eps)))
    weight = NodeTensor("weight", default=1.0)
    roots.append(op("RMSNormalization", X, weight, epsilon=option("eps"), axis=OneOf((-1, rank - 1))))
    return patterns(*roots)


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {"layer_norm": _layer_norm, "rms_norm": _rms_norm}
