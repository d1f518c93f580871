"""Values picked by whole numbers: rows of a table, and places of a dimension."""

from __future__ import annotations

from math import inf, nan

from export.emitter import Emitter, Operator, one
from export.graph import Node

from .reductions import reduced


def _refuse_embedding(node: Node) -> str | None:
    return None if "weight" in node.tensors else "its table depends on the input"


def _largest(emit: Emitter, node: Node) -> None:
    """The first values in order. PyTorch takes NaN for larger than any number; ONNX Runtime does not: it is put in
    after sorting, as often as it stands there, where the rank is beyond the numbers.
    """
    (x,), dim, k, descending = node.inputs, node.attributes["dim"], node.attributes["k"], node.attributes["descending"]
    is_missing = emit.step("IsNaN", node, x)
    missing = emit.step("Cast", node, is_missing, to=1)
    count = reduced(emit, node, "ReduceSum", missing, keep=True)
    numbers = emit.step("Where", node, is_missing, emit.constant("most", inf), x)
    given = {"axis": dim, "largest": int(bool(descending)), "sorted": 1, "further": 1}
    ordered = emit.step("TopK", node, numbers, emit.integers(f"{node.home}.k", [k]), **given)
    # how many values stand before each place, along the sorted dimension: more NaN than that put one there
    ranks = [float(i if descending else node.attributes["count"] - 1 - i) for i in range(k)]
    shape = tuple(k if axis == dim else 1 for axis in range(len(node.shape)))
    lost = emit.step("Greater", node, count, emit.constant(f"{node.home}.ranks", ranks, shape))
    emit.last("Where", node, lost, emit.constant("nan", nan), ordered)


def _refuse_sort(node: Node) -> str | None:
    return None if node.dtype == "float32" else "it sorts whole numbers, and only float32 can be sorted"


OPERATORS = {
    "sort": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "topk": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "embedding": Operator(one("Gather", axis=0), overloads=(), refuse=_refuse_embedding),
    "index_select": Operator(one("Gather", axis="dim"), overloads=()),
    "gather": Operator(one("GatherElements", axis="dim"), overloads=()),
}
