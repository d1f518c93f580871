"""Affine maps in float64, composed in a fixed order and rounded once.

Every sum runs element by element over the inner dimension in ascending order, with separately rounded products: the
result has the same bits on any machine, which a BLAS product has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Node

FOLDABLE = ("linear", "batch_norm", "add", "sub", "mul", "div", "neg")


@dataclass(frozen=True)
class Affine:
    """x ↦ factor·x + shift per feature, or matrix (out, in) @ x + shift. ``shift`` None means no shift at all."""

    factor: np.ndarray
    shift: np.ndarray | None

    @property
    def is_matrix(self) -> bool:
        return self.factor.ndim == 2

    def scaled(self, factor: np.ndarray) -> Affine:
        """Multiplied per feature of what comes out."""
        rows = factor[:, None] if self.is_matrix else factor
        return Affine(rows * self.factor, None if self.shift is None else factor * self.shift)

    def divided(self, divisor: np.ndarray) -> Affine:
        rows = divisor[:, None] if self.is_matrix else divisor
        return Affine(self.factor / rows, None if self.shift is None else self.shift / divisor)

    def shifted(self, shift: np.ndarray) -> Affine:
        return Affine(self.factor, shift if self.shift is None else self.shift + shift)

    def times(self, matrix: np.ndarray) -> Affine:
        """Multiplied with a matrix (out, in) from the left."""
        factor = _product(matrix, self.factor) if self.is_matrix else matrix * self.factor
        return Affine(factor, None if self.shift is None else _product(matrix, self.shift[:, None])[:, 0])


def is_foldable(node: Node) -> bool:
    """Whether a node is an affine map of rows (batch, features) with constants, each a number or one per feature."""
    if node.op not in FOLDABLE or len(node.shape) != 2 or len(node.inputs) != 1 or node.dtype != "float32":
        return False
    if node.op == "div" and _role(node) == "self":
        return False
    n = node.shape[-1]
    sizes = [t.values.shape for t in node.tensors.values()] if node.op in ("add", "sub", "mul", "div") else []
    return all(size in ((), (1,), (n,), (1, 1), (1, n)) for size in sizes)


def composed(nodes: Sequence[Node]) -> Affine:
    """The nodes one after the other, still in float64."""
    first = nodes[0]
    if first.op == "linear":
        found = Affine(first.tensors["weight"].values.astype(np.float64), _bias(first))
        nodes = nodes[1:]
    else:
        found = Affine(np.ones(_size(first)), None)
    for node in nodes:
        found = _after(found, node)
    return found


def _after(x: Affine, node: Node) -> Affine:
    if node.op == "linear":
        bias, y = _bias(node), x.times(node.tensors["weight"].values.astype(np.float64))
        return y if bias is None else y.shifted(bias)
    if node.op == "batch_norm":
        factor, shift = _normalised(node)
        return x.scaled(factor).shifted(shift)
    if node.op == "neg":
        return x.scaled(-np.ones(_size(node)))
    role = _role(node)
    constant = _per_feature(node, role)
    if node.op == "add":
        return x.shifted(constant)
    if node.op == "sub":
        return x.shifted(-constant) if role == "other" else x.scaled(-np.ones(_size(node))).shifted(constant)
    return x.scaled(constant) if node.op == "mul" else x.divided(constant)


def _normalised(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """(x - mean) / sqrt(var + eps)·weight + bias, as one factor and one shift."""
    value = {role: tensor.values.astype(np.float64) for role, tensor in node.tensors.items()}
    eps = np.float64(node.attributes["eps"] or 0.0)
    factor = value.get("weight", np.float64(1)) / np.sqrt(value["running_var"] + eps)
    return factor, value.get("bias", np.float64(0)) - value["running_mean"] * factor


def _bias(node: Node) -> np.ndarray | None:
    return node.tensors["bias"].values.astype(np.float64) if "bias" in node.tensors else None


def _role(node: Node) -> str:
    return "self" if "self" in node.tensors or "self" in node.attributes else "other"


def _size(node: Node) -> int:
    size: Any = node.shape[-1]
    return size


def _per_feature(node: Node, role: str) -> np.ndarray:
    """The constant with a value per feature, as the file would hold it."""
    held: Any = node.tensors[role].values if role in node.tensors else np.float32(node.attributes[role])
    return np.broadcast_to(np.asarray(held, np.float64).reshape(-1), (_size(node),)).copy()


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    total = np.zeros((left.shape[0], right.shape[1]))
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k, :]
    return total
