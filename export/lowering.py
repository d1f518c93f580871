"""From the graph to an ONNX model without its weights, and the weights apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from .emitter import Emitter
from .errors import ExportError
from .graph import ELEMENT_TYPES, Graph, Node, Shape, rewired
from .operators import OPERATORS
from .versions import USUAL, Versions

BATCH = "batch"


def lower(graph: Graph, name: str, versions: Versions = USUAL) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model whose initialisers are still empty, and their values by name.

    Raises ExportError where an output is an input, or another output, or the opset lacks an operator of a node.
    """
    _refuse_copies(graph)
    names = {value: output for output, value in graph.outputs.items()}
    counts = Counter(node.home for node in graph.nodes)
    last = {node.home: node.output for node in graph.nodes}
    inner = {n.output for n in graph.nodes if last[n.home] != n.output and n.output not in names}
    emit = Emitter(
        [*graph.outputs, *graph.shapes],
        versions.opset,
        graph=graph,
        inner=frozenset(inner),
        crowded=frozenset(home for home, count in counts.items() if count > 1),
    )
    for node in graph.nodes:
        lower_node(emit, node, names)
        names |= emit.renamed
    proto = helper.make_graph(
        emit.nodes,
        name,
        [_port(value, given.shape, given.dtype) for value, given in graph.inputs.items()],
        [_port(output, graph.shapes[value], graph.dtypes[value]) for output, value in graph.outputs.items()],
    )
    opset = helper.make_opsetid("", versions.opset)
    model = helper.make_model(proto, opset_imports=[opset], ir_version=versions.ir_version)
    return model, emit.initialisers


def lower_node(emit: Emitter, node: Node, names: dict[str, str]) -> None:
    """Emit one node, its values renamed as ``names`` says."""
    node = rewired(node, names)
    OPERATORS[node.op].lower(emit, replace(node, output=names.get(node.output, node.output)))


def _refuse_copies(graph: Graph) -> None:
    """A value has one name in a file, and a node that only copies has no place in it."""
    whose = {name: f"the input '{name}'" if len(graph.inputs) > 1 else "the input" for name in graph.inputs}
    for output, value in graph.outputs.items():
        if value in whose:
            if value not in graph.inputs:
                raise ExportError(f"the output '{output}' is {whose[value]} again. What to do: return it once")
            what = f"the output '{output}'" if len(graph.outputs) > 1 else "the output"
            message = f"nothing is left to compute: {what} is {whose[value]} itself"
            raise ExportError(f"{message}. What to do: give the model at least one block that acts in evaluation mode")
        whose[value] = f"the output '{output}'"


def _port(name: str, shape: Shape, dtype: str) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], sizes)
