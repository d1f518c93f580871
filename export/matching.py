"""Whether a spec is the spec of a module: it goes into the file, and readers believe it."""

from __future__ import annotations

import torch
from torch import nn

from builder import MLPSpec
from builder.block import modules_of

from .errors import ExportError
from .folding import block_name
from .graph import Graph, Node
from .trace import signature_of, trace


def refuse_another_network(graph: Graph, spec: MLPSpec) -> None:
    """Raise ExportError, naming the first difference, where the traced module is not the chain of ``spec``.

    What the spec says is traced too, without its values, and the two are held against each other.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        counts = f"with {len(graph.inputs)} and {len(graph.outputs)}"
        raise _different(spec.name, "one input and one output", counts)
    with torch.device("meta"):
        empty = nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape))
    said = _filled(empty.eval(), graph)
    wanted = trace(said, signature_of(said, input_shape=spec.input.row_shape, input_dtype="float32"))
    places = dict(zip(wanted.inputs, graph.inputs, strict=True))
    for one, other in zip(wanted.nodes, graph.nodes, strict=False):
        found = f"{block_name([other])} '{other.home}'"
        inputs = tuple(places.get(name) for name in one.inputs)
        if one.op != other.op or one.shape != other.shape or inputs != other.inputs:
            rows = f"{block_name([one])} to rows of shape {list(one.row)}"
            raise _different(spec.name, rows, f"{found} to rows of shape {list(other.row)}")
        _compare_options(spec.name, one, other, found)
        places[one.output] = other.output
    for graphs, words in (((wanted, graph), "its end"), ((graph, wanted), "")):
        longer, shorter = graphs
        if len(longer.nodes) > len(shorter.nodes):
            node = longer.nodes[len(shorter.nodes)]
            name = block_name([node])
            if words:
                raise _different(spec.name, name, f"at {words}")
            raise _different(spec.name, "nothing more", f"{name} '{node.home}'")
    if [places[value] for value in wanted.outputs.values()] != list(graph.outputs.values()):
        raise _different(spec.name, "the last block's output", f"'{next(iter(graph.outputs.values()))}'")


def _compare_options(name: str, one: Node, other: Node, found: str) -> None:
    for option, wanted in one.attributes.items():
        held = other.attributes.get(option, wanted)
        if held != wanted and option not in ("training", "momentum"):
            raise _different(name, f"{block_name([one])} with {option} {wanted}", f"{found} with {held}")
    for role in ("weight", "bias"):
        if (role in one.tensors) != (role in other.tensors):
            given = f"{block_name([one])} with {role} {role in one.tensors}"
            raise _different(name, given, f"{found} with {role in other.tensors}")


def _filled(module: nn.Module, graph: Graph) -> nn.Module:
    """A module without values, given some, for what it computes is not looked at: ones, and for a matrix, which may be
    large, one of the traced module's of that shape.
    """
    held = {
        t.values.shape: t.values
        for node in graph.nodes
        for t in node.tensors.values()
        if t.values.ndim == 2 and t.values.dtype == "float32"
    }
    values = {
        name: torch.from_numpy(held[shape])
        if (shape := tuple(tensor.shape)) in held
        else torch.ones_like(tensor, device="cpu")
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(values, assign=True)
    return module


def _different(name: str, wanted: str, found: str) -> ExportError:
    return ExportError(f"the spec '{name}' is not of this module: it says {wanted}, where the module is {found}")
