"""Passes over the graph. Each says what it does, and checks afterwards that it holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .affine import Affine, composed
from .blocks import TABLE
from .graph import Graph, Node, Tensor, rewired

Pass = Callable[[Graph], Graph]


def fold(graph: Graph, *, affine: bool = False) -> Graph:
    """The graph as it is exported: inactive blocks away, BatchNorm in its Linear, and affine neighbours if asked."""
    # fold_affine includes BatchNorm: folding that first would round twice.
    passes: list[Pass] = [remove_unread, remove_inactive, fold_affine if affine else fold_batch_norm]
    for change in passes:
        graph = change(graph)
    return graph


def remove_unread(graph: Graph) -> Graph:
    """Blocks whose value reaches no output go; afterwards every block is read."""
    needed = set(graph.outputs.values())
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
    kept = [node for node in graph.nodes if node.output in needed]
    unread = [node for node in graph.nodes if node.output not in needed]
    return graph.with_nodes(kept, [f"{node.op} '{node.path}' left out: no output depends on it" for node in unread])


def remove_inactive(graph: Graph) -> Graph:
    """Dropout, Identity and a Flatten of flat rows go; afterwards no block gives its own input back."""
    names: dict[str, str] = {}
    kept: list[Node] = []
    shapes = graph.shapes
    for node in graph.nodes:
        node = rewired(node, names)
        if _is_inactive(node, shapes):
            names[node.output] = node.inputs[0]
        else:
            kept.append(node)
    after = graph.with_nodes(kept, []).renamed(names)
    assert not any(_is_inactive(node, shapes) for node in after.nodes)
    return after


def fold_batch_norm(graph: Graph) -> Graph:
    """A BatchNorm that follows a Linear, and alone reads it, goes into it."""
    return _merge(graph, lambda first, second: first.op == "linear" and second.op == "batch_norm")


def fold_affine(graph: Graph) -> Graph:
    """Affine blocks in a row become one; afterwards no affine block alone reads another, unless float32 overflows."""
    return _merge(graph, lambda first, second: True)


def _is_inactive(node: Node, shapes: dict[str, tuple[int, ...]]) -> bool:
    return TABLE[node.op].inactive or (node.op == "flatten" and len(shapes[node.inputs[0]]) == 1)


def _merge(graph: Graph, wanted: Callable[[Node, Node], bool]) -> Graph:
    """Groups of neighbouring affine blocks, each composed in float64 and rounded once."""
    groups: list[list[Node]] = []
    for node in graph.nodes:
        home = next((g for g in groups if _joins(graph, g, node, wanted)), None)
        if home is None:
            groups.append([node])
        else:
            home.append(node)
    kept, notes = [], []
    for group in groups:
        merged = _one(group) if len(group) > 1 else None
        if merged is None:
            kept += group
        else:
            kept.append(merged)
            notes.append(_note(group, merged))
    return graph.with_nodes(kept, notes)


def _joins(graph: Graph, group: list[Node], node: Node, wanted: Callable[[Node, Node], bool]) -> bool:
    last = group[-1]
    both = TABLE[last.op].affine is not None and TABLE[node.op].affine is not None
    return both and node.inputs == (last.output,) and graph.consumers(last.output) == 1 and wanted(group[0], node)


def _one(group: list[Node]) -> Node | None:
    """The group as one Linear, or as one Scale where no member mixes features; None where float32 overflows."""
    affine = composed([_affine(node) for node in group])
    home = next((node for node in reversed(group) if node.op == "linear"), group[-1])
    roles = ("weight", "bias") if affine.is_matrix else ("factor", "offset")
    tensors = {}
    with np.errstate(over="ignore"):
        for role, value in zip(roles, (affine.factor, affine.shift), strict=True):
            if value is not None:
                tensors[role] = Tensor(f"{home.path}.{role}", value.astype(np.float32))
    if not all(np.isfinite(tensor.values).all() for tensor in tensors.values()):
        return None
    op = "linear" if affine.is_matrix else "scale"
    last = group[-1]
    return Node(op, home.path, group[0].inputs, last.output, last.shape, tensors=tensors)


def _affine(node: Node) -> Affine:
    read = TABLE[node.op].affine
    assert read is not None
    return read(node)


def _note(group: list[Node], merged: Node) -> str:
    members = ", ".join(f"{node.op} '{node.path}'" for node in group)
    before = sum(TABLE[node.op].multiply_adds(node) for node in group)
    after = TABLE[merged.op].multiply_adds(merged)
    return f"{members} folded into {merged.op} '{merged.path}': {before:,} multiply-adds became {after:,}"
