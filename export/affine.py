"""Affine maps in float64, composed in a fixed order and rounded once.

Every sum runs element by element over the inner dimension in ascending order, with separately rounded products: the
result has the same bits on any machine, which a BLAS product has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from .graph import Node


@dataclass(frozen=True)
class Affine:
    """x ↦ factor·x + shift per feature, or matrix (out, in) @ x + shift. ``shift`` None means no shift at all."""

    factor: np.ndarray
    shift: np.ndarray | None

    @property
    def is_matrix(self) -> bool:
        return self.factor.ndim == 2

    def then(self, other: Affine) -> Affine:
        """First this map, then the other."""
        if self.is_matrix and other.is_matrix:
            factor = _product(other.factor, self.factor)
        elif self.is_matrix:
            factor = other.factor[:, None] * self.factor
        else:
            factor = other.factor * self.factor  # scales the columns of a matrix, or multiplies element by element
        if self.shift is None:
            return Affine(factor, other.shift)
        moved = _product(other.factor, self.shift[:, None])[:, 0] if other.is_matrix else other.factor * self.shift
        return Affine(factor, moved if other.shift is None else moved + other.shift)

    @staticmethod
    def of_batch_norm(node: Node) -> Affine:
        """(x - mean) / sqrt(var + eps)·weight + bias, as one factor and one shift."""
        value = {role: tensor.values.astype(np.float64) for role, tensor in node.tensors.items()}
        eps = np.float64(node.attributes["eps"] or 0.0)
        factor = value.get("weight", np.float64(1)) / np.sqrt(value["running_var"] + eps)
        return Affine(factor, value.get("bias", np.float64(0)) - value["running_mean"] * factor)

    @staticmethod
    def of_standardize(node: Node) -> Affine:
        """(x - mean) / std."""
        mean, std = _per_feature(node, "mean"), _per_feature(node, "std")
        factor = np.ones(node.shape[-1]) if std is None else 1 / std
        return Affine(factor, None if mean is None else -mean if std is None else -mean / std)

    @staticmethod
    def of_scale(node: Node) -> Affine:
        """x·factor + offset."""
        factor = _per_feature(node, "factor")
        return Affine(np.ones(node.shape[-1]) if factor is None else factor, _per_feature(node, "offset"))

    @staticmethod
    def of_linear(node: Node) -> Affine:
        """x·Wᵀ + b."""
        bias = node.tensors["bias"].values.astype(np.float64) if "bias" in node.tensors else None
        return Affine(node.tensors["weight"].values.astype(np.float64), bias)


def _per_feature(node: Node, role: str) -> np.ndarray | None:
    """A constant of the block with a value per feature, from its tensor or from a number, as the file will hold it."""
    if role in node.tensors:
        return node.tensors[role].values.astype(np.float64)
    number = node.attributes.get(role)
    return None if number is None else np.full(node.shape[-1], np.float32(number), np.float64)


def composed(maps: list[Affine]) -> Affine:
    """The maps one after the other, still in float64."""
    return reduce(Affine.then, maps)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    total = np.zeros((left.shape[0], right.shape[1]))
    for k in range(left.shape[1]):
        total += left[:, k, None] * right[None, k, :]
    return total
