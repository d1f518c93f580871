"""Folding: a BatchNorm becomes part of the Linear before it, and on request any affine operators in a row become one.

Affine maps are composed in float64 in a fixed order and rounded once. Every sum runs element by element over the inner
dimension in ascending order, with separately rounded products: the result has the same bits on any machine, unlike a
BLAS product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from .graph import Graph, Node, Tensor
from .operators import OPERATORS

_FOLDABLE = ("linear", "batch_norm", "add", "sub", "mul", "div", "neg")


def fold(graph: Graph, *, affine: bool = False) -> Graph:
    """The graph as it is exported: a BatchNorm that is the only reader of a Linear is folded into it.

    With ``affine`` all affine nodes in a row become one, BatchNorms included, since folding those first would round
    twice; only where float32 would overflow some remain. The nodes of one building block alone, such as a Standardize,
    stay as they are.
    """
    groups: list[list[Node]] = []
    for node in graph.nodes:
        group = next((group for group in groups if _joins(graph, group, node, affine)), None)
        if group is None:
            groups.append([node])
        else:
            group.append(node)
    nodes: list[Node] = []
    notes: list[str] = []
    for group in groups:
        merged = _merged(group) if len({node.home for node in group}) > 1 else None
        nodes += group if merged is None else [merged]
        notes += [] if merged is None else [_note(group, merged)]
    return graph.with_nodes(nodes, notes)


def _joins(graph: Graph, group: list[Node], node: Node, affine: bool) -> bool:
    """Whether a node is folded into the group before it."""
    last = group[-1]
    requested = affine or (group[0].op == "linear" and node.op == "batch_norm")
    only_reader = node.inputs == (last.output,) and graph.consumers(last.output) == 1
    return requested and only_reader and is_foldable(last) and is_foldable(node)


def is_foldable(node: Node) -> bool:
    """Whether a node is an affine map of rows (batch, features) with constants, each a number or one per feature."""
    if node.op not in _FOLDABLE or len(node.shape) != 2 or len(node.inputs) != 1 or node.dtype != "float32":
        return False
    if node.op == "div" and _role(node) == "self":
        return False
    n = node.shape[-1]
    if not isinstance(n, int):  # a transposed batch
        return False
    sizes = [t.values.shape for t in node.tensors.values()] if node.op in ("add", "sub", "mul", "div") else []
    return all(size in ((), (1,), (n,), (1, 1), (1, n)) for size in sizes)


def _merged(group: list[Node]) -> Node | None:
    """The group as one linear, or as a factor and an offset where no member mixes features; None: float32 overflows."""
    affine, home = _composed(group), _named_after(group)
    roles = ("weight", "bias") if affine.is_matrix else ("factor", "offset")
    tensors: dict[str, Tensor] = {}
    with np.errstate(over="ignore"):
        for role, value in zip(roles, (affine.factor, affine.shift), strict=True):
            if value is not None:
                tensors[role] = Tensor(f"{home.home}.{role}", value.astype(np.float32))
    if not all(np.isfinite(tensor.values).all() for tensor in tensors.values()):
        return None
    return as_one(group, tensors)


def _named_after(group: Sequence[Node]) -> Node:
    """The member that a merged node is named after: the last linear, else the last."""
    return next((node for node in reversed(group) if node.op == "linear"), group[-1])


def as_one(group: Sequence[Node], tensors: dict[str, Tensor]) -> Node:
    """The node that stands for a group: a linear (weight, bias), or offset + factor·x (mul without an offset)."""
    named_after, last = _named_after(group), group[-1]
    if "weight" in tensors:
        op, constants = "linear", tensors
    elif "offset" in tensors:
        op, constants = "addcmul", {"self": tensors["offset"], "tensor2": tensors["factor"]}
    else:
        op, constants = "mul", {"other": tensors["factor"]}
    overload = "Tensor" if op == "mul" else "default"
    block = "linear" if op == "linear" else "scale"
    home = named_after.home
    return Node(op, home, group[0].inputs, last.output, last.shape, {}, constants, overload, home=home, block=block)


def blocks(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes by the building block that they belong to, in order."""
    return [list(group) for _, group in groupby(nodes, key=lambda node: node.home)]


def block_name(group: Sequence[Node]) -> str:
    """The block's name in a spec, else the name of its first operator in ATen."""
    return group[0].block or group[0].op.strip("_")


def multiply_adds(nodes: Sequence[Node]) -> int:
    """The multiply-adds of nodes for one row."""
    return sum(OPERATORS[node.op].multiply_adds(node) for node in nodes)


