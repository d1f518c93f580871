"""Other shapes and orders of the same values, and values picked by whole numbers; a reshape computes nothing."""

from __future__ import annotations

from math import inf, nan

from export.emitter import Emitter, Operator, one
from export.graph import Node, Rows, Shape

from .reductions import reduced


def _reshape(emit: Emitter, node: Node) -> None:
    """A Flatten to rows of one dimension, else a Reshape; the batch's size is what is left over."""
    if emit.flattens(node):
        emit.last("Flatten", node, *node.inputs, axis=1)
        return
    emit.last("Reshape", node, *node.inputs, emit.open_shape(node, node.attributes["shape"]))


def _refuse_two(shape: Shape) -> str | None:
    rows = sum(isinstance(size, Rows) for size in shape)
    return "its result has the batch in two dimensions" if rows > 1 else None


def _select(emit: Emitter, node: Node) -> None:
    index = emit.integers(f"{node.home}.index", node.attributes["index"])
    emit.last("Gather", node, *node.inputs, index, axis=node.attributes["dim"])


def _slice(emit: Emitter, node: Node) -> None:
    options = {"starts": "start", "ends": "end", "axes": "dim", "steps": "step"}
    given = {role: [node.attributes[option]] for role, option in options.items()}
    if emit.opset < 10 and given["steps"] == [1]:
        del given["steps"]
        emit.last("Slice", node, *node.inputs, **given)
        return
    emit.last("Slice", node, *node.inputs, *(emit.integers(f"{node.home}.{r}", v) for r, v in given.items()))


def _expand(emit: Emitter, node: Node) -> None:
    emit.last("Expand", node, *emit.operands(node), emit.sizes(f"{node.home}.shape", node.attributes["size"]))


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


MOVES = ("reshape", "permute", "select", "slice", "expand", "cat", "index_select")
"""Operators whose values are values of their inputs at other positions."""
OPERATORS = {
    "reshape": Operator(_reshape, overloads=(), refuse=lambda node: _refuse_two(node.attributes["shape"])),
    "permute": Operator(one("Transpose", perm="dims"), overloads=()),
    "select": Operator(_select, overloads=()),
    "slice": Operator(_slice, overloads=()),
    "expand": Operator(_expand, overloads=(), refuse=lambda node: _refuse_two(node.attributes["size"])),
    "cat": Operator(one("Concat", axis="dim"), overloads=()),
    "sort": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "topk": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "embedding": Operator(one("Gather", axis=0), overloads=(), refuse=_refuse_embedding),
    "index_select": Operator(one("Gather", axis="dim"), overloads=()),
    "gather": Operator(one("GatherElements", axis="dim"), overloads=()),
}
