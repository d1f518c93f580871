"""One shape of input, bound once to buffers that every call of it uses again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .port import Port

FLOAT32 = np.dtype(np.float32)


class Bound:
    """A session with preallocated buffers for inputs and outputs of fixed shapes; for one thread at a time."""

    def __init__(
        self,
        session: Any,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        shapes: Sequence[tuple[int, ...]],
        options: Any,
    ):
        self.inputs = [np.zeros(shape, FLOAT32) for shape in shapes]
        rests: list[Any] = [port.shape[1:] for port in outputs]
        self.outputs = [np.zeros((shapes[0][0], *rest), FLOAT32) for rest in rests]
        binding = session.io_binding()
        for port, buffer in zip(inputs, self.inputs, strict=True):
            binding.bind_input(port.name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
        for port, buffer in zip(outputs, self.outputs, strict=True):
            binding.bind_output(port.name, "cpu", 0, np.float32, buffer.shape, buffer.ctypes.data)
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
    return batch != "?" and all(port.shape[0] == batch for port in (*inputs, *outputs)) and _whole(sizes)


def _whole(sizes: Sequence[int | str]) -> bool:
    return all(isinstance(size, int) for size in sizes)
