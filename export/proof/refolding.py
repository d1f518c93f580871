"""The weights of folded blocks, computed again from the module.

It is code of the verifier's own, and gives the same bits as ``export.folding``, because both follow one definition:
blocks are composed from the first to the last, in float64, every product and sum rounded on its own, the sums of a
matrix product in ascending order of the inner dimension; the result is rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.graph import Node


def refolded(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """The constants of one linear (weight, bias), or a factor and an offset, that do what the affine nodes do.

    A role is missing where no node adds anything.
    """
    matrix: np.ndarray = np.ones(1)
    shift: np.ndarray | None = None
    for node in nodes:
        if node.op == "div":
            divisor = _constant(node)
            matrix = matrix / (divisor[:, None] if matrix.ndim == 2 else divisor)
            shift = None if shift is None else shift / divisor
            continue
        m, s = _widened(node)
        if shift is not None:
            carried = _inner(m, shift[:, None])[:, 0] if m.ndim == 2 else m * shift
            s = carried if s is None else carried + s
        shift = s
        if m.ndim == 2:
            matrix = _inner(m, matrix) if matrix.ndim == 2 else m * matrix
        else:
            matrix = (m[:, None] if matrix.ndim == 2 else m) * matrix
    named = zip(("weight", "bias") if matrix.ndim == 2 else ("factor", "offset"), (matrix, shift), strict=True)
    with np.errstate(over="ignore"):
        return {name: value.astype(np.float32) for name, value in named if value is not None}


def _widened(node: Node) -> tuple[np.ndarray, np.ndarray | None]:
    """An affine node's factor (a matrix, or one number per feature) and what it adds."""
    held = {role: np.asarray(tensor.values, dtype=np.float64) for role, tensor in node.tensors.items()}
    if node.op == "linear":
        return held["weight"], held.get("bias")
    if node.op == "batch_norm":
        deviation = np.sqrt(held["running_var"] + float(node.attributes["eps"] or 0.0))
        factor = held["weight"] / deviation if "weight" in held else 1.0 / deviation
        moved = held["running_mean"] * factor
        return factor, (held["bias"] - moved if "bias" in held else 0.0 - moved)
    ones = np.ones(_features(node))
    if node.op == "neg":
        return -ones, None
    constant = _constant(node)
    if node.op == "mul":
        return constant, None
    if node.op == "add":
        return ones, constant
    subtracted = "other" in node.tensors or "other" in node.attributes
    return (ones, -constant) if subtracted else (-ones, constant)


def _constant(node: Node) -> np.ndarray:
    """The constant operand with a value per feature, as float32 holds it."""
    held = [tensor.values for tensor in node.tensors.values()]
    held += [np.float32(node.attributes[role]) for role in ("self", "other") if role in node.attributes]
    return np.array(np.broadcast_to(np.ravel(held[0]), (_features(node),)), dtype=np.float64)


def _features(node: Node) -> int:
    size = node.shape[-1]
    assert isinstance(size, int)
    return size


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows = np.zeros((left.shape[0], right.shape[1]))
    for index, column in enumerate(left.T):
        rows = rows + np.outer(column, right[index])
    return rows
