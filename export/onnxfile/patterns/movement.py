"""Other orders of the same values, and values picked by whole numbers; a reshape is seen through."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

from export.graph import Node

from .language import Constant, Input, Integers, Pattern, Sizes, Tensor, X, axis, op, operands, patterns
from .reductions import reduced


def _permute(node: Node) -> list[Pattern]:
    return patterns(op("Transpose", X, perm=tuple(node.attributes["dims"])))


def _select(node: Node) -> list[Pattern]:
    dim, index = node.attributes["dim"], node.attributes["index"]
    whole = _span(dim, index, index + 1, 1, len(node.shape) + 1)
    picked = op("Gather", X, Integers((index,)), axis=axis(node, rank=len(node.shape) + 1))
    return patterns(picked, *(op("Slice", X, *given) for given in whole))


def _slice(node: Node) -> list[Pattern]:
    given = node.attributes
    spans = _span(given["dim"], given["start"], given["end"], given["step"], len(node.shape))
    starts, ends, axes = (given["start"],), (given["end"],), (given["dim"],)
    found = [op("Slice", X, *span) for span in spans]
    if given["step"] == 1:
        found.append(op("Slice", X, starts=starts, ends=ends, axes=axes))
    return patterns(*found)


def _span(dim: int, start: int, end: int, step: int, rank: int) -> list[list[Input]]:
    """Starts, ends, axes and steps; the last may be left out where it is 1."""
    starts, ends = Integers((start,)), Integers((end,))
    axes = Integers((dim,), lambda values: [value % rank for value in values] == [dim])
    whole: list[list[Input]] = [[starts, ends, axes, Integers((step,))]]
    return [*whole, [starts, ends, axes]] if step == 1 else whole


def _expand(node: Node) -> list[Pattern]:
    return patterns(op("Expand", *operands(node), Sizes(node.attributes["size"])))


def _cat(node: Node) -> list[Pattern]:
    return patterns(op("Concat", *operands(node), axis=axis(node)))


def _index_select(node: Node) -> list[Pattern]:
    return patterns(op("Gather", *operands(node), axis=axis(node)))


def _gather(node: Node) -> list[Pattern]:
    return patterns(op("GatherElements", *operands(node), axis=axis(node)))


def _embedding(node: Node) -> list[Pattern]:
    return patterns(op("Gather", Tensor("weight"), X, axis=0))


def _largest(node: Node) -> list[Pattern]:
    """In order, with NaN put back behind the numbers: a place is NaN where more of them are missing than its rank."""
    dim, rank, largest = node.attributes["dim"], len(node.shape), bool(node.attributes["descending"])
    missing, k = op("IsNaN", X), Integers((node.attributes["k"],))
    counts = reduced(node, "ReduceSum", op("Cast", missing, to=1), (dim,), rank)
    numbers = op("Where", missing, Constant(inf), X)
    found = op("TopK", numbers, k, axis=axis(node), largest=int(largest), sorted=1)
    places = range(node.attributes["k"])
    ranks = tuple(float(i if largest else node.attributes["count"] - 1 - i) for i in places)
    lost = [op("Greater", count, Constant(ranks)) for count in counts]
    return patterns(*(op("Where", each, Constant(nan), found) for each in lost))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "permute": _permute,
    "select": _select,
    "slice": _slice,
    "expand": _expand,
    "cat": _cat,
    "index_select": _index_select,
    "gather": _gather,
    "embedding": _embedding,
    "sort": _largest,
    "topk": _largest,
}
