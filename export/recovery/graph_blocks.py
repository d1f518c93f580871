"""The blocks of a spec that a graph of PyTorch's operators is: one chain, with sums over parts of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from builder.errors import RecoveryError
from export.graph import Graph, Node

from .onnx_patterns import clipped
from .recovered import Step, joined
from .row_layout import Unfit

_Make = Callable[[Node], list[Step]]


def steps_of(graph: Graph) -> list[Step]:
    """The blocks between the input and the output of a graph that has one of each.

    Raises RecoveryError naming the first operator that is no block.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)

    def chain(value: str, end: str, sums: frozenset[str]) -> list[Step]:
        steps: list[Step] = []
        while nodes := [node for node in readers.get(value, ()) if node.output not in sums]:
            if len(nodes) == 1 and nodes[0].inputs == (value,):
                steps += _blocks(nodes[0])
                value = nodes[0].output
                continue
            total = next((node for node in reversed(nodes) if node.op == "add" and len(node.inputs) == 2), None)
            if total is None:
                raise _refused(
                    nodes[0], "joins or branches off: it does not take the value before it and constants alone"
                )
            other = total.inputs[1] if total.inputs[0] == value else total.inputs[0]
            inner = chain(value, other, sums | {total.output})
            steps.append(Step("residual", blocks=tuple(inner) or (Step("identity"),)))
            value = total.output
        if value != end:
            raise RecoveryError("forward does not return the last value of one chain of blocks")
        return joined(steps)

    (source,), (output,) = graph.inputs, graph.outputs.values()
    return chain(source, output, frozenset())


def _refused(node: Node, why: str) -> RecoveryError:
    return RecoveryError(f"the operator aten::{node.op} {why}")


def _blocks(node: Node) -> list[Step]:
    make = BLOCKS.get(node.op)
    if make is None:
        raise _refused(node, "is no block of a dense network")
    return make(node)


def _block(kind: str, *options: str) -> _Make:
    """An operator that is a block, whose attributes of these names are the block's options."""
    return lambda node: [Step(kind, options={name: node.attributes[name] for name in options})]


def _feature_values(node: Node, role: str) -> np.ndarray:
    """A constant operand, one float32 number per feature. Raises RecoveryError."""
    if len(node.row) != 1:
        raise _refused(node, f"on rows of shape {list(node.row)}; flat rows are expected")
    (width,) = node.row
    values = np.asarray(node.tensors[role].values if role in node.tensors else node.attributes[role], np.float32)
    if values.size not in (1, width) or (values.size > 1 and values.shape[-1] != width):
        raise _refused(node, f"with a constant of shape {list(values.shape)}; one number per feature is expected")
    return np.broadcast_to(values.reshape(-1), (width,))


def _constant(node: Node) -> tuple[np.ndarray, bool]:
    """The constant operand of a sum or product, and whether it stands in front."""
    role = "self" if "self" in node.tensors or "self" in node.attributes else "other"
    if node.attributes.get("alpha", 1) != 1:
        raise _refused(node, "with an alpha other than 1")
    return _feature_values(node, role), role == "self"


def _add(node: Node) -> list[Step]:
    return [Step("scale", {"offset": _constant(node)[0]})]


def _sub(node: Node) -> list[Step]:
    values, front = _constant(node)
    if front:
        return [Step("scale", {"factor": np.full(values.shape, -1, np.float32), "offset": values})]
    return [Step("standardize", {"mean": values})]


def _mul(node: Node) -> list[Step]:
    return [Step("scale", {"factor": _constant(node)[0]})]


def _div(node: Node) -> list[Step]:
    values, front = _constant(node)
    if front or node.attributes.get("rounding_mode") is not None:
        raise _refused(node, "in another form than x / constant")
    return [Step("standardize", {"std": values})]


def _neg(node: Node) -> list[Step]:
    return [Step("scale", {"factor": np.full(node.row, -1, np.float32)})]


def _clamp(node: Node) -> list[Step]:
    low, high = node.attributes["min"], node.attributes["max"]
    try:
        return clipped(-np.inf if low is None else low, np.inf if high is None else high, ramp=True)
    except Unfit as reason:
        raise _refused(node, str(reason)) from None


def _softmax(node: Node) -> list[Step]:
    if node.attributes["dim"] not in (-1, len(node.shape) - 1) or len(node.row) != 1:
        raise _refused(node, f"with the argument {node.attributes['dim']}")
    return [Step("softmax")]


def _with_tensors(kind: str, *options: str) -> _Make:
    """A block with weights, which the operator has under the names of the block."""

    def make(node: Node) -> list[Step]:
        if len(node.row) != 1 or len(node.attributes.get("normalized_shape", (1,))) != 1:
            raise _refused(node, f"on rows of shape {list(node.row)}; flat rows are expected")
        if kind == "batch_norm" and len(node.tensors) not in (2, 4):
            raise _refused(node, "with a weight or a bias alone")
        tensors = {role: tensor.values for role, tensor in node.tensors.items()}
        return [Step(kind, tensors, {name: node.attributes[name] for name in options})]

    return make


BLOCKS: dict[str, _Make] = {
    **{kind: _block(kind) for kind in ("relu", "tanh", "sigmoid", "silu", "hardsigmoid")},
    "gelu": _block("gelu", "approximate"),
    "elu": _block("elu", "alpha"),
    "leaky_relu": _block("leaky_relu", "negative_slope"),
    "softplus": _block("softplus", "beta", "threshold"),
    "clamp": _clamp,
    "softmax": _softmax,
    "linear": _with_tensors("linear"),
    "batch_norm": _with_tensors("batch_norm", "eps"),
    "layer_norm": _with_tensors("layer_norm", "eps"),
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
}
"""The operators that are blocks, by their names in ``torch.ops.aten``."""
