"""How blocks are spelt in ONNX operators, for the rows of ``export.blocks``.

A spelling that an opset does not have yet is replaced by one that it has: ``emit.opset`` says which opset is written.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from .emitter import Emitter
from .graph import Node

Lower = Callable[[Emitter, Node], object]


def op(op_type: str, **attributes: str) -> Lower:
    """One ONNX node; ``alpha="negative_slope"`` fills an attribute from an option, as float32."""

    def lower(emit: Emitter, node: Node) -> None:
        values = {name: emit.float32(node.attributes[option]) for name, option in attributes.items()}
        emit(op_type, node.inputs, node.output, node.path, **values)

    return lower


def linear(emit: Emitter, node: Node) -> None:
    constants = [emit.tensor(node.tensors[role]) for role in ("weight", "bias") if role in node.tensors]
    if len(constants) == 1 and emit.opset < 11:  # a Gemm must have a bias there
        constants.append(emit.constant(f"{node.path}.bias", [0.0] * node.shape[-1]))
    emit("Gemm", [*node.inputs, *constants], node.output, node.path, alpha=1.0, beta=1.0, transB=1)


def gelu(emit: Emitter, node: Node) -> None:
    """x / √2 → Erf → + 1 → · x → · 1/2, or the tanh formula; the order that ONNX Runtime fuses into one kernel.

    From opset 20 on it is one operator.
    """
    if emit.opset >= 20:
        emit("Gelu", node.inputs, node.output, node.path, approximate=node.attributes["approximate"])
        return
    (x,) = node.inputs
    if node.attributes["approximate"] == "tanh":
        cube = emit.step("Mul", node, emit.step("Mul", node, x, x), x)
        inner = emit.step("Add", node, x, emit.step("Mul", node, cube, emit.constant("gelu.cubic", 0.044715)))
        bell = emit.step("Tanh", node, emit.step("Mul", node, inner, emit.constant("gelu.scale", sqrt(2 / pi))))
    else:
        bell = emit.step("Erf", node, emit.step("Div", node, x, emit.constant("gelu.sqrt2", sqrt(2))))
    raised = emit.step("Add", node, bell, emit.constant("one", 1.0))
    emit.last("Mul", node, emit.step("Mul", node, x, raised), emit.constant("half", 0.5))


def silu(emit: Emitter, node: Node) -> None:
    (x,) = node.inputs
    emit.last("Mul", node, x, emit.step("Sigmoid", node, x))


def softplus(emit: Emitter, node: Node) -> None:
    """Softplus(beta·x) / beta; from the threshold on x itself, where that is not the same in float32 anyway."""
    (x,), beta, threshold = node.inputs, node.attributes["beta"], node.attributes["threshold"]
    scaled = x if beta == 1 else emit.step("Mul", node, x, emit.constant(f"{node.path}.beta", beta))
    steps: list[tuple[str, list[str]]] = [("Softplus", [scaled])]
    if beta != 1:
        steps.append(("Div", ["", emit.constant(f"{node.path}.beta", beta)]))
    if threshold < 20:  # log1p(e^-20) is below half an ulp of 20
        above = emit.step("Greater", node, scaled, emit.constant(f"{node.path}.threshold", threshold))
        steps.append(("Where", [above, x, ""]))
    value = ""
    for index, (op_type, names) in enumerate(steps):
        emitted = emit.last if index == len(steps) - 1 else emit.step
        value = emitted(op_type, node, *(name or value for name in names))


def clip(low: str | float, high: str | float) -> Lower:
    def lower(emit: Emitter, node: Node) -> None:
        values = {
            role: node.attributes[bound] if isinstance(bound, str) else bound
            for role, bound in (("min", low), ("max", high))
        }
        if emit.opset < 11:
            attributes = {role: emit.float32(value) for role, value in values.items()}
            emit("Clip", node.inputs, node.output, node.path, **attributes)
            return
        bounds = [emit.constant(f"{node.path}.{role}", value) for role, value in values.items()]
        emit("Clip", [*node.inputs, *bounds], node.output, node.path)

    return lower


def softmax(emit: Emitter, node: Node) -> None:
    """Over the last dimension, which is counted from the front before opset 13."""
    emit("Softmax", node.inputs, node.output, node.path, axis=-1 if emit.opset >= 13 else len(node.shape))


def layer_norm(emit: Emitter, node: Node) -> None:
    if emit.opset < 17:
        layer_norm_in_steps(emit, node)
        return
    weight, bias = (node.tensors.get(role) for role in ("weight", "bias"))
    constants = [emit.tensor(weight) if weight else emit.constant(f"{node.path}.weight", [1.0] * node.shape[-1])]
    constants += [emit.tensor(bias)] if bias else []
    attributes = {"axis": -1, "epsilon": emit.float32(node.attributes["eps"]), "stash_type": 1}
    emit("LayerNormalization", [*node.inputs, *constants], node.output, node.path, **attributes)


def layer_norm_in_steps(emit: Emitter, node: Node) -> None:
    """(x - mean) / √(mean of squares + eps) · weight + bias, with the variance in two passes."""
    axes = [len(node.shape)]  # a negative axis is not allowed before opset 11
    centred = emit.step("Sub", node, node.inputs[0], emit.step("ReduceMean", node, node.inputs[0], axes=axes))
    variance = emit.step("ReduceMean", node, emit.step("Mul", node, centred, centred), axes=axes)
    raised = emit.step("Add", node, variance, emit.constant(f"{node.path}.eps", node.attributes["eps"]))
    operands = [("Div", centred, emit.step("Sqrt", node, raised))]
    operands += [
        (op_type, "", emit.tensor(node.tensors[role]))
        for op_type, role in (("Mul", "weight"), ("Add", "bias"))
        if role in node.tensors
    ]
    value = ""
    for index, (op_type, first, second) in enumerate(operands):
        emitted = emit.last if index == len(operands) - 1 else emit.step
        value = emitted(op_type, node, first or value, second)


def batch_norm(emit: Emitter, node: Node) -> None:
    ones_and_zeros = {"weight": 1.0, "bias": 0.0}
    constants = []
    for role in ("weight", "bias", "running_mean", "running_var"):
        if role in node.tensors:
            constants.append(emit.tensor(node.tensors[role]))
        else:
            constants.append(emit.constant(f"{node.path}.{role}", [ones_and_zeros[role]] * node.shape[0]))
    epsilon = emit.float32(node.attributes["eps"])
    emit("BatchNormalization", [*node.inputs, *constants], node.output, node.path, epsilon=epsilon)


def pair(*steps: tuple[str, str]) -> Lower:
    """Elementwise nodes one after the other, each with the constant of a role; a role that the block lacks has none."""

    def lower(emit: Emitter, node: Node) -> None:
        constants = []
        for op_type, role in steps:
            if role in node.tensors:
                constants.append((op_type, emit.tensor(node.tensors[role])))
            elif role in node.attributes:
                constants.append((op_type, emit.constant(f"{node.path}.{role}", node.attributes[role])))
        value = node.inputs[0]
        for op_type, constant in constants[:-1]:
            value = emit.step(op_type, node, value, constant)
        emit.last(constants[-1][0], node, value, constants[-1][1])

    return lower


def never(emit: Emitter, node: Node) -> None:
    raise AssertionError(f"{node.op} at {node.path} is removed by folding and never lowered")
