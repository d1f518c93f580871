"""Arrays bound to a session once and used by every call: on the host for small batches, on a device for CUDA graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.data.indices import allowed_rows
from runtime.model.port import Port

from .pace import Pace

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue, RunOptions

FLOAT32 = np.dtype(np.float32)
MAX_PADDED = 4096
"""Rows of the largest device buffers; larger batches run through them in pieces."""
Shapes = tuple[tuple[int, ...], ...]


class BoundBuffers:
    """A session bound to arrays that its inputs are read from and its outputs written to; one thread at a time.

    ``inputs`` and ``outputs`` are C-contiguous arrays of the dtypes and shapes of the ports.
    """

    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    input: np.ndarray
    """The first one."""
    output: np.ndarray
    """The first one."""
    run: Callable[[], None]
    """Runs on what is in the inputs; the outputs are there when it returns."""

    def __init__(
        self,
        session: InferenceSession,
        input_ports: Sequence[Port],
        output_ports: Sequence[Port],
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        options: RunOptions,
    ):
        self.inputs, self.outputs = inputs, outputs
        self.input, self.output = inputs[0], outputs[0]
        self.free = True
        """False during a call: a call that a signal handler makes meanwhile runs without these buffers."""
        self._binding = session.io_binding()
        for bind, ports, arrays in (
            (self._binding.bind_input, input_ports, inputs),
            (self._binding.bind_output, output_ports, outputs),
        ):
            for port, array in zip(ports, arrays, strict=True):
                bind(port.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.run = _bound_run(session, self._binding, options)


class ThreadBuffers(threading.local):
    """The buffers of one thread, by the shapes of the inputs; ``spin_us`` is of the pool that its calls may use."""

    def __init__(self, spin_us: int = 0) -> None:
        self.pace = Pace(spin_us)
        self.bound: dict[Shapes, BoundBuffers] = {}
        self.single: dict[tuple[int, ...], BoundBuffers] = {}
        """Those of a model with one input and one output, by the shape alone: every look-up counts there."""
        self.pair: tuple[np.ndarray, np.ndarray, Callable[[], None] | None, tuple[int, ...]] | None = None
        """The arrays of the last ``predict_into``, what runs them in place, and the shape that ``x`` had then."""


class DeviceBuffers:
    """A session bound to ``rows`` rows of device memory, with the CUDA graph number ``graph``, or without one.

    The buffers are ONNX Runtime's ``OrtValue``: their addresses stay, as a captured graph requires. Smaller batches are
    padded; the outputs of padding rows are never read.
    """

    inputs: dict[str, OrtValue]
    outputs: dict[str, OrtValue]

    def __init__(
        self,
        session: InferenceSession,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        rows: int,
        device: tuple[str, int],
        graph: int | None,
    ):
        from onnxruntime import OrtValue, RunOptions

        def allocate(ports: Sequence[Port]) -> dict[str, OrtValue]:
            shapes: dict[Port, Any] = {port: [rows, *port.shape[1:]] for port in ports}
            make = OrtValue.ortvalue_from_shape_and_type
            return {port.name: make(shape, np.dtype(port.dtype).type, *device) for port, shape in shapes.items()}

        self.rows = rows
        self.inputs, self.outputs = allocate(inputs), allocate(outputs)
        self._staging = {port.name: allowed_rows(port, self.inputs[port.name].shape()) for port in inputs}
        for name, padding in self._staging.items():
            self.inputs[name].update_inplace(padding)
        self._binding, options = session.io_binding(), RunOptions()
        if graph is not None:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        for name, value in self.inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self.outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._run = _bound_run(session, self._binding, options)
        self._is_captured = graph is not None

    def run(self) -> None:
        """Run on what is in the buffers; the outputs are there when it returns.

        Binding an input that an operator reads on the CPU, because CUDA has none of its kind, copies it there, once. So
        it is bound for every run, unless a graph was captured, which needs all operators on the device.
        """
        if not self._is_captured:
            for name, value in self.inputs.items():
                self._binding.bind_ortvalue_input(name, value)
        self._run()

    def put(self, feed: Mapping[str, np.ndarray]) -> None:
        """Copy at most ``rows`` rows of every input from the host."""
        for name, array in feed.items():
            if len(array) < self.rows:
                self._staging[name][: len(array)] = array
                array = self._staging[name]
            self.inputs[name].update_inplace(array)

    def get(self, name: str, rows: int) -> np.ndarray:
        """The first rows of an output, copied to the host."""
        return self.outputs[name].numpy()[:rows]


def padded_size(rows: int) -> int:
    """The smallest power of two that holds ``rows``, at most ``MAX_PADDED``."""
    return min(MAX_PADDED, 1 << max(0, rows - 1).bit_length())


def _bound_run(session: InferenceSession, binding: IOBinding, options: RunOptions) -> Callable[[], None]:
    """A call that runs a bound session without InferenceSession's wrapper.

    The wrapper searches the options for another provider's graphs in each call, which takes 20 to 30 microseconds.
    """
    native_session, native_binding = getattr(session, "_sess", None), getattr(binding, "_iobinding", None)
    if native_session is None or native_binding is None:
        return lambda: session.run_with_iobinding(binding, options)
    run = native_session.run_with_iobinding
    return lambda: run(native_binding, options)


def new_outputs(names: Sequence[str], outputs: Sequence[Port], rows: int) -> list[np.ndarray]:
    """Uninitialised arrays for the outputs ``names`` of so many rows."""
    shapes: dict[str, Any] = {port.name: port.shape[1:] for port in outputs}
    dtypes = {port.name: port.dtype for port in outputs}
    return [np.empty((rows, *shapes[name]), dtypes[name]) for name in names]
