"""What a user may want to know about a network that is otherwise right."""

from __future__ import annotations

from .affine import is_foldable
from .graph import Graph

_MOVED = ("reshape", "permute", "select", "slice", "expand", "cat", "index_select", "_to_copy")


def remarks(traced: Graph, folded: Graph) -> tuple[str, ...]:
    """Remarks on a graph as traced and as exported."""
    found = []
    producers = {node.output: node for node in folded.nodes}
    for node in folded.nodes:
        before = producers.get(node.inputs[0]) if node.inputs else None
        if before is not None and {before.op, node.op} == {"linear"} and folded.consumers(before.output) == 1:
            message = f"linear '{before.path}' and linear '{node.path}' stand in a row without an activation between"
            found.append(f"{message}: together they are one affine map (--fold-affine makes them one)")
    found += [f"{words} is not in the file: in evaluation mode it does nothing" for words in traced.inactive]
    if traced.rows_depend:
        found.append("a row's result depends on the rows beside it: batches are never cut or joined")
    sums = {node.output for node in folded.nodes if node.op in ("add", "sub") and len(node.inputs) == 2}
    if all(is_foldable(node) or node.op in _MOVED or node.output in sums for node in folded.nodes):
        found.append("no activation at all: the whole network is one affine map")
    return tuple(found)
