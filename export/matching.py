"""Whether a spec is the spec of a module: it goes into the file, and readers believe it."""

from __future__ import annotations

from collections.abc import Iterator

from builder import Block, MLPSpec
from builder.blocks import Residual

from .blocks import TABLE
from .errors import ExportError
from .graph import Graph, Node, Shape

_OPTIONS = {"min": "min_val", "max": "max_val"}


def refuse_another_network(graph: Graph, spec: MLPSpec) -> None:
    """Raise ExportError, naming the first difference, where the traced module is not the chain of ``spec``."""
    aliases: dict[str, str] = {}
    for node in graph.nodes:
        if TABLE[node.op].inactive:
            aliases[node.output] = aliases.get(node.inputs[0], node.inputs[0])
    remaining = iter(graph.nodes)
    (source, *others), (output, *more) = graph.inputs, graph.outputs.values()
    if others or more:
        raise _different(spec.name, "one input and one output", f"with {len(others) + 1} and {len(more) + 1}")
    last, _ = _follow(list(spec.blocks), source, spec.input.row_shape, remaining, aliases, spec.name)
    surplus = next(remaining, None)
    if surplus is not None:
        raise _different(spec.name, "nothing more", f"{surplus.op} '{surplus.path}'")
    if last != aliases.get(output, output):
        raise _different(spec.name, "the last block's output", f"'{output}'")


def _follow(
    blocks: list[Block], value: str, shape: Shape, nodes: Iterator[Node], aliases: dict[str, str], name: str
) -> tuple[str, Shape]:
    for block in blocks:
        inputs = {value}
        if isinstance(block, Residual):
            inner, _ = _follow(block.blocks, value, shape, nodes, aliases, name)
            inputs = {value, inner}
        node, kind = next(nodes, None), "add" if isinstance(block, Residual) else block.kind
        shape = block.output_shape(shape)
        if node is None:
            raise _different(name, kind, "at its end")
        found = f"{node.op} '{node.path}' to rows of shape {list(node.shape)}"
        if node.op != kind or node.shape != shape or {aliases.get(v, v) for v in node.inputs} != inputs:
            raise _different(name, f"{kind} to rows of shape {list(shape)}", found)
        for option, wanted in block:
            held = node.attributes.get(_OPTIONS.get(option, option), wanted)
            if option == "bias" and isinstance(wanted, bool) and node.tensors:
                held = "bias" in node.tensors
            if held != wanted:
                raise _different(name, f"{kind} with {option} {wanted}", f"{node.op} '{node.path}' with {held}")
        value = aliases.get(node.output, node.output)
    return value, shape


def _different(name: str, wanted: str, found: str) -> ExportError:
    return ExportError(f"the spec '{name}' is not of this module: it says {wanted}, where the module is {found}")
