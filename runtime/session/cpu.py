"""A file on the CPU: which of ONNX Runtime's sessions runs a batch, and in how many pieces."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.data.indices import allowed_rows
from runtime.errors import ModelError
from runtime.files import identity
from runtime.model.port import Port

from .buffers import BoundBuffers, Shapes, ThreadBuffers, new_outputs
from .ort_session import SPIN_DURATION, ModelInfo, Providers, model_info, open_session, run_options
from .parallel import Workers, chunks
from .scheduling import threads_that_never_preempt
from .settings import ResolvedSettings, Settings, resolve

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_BOUND_VALUES = 2**14
"""Values of inputs and outputs up to which copying them into bound buffers costs less than ONNX Runtime's own way."""
_CLOCK_NS = 20_000_000
"""By how much the time of a change may lie behind: a file system's clock ticks every few milliseconds."""
_MOST_BOUND = 64
"""Shapes that a thread keeps bound."""


class CpuRunner:
    """Runs batches through bound buffers, in one call, or in chunks on several threads.

    There are at most two of ONNX Runtime's sessions: a single-threaded one for small calls and for chunks (any number
    of threads run it at once, so it holds the weights once), and one of all threads for batches between. Each is opened
    when it is first needed. Batches for which threads are worth using but not always worth waking are bound to both.
    Only files that mlpx wrote are cut into chunks, and others if ``divided`` says that their rows are independent.
    """

    model: ModelInfo
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    buffers: ThreadBuffers

    def __init__(
        self, path: str | Path | bytes, providers: Providers, settings: Settings, cores: int, *, divided: bool = False
    ):
        self._path, self._providers = path, providers
        self._file, self._opened = _identity(path), time_ns()
        self._sessions: dict[bool, InferenceSession] = {}
        self._lock = threading.Lock()
        self._options = run_options()
        estimate = _estimated_multiply_adds(path)
        self.settings: ResolvedSettings = resolve(settings, estimate, cores)
        first = self._session(self.settings.whole_from == 1)
        self.model = model_info(first, path, estimate=estimate, divided=divided)
        self.inputs, self.outputs = self.model.inputs, self.model.outputs
        self.settings = resolve(settings, self.model.multiply_adds, cores, self.model.widest)
        self._bindable, self._divisible = self.model.bindable, self.model.divisible
        self._workers = Workers(self.settings.workers)
        self._same_bits: dict[Shapes, bool] = {}
        self.buffers = ThreadBuffers(self.settings.spin_us)

    def _bound(self, shapes: Shapes) -> BoundBuffers | None:
        """This thread's buffers for inputs of these shapes; None where the batch is better run another way."""
        buffers = self.buffers.bound.get(shapes)
        if buffers is not None:
            return buffers
        rows = shapes[0][0]
        rests: list[Any] = [port.shape[1:] for port in self.outputs]
        if not rows or not self._bindable or sum(map(prod, shapes)) + rows * sum(map(prod, rests)) > _BOUND_VALUES:
            return None
        inputs = [np.zeros(shape, port.dtype) for shape, port in zip(shapes, self.inputs, strict=True)]
        outputs = [np.zeros((rows, *rest), port.dtype) for rest, port in zip(rests, self.outputs, strict=True)]
        if shapes not in self._same_bits and self._is_paced(rows):
            self._same_bits[shapes] = self._gives_same_bits(inputs, outputs)
        buffers = self._bind(shapes, inputs, outputs)
        if len(self.buffers.bound) >= _MOST_BOUND:
            self.buffers.bound.clear()
            self.buffers.single.clear()
        self.buffers.bound[shapes] = buffers
        if len(inputs) == len(outputs) == 1:
            self.buffers.single[shapes[0]] = buffers
        return buffers

    def _bind(self, shapes: Shapes, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> BoundBuffers:
        """The arrays, bound to the session that runs so many rows, or to both, between which the pace chooses."""
        ports, rows, settings = (self.inputs, self.outputs), shapes[0][0], self.settings
        buffers = BoundBuffers(self._session(rows >= settings.whole_from), *ports, inputs, outputs, self._options)
        if self._is_paced(rows) and self._same_bits.get(shapes, False):
            alone = BoundBuffers(self._session(False), *ports, inputs, outputs, self._options)
            busy = rows >= settings.busy_from
            buffers.run = self.buffers.pace.choosing(alone.run, buffers.run, wake_if_busy=busy)
        return buffers

    def _is_paced(self, rows: int) -> bool:
        return self.settings.threads > 1 and self.settings.whole_from <= rows < self.settings.idle_from

    def _gives_same_bits(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
        """Whether both sessions do, on seeded rows: no result may depend on how calls come."""
        normal = np.random.default_rng(0).standard_normal
        for port, array in zip(self.inputs, inputs, strict=True):
            has_indices = port.dtype != "float32" or port.indices is not None
            array[...] = allowed_rows(port, array.shape) if has_indices else normal(array.shape)
        found: list[list[bytes]] = []
        for all_threads in (False, True):
            session = self._session(all_threads)
            BoundBuffers(session, self.inputs, self.outputs, inputs, outputs, self._options).run()
            found.append([output.tobytes() for output in outputs])
        return found[0] == found[1]

    def run(self, names: list[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs ``names`` for a feed of any number of rows."""
        arrays = [feed[port.name] for port in self.inputs]
        if not len(arrays[0]) and self._bindable:  # ONNX Runtime divides by the rows of some products
            return new_outputs(names, self.outputs, 0)
        buffers = self._bound(tuple([array.shape for array in arrays]))
        if buffers is not None and buffers.free:
            results = dict(zip([port.name for port in self.outputs], buffers.outputs, strict=True))
            buffers.free = False
            try:
                for buffer, array in zip(buffers.inputs, arrays, strict=True):
                    buffer[...] = array
                buffers.run()
                return [results[name].copy() for name in names]
            finally:
                buffers.free = True
        rows, settings = len(arrays[0]), self.settings
        if rows < settings.shared_from or not self._divisible:
            return self._session(rows >= settings.whole_from).run(names, feed, self._options)
        session = self._session(settings.workers == 1)
        outputs = new_outputs(names, self.outputs, rows)

        def run_chunk(start: int, stop: int) -> None:
            chunk = session.run(names, {name: array[start:stop] for name, array in feed.items()}, self._options)
            for output, values in zip(outputs, chunk, strict=True):
                output[start:stop] = values

        self._workers.run(run_chunk, chunks(rows, settings.chunk_rows))
        return outputs

    def tie(self, x: np.ndarray, out: np.ndarray) -> None:
        """Remember the arrays of a successful ``predict_into``; the second time bind them, without buffers.

        Holding them keeps their memory where it is. Arrays that share memory are left to the buffers: the output would
        be written while the input is still read.
        """
        pair = self.buffers.pair
        if pair is None or pair[0] is not x or pair[1] is not out:
            self.buffers.pair = (x, out, None, x.shape)
        elif x.flags.c_contiguous and x.flags.aligned and out.flags.carray and not np.may_share_memory(x, out):
            self.buffers.pair = (x, out, self._bind((x.shape,), [x], [out]).run, x.shape)

    def close(self) -> None:
        """Free the sessions, and every thread's buffers."""
        self._sessions, self.buffers = {}, ThreadBuffers()
        self._workers.close()

    def _session(self, all_threads: bool) -> InferenceSession:
        """ONNX Runtime's session of all threads, or the single-threaded one."""
        all_threads = all_threads and self.settings.threads > 1
        session = self._sessions.get(all_threads)
        if session is None:
            with self._lock:
                session = self._sessions.get(all_threads)
                if session is None:  # pragma: no branch - unless another thread opened it meanwhile
                    first = next(iter(self._sessions.values()), None)
                    session = self._open(all_threads) if first is None else self._open_again(all_threads, first)
                    self._sessions[all_threads] = session
        return session

    def _open_again(self, all_threads: bool, first: InferenceSession) -> InferenceSession:
        """Another session of the same weights: ``first``, where the file or its data was written to since it opened."""
        try:
            session = self._open(all_threads)
        except ModelError:
            return first
        return first if _is_changed(self._path, self._file, self._opened) else session

    def _open(self, all_threads: bool) -> InferenceSession:
        settings = self.settings
        config = {} if settings.prepack else {"session.disable_prepacking": "1"}
        if all_threads and settings.spin_us > 0:
            config[SPIN_DURATION] = str(settings.spin_us)
        else:
            config["session.intra_op.allow_spinning"] = "0"
        with threads_that_never_preempt():
            return open_session(self._path, self._providers, settings.threads if all_threads else 1, config)


def _is_changed(path: str | Path | bytes, file: object, opened: int) -> bool:
    """Whether the file has another identity, or a file beside it that it names was changed since a time (ns)."""
    if isinstance(path, bytes):
        return False
    if _identity(path) != file:
        return True
    place = Path(os.path.realpath(path))
    recent: list[bytes] = []
    for entry in place.parent.iterdir():
        with suppress(OSError):  # a link to nowhere
            if entry != place and entry.stat().st_ctime_ns >= opened - _CLOCK_NS:
                recent.append(os.fsencode(entry.name))
    content = place.read_bytes() if recent else b""
    return any(name in content for name in recent)


def _identity(path: str | Path | bytes) -> object:
    """Changes when a file, or the external data beside it, is replaced."""
    return None if isinstance(path, bytes) else (identity(Path(path)), identity(Path(f"{os.path.realpath(path)}.data")))


def _estimated_multiply_adds(path: str | Path | bytes) -> int:
    """Multiply-adds of a row by the file's size: nearly all of it is weights, and each is used once per row."""
    if isinstance(path, bytes):
        return len(path) // 4
    return sum(file.stat().st_size for file in (Path(path), Path(f"{path}.data")) if file.is_file()) // 4
