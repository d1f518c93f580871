"""Reductions over dimensions: sums, means, extrema, norms, and cumulative sums."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

from export.graph import Node

from .language import Constant, Input, Integers, OneOf, Op, Pattern, X, axis, free, op, patterns

_FLOAT, _BOOL = 1, 9


def reduced(node: Node, name: str, x: Input, dims: tuple[int, ...] | None = None, rank: int | None = None) -> list[Op]:
    """Reductions over the node's dimensions; the axes are an attribute, or in newer opsets an input.

    Whether these are kept, as dimensions of 1, is only another shape of the same values.
    """
    reduced_dims: int | tuple[int, ...] = node.attributes["dim"] if dims is None else dims
    expected = sorted((reduced_dims,) if isinstance(reduced_dims, int) else reduced_dims)
    rank = _rank(node) if rank is None else rank
    attribute = OneOf((tuple(expected), tuple(dim - rank for dim in expected)))
    integers = Integers(tuple(expected), lambda axes: sorted(a % rank for a in axes) == expected)
    roots = [op(name, x, axes=attribute), op(name, x, integers)]
    if len(expected) == rank:
        roots.append(op(name, x))
    return [free(root, "keepdims") for root in roots]


def _rank(node: Node) -> int:
    """The rank of what is reduced."""
    dims: int | tuple[int, ...] | None = node.attributes.get("dim")
    dropped = 0 if node.attributes.get("keepdim", True) else len(dims) if isinstance(dims, tuple) else 1
    return len(node.shape) + dropped


def _reduction(name: str) -> Callable[[Node], list[Pattern]]:
    return lambda node: patterns(*reduced(node, name, X))


_IS_NAN = op("Cast", op("IsNaN", X), to=_FLOAT)


def _any_nan(node: Node) -> list[Op]:
    return [op("Cast", largest, to=_BOOL) for largest in reduced(node, "ReduceMax", _IS_NAN)]


def _extremum(name: str) -> Callable[[Node], list[Pattern]]:
    """The patterns of amax and amin, with NaN put back where there is one, unless they are of integers."""

    def of_node(node: Node) -> list[Pattern]:
        extrema = reduced(node, name, X)
        roots = [op("Where", any_nan, Constant(nan), extremum) for any_nan in _any_nan(node) for extremum in extrema]
        return patterns(*roots, *(extrema if node.dtype != "float32" else ()))

    return of_node


def _norm(node: Node) -> list[Pattern]:
    return _reduction({1: "ReduceL1", 2: "ReduceL2"}[node.attributes["ord"]])(node)


def _variance(node: Node) -> list[Pattern]:
    roots: list[Op] = []
    correction = node.attributes["correction"]
    degrees = float(max(0.0, node.attributes["count"] - (1.0 if correction is None else correction)))
    for mean in reduced(node, "ReduceMean", X):
        deviation = op("Sub", X, mean)
        for square in (op("Mul", deviation, deviation), op("Pow", deviation, 2.0)):
            roots += [op("Div", total, degrees) for total in reduced(node, "ReduceSum", square)]
            roots += reduced(node, "ReduceMean", square) if correction == 0 else []
    return patterns(*roots)


def _arg_extremum(name: str) -> Callable[[Node], list[Pattern]]:
    """The patterns of argmax and argmin, with the index of the first NaN where there is one; of integers without."""

    def of_node(node: Node) -> list[Pattern]:
        dim = axis(node, rank=_rank(node))
        first_nan, index = free(op("ArgMax", _IS_NAN, axis=dim), "keepdims"), free(op(name, X, axis=dim), "keepdims")
        return patterns(*(op("Where", any_nan, first_nan, index) for any_nan in _any_nan(node)), index)

    return of_node


def _truth(name: str) -> Callable[[Node], list[Pattern]]:
    """The patterns of any and all: the largest or the smallest of 0 and 1."""

    def of_node(node: Node) -> list[Pattern]:
        return patterns(*(op("Cast", number, to=_BOOL) for number in reduced(node, name, op("Cast", X, to=_FLOAT))))

    return of_node


def _cumsum(node: Node) -> list[Pattern]:
    rank = len(node.shape)
    dim = node.attributes["dim"]
    return patterns(op("CumSum", X, Integers((dim,), lambda axes: [a % rank for a in axes] == [dim])))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "sum": _reduction("ReduceSum"),
    "mean": _reduction("ReduceMean"),
    "amax": _extremum("ReduceMax"),
    "amin": _extremum("ReduceMin"),
    "linalg_vector_norm": _norm,
    "var": _variance,
    "argmax": _arg_extremum("ArgMax"),
    "argmin": _arg_extremum("ArgMin"),
    "any": _truth("ReduceMax"),
    "all": _truth("ReduceMin"),
    "cumsum": _cumsum,
}
