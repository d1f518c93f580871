"""The weights of folded nodes, computed again from the module.

This is the verifier's own code. It gives the same bits as ``export.folding``, because both follow one definition: maps
are composed from the first to the last, in float64, every product and sum rounded on its own, the sums of a matrix
product in ascending order of the inner dimension; the result is rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.graph import Node


def refolded(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """The constants of the one node that affine nodes fold into: weight and bias, or factor and offset.

    Without any addend there is no bias or offset.
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
    """An affine node's factor (a matrix, or a number per feature) and its addend, in float64."""
    tensors = {role: np.asarray(tensor.values, dtype=np.float64) for role, tensor in node.tensors.items()}
    if node.op == "linear":
        return tensors["weight"], tensors.get("bias")
    if node.op == "batch_norm":
        deviation = np.sqrt(tensors["running_var"] + float(node.attributes["eps"] or 0.0))
        factor = tensors["weight"] / deviation if "weight" in tensors else 1.0 / deviation
        moved = tensors["running_mean"] * factor
        return factor, (tensors["bias"] - moved if "bias" in tensors else 0.0 - moved)
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
    """The constant operand with a value per feature, rounded to float32."""
    constants = [tensor.values for tensor in node.tensors.values()]
    constants += [np.float32(node.attributes[role]) for role in ("self", "other") if role in node.attributes]
    return np.array(np.broadcast_to(np.ravel(constants[0]), (_features(node),)), dtype=np.float64)


def _features(node: Node) -> int:
    size = node.shape[-1]
    assert isinstance(size, int)
    return size


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The matrix product, summed in ascending order of the inner dimension."""
    rows = np.zeros((left.shape[0], right.shape[1]))
    for index, column in enumerate(left.T):
        rows = rows + np.outer(column, right[index])
    return rows