def _note(group: list[Node], merged: Node) -> str:
    members = ", ".join(f"{block_name(part)} '{part[0].home}'" for part in blocks(group))
    before, after = multiply_adds(group), multiply_adds([merged])
    return f"{members} folded into {block_name([merged])} '{merged.path}': {before:,} multiply-adds became {after:,}"


@dataclass(frozen=True)
class _Affine:
    """x ↦ factor·x + shift per feature, or factor (out, in) @ x + shift for a matrix; None for no shift."""

    factor: np.ndarray
    shift: np.ndarray | None

    @property
    def is_matrix(self) -> bool:
        return self.factor.ndim == 2

    def scaled(self, constant: np.ndarray, operation: np.ufunc = np.multiply) -> _Affine:
        """The result multiplied, or divided, by a constant per feature."""
        rows = constant[:, None] if self.is_matrix else constant
        return _Affine(operation(self.factor, rows), None if self.shift is None else operation(self.shift, constant))

    def shifted(self, shift: np.ndarray | None) -> _Affine:
        if shift is None or self.shift is None:
            return _Affine(self.factor, self.shift if shift is None else shift)
        return _Affine(self.factor, self.shift + shift)

    def times(self, matrix: np.ndarray) -> _Affine:
        """The result multiplied by a matrix (out, in) from the left."""
        factor = _product(matrix, self.factor) if self.is_matrix else matrix * self.factor
        return _Affine(factor, None if self.shift is None else _product(matrix, self.shift[:, None])[:, 0])


def _composed(nodes: Sequence[Node]) -> _Affine:
    """The nodes composed in order, in float64."""
    first = nodes[0]
    affine = _Affine(np.ones(first.tensors["weight"].values.shape[1] if first.op == "linear" else _size(first)), None)
    for node in nodes:
        affine = _after(affine, node)
    return affine


def _after(x: _Affine, node: Node) -> _Affine:
    """The map followed by a node."""
    if node.op == "linear":
        bias = node.tensors["bias"].values.astype(np.float64) if "bias" in node.tensors else None
        return x.times(node.tensors["weight"].values.astype(np.float64)).shifted(bias)
    if node.op == "batch_norm":
        constants = {role: tensor.values for role, tensor in node.tensors.items()}
        return _normalised(x, constants, node.attributes["eps"] or 0.0)
    minus = -np.ones(_size(node))
    if node.op == "neg":
        return x.scaled(minus)
    role = _role(node)
    constant = _per_feature(node, role)
    if node.op == "add":
        return x.shifted(constant)
    if node.op == "sub":
        return x.shifted(-constant) if role == "other" else x.scaled(minus).shifted(constant)
    return x.scaled(constant, np.multiply if node.op == "mul" else np.divide)


def _normalised(x: _Affine, constants: Mapping[str, np.ndarray], eps: float) -> _Affine:
    """The map followed by (x - mean) / sqrt(var + eps)·weight + bias, as one factor and one shift."""
    value = {role: values.astype(np.float64) for role, values in constants.items()}
    factor = value.get("weight", np.float64(1)) / np.sqrt(value["running_var"] + np.float64(eps))
    return x.scaled(factor).shifted(value.get("bias", np.float64(0)) - value["running_mean"] * factor)


def with_norms(
    linear: Mapping[str, np.ndarray], norms: Sequence[tuple[Mapping[str, np.ndarray], float]]
) -> dict[str, np.ndarray] | None:
    """``weight`` (out, in) and ``bias`` of a Linear with the BatchNorms after it, each with its eps, as ``fold`` has.

    None where float32 overflows.
    """
    affine = _Affine(linear["weight"].astype(np.float64), None)
    affine = affine.shifted(linear["bias"].astype(np.float64) if "bias" in linear else None)
    for constants, eps in norms:
        affine = _normalised(affine, constants, eps)
    with np.errstate(over="ignore"):
        found = {"weight": affine.factor.astype(np.float32), "bias": np.asarray(affine.shift, np.float32)}
    return found if all(np.isfinite(values).all() for values in found.values()) else None


def _role(node: Node) -> str:
    return "self" if "self" in node.tensors or "self" in node.attributes else "other"


def _size(node: Node) -> int:
    size: Any = node.shape[-1]
    return size


def _per_feature(node: Node, role: str) -> np.ndarray:
    """A constant with a value per feature, a number rounded to float32 as in a file."""
    constant: Any = node.tensors[role].values if role in node.tensors else np.float32(node.attributes[role])
    return np.broadcast_to(np.asarray(constant, np.float64).reshape(-1), (_size(node),)).copy()


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    total = np.zeros((left.shape[0], right.shape[1]))
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k, :]
    return total
