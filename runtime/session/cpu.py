"""A file on the CPU: which of ONNX Runtime's sessions a batch runs on, and in how many pieces."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime.files import identity
from runtime.model.summary import rows_depend

from .buffers import Bound, may_be_bound, nothing_of
from .ort_session import SPIN_DURATION, Providers, open_session, ports_of, run_options
from .parallel import Workers, chunks
from .settings import Settings, Settled, settled

_BOUND_VALUES = 2**14
"""Values of inputs and outputs up to which copying them into bound buffers costs less than ONNX Runtime's own way."""
_MOST_BOUND = 64
"""Shapes that a thread keeps bound."""
Shapes = tuple[tuple[int, ...], ...]


class Here(threading.local):
    """The buffers that belong to one thread, by the shapes of the inputs."""

    def __init__(self) -> None:
        self.bound: dict[Shapes, Bound] = {}
        self.single: dict[tuple[int, ...], Bound] = {}
        """Those of a model with one input and one output, by the shape alone: every look-up counts there."""
        self.pair: tuple[np.ndarray, np.ndarray, Callable[[], None] | None, tuple[int, ...]] | None = None
        """The arrays of the last ``predict_into``, what runs them in place, and the shape that ``x`` had then."""


class OnCpu:
    """The roads that a batch can take: bound buffers, one call, or chunks on several threads.

    There are at most two of ONNX Runtime's sessions: one of one thread, for small calls and for chunks (any number of
    threads run it at once, so it holds the weights once), and one of all threads for what lies between. Each is opened
    when it is first needed. Only files that mlpx wrote are cut into chunks, and others if ``divided`` says that no row
    of them depends on another.
    """

    def __init__(
        self, path: str | Path | bytes, providers: Providers, given: Settings, cores: int, *, divided: bool = False
    ):
        self._path, self._providers, self._file = path, providers, _identity(path)
        self._sessions: dict[bool, Any] = {}
        self._lock = threading.Lock()
        self._options = run_options()
        estimate = _estimate(path)
        self.settled: Settled = settled(given, estimate, cores)
        first = self._session(self.settled.whole_from == 1)
        self.inputs, self.outputs = ports_of(first, path)
        self.metadata: Mapping[str, str] = first.get_modelmeta().custom_metadata_map
        told = self.metadata.get("mlpx.multiply_adds", "")
        self.multiply_adds = int(told) if told.isdecimal() else estimate
        self.settled = settled(given, self.multiply_adds, cores)
        self._bindable = may_be_bound(self.inputs, self.outputs)
        batches = {port.shape[0] for port in (*self.inputs, *self.outputs) if port.shape}
        symbolic = not any(isinstance(size, int) for size in batches)
        self.divisible = self._bindable and symbolic and (divided or bool(told)) and not rows_depend(self.metadata)
        self._workers = Workers(self.settled.workers)
        self.here = Here()

    def _bound(self, shapes: Shapes) -> Bound | None:
        """Buffers of this thread for inputs of these shapes; None where the batch is better run another way."""
        found = self.here.bound.get(shapes)
        if found is not None:
            return found
        rows = shapes[0][0]
        rests: list[Any] = [port.shape[1:] for port in self.outputs]
        if not rows or not self._bindable or sum(map(prod, shapes)) + rows * sum(map(prod, rests)) > _BOUND_VALUES:
            return None
        given, got = (
            [np.zeros(shape, port.dtype) for shape, port in zip(shapes, self.inputs, strict=True)],
            [np.zeros((rows, *rest), port.dtype) for rest, port in zip(rests, self.outputs, strict=True)],
        )
        session = self._session(rows >= self.settled.whole_from)
        found = Bound(session, self.inputs, self.outputs, given, got, self._options)
        if len(self.here.bound) >= _MOST_BOUND:
            self.here.bound.clear()
            self.here.single.clear()
        self.here.bound[shapes] = found
        if len(found.inputs) == len(found.outputs) == 1:
            self.here.single[shapes[0]] = found
        return found

    def run(self, names: list[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs ``names`` for a feed of any number of rows."""
        arrays = [feed[port.name] for port in self.inputs]
        if not len(arrays[0]) and self._bindable:  # ONNX Runtime divides by the rows of some products
            return nothing_of(names, self.outputs)
        bound = self._bound(tuple([array.shape for array in arrays]))
        if bound is not None and bound.free:
            held = dict(zip([port.name for port in self.outputs], bound.outputs, strict=True))
            bound.free = False
            try:
                for buffer, array in zip(bound.inputs, arrays, strict=True):
                    buffer[...] = array
                bound.run()
                return [held[name].copy() for name in names]
            finally:
                bound.free = True
        rows, settings = len(arrays[0]), self.settled
        if rows < settings.shared_from or not self.divisible:
            return self._session(rows >= settings.whole_from).run(names, feed, self._options)
        session = self._session(settings.workers == 1)
        ports: dict[str, Any] = {port.name: port for port in self.outputs}
        results = [np.empty((rows, *ports[name].shape[1:]), ports[name].dtype) for name in names]

        def work(start: int, stop: int) -> None:
            part = session.run(names, {name: array[start:stop] for name, array in feed.items()}, self._options)
            for whole, values in zip(results, part, strict=True):
                whole[start:stop] = values

        self._workers.share(work, chunks(rows, settings.chunk_rows))
        return results

    def tie(self, x: np.ndarray, out: np.ndarray) -> None:
        """Remember the arrays of a ``predict_into`` that went well; at the second time bind them, without buffers.

        Holding them keeps their memory where it is. Arrays that share memory are left to the buffers: the output would
        be written while the input is still read.
        """
        pair = self.here.pair
        if pair is None or pair[0] is not x or pair[1] is not out:
            self.here.pair = (x, out, None, x.shape)
        elif x.flags.c_contiguous and x.flags.aligned and out.flags.carray and not np.may_share_memory(x, out):
            session = self._session(len(x) >= self.settled.whole_from)
            run = Bound(session, self.inputs, self.outputs, [x], [out], self._options).run
            self.here.pair = (x, out, run, x.shape)

    def close(self) -> None:
        """Free the sessions, and every thread's buffers."""
        self._sessions, self.here = {}, Here()
        self._workers.close()

    def _session(self, whole: bool) -> Any:
        """ONNX Runtime's session of all threads, or of one."""
        whole = whole and self.settled.threads > 1
        found = self._sessions.get(whole)
        if found is None:
            with self._lock:
                found = self._sessions.get(whole)
                if found is None:
                    # Another file may stand under the name by now: then the session that is there does all the work.
                    same = not self._sessions or _identity(self._path) == self._file
                    found = self._open(whole) if same else next(iter(self._sessions.values()))
                    self._sessions[whole] = found
        return found

    def _open(self, whole: bool) -> Any:
        settings = self.settled
        config = {} if settings.prepack else {"session.disable_prepacking": "1"}
        if whole and settings.spin_us > 0:
            config[SPIN_DURATION] = str(settings.spin_us)
        else:
            config["session.intra_op.allow_spinning"] = "0"
        return open_session(self._path, self._providers, settings.threads if whole else 1, config)


def _identity(path: str | Path | bytes) -> object:
    """What changes when a file, or the data beside it, is replaced."""
    return None if isinstance(path, bytes) else (identity(Path(path)), identity(Path(f"{os.path.realpath(path)}.data")))


def _estimate(path: str | Path | bytes) -> int:
    """Multiply-adds of a row by the file's size: nearly all of it is weights, and each is used once per row."""
    if isinstance(path, bytes):
        return len(path) // 4
    return sum(file.stat().st_size for file in (Path(path), Path(f"{path}.data")) if file.is_file()) // 4
