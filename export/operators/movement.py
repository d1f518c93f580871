"""Movement: other shapes and orders of the same values, sorted values, and lookups by index."""

from __future__ import annotations

from math import inf, nan

from export.emitter import Emitter, Operator, single
from export.graph import Node, Rows, Shape

from .reductions import reduced


def _reshape(emit: Emitter, node: Node) -> None:
    """A Flatten where rows of one dimension come out, else a Reshape with -1 for the size of the batch."""
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
    values = {name: [node.attributes[option]] for name, option in options.items()}
    if emit.opset < 10 and values["steps"] == [1]:
        del values["steps"]
        emit.last("Slice", node, *node.inputs, **values)
        return
    emit.last("Slice", node, *node.inputs, *(emit.integers(f"{node.home}.{n}", v) for n, v in values.items()))


def _expand(emit: Emitter, node: Node) -> None:
    emit.last("Expand", node, *emit.operands(node), emit.sizes(f"{node.home}.shape", node.attributes["size"]))


def _refuse_embedding(node: Node) -> str | None:
    return None if "weight" in node.tensors else "its table depends on the input"


def _largest(emit: Emitter, node: Node) -> None:
    """The first values in order, for sort and topk.

    PyTorch takes NaN as larger than any number, and ONNX Runtime does not: numbers are sorted, and NaN is put where the
    rank is beyond them, as often as it occurs.
    """
    (x,), dim, k, descending = node.inputs, node.attributes["dim"], node.attributes["k"], node.attributes["descending"]
    is_nan = emit.step("IsNaN", node, x)
    count = reduced(emit, node, "ReduceSum", emit.step("Cast", node, is_nan, to=1), keep=True)
    numbers = emit.step("Where", node, is_nan, emit.constant("most", inf), x)
    attributes = {"axis": dim, "largest": int(bool(descending)), "sorted": 1, "further": 1}
    ordered = emit.step("TopK", node, numbers, emit.integers(f"{node.home}.k", [k]), **attributes)
    # a position is NaN if there are more NaN than positions before it, counted from the end where NaN comes
    ranks = [float(i if descending else node.attributes["count"] - 1 - i) for i in range(k)]
    shape = tuple(k if axis == dim else 1 for axis in range(len(node.shape)))
    beyond = emit.step("Greater", node, count, emit.constant(f"{node.home}.ranks", ranks, shape))
    emit.last("Where", node, beyond, emit.constant("nan", nan), ordered)


def _refuse_sort(node: Node) -> str | None:
    return None if node.dtype == "float32" else "it sorts integers, and only float32 can be sorted"


MOVES = ("reshape", "permute", "select", "slice", "expand", "cat", "index_select")
"""Operators whose values are values of their inputs at other positions."""
OPERATORS = {
    "reshape": Operator(_reshape, overloads=(), refuse=lambda node: _refuse_two(node.attributes["shape"])),
    "permute": Operator(single("Transpose", perm="dims"), overloads=()),
    "select": Operator(_select, overloads=()),
    "slice": Operator(_slice, overloads=()),
    "expand": Operator(_expand, overloads=(), refuse=lambda node: _refuse_two(node.attributes["size"])),
    "cat": Operator(single("Concat", axis="dim"), overloads=()),
    "sort": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "topk": Operator(_largest, overloads=(), refuse=_refuse_sort),
    "embedding": Operator(single("Gather", axis=0), overloads=(), refuse=_refuse_embedding),
    "index_select": Operator(single("Gather", axis="dim"), overloads=()),
    "gather": Operator(single("GatherElements", axis="dim"), overloads=()),
}
