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


def lower(graph: Graph, name: str, versions: Versions = USUAL) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model whose initialisers are still empty, and their values by name.

    Raises ExportError where an output is an input, or another output, or the opset lacks an operator of a block.
    """
    _refuse_copies(graph)
    emit = Emitter([*graph.outputs, *graph.shapes], versions.opset)
    names = {value: output for output, value in graph.outputs.items()}
    for node in graph.nodes:
        node = rewired(node, names)
        TABLE[node.op].lower(emit, replace(node, output=names.get(node.output, node.output)))
    proto = helper.make_graph(
        emit.nodes,
        name,
        [_port(value, shape) for value, shape in graph.inputs.items()],
        [_port(output, graph.shapes[value]) for output, value in graph.outputs.items()],
    )
    opset = helper.make_opsetid("", versions.opset)
    model = helper.make_model(proto, opset_imports=[opset], ir_version=versions.ir_version)
    return model, emit.initialisers


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


def _port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
