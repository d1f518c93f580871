"""The blocks of a spec that ATen operators are: of one operator, and of a graph that is a chain with residual sums."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from builder.block import FLOAT32_MAX
from builder.blocks import ACTIVATIONS, Activation
from builder.errors import RecoveryError
from export.graph import Graph, Node

from .recovered import NotABlock, Step, joined

_Make = Callable[[Node], list[Step]]
_UNBOUNDED = 3.402823e38
"""From here on a bound has no effect: exporters write the largest float32 with so few digits."""


def steps_of(graph: Graph) -> list[Step]:
    """The blocks between the input and the output of a graph that has one of each.

    Raises RecoveryError naming the first operator that is not a block.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)

    def chain(value: str, end: str, sums: frozenset[str]) -> list[Step]:
        steps: list[Step] = []
        while nodes := [node for node in readers.get(value, ()) if node.output not in sums]:
            if len(nodes) == 1 and nodes[0].inputs == (value,):
                steps += blocks_of(nodes[0])
                value = nodes[0].output
                continue
            total = next((node for node in reversed(nodes) if node.op == "add" and len(node.inputs) == 2), None)
            if total is None:
                operator = f"the operator aten::{nodes[0].op}"
                raise RecoveryError(f"{operator} joins or branches: it has other inputs than the value before it")
            other = total.inputs[1] if total.inputs[0] == value else total.inputs[0]
            inner = chain(value, other, sums | {total.output})
            steps.append(Step("residual", blocks=tuple(inner) or (Step("identity"),)))
            value = total.output
        if value != end:
            raise RecoveryError("forward does not return the last value of one chain of blocks")
        return joined(steps)

    def blocks_of(node: Node) -> list[Step]:
        try:
            return operator_blocks(node)
        except NotABlock as reason:
            raise RecoveryError(f"the operator aten::{node.op} {reason}") from None

    (source,), (output,) = graph.inputs, graph.outputs.values()
    return chain(source, output, frozenset())


def shortest(value: Any) -> float:
    """The shortest decimal that rounds to a float32 number: 0.01 rather than 0.009999999776482582."""
    return float(str(np.float32(value)))


def operator_blocks(node: Node) -> list[Step]:
    """The blocks that an operator on one value is. Raises NotABlock."""
    if node.op not in ATEN_BLOCKS:
        raise NotABlock("is not a block of a dense network")
    steps = ATEN_BLOCKS[node.op](node)
    for step in steps:
        step.check()
    return steps


def _activation(block: type[Activation]) -> _Make:
    """An operator whose attributes have the names of the block's options."""
    return lambda node: [Step(block.kind, options={name: node.attributes[name] for name in block.model_fields})]


def _feature_values(node: Node, role: str) -> np.ndarray:
    """A constant operand as one float32 number per feature. Raises NotABlock."""
    if len(node.row) != 1:
        raise NotABlock(f"has rows of shape {list(node.row)}; flat rows are expected")
    (width,) = node.row
    values = np.asarray(node.tensors[role].values if role in node.tensors else node.attributes[role], np.float32)
    if values.size not in (1, width) or (values.size > 1 and values.shape[-1] != width):
        raise NotABlock(f"has a constant of shape {list(values.shape)}; one number per feature is expected")
    return np.broadcast_to(values.reshape(-1), (width,))


def _constant(node: Node) -> tuple[np.ndarray, bool]:
    """The constant operand of a sum or product, and whether it is the first operand."""
    role = "self" if "self" in node.tensors or "self" in node.attributes else "other"
    if node.attributes.get("alpha", 1) != 1:
        raise NotABlock("has an alpha other than 1")
    return _feature_values(node, role), role == "self"


def _scale(role: str) -> _Make:
    return lambda node: [Step("scale", {role: _constant(node)[0]})]


def _sub(node: Node) -> list[Step]:
    values, is_first = _constant(node)
    if is_first:
        return [Step("scale", {"factor": np.full(values.shape, -1, np.float32), "offset": values})]
    return [Step("standardize", {"mean": values})]


def _div(node: Node) -> list[Step]:
    values, is_first = _constant(node)
    if is_first or node.attributes.get("rounding_mode") is not None:
        raise NotABlock("is a division of another form than x / constant")
    return [Step("standardize", {"std": values})]


def _neg(node: Node) -> list[Step]:
    return [Step("scale", {"factor": np.full(node.row, -1, np.float32)})]


def _clamp(node: Node) -> list[Step]:
    """A missing bound, and one at the end of float32, has no effect; a ReLU is one that keeps infinity, too."""
    low, high = node.attributes["min"], node.attributes["max"]
    keeps_infinity = high is None or high == np.inf
    low = -FLOAT32_MAX if low is None or low <= -_UNBOUNDED else low
    high = FLOAT32_MAX if high is None or high >= _UNBOUNDED else high
    if not low < high:
        raise NotABlock(f"has the bounds {low} and {high}; the first must be below the second")
    if (low, high) == (-FLOAT32_MAX, FLOAT32_MAX):
        return []
    if low == 0 and (high == 6 or keeps_infinity):
        return [Step("relu6" if high == 6 else "relu")]
    return [Step("clip", options={"min": low, "max": high})]


def _limit(name: str, unlimited: float) -> _Make:
    """A limit for each feature; the other one is none."""

    def make(node: Node) -> list[Step]:
        values, _ = _constant(node)
        if not bool((np.isfinite(values) | (values == unlimited)).all()):
            raise NotABlock("has a limit that no number is within")
        limits: dict[str, list[float | None]] = {each: [None] * len(values) for each in ("min", "max")}
        limits[name] = [None if np.isinf(value) else shortest(value) for value in values]
        return [Step("clip", options=limits)] if any(limit is not None for limit in limits[name]) else []

    return make


def _softmax(node: Node) -> list[Step]:
    dim = node.attributes["dim"]
    if node.shape[dim] != prod(node.row):
        raise NotABlock(f"runs along dimension {dim}, which is not the features of a row")
    return [Step("softmax")]


def _with_tensors(kind: str, *options: str) -> _Make:
    """A block with weights, which have the same names in the operator and in the block."""

    def make(node: Node) -> list[Step]:
        if prod(node.attributes.get("normalized_shape", node.row[-1:])) != prod(node.row):
            raise NotABlock(f"has rows of shape {list(node.row)}; flat rows are expected")
        if kind == "batch_norm" and len(node.tensors) not in (2, 4):
            raise NotABlock("has either a weight or a bias; both or none are expected")
        tensors = {role: tensor.values for role, tensor in node.tensors.items()}
        return [Step(kind, tensors, {name: node.attributes[name] for name in options})]

    return make


ATEN_BLOCKS: dict[str, _Make] = {
    **{kind: _activation(block) for kind, block in ACTIVATIONS.items()},
    "clamp": _clamp,
    "maximum": _limit("min", -np.inf),
    "minimum": _limit("max", np.inf),
    "softmax": _softmax,
    "linear": _with_tensors("linear"),
    "batch_norm": _with_tensors("batch_norm", "eps"),
    "layer_norm": _with_tensors("layer_norm", "eps"),
    "add": _scale("offset"),
    "sub": _sub,
    "mul": _scale("factor"),
    "div": _div,
    "neg": _neg,
}
"""The operators that are blocks, by their names in ``torch.ops.aten``."""
