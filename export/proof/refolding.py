"""The weights of folded blocks, computed again from the module.

It is code of the verifier's own, and gives the same bits as ``export.affine``, because both follow one definition:
blocks are composed from the first to the last, in float64, every product and sum rounded on its own, the sums of a
matrix product in ascending order of the inner dimension; the result is rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from export.graph import Node, Tensor


def refolded(nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """The constants of one linear (weight, bias) or one scale (factor, offset) that does what the affine nodes do.

    A role is missing where no node adds anything.
    """
    matrix, shift = _widened(nodes[0])
    for node in nodes[1:]:
        m, s = _widened(node)
        if shift is not None:
            carried = _inner(m, shift[:, None])[:, 0] if m.ndim == 2 else m * shift
            shift = carried if s is None else carried + s
        else:
            shift = s
        if m.ndim == 2:
            matrix = _inner(m, matrix) if matrix.ndim == 2 else m * matrix
        else:
            matrix = m[:, None] * matrix if matrix.ndim == 2 else m * matrix
    names = ("weight", "bias") if matrix.ndim == 2 else ("factor", "offset")
    with np.errstate(over="ignore"):
        given = {
            name: value.astype(np.float32)
            for name, value in zip(names, (matrix, shift), strict=True)
            if value is not None
        }
    return given


def as_node(nodes: Sequence[Node], constants: dict[str, np.ndarray]) -> Node:
    """The one block with these constants, in the place of the affine nodes."""
    home = next((node for node in reversed(nodes) if node.op == "linear"), nodes[-1])
    op = "linear" if "weight" in constants else "scale"
    tensors = {role: Tensor(f"{home.path}.{role}", values) for role, values in constants.items()}
    return Node(op, home.path, nodes[0].inputs, nodes[-1].output, nodes[-1].shape, tensors=tensors)


def _widened(node: Node) -> tuple[np.ndarray, np.ndarray | None]:
    held = {role: np.asarray(tensor.values, dtype=np.float64) for role, tensor in node.tensors.items()}
    if node.op == "linear":
        return held["weight"], held.get("bias")
    for role in ("factor", "offset", "mean", "std"):
        if role in node.attributes:
            held[role] = np.full(node.shape[-1], np.float32(node.attributes[role]), dtype=np.float64)
    if node.op == "scale":
        return held.get("factor", np.ones(node.shape[-1])), held.get("offset")
    if node.op == "standardize":
        std = held.get("std", np.ones(node.shape[-1]))
        return 1.0 / std, (-held["mean"] / std if "mean" in held else None)
    deviation = np.sqrt(held["running_var"] + float(node.attributes["eps"] or 0.0))
    factor = held["weight"] / deviation if "weight" in held else 1.0 / deviation
    moved = held["running_mean"] * factor
    return factor, (held["bias"] - moved if "bias" in held else 0.0 - moved)


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    rows = np.zeros((left.shape[0], right.shape[1]))
    for index, column in enumerate(left.T):
        rows = rows + np.outer(column, right[index])
    return rows
