"""ONNX files that end or hold up the process that runs them; ONNX's checker finds no fault with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def single(node: onnx.NodeProto, *constants: TensorProto, opset: int = 17) -> ModelProto:
    """A file of one operator from ``x`` [batch, 4] to ``y`` [batch, 4]."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "attack", ports[:1], ports[1:], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def crash() -> ModelProto:
    """The checker takes an empty name for the bias, and ONNX Runtime 1.31 reads address 0."""
    scale = numpy_helper.from_array(np.ones(4, np.float32), "scale")
    return single(helper.make_node("LayerNormalization", ["x", "scale", ""], ["y"]), scale)


def endless() -> ModelProto:
    """A Loop whose condition stays true: opening works, running does not end."""
    ports = [("number", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("held", TensorProto.FLOAT, ["batch", 4])]
    results = [("go_on", TensorProto.BOOL, []), ("held_on", TensorProto.FLOAT, ["batch", 4])]
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["held"], ["held_on"])]
    inputs, outputs = ([helper.make_tensor_value_info(*port) for port in each] for each in (ports, results))
    body = helper.make_graph(nodes, "body", inputs, outputs)
    true = numpy_helper.from_array(np.array(True), "true")
    return single(helper.make_node("Loop", ["", "true", "x"], ["y"], body=body), true)


def greedy() -> ModelProto:
    """A few bytes that ask for 640 GB as soon as one row comes."""
    shape = numpy_helper.from_array(np.array([40_000_000_000, 1, 4], np.int64), "shape")
    model = single(helper.make_node("Expand", ["x", "shape"], ["z"]), shape)
    model.graph.node.append(helper.make_node("ReduceMax", ["z"], ["y"], axes=[0], keepdims=0))
    return model


FOREIGN: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "crash": (crash, r"ONNX Runtime crashes \(Segmentation fault, opening it\)"),
    "greedy": (greedy, r"takes more than [0-9,]+ bytes of memory \(running it on 1 rows\)"),
}
"""Files that end the process that runs them, and what is said of them. ``endless`` takes as long as the time limit."""
