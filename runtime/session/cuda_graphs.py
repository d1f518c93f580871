"""Buffers on a device for a fixed number of rows, which smaller batches are padded to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runtime.data.integers import allowed_rows
from runtime.model.port import Port

from .binding import runner

LARGEST = 4096
"""Rows of the largest bucket; larger batches run through it in pieces."""


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
