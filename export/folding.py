"""Passes over the graph. Each says what it does, and checks afterwards that it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from .affine import composed, is_foldable
from .graph import Graph, Node, Tensor
from .operators import OPERATORS

Pass = Callable[[Graph], Graph]


def fold(graph: Graph, *, affine: bool = False) -> Graph:
    """The graph as it is exported: BatchNorm in its Linear, and affine neighbours composed if asked."""
    # fold_affine includes BatchNorm: folding that first would round twice.
    return fold_affine(graph) if affine else fold_batch_norm(graph)


def fold_batch_norm(graph: Graph) -> Graph:
    """A BatchNorm that follows a Linear, and alone reads it, goes into it."""
    return _merge(graph, lambda first, second: first.op == "linear" and second.op == "batch_norm")


def fold_affine(graph: Graph) -> Graph:
    """Affine nodes in a row become one; afterwards no affine node alone reads another, unless float32 overflows.

    What belongs to one building block alone, such as a Standardize, stays as it is.
    """
    return _merge(graph, lambda first, second: True)


def _merge(graph: Graph, wanted: Callable[[Node, Node], bool]) -> Graph:
    """Groups of neighbouring affine nodes, each composed in float64 and rounded once."""
    groups: list[list[Node]] = []
    for node in graph.nodes:
        home = next((g for g in groups if _joins(graph, g, node, wanted)), None)
        if home is None:
            groups.append([node])
        else:
            home.append(node)
    kept, notes = [], []
    for group in groups:
        merged = _one(group) if len({node.home for node in group}) > 1 else None
        if merged is None:
            kept += group
        else:
            kept.append(merged)
            notes.append(_note(group, merged))
    return graph.with_nodes(kept, notes)


def _joins(graph: Graph, group: list[Node], node: Node, wanted: Callable[[Node, Node], bool]) -> bool:
    last = group[-1]
    both = is_foldable(last) and is_foldable(node)
    return both and node.inputs == (last.output,) and graph.consumers(last.output) == 1 and wanted(group[0], node)


def _one(group: list[Node]) -> Node | None:
    """The group as one linear, or as one factor and offset where no member mixes features; None where float32
    overflows.
    """
    affine = composed(group)
    home = home_of(group)
    roles = ("weight", "bias") if affine.is_matrix else ("factor", "offset")
    tensors = {}
    with np.errstate(over="ignore"):
        for role, value in zip(roles, (affine.factor, affine.shift), strict=True):
            if value is not None:
                tensors[role] = Tensor(f"{home.home}.{role}", value.astype(np.float32))
    if not all(np.isfinite(tensor.values).all() for tensor in tensors.values()):
        return None
    return as_one(group, tensors)


def home_of(group: Sequence[Node]) -> Node:
    """The member that a merged node is named after: the last linear, else the last."""
    return next((node for node in reversed(group) if node.op == "linear"), group[-1])


def as_one(group: Sequence[Node], tensors: dict[str, Tensor]) -> Node:
    """The node that stands for a group: a linear (weight, bias), or offset + factor·x (mul without an offset)."""
    home, last = home_of(group), group[-1]
    if "weight" in tensors:
        op, held = "linear", tensors
    elif "offset" in tensors:
        op, held = "addcmul", {"self": tensors["offset"], "tensor2": tensors["factor"]}
    else:
        op, held = "mul", {"other": tensors["factor"]}
    overload = "Tensor" if op == "mul" else "default"
    block = "linear" if op == "linear" else "scale"
    return Node(
        op, home.home, group[0].inputs, last.output, last.shape, {}, held, overload, home=home.home, block=block
    )


def blocks(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes by the building block that they belong to, in order."""
    return [list(group) for _, group in groupby(nodes, key=lambda node: node.home)]


def block_name(group: Sequence[Node]) -> str:
    """What a user calls it: the block's name in a spec, else its operator's in ATen."""
    return group[0].block or group[0].op.strip("_")


def multiply_adds(nodes: Sequence[Node]) -> int:
    """Of a row, for all of them."""
    return sum(OPERATORS[node.op].multiply_adds(node) for node in nodes)


def _note(group: list[Node], merged: Node) -> str:
    members = ", ".join(f"{block_name(part)} '{part[0].home}'" for part in blocks(group))
    before, after = multiply_adds(group), multiply_adds([merged])
    return f"{members} folded into {block_name([merged])} '{merged.path}': {before:,} multiply-adds became {after:,}"
