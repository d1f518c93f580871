"""Values picked by whole numbers: rows of a table, and places of a dimension."""

from __future__ import annotations

from export.emitter import Emitter
from export.graph import Node

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
    """The first values in order; all of them where nothing says how many."""
    count = emit.integers(f"{node.home}.k", [node.attributes["k"]])
    given = {"axis": node.attributes["dim"], "largest": int(node.attributes["descending"]), "sorted": 1}
    emit.last("TopK", node, *node.inputs, count, further=1, **given)


OPERATORS = {
    "sort": Operator(_largest, overloads=()),
    "topk": Operator(_largest, overloads=()),
    "embedding": Operator(_embedding, overloads=(), refuse=_refuse_embedding),
    "index_select": Operator(_index_select, overloads=()),
    "gather": Operator(_gather, overloads=()),
}
