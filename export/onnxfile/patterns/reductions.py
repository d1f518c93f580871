"""Sums, means, extremes and norms over dimensions."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import Node

from .language import Constant, Input, Integers, OneOf, Op, Pattern, X, axis, free, op, patterns

_FLOAT, _BOOL = 1, 9


def reduced(node: Node, name: str, x: Input, dims: tuple[int, ...] | None = None, rank: int | None = None) -> list[Op]:
    """Over the node's dimensions, counted from either end; the axes are an attribute, or in newer opsets an input.

    Whether they are kept, as dimensions of 1, is another shape of the same values.
    """
    given = node.attributes["dim"] if dims is None else dims
    wanted = sorted((given,) if isinstance(given, int) else given)
    rank = _rank(node) if rank is None else rank
    forms = OneOf((tuple(wanted), tuple(dim - rank for dim in wanted)))
    fits = Integers(tuple(wanted), lambda axes: sorted(a % rank for a in axes) == wanted)
    made = [op(name, x, axes=forms), op(name, x, fits)]
    if len(wanted) == rank:
        made.append(op(name, x))
    return [free(each, "keepdims") for each in made]


def _rank(node: Node) -> int:
    """Of what is reduced."""
    dims = node.attributes.get("dim")
    dropped = 0 if node.attributes.get("keepdim", True) else len(dims) if isinstance(dims, tuple) else 1
    return len(node.shape) + dropped


def _plain(name: str) -> Callable[[Node], list[Pattern]]:
    return lambda node: patterns(*reduced(node, name, X))


def _extreme(name: str) -> Callable[[Node], list[Pattern]]:
    """With NaN put back where there is any: PyTorch's never passes over it."""

    def made(node: Node) -> list[Pattern]:
        missing = op("Cast", op("IsNaN", X), to=_FLOAT)
        somewhere = [op("Cast", any_, to=_BOOL) for any_ in reduced(node, "ReduceMax", missing)]
        found = [op("Where", w, Constant(float("nan")), r) for w in somewhere for r in reduced(node, name, X)]
        return patterns(*found, *(reduced(node, name, X) if node.dtype != "float32" else ()))

    return made


def _norm(node: Node) -> list[Pattern]:
    return _plain({1: "ReduceL1", 2: "ReduceL2"}[node.attributes["ord"]])(node)


def _variance(node: Node) -> list[Pattern]:
    found = []
    correction = node.attributes["correction"]
    degrees = float(max(0.0, node.attributes["count"] - (1.0 if correction is None else correction)))
    for mean in reduced(node, "ReduceMean", X):
        off = op("Sub", X, mean)
        for square in (op("Mul", off, off), op("Pow", off, 2.0)):
            found += [op("Div", total, degrees) for total in reduced(node, "ReduceSum", square)]
            found += reduced(node, "ReduceMean", square) if correction == 0 else []
    return patterns(*found)


def _place(name: str) -> Callable[[Node], list[Pattern]]:
    """With the place of the first NaN where there is any; of whole numbers as they are."""

    def made(node: Node) -> list[Pattern]:
        where = axis(node, rank=_rank(node))
        missing = op("Cast", op("IsNaN", X), to=_FLOAT)
        first, found = (free(op(each, x, axis=where), "keepdims") for each, x in (("ArgMax", missing), (name, X)))
        somewhere = [op("Cast", any_, to=_BOOL) for any_ in reduced(node, "ReduceMax", missing)]
        return patterns(*(op("Where", each, first, found) for each in somewhere), found)

    return made


def _truth(name: str) -> Callable[[Node], list[Pattern]]:
    def made(node: Node) -> list[Pattern]:
        return patterns(*(op("Cast", r, to=_BOOL) for r in reduced(node, name, op("Cast", X, to=_FLOAT))))

    return made


def _cumsum(node: Node) -> list[Pattern]:
    rank = len(node.shape)
    dim = node.attributes["dim"]
    return patterns(op("CumSum", X, Integers((dim,), lambda axes: [a % rank for a in axes] == [dim])))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "sum": _plain("ReduceSum"),
    "mean": _plain("ReduceMean"),
    "amax": _extreme("ReduceMax"),
    "amin": _extreme("ReduceMin"),
    "linalg_vector_norm": _norm,
    "var": _variance,
    "argmax": _place("ArgMax"),
    "argmin": _place("ArgMin"),
    "any": _truth("ReduceMax"),
    "all": _truth("ReduceMin"),
    "cumsum": _cumsum,
}
