"""Rows brought to mean 0 or to size 1."""

from __future__ import annotations

from math import prod

from export.emitter import Emitter
from export.graph import Node

from .table import Operator


def _layer_norm(emit: Emitter, node: Node) -> None:
    if emit.opset < 17:
        _layer_norm_in_steps(emit, node)
        return
    shape = tuple(node.attributes["normalized_shape"])
    weight, bias = (node.tensors.get(role) for role in ("weight", "bias"))
    ones = [1.0] * prod(shape)
    constants = [emit.tensor(weight) if weight else emit.constant(f"{node.home}.weight", ones, shape)]
    constants += [emit.tensor(bias)] if bias else []
    attributes = {"axis": -len(shape), "epsilon": emit.float32(node.attributes["eps"]), "stash_type": 1}
    emit.last("LayerNormalization", node, *node.inputs, *constants, **attributes)


def _layer_norm_in_steps(emit: Emitter, node: Node) -> None:
    """(x - mean) / √(mean of squares + eps) · weight + bias, with the variance in two passes."""
    rank = len(node.attributes["normalized_shape"])
    axes = [len(node.shape) - 1 - i for i in reversed(range(rank))]  # a negative axis is not allowed before opset 11
    centred = emit.step("Sub", node, node.inputs[0], emit.step("ReduceMean", node, node.inputs[0], axes=axes))
    variance = emit.step("ReduceMean", node, emit.step("Mul", node, centred, centred), axes=axes)
    raised = emit.step("Add", node, variance, emit.constant(f"{node.home}.eps", node.attributes["eps"]))
    _with_constants(emit, node, "Div", centred, emit.step("Sqrt", node, raised))


def _with_constants(emit: Emitter, node: Node, op_type: str, x: str, y: str) -> None:
    """The last operators: a quotient, times the weight, plus the bias."""
    operands = [(op_type, x, y)]
    operands += [
        (name, "", emit.tensor(node.tensors[role]))
        for name, role in (("Mul", "weight"), ("Add", "bias"))
        if role in node.tensors
    ]
    value = ""
    for index, (name, first, second) in enumerate(operands):
        emitted = emit.last if index == len(operands) - 1 else emit.step
        value = emitted(name, node, first or value, second)


def _rms_norm(emit: Emitter, node: Node) -> None:
    """x / √(mean of squares + eps) · weight."""
    (x,) = node.inputs
    square, axis = emit.step("Mul", node, x, x), len(node.shape) - 1
    if emit.opset >= 18:
        mean = emit.step("ReduceMean", node, square, emit.integers(f"{node.home}.axes", [axis]))
    else:
        mean = emit.step("ReduceMean", node, square, axes=[axis])
    raised = emit.step("Add", node, mean, emit.constant(f"{node.home}.eps", node.attributes["eps"]))
    _with_constants(emit, node, "Div", x, emit.step("Sqrt", node, raised))


OPERATORS = {
    "layer_norm": Operator(_layer_norm, overloads=()),
    "rms_norm": Operator(_rms_norm, overloads=()),
}
