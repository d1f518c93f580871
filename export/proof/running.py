"""How a proof runs a file: as it is, with the values of layers as more outputs, or one layer of it alone.

An ``Opener`` opens files, so that tests can use a runtime with a fault that no file can hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.artifact import is_external, write
from export.graph import ELEMENT_TYPES, Rows, Shape
from export.onnxfile.model import Model, add_outputs
from runtime import ModelError, Session

from .report import counted
from .rows import Wiring, in_batches, in_shape
from .structure import Layer

_BATCH = str(Rows())
_IN_MEMORY = 2**23
"""Bytes of constants up to which a graph is opened from memory."""


class Running(Protocol):
    """An opened model: rows of every input to those of every output, by name."""

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for one batch, by name. Raises ModelError: the file does not run on it."""
        ...

    def close(self) -> None:
        """Free what the model holds."""
        ...


Opener = Callable[[Path | bytes], Running]
Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""Rows of all inputs to the file's values by name."""


def on_device(device: str) -> Opener:
    """ONNX Runtime on a device, as users run it."""
    return lambda source: Session(source, device)


@dataclass(frozen=True)
class FileRunner:
    """Runs one file, and parts of it."""

    model: Model
    wiring: Wiring
    opener: Opener

    def open(self) -> AbstractContextManager[Run]:
        """The file as it is. Raises ModelError: it is not what was read any more."""
        return self._open(self.model.path)

    def computed_constants(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """The constants that operators of the file compute and others read, as the runtime computes them.

        The file runs on one ``row`` (1, ...) for that. Constants of other types fit no operator of a module.
        """
        known, made = self.model.constants, {name for node in self.model.proto.graph.node for name in node.output}
        others = [node for node in self.model.proto.graph.node if not set(node.output) <= known.keys()]
        read = {name for node in others for name in node.input if name in made and name in known}
        names = sorted(name for name in read if known[name].dtype.name in ELEMENT_TYPES)
        if not names:
            return {}
        proto = ModelProto()
        proto.CopyFrom(self.model.proto)
        kinds = {name: ELEMENT_TYPES[known[name].dtype.name] for name in names}
        add_outputs(proto, [helper.make_tensor_value_info(n, kind, known[n].shape) for n, kind in kinds.items()])
        feed = self.wiring.feed(np.repeat(row, self.model.batch or 1, axis=0))
        with _opened(proto, self.opener, {name: known[name] for name in self.model.large}) as running:
            values = running.run(feed)
        return {name: values[name] for name in names}

    def open_with(self, layers: Sequence[Layer]) -> AbstractContextManager[Run]:
        """The file with the value of each layer as an output besides its own."""
        proto = ModelProto()
        proto.CopyFrom(self.model.proto)
        for layer in layers:
            # Declared, since constants that are listed as inputs keep ONNX Runtime from inferring shapes.
            batch = self.model.batch or _BATCH
            sizes = _declared_sizes(layer.expected.shape, batch)
            if layer.output in self.model.rows:  # which may be other rows than the module's
                first = batch if self.model.has_batch(layer.output) else f"{layer.output} rows"
                sizes = [first, *self.model.rows[layer.output]]
            kind = ELEMENT_TYPES[layer.expected.dtype]
            add_outputs(proto, [helper.make_tensor_value_info(layer.output, kind, sizes)])
        return self._open(proto, {name: self.model.constants[name] for name in self.model.large})

    @contextmanager
    def _open(self, source: Path | ModelProto, constants: Mapping[str, np.ndarray] | None = None) -> Generator[Run]:
        with _opened(source, self.opener, constants or {}) as running:
            if isinstance(source, Path) and self.model.source is not None:
                self.model.source.check()  # before a row runs: the bytes that are open are those that were read

            def run(rows: np.ndarray) -> dict[str, np.ndarray]:
                feed, batch = self.wiring.feed(rows), self.model.batch
                return running.run(feed) if batch is None else in_batches(running.run, feed, batch)

            yield run

    def output(self, run: Run, rows: np.ndarray) -> np.ndarray:
        """The rows of all outputs. Raises ModelError: an output has another shape than the module's."""
        values = run(rows)
        for name, row in self.wiring.outputs.items():
            if self.model.recovering:
                values[name] = in_shape(values[name], len(rows), (Rows(), *row))
            if values[name].shape != (len(rows), *row):
                shape = f"of shape {list(values[name].shape)} for {counted(len(rows), 'row')}"
                raise ModelError(f"its output '{name}' is {shape}, and the module's has rows of shape {list(row)}")
        return self.wiring.output(values)

    @contextmanager
    def open_layer(
        self, layer: Layer, replaced: Mapping[str, np.ndarray] | None = None
    ) -> Generator[Callable[[np.ndarray], np.ndarray]]:
        """The operators of one layer, from its input in the module's shape to its value.

        Constants are the file's, except those that are ``replaced``.
        """
        model, source = self.model, read_by(self.model, layer)
        shape, dtype = layer.input_shapes[0], layer.input_dtypes[0]
        if source in model.rows and shape and shape[0] == Rows():
            shape = (Rows(), *model.rows[source])
        graph = onnx.GraphProto(name="layer", node=_with_shape_changes(model, layer))
        graph.input.append(helper.make_tensor_value_info(source, ELEMENT_TYPES[dtype], _declared_sizes(shape, _BATCH)))
        graph.output.append(helper.make_tensor_value_info(layer.output, ELEMENT_TYPES[layer.expected.dtype], None))
        proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import, graph=graph)
        used = {name for node in graph.node for name in node.input}
        constants = {name: values for name, values in model.constants.items() if name in used} | dict(replaced or {})
        with _opened(proto, self.opener, constants) as running:
            yield lambda values: running.run({source: values.reshape(-1, *row_sizes(shape))})[layer.output]


