"""Other shapes and orders of the same values: nothing is computed."""

from __future__ import annotations

from export.emitter import Emitter, Operator, one
from export.graph import Node, Rows, Shape


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


OPERATORS = {
    "reshape": Operator(_reshape, overloads=(), refuse=lambda node: _refuse_two(node.attributes["shape"])),
    "permute": Operator(one("Transpose", perm="dims"), overloads=()),
    "select": Operator(_select, overloads=()),
    "slice": Operator(_slice, overloads=()),
    "expand": Operator(_expand, overloads=(), refuse=lambda node: _refuse_two(node.attributes["size"])),
    "cat": Operator(one("Concat", axis="dim"), overloads=()),
}
