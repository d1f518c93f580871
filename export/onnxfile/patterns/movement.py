"""Movement: other orders of the same values, sorted values, and lookups by index; a reshape is looked through."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

from export.graph import Node

from .language import Constant, Input, Integers, NodeTensor, Pattern, Sizes, X, axis, op, operands, patterns
from .reductions import reduced


def _permute(node: Node) -> list[Pattern]:
    return patterns(op("Transpose", X, perm=tuple(node.attributes["dims"])))


def _select(node: Node) -> list[Pattern]:
    dim, index = node.attributes["dim"], node.attributes["index"]
    rank = len(node.shape) + 1
    gather = op("Gather", X, Integers((index,)), axis=axis(node, rank=rank))
    return patterns(gather, *(op("Slice", X, *inputs) for inputs in _slice_inputs(dim, index, index + 1, 1, rank)))


def _slice(node: Node) -> list[Pattern]:
    dim, start, end, step = (node.attributes[name] for name in ("dim", "start", "end", "step"))
    roots = [op("Slice", X, *inputs) for inputs in _slice_inputs(dim, start, end, step, len(node.shape))]
    if step == 1:
        roots.append(op("Slice", X, starts=(start,), ends=(end,), axes=(dim,)))
    return patterns(*roots)


def _slice_inputs(dim: int, start: int, end: int, step: int, rank: int) -> list[list[Input]]:
    """Starts, ends, axes and steps; the steps may be left out where they are 1."""
    axes = Integers((dim,), lambda values: [value % rank for value in values] == [dim])
    inputs: list[Input] = [Integers((start,)), Integers((end,)), axes]
    return [[*inputs, Integers((step,))], *([inputs] if step == 1 else [])]


def _expand(node: Node) -> list[Pattern]:
    return patterns(op("Expand", *operands(node), Sizes(node.attributes["size"])))


def _cat(node: Node) -> list[Pattern]:
    return patterns(op("Concat", *operands(node), axis=axis(node)))


def _index_select(node: Node) -> list[Pattern]:
    return patterns(op("Gather", *operands(node), axis=axis(node)))


def _gather(node: Node) -> list[Pattern]:
    return patterns(op("GatherElements", *operands(node), axis=axis(node)))


def _embedding(_node: Node) -> list[Pattern]:
    return patterns(op("Gather", NodeTensor("weight"), X, axis=0))


def _largest(node: Node) -> list[Pattern]:
    """The largest or smallest values, with NaN put back: a position is NaN where there are more NaN than its rank."""
    dim, rank, largest = node.attributes["dim"], len(node.shape), bool(node.attributes["descending"])
    is_nan, k = op("IsNaN", X), node.attributes["k"]
    counts = reduced(node, "ReduceSum", op("Cast", is_nan, to=1), (dim,), rank)
    numbers = op("Where", is_nan, Constant(inf), X)
    ordered = op("TopK", numbers, Integers((k,)), axis=axis(node), largest=int(largest), sorted=1)
    ranks = tuple(float(i if largest else node.attributes["count"] - 1 - i) for i in range(k))
    beyond = [op("Greater", count, Constant(ranks)) for count in counts]
    return patterns(*(op("Where", condition, Constant(nan), ordered) for condition in beyond))


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