@contextmanager
def _opened(source: Path | ModelProto, opener: Opener, constants: Mapping[str, np.ndarray]) -> Generator[Running]:
    """A running model: a file, or a graph with ``constants`` besides its own.

    Large constants go through a temporary file, which saves the copies that a message in memory takes.
    """
    with ExitStack() as stack:
        if isinstance(source, Path):
            running = opener(source)
        elif sum(values.nbytes for values in constants.values()) < _IN_MEMORY:
            complete = ModelProto()
            complete.CopyFrom(source)
            complete.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
            running = opener(complete.SerializeToString())
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model.onnx"
            write(source, constants, path, external=is_external(constants, None))
            running = opener(path)
        yield stack.enter_context(closing(running))


def row_sizes(shape: Shape) -> tuple[int, ...]:
    """The sizes of a row, where the batch is the first dimension."""
    return tuple(size for size in shape[1:] if isinstance(size, int))


def read_by(model: Model, layer: Layer) -> str:
    """The name under which a layer's operators read its input, which may be another shape of it."""
    return next(name for node in layer.nodes for name in node.input if model.value(name) == layer.inputs[0])


def _with_shape_changes(model: Model, layer: Layer) -> list[NodeProto]:
    """A layer's operators, and the changes of shape between them."""
    made = {name for node in layer.nodes for name in node.output}
    wanted = {name for node in layer.nodes for name in node.input} - made - {read_by(model, layer)}
    if (
        len(layer.nodes) == 1 and wanted - {""} <= model.constants.keys()
    ):  # most: looking through all operators takes long
        return list(layer.nodes)
    between: list[NodeProto] = []
    for node in reversed(model.proto.graph.node):
        if node.output and node.output[0] in wanted and node.output[0] not in model.constants:
            between.append(node)
            wanted.update(set(node.input) - made - {read_by(model, layer)})
    order = {node.output[0]: index for index, node in enumerate(model.proto.graph.node)}
    return sorted([*layer.nodes, *between], key=lambda node: order[node.output[0]])


def _declared_sizes(shape: Shape, batch: int | str) -> list[int | str]:
    """A module's shape as a file declares it: sizes that grow with the batch are open, unless the file fixes it."""
    if isinstance(batch, int):
        return [size.times * batch if isinstance(size, Rows) else size for size in shape]
    return [size if isinstance(size, int) else batch if size.times == 1 else str(size) for size in shape]
