"""What a user may want to know about a network that is otherwise right."""

from __future__ import annotations

from .blocks import TABLE
from .folding import remove_unread
from .graph import Graph


def remarks(traced: Graph, folded: Graph) -> tuple[str, ...]:
    """Remarks on a graph as traced and as exported."""
    found = []
    producers = {node.output: node for node in folded.nodes}
    for node in folded.nodes:
        before = producers.get(node.inputs[0])
        if before is not None and {before.op, node.op} == {"linear"} and folded.consumers(before.output) == 1:
            message = f"linear '{before.path}' and linear '{node.path}' stand in a row without an activation between"
            found.append(f"{message}: together they are one affine map (--fold-affine makes them one)")
    kept = {node.output for node in folded.nodes}
    unread = {node.output for node in traced.nodes} - {node.output for node in remove_unread(traced).nodes}
    for node in traced.nodes:
        if node.output not in kept | unread and TABLE[node.op].affine is None:
            found.append(f"{node.op} '{node.path}' is not in the file: in evaluation mode it does nothing")
    active = {node.op for node in folded.nodes if TABLE[node.op].affine is None} - {"flatten", "add"}
    if not active:
        found.append("no activation at all: the whole network is one affine map")
    return tuple(found)
