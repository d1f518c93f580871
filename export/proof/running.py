"""What a proof runs of a file: the file itself, or with every layer's value as an output, or one layer of it alone.

What runs files is an ``Opener``, so that a runtime with a fault that no file can hold can be put in its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.artifact import is_external, write
from export.graph import ELEMENT_TYPES, Rows, Shape, Size
from export.onnxfile.model import Model
from runtime import Session

from .rows import Wiring, in_batches
from .structure import Layer

_BATCH = str(Rows())
_IN_MEMORY = 2**23
"""Bytes of constants up to which a graph is opened from memory."""


class Running(Protocol):
    """An opened model: float32 rows of every input to those of every output, by name."""

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def close(self) -> None: ...


Opener = Callable[[Path | bytes], Running]


def on_device(device: str) -> Opener:
    """ONNX Runtime on a device, as users run it."""
    return lambda source: Session(source, device)


@contextmanager
def opened(
    source: Path | ModelProto, opener: Opener, constants: Mapping[str, np.ndarray] | None = None
) -> Iterator[Running]:
    """A running model, a file or a graph with ``constants`` besides its own.

    Large ones go through a temporary file, which spares the copies that a message in memory takes.
    """
    given = constants or {}
    with ExitStack() as ended:
        if isinstance(source, Path):
            running = opener(source)
        elif sum(values.nbytes for values in given.values()) < _IN_MEMORY:
            whole = ModelProto()
            whole.CopyFrom(source)
            whole.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in given.items())
            running = opener(whole.SerializeToString())
        else:
            path = Path(ended.enter_context(tempfile.TemporaryDirectory())) / "model.onnx"
            write(source, given, path, external=is_external(given, None))
            running = opener(path)
        yield ended.enter_context(closing(running))


@contextmanager
def with_layers(model: Model, layers: Sequence[Layer], opener: Opener) -> Iterator[Running]:
    """The file with the value of every layer as an output besides its own."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    present = {value.name for value in proto.graph.output}
    shown = [layer for layer in layers if layer.output not in present]
    batch = model.batch or _BATCH
    for layer in shown:  # declared, since constants that are listed as inputs keep ONNX Runtime from inferring shapes
        sizes = _sizes(layer.held.shape, batch)
        if layer.output in model.rows:  # which may be other rows than the module's
            first = batch if model.has_batch(layer.output) else f"{layer.output} rows"
            sizes = [first, *model.rows[layer.output]]
        kind = ELEMENT_TYPES[layer.held.dtype]
        proto.graph.output.append(helper.make_tensor_value_info(layer.output, kind, sizes))
    with opened(proto, opener, {name: model.constants[name] for name in model.large}) as running:
        yield running


@contextmanager
def alone(
    model: Model, layer: Layer, opener: Opener, replaced: Mapping[str, np.ndarray] | None = None
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """One layer's operators, with the file's constants or some in their place: values in the module's shape to such."""
    source = read_by(model, layer)
    shape, dtype = layer.shapes[0], layer.dtypes[0]
    if source in model.rows and shape and shape[0] == Rows():
        shape = (Rows(), *model.rows[source])
    graph = onnx.GraphProto(name="layer", node=_with_shapes_between(model, layer))
    graph.input.append(helper.make_tensor_value_info(source, ELEMENT_TYPES[dtype], _sizes(shape, _BATCH)))
    graph.output.append(helper.make_tensor_value_info(layer.output, ELEMENT_TYPES[layer.held.dtype], None))
    proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import, graph=graph)
    used = {name for node in graph.node for name in node.input}
    constants = {name: values for name, values in model.constants.items() if name in used} | dict(replaced or {})
    with opened(proto, opener, constants) as running:

        def run(values: np.ndarray, shape: Shape = shape) -> np.ndarray:
            return running.run({source: values.reshape(-1, *row_sizes(shape))})[layer.output]

        yield run


def row_sizes(shape: Shape) -> tuple[int, ...]:
    """Of a row, where the batch comes first."""
    return tuple(size for size in shape[1:] if isinstance(size, int))


def outputs(model: Model, wiring: Wiring, running: Running, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every output that the file gives for rows of all inputs, in batches where it takes no other."""
    feed = wiring.feed(rows)
    return running.run(feed) if model.batch is None else in_batches(running.run, feed, model.batch)


def _with_shapes_between(model: Model, layer: Layer) -> list[NodeProto]:
    """A layer's operators, and the changes of shape between them."""
    made = {name for node in layer.nodes for name in node.output}
    wanted = {name for node in layer.nodes for name in node.input} - made - {read_by(model, layer)}
    between = []
    for node in reversed(model.proto.graph.node):
        if node.output and node.output[0] in wanted and node.output[0] not in model.constants:
            between.append(node)
            wanted.update(set(node.input) - made - {read_by(model, layer)})
    order = {node.output[0]: index for index, node in enumerate(model.proto.graph.node)}
    return sorted([*layer.nodes, *between], key=lambda node: order[node.output[0]])


def read_by(model: Model, layer: Layer) -> str:
    """The name under which a layer's operators read its input, which may be another shape of it."""
    return next(name for node in layer.nodes for name in node.input if model.value(name) == layer.inputs[0])


def _sizes(shape: Shape, batch: int | str) -> list[int | str]:
    """A module's shape as a file declares it: sizes that grow with the batch are open, unless the file fixes it."""

    def told(size: Size) -> int | str:
        if isinstance(size, int):
            return size
        if isinstance(batch, int):
            return batch * size.times
        return batch if size.times == 1 else str(size)

    return [told(size) for size in shape]
