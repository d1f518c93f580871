"""The models that a proof runs: the file itself, the file with every layer's value as an output, and single layers.

What runs them is an ``Opener``, so that a runtime with a fault that no file can hold can be put in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.graph import Shape
from export.lowering import BATCH
from runtime import Session

from .reading import WHOLE_LIMIT, Model
from .structure import Layer


class Running(Protocol):
    """An opened model: float32 rows to every output by its name."""

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


Opener = Callable[[Path | bytes], Running]


def on_device(device: str) -> Opener:
    """ONNX Runtime on a device, as users run it."""
    return lambda source: Session(source, device)


@contextmanager
def opened(source: Path | ModelProto, opener: Opener) -> Iterator[Running]:
    """A running model; one that is too large for a message goes through a temporary file."""
    if isinstance(source, Path):
        running = opener(source)
    elif source.ByteSize() < WHOLE_LIMIT:
        running = opener(source.SerializeToString())
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            copied = ModelProto()
            copied.CopyFrom(source)
            onnx.save_model(copied, str(path), save_as_external_data=True)
            running = opener(path)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def with_layers(model: Model, layers: Sequence[Layer], opener: Opener) -> Iterator[Running]:
    """The file with the value of every layer as an output besides its own."""
    outputs = model.proto.graph.output
    own = len(outputs)
    present = {value.name for value in outputs}
    added = [layer for layer in layers if layer.output not in present]
    outputs.extend(_port(layer.output, layer.held.shape) for layer in added)
    try:
        with opened(model.proto, opener) as running:
            yield running
    finally:
        del outputs[own:]


def alone(model: Model, layer: Layer, row: Shape, replaced: Mapping[str, np.ndarray] | None = None) -> ModelProto:
    """A model of one layer's operators on an input (batch, *row), with the file's constants or some in their place."""
    given = replaced or {}
    used = {name for node in layer.nodes for name in node.input}
    graph = onnx.GraphProto(name="layer", node=layer.nodes)
    graph.input.append(_port(layer.inputs[0], row))
    graph.output.append(_port(layer.output, layer.held.shape))
    for tensor in model.proto.graph.initializer:
        if tensor.name in used and tensor.name not in given:
            graph.initializer.append(tensor)
    for node in model.proto.graph.node:
        if node.op_type == "Constant" and node.output[0] in used and node.output[0] not in given:
            graph.initializer.append(numpy_helper.from_array(model.constants[node.output[0]], node.output[0]))
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in given.items())
    return ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import, graph=graph)


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of an operator."""
    return next((a.i for a in node.attribute if a.name == name), default)


def _port(name: str, row: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, *row])
