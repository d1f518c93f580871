"""A model file, ready to run."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from runtime.data.indices import index_limits
from runtime.data.inputs import as_inputs
from runtime.errors import InputError, ModelError
from runtime.model.port import Port, annotate_ports
from runtime.model.summary import Summary, summary_of

from .buffers import FLOAT32, ThreadBuffers
from .cpu import CpuRunner
from .gpu import GpuRunner
from .ort_session import index_error, reason
from .processor import saturating, usable_cores
from .providers import choose, this_machine
from .settings import ResolvedSettings, Settings
from .tuned import tuning_for

_warned: set[str] = set()


class Session:
    """An ONNX file on one execution provider.

    The requested device runs, never another: ``device`` is "cpu", "cuda" or "cuda:N", and one that is not available is
    an error; "auto" takes the best that works, and ``session.device`` says which. Threads may share a session. Use it
    in a ``with`` block, or ``close()`` it, to free its memory at once.

    How it runs on a CPU follows from the model's multiply-adds and the batch, unless it is set here: ``threads`` per
    call, microseconds that an idle thread spins (``spin_us``), ``workers`` that share a large batch in chunks of
    ``chunk_rows``, and whether the weights are repacked for the kernels (``prepack``). ``session.settings`` has the
    values in use. What is not set is taken from NAME.tuning.json beside the file, where ``mlpx tune`` measured it on
    this machine, or from the file that ``tuning`` names; ``tuning=None`` reads none.
    On CUDA, batches are padded to powers of two and each size is captured in a CUDA graph, unless ``cuda_graphs`` is
    False; TF32 is off unless ``tf32`` is True.

    A hostile file can end the process that opens it: commands and servers have another process open a file first that
    is not proved (``runtime.session.trial``), and a Session, in a process of its caller's, does not.

    Raises ModelError: a file that is missing, damaged or not ONNX; ProviderError: the device is not available;
    InputError: an invalid setting.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     labels = session.predict(np.zeros((5, 2), np.float32)).argmax(axis=1)
        >>> labels.shape, session.device, session.inputs[0].shape
        ((5,), 'cpu', ('batch', 2))
    """

    path: Path | None
    """The file's; None for bytes."""
    device: str
    """What runs it: "cpu" or "cuda:N"."""
    reason: str
    """Why this device, in words."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __init__(
        self,
        path: str | Path | bytes,
        device: str = "auto",
        *,
        threads: int | None = None,
        spin_us: int | None = None,
        workers: int | None = None,
        chunk_rows: int | None = None,
        prepack: bool | None = None,
        tf32: bool = False,
        cuda_graphs: bool = True,
        tuning: str | Path | None = "auto",
    ):
        settings = Settings(threads, spin_us, workers, chunk_rows, prepack)
        machine = this_machine(cuda=device != "cpu")
        if machine.conflict is not None and machine.conflict not in _warned:
            _warned.add(machine.conflict)
            warnings.warn(machine.conflict, stacklevel=2)
        choice = choose(device, machine, tf32=tf32)
        self.path = None if isinstance(path, bytes) else Path(path)
        self.device, self.reason = choice.device, choice.reason
        self._runner: CpuRunner | GpuRunner
        if choice.device == "cpu":
            settings = settings.over(tuning_for(path, tuning) or Settings())
            divided = workers is not None or chunk_rows is not None
            self._runner = CpuRunner(path, choice.providers, settings, usable_cores(), divided=divided)
            if (fault := saturating(self._runner.model.metadata)) is not None:
                hint = "make the file on this machine, mlpx tune"
                raise ModelError(f"{self.path or 'the model'}: {fault}. What to do: {hint}")
        else:
            self._runner = GpuRunner(path, choice.providers, settings, graphs=cuda_graphs)
        self._closed = False
        self.inputs, self.outputs = self._runner.inputs, self._runner.outputs
        # Whole numbers are checked before they run: then every call goes through `_feed`.
        self._has_integers = any(port.dtype == "int64" or port.indices is not None for port in self.inputs)
        self._ports = self._named_inputs() if self._has_integers else self.inputs
        self._limits = index_limits(self._ports)
        plain = len(self.inputs) == 1 and not self._has_integers
        self._row = self.inputs[0].shape[1:] if plain else None  # a row that needs no conversion
        self._buffers = ThreadBuffers() if self._has_integers else self._runner.buffers

    @property
    def settings(self) -> ResolvedSettings:
        """How it runs on a CPU: the rule's choice where nothing was set."""
        return self._runner.settings

    @property
    def cuda_graphs(self) -> bool:
        """Whether batches replay CUDA graphs: on CUDA, if requested and possible for this file."""
        return isinstance(self._runner, GpuRunner) and self._runner.graphs

    @property
    def divisible(self) -> bool:
        """Whether a batch may be cut into pieces that are run separately.

        True for a file that mlpx wrote, unless it says that its rows depend on each other, and for others where
        ``workers`` or ``chunk_rows`` was set.
        """
        return self._runner.model.divisible

    @property
    def multiply_adds(self) -> int:
        """Per row: as the file says, or estimated from its size."""
        return self._runner.model.multiply_adds

    @cached_property
    def summary(self) -> Summary | None:
        """What the file says of itself; None for a file that mlpx did not write."""
        self._refuse_closed()
        return summary_of(self._runner.model.metadata)

    def predict(self, x: Any, *, dtype: str | None = None) -> Any:
        """The model's output for a batch of rows: float32 or int64 (batch, *row) to a float32 array (batch, ...).

        ``x`` is a numpy array, a tensor (any device, by DLPack) or a list of rows, for a model of several inputs a dict
        of them by name, or a table of pandas, polars or Arrow whose columns are the model's features; the batch may be
        empty. Other dtypes are converted where no value changes; ``dtype="float32"`` lets values for a float32 input be
        rounded, and an int64 input takes whole numbers. A tensor on the session's CUDA device gives a tensor there.
        Raises InputError, also for an index beyond the limits that the file sets.
        """
        # The hot path of small batches. Identity is seen first; arrays from another process have a dtype of their own.
        if type(x) is np.ndarray and (x.dtype is FLOAT32 or x.dtype == FLOAT32) and dtype is None:
            buffers = self._buffers.single.get(x.shape)
            if buffers is not None and buffers.free:
                buffers.free = False
                try:
                    buffers.input[...] = x
                    buffers.run()
                    return buffers.output.copy()
                except Exception as error:
                    self._raise(error, len(x))
                finally:
                    buffers.free = True
        if len(self.outputs) != 1:
            names = ", ".join(port.name for port in self.outputs)
            raise InputError(
                f"this model has {len(self.outputs)} outputs ({names}). What to do: session.run(x) gives all"
            )
        if isinstance(self._runner, GpuRunner) and len(self.inputs) == 1 and self._runner.takes(x):
            self._refuse_closed()
            if self._has_integers:
                self._feed(x, None)
            return self._runner.predict_tensor(x)
        return self._run(x, dtype, [self.outputs[0].name])[0]

    def predict_into(self, x: np.ndarray, out: np.ndarray) -> None:
        """``predict`` for control loops: the output goes into ``out``, and no array is made.

        ``x`` is an array (batch, *row) of the input's dtype, ``out`` a float32 one of the output's shape. The first
        calls of a batch size, batches too large for bound buffers, and indices, which are checked, make arrays. The
        same two arrays, if passed again, are bound themselves, and the session keeps a reference to them. Raises
        InputError: another type or shape, or an ``out`` that is read-only.
        """
        pair = self._buffers.pair
        if pair is not None and pair[0] is x and pair[1] is out and pair[2] is not None and x.shape == pair[3]:
            try:
                pair[2]()
            except Exception as error:
                self._raise(error, len(x))
            return
        if type(x) is np.ndarray and type(out) is np.ndarray and x.dtype == FLOAT32 and out.dtype == FLOAT32:
            buffers = self._buffers.single.get(x.shape)
            if buffers is not None and buffers.free and out.shape == buffers.output.shape and out.flags.writeable:
                buffers.free = False
                try:
                    buffers.input[...] = x
                    buffers.run()
                    out[...] = buffers.output
                except Exception as error:
                    self._raise(error, len(x))
                finally:
                    buffers.free = True
                self._runner.tie(x, out)
                return
        for name, array, dtype in (("x", x, self.inputs[0].dtype), ("out", out, "float32")):
            _refuse_other_array(name, array, dtype)
        result = self.predict(x)
        if out.shape != result.shape:
            raise InputError(f"'out' expects shape {result.shape}, and got {out.shape}")
        if not out.flags.writeable:
            raise InputError("'out' cannot be written: it is read-only")
        out[...] = result

    def run(self, x: Any, *, dtype: str | None = None) -> dict[str, np.ndarray]:
        """Every output by its name; otherwise the same as ``predict``."""
        names = [port.name for port in self.outputs]
        return dict(zip(names, self._run(x, dtype, names), strict=True))

    def _run(self, x: Any, dtype: str | None, outputs: list[str]) -> list[np.ndarray]:
        self._refuse_closed()
        if type(x) is np.ndarray and x.dtype == FLOAT32 and dtype is None and x.shape[1:] == self._row and x.ndim:
            feed = {self.inputs[0].name: x}
        else:
            feed = self._feed(x, dtype)
        rows = len(feed[self.inputs[0].name])
        for port in self.inputs:
            fixed = port.shape[0]
            if isinstance(fixed, int) and rows != fixed:
                message = f"'{port.name}' expects batches of exactly {fixed} rows (fixed in the file), and got {rows}"
                raise InputError(message)
        try:
            return self._runner.run(outputs, feed)
        except Exception as error:
            self._raise(error, rows)

    def _feed(self, x: Any, dtype: str | None) -> dict[str, np.ndarray]:
        """Rows for every input. Raises InputError: what cannot be converted, or an index beyond its limits."""
        feed = as_inputs(x, self._ports, dtype=dtype, named_ports=self._named_inputs)
        for limits in self._limits:
            limits.check(feed)
        return feed

    def _raise(self, error: Exception, rows: int) -> NoReturn:
        """Raise an error of ONNX Runtime as a ModelError or InputError; any other as it is."""
        name = self.path or "the model"
        if (details := index_error(error)) is not None:
            message = f"a row holds an index that a table of the model does not have: {details}"
            raise InputError(f"{name}: {message}. What to do: correct or drop that row") from error
        said = ("Non-zero status code", "Error in execution")
        from_buffers = isinstance(error, RuntimeError) and any(words in str(error) for words in said)
        if not from_buffers and not type(error).__module__.startswith("onnxruntime"):
            raise error
        raise ModelError(f"{name}: ONNX Runtime cannot run it on {rows} rows: {reason(error)}") from error

    def _named_inputs(self) -> tuple[Port, ...]:
        """The inputs with the features that the file's metadata names."""
        return annotate_ports(self.summary.inputs if self.summary is not None else None, self.inputs, self.path)

    def close(self) -> None:
        """Free the model's memory. A closed session cannot run."""
        self._closed = True
        self._runner.close()
        self._buffers = self._runner.buffers

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({str(self.path or 'bytes')!r}, device={self.device!r})"

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ModelError(f"the session of {self.path or 'this model'} is closed")


def _refuse_other_array(name: str, array: np.ndarray | None, dtype: str) -> None:
    """Raise InputError unless it is an array of this dtype; None stands for what is no array."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"predict_into takes {dtype} arrays, and '{name}' is {kind}; predict converts")
