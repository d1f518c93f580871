"""Values picked by whole numbers: rows of a table, and places of a dimension."""

from __future__ import annotations

from math import inf, nan

from export.emitter import Emitter
from export.graph import Node

from .reductions import reduced
from .table import Operator


def _embedding(emit: Emitter, node: Node) -> None:
    emit.last("Gather", node, emit.tensor(node.tensors["weight"]), *node.inputs, axis=0)


def _refuse_embedding(node: Node) -> str | None:
    return None if "weight" in node.tensors else "its table depends on the input"


def _index_select(emit: Emitter, node: Node) -> None:
    emit.last("Gather", node, *emit.operands(node), axis=node.attributes["dim"])


def _gather(emit: Emitter, node: Node) -> None:
    emit.last("GatherElements", node, *emit.operands(node), axis=node.attributes["dim"])


def _largest(emit: Emitter, node: Node) -> None:
    """The first values in order. PyTorch takes NaN for larger than any number; ONNX Runtime does not: it is put in
    after sorting, as often as it stands there, where the rank is beyond the numbers.
    """
    dim, largest = node.attributes["dim"], bool(node.attributes["descending"])
    (x,) = node.inputs
    is_missing = emit.step("IsNaN", node, x)
    missing = emit.step("Cast", node, is_missing, to=1)
    count = reduced(emit, node, "ReduceSum", missing, last=False, keep=True)
    numbers = emit.step("Where", node, is_missing, emit.constant("most", inf), x)
    k = emit.integers(f"{node.home}.k", [node.attributes["k"]])
    given = {"axis": dim, "largest": int(largest), "sorted": 1}
    found = emit.step("TopK", node, numbers, k, further=1, **given)
    lost = emit.step("Greater", node, count, emit.constant(f"{node.home}.ranks", ranks(node), rank_shape(node)))
    emit.last("Where", node, lost, emit.constant("nan", nan), found)


def ranks(node: Node) -> list[float]:
    """How many values stand behind each place: as many NaN at least make it one."""
    places = range(node.attributes["k"])
    return [float(i if node.attributes["descending"] else node.attributes["count"] - 1 - i) for i in places]


def rank_shape(node: Node) -> tuple[int, ...]:
    """The ranks along the dimension that is sorted."""
    dim = node.attributes["dim"]
    return tuple(node.attributes["k"] if axis == dim else 1 for axis in range(len(node.shape)))


def _refuse_sort(node: Node) -> str | None:
    return None if node.dtype == "float32" else "it sorts whole numbers, and only float32 can be sorted"


OPERATORS = {
    "sort": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "topk": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "embedding": Operator(_embedding, overloads=(), refuse=_refuse_embedding),
    "index_select": Operator(_index_select, overloads=()),
    "gather": Operator(_gather, overloads=()),
}
