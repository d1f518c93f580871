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

OPSET = 17
"""The lowest opset that holds every block."""
IR_VERSION = 8
"""Read by every inference server since 2022."""
BATCH = "batch"


def lower(graph: Graph, name: str, output_name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model whose initialisers are still empty, and their values by name.

    Raises ExportError where nothing is left to compute.
    """
    if not graph.nodes or graph.output == graph.input:
        message = "nothing is left to compute: the output is the input itself"
        raise ExportError(f"{message}. What to do: give the model at least one block that acts in evaluation mode")
    emit = Emitter([graph.input, output_name, *graph.shapes])
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
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model, emit.initialisers


def _port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
