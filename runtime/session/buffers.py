"""Arrays bound once, which every call uses again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.data.integers import allowed_rows
from runtime.model.port import Port

FLOAT32 = np.dtype(np.float32)
LARGEST = 4096
"""Rows of the largest bucket; larger batches run through it in pieces."""


class Bound:
    """A session bound to arrays that its inputs are read from and its outputs written to; one thread at a time.

    ``inputs`` and ``outputs`` are C-contiguous arrays of the dtypes and shapes of the ports.
    """

    def __init__(
        self,
        session: Any,
        given: Sequence[Port],
        got: Sequence[Port],
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        options: Any,
    ):
        self.inputs, self.outputs = inputs, outputs
        self.input, self.output = inputs[0], outputs[0]
        self.free = True
        """False while a call uses it: one that a signal's handler makes in between takes another way."""
        binding = session.io_binding()
        for port, array in zip(given, inputs, strict=True):
            binding.bind_input(port.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for port, array in zip(got, outputs, strict=True):
            binding.bind_output(port.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._binding = binding
        self.run = runner(session, binding, options)


def runner(session: Any, binding: Any, options: Any) -> Callable[[], None]:
    """What runs a bound session, past InferenceSession's wrapper.

    The wrapper looks into the options for the graphs of another provider in each call: 20 to 30 microseconds of them.
    """
    native, bound = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if native is None or bound is None:
        return lambda: session.run_with_iobinding(binding, options)
    run = native.run_with_iobinding
    return lambda: run(bound, options)


def may_be_bound(inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    """Whether the shapes of the outputs follow from the number of rows."""
    batch = inputs[0].shape[0]
    sizes = [size for port in (*inputs, *outputs) for size in port.shape[1:]]
    return batch != "?" and all(port.shape[:1] == (batch,) for port in (*inputs, *outputs)) and _whole(sizes)


def nothing_of(names: Sequence[str], outputs: Sequence[Port]) -> list[np.ndarray]:
    """What an empty batch gives: no rows of each output."""
    ports = {port.name: port for port in outputs}
    sizes = {name: [size for size in port.shape[1:] if isinstance(size, int)] for name, port in ports.items()}
    return [np.empty((0, *sizes[name]), ports[name].dtype) for name in names]


def _whole(sizes: Sequence[int | str]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def bucket_for(rows: int) -> int:
    """The smallest power of two that holds ``rows``, at most ``LARGEST``."""
    return min(LARGEST, 1 << max(0, rows - 1).bit_length())


class Bucket:
    """A session bound to buffers of ``rows`` rows on a device, with a CUDA graph of its own if ``graph`` numbers one.

    ONNX Runtime's ``OrtValue`` are the buffers: their addresses stay, as a captured graph needs it. What rows beyond
    those that were put in give is never read.
    """

    def __init__(
        self,
        session: Any,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        rows: int,
        where: tuple[str, int],
        graph: int | None,
    ):
        from onnxruntime import OrtValue, RunOptions  # pyright: ignore[reportAttributeAccessIssue]

        def buffers(ports: Sequence[Port]) -> dict[str, Any]:
            shapes: dict[Port, Any] = {port: [rows, *port.shape[1:]] for port in ports}
            make = OrtValue.ortvalue_from_shape_and_type
            return {port.name: make(shape, np.dtype(port.dtype).type, *where) for port, shape in shapes.items()}

        self.rows = rows
        self.inputs, self.outputs = buffers(inputs), buffers(outputs)
        self._stage = {port.name: allowed_rows(port, self.inputs[port.name].shape()) for port in inputs}
        for name, fill in self._stage.items():
            self.inputs[name].update_inplace(fill)
        self._binding, options = session.io_binding(), RunOptions()
        if graph is not None:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        for name, value in self.inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self.outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self.run = runner(session, self._binding, options)
        """Runs what is in the buffers; when it returns, the outputs are there."""

    def put(self, feed: Mapping[str, np.ndarray]) -> None:
        """Copy at most ``rows`` rows of every input from the host."""
        for name, array in feed.items():
            if len(array) < self.rows:
                self._stage[name][: len(array)] = array
                array = self._stage[name]
            self.inputs[name].update_inplace(array)

    def get(self, name: str, rows: int) -> np.ndarray:
        """The first rows of an output, copied to the host."""
        return self.outputs[name].numpy()[:rows]
