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

    Raises ExportError where nothing is computed, or the opset lacks an operator of a node.
    """
    _refuse_nothing(graph)
    names = {value: output for output, value in reversed(list(graph.outputs.items())) if value not in graph.inputs}
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
    for output, value in graph.outputs.items():  # what is returned again, or given in
        if names.get(value) != output:
            emit("Identity", [names.get(value, value)], output, f"{output}/Identity")
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


def _refuse_nothing(graph: Graph) -> None:
    if all(node.op == "reshape" for node in graph.nodes):
        what = "the output is the input itself" if len(graph.outputs) == 1 else "every output is an input itself"
        hint = "give the model at least one block that acts in evaluation mode"
        raise ExportError(f"nothing is left to compute: {what}. What to do: {hint}")


def _port(name: str, shape: Shape, dtype: str) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], sizes)
