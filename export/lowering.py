"""From the graph of blocks to an ONNX model without its weights, and the weights apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from .blocks import TABLE
from .emitter import Emitter
from .errors import ExportError
from .graph import Graph, rewired
from .versions import USUAL, Versions

BATCH = "batch"


def lower(
    graph: Graph, name: str, output_name: str, versions: Versions = USUAL
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model whose initialisers are still empty, and their values by name.

    Raises ExportError where nothing is left to compute, or where the opset lacks an operator that a block needs.
    """
    if not graph.nodes or graph.output == graph.input:
        message = "nothing is left to compute: the output is the input itself"
        raise ExportError(f"{message}. What to do: give the model at least one block that acts in evaluation mode")
    emit = Emitter([graph.input, output_name, *graph.shapes], versions.opset)
    names = {graph.output: output_name}
    for node in graph.nodes:
        node = rewired(node, names)
        TABLE[node.op].lower(emit, replace(node, output=names.get(node.output, node.output)))
    proto = helper.make_graph(
        emit.nodes,
        name,
        [_port(graph.input, graph.input_shape)],
        [_port(output_name, graph.shapes[graph.output])],
    )
    opset = helper.make_opsetid("", versions.opset)
    model = helper.make_model(proto, opset_imports=[opset], ir_version=versions.ir_version)
    return model, emit.initialisers


def _port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
