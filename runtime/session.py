"""A model file, ready to run."""

from __future__ import annotations

import os
import warnings
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .arrays import as_inputs
from .errors import InputError, ModelError, ProviderError
from .machine import this_machine
from .providers import choose
from .summary import Port, Summary, summary_of

Providers = tuple[tuple[str, dict[str, str]], ...]
_FATAL = 4
_warned: set[str] = set()


class Session:
    """An ONNX file on one execution provider.

    What is asked for is what runs: ``device`` is "cpu", "cuda" or "cuda:N", and an error where that cannot be had;
    "auto" takes the best that works, and ``session.device`` says which. Threads may share a session. Use it in a
    ``with`` block, or ``close()`` it, to free its memory at once.

    Raises ModelError: a file that is missing, damaged or not ONNX; ProviderError: the device cannot be had.
    """

    def __init__(
        self, path: str | Path | bytes, device: str = "auto", *, threads: int | None = None, tf32: bool = False
    ):
        machine = this_machine(cuda=device != "cpu")
        if machine.conflict is not None and machine.conflict not in _warned:
            _warned.add(machine.conflict)
            warnings.warn(machine.conflict, stacklevel=2)
        choice = choose(device, machine, tf32=tf32)
        self.path = None if isinstance(path, bytes) else Path(path)
        self.device, self.reason = choice.device, choice.reason
        self._session: Any = open_session(path, choice.providers, threads)
        self.inputs = tuple(_port(value) for value in self._session.get_inputs())
        self.outputs = tuple(_port(value) for value in self._session.get_outputs())
        if not self.inputs:
            raise ModelError(f"{self.path or 'the model'} has no input")

    @cached_property
    def summary(self) -> Summary | None:
        """What the file says of itself; None for a file that mlpx did not write."""
        return summary_of(self._opened().get_modelmeta().custom_metadata_map)

    def predict(self, x: Any, *, dtype: str | None = None) -> np.ndarray:
        """The model's output for a batch of rows: float32 (batch, *row) to float32 (batch, ...).

        ``x`` is a numpy array, a tensor (any device, by DLPack) or a list of rows, for a model of several inputs a dict
        of them by name; the batch may be empty. Other dtypes are converted where no value changes; ``dtype="float32"``
        lets them be rounded. Raises InputError.
        """
        if len(self.outputs) != 1:
            names = ", ".join(port.name for port in self.outputs)
            raise InputError(
                f"this model has {len(self.outputs)} outputs ({names}). What to do: session.run(x) gives all"
            )
        return self._run(x, dtype, [self.outputs[0].name])[0]

    def run(self, x: Any, *, dtype: str | None = None) -> dict[str, np.ndarray]:
        """Every output by its name; otherwise as ``predict``."""
        names = [port.name for port in self.outputs]
        return dict(zip(names, self._run(x, dtype, names), strict=True))

    def _run(self, x: Any, dtype: str | None, outputs: list[str]) -> list[np.ndarray]:
        session = self._opened()
        feed = as_inputs(x, self.inputs, dtype=dtype)
        rows = len(feed[self.inputs[0].name])
        for port in self.inputs:
            fixed = port.shape[0]
            if isinstance(fixed, int) and rows != fixed:
                message = f"'{port.name}' expects batches of exactly {fixed} rows (fixed in the file), and got {rows}"
                raise InputError(message)
        try:
            return session.run(outputs, feed)
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            name = self.path or "the model"
            raise ModelError(f"{name}: ONNX Runtime cannot run it on {rows} rows: {_reason(error)}") from error

    def close(self) -> None:
        """Free the model's memory. A closed session cannot run."""
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({str(self.path or 'bytes')!r}, device={self.device!r})"

    def _opened(self) -> Any:
        session = self._session
        if session is None:
            raise ModelError(f"the session of {self.path or 'this model'} is closed")
        return session


def open_session(path: str | Path | bytes, providers: Providers, threads: int | None) -> Any:
    """ONNX Runtime's session on exactly these providers, with its log off. Raises ModelError and ProviderError."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # pyright: ignore[reportAttributeAccessIssue]

    name = "the model" if isinstance(path, bytes) else str(path)
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise ModelError(f"{name}: no such file" if not Path(path).exists() else f"{name}: not a file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    if len(providers) > 1:
        # The provider logs through the process's logger while it loads; its errors come back as exceptions anyway.
        onnxruntime.set_default_logger_severity(_FATAL)
    # Through links: ONNX Runtime looks for external data beside the name that it is given.
    source = path if isinstance(path, bytes) else os.path.realpath(path)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers), enable_fallback=0)
    except (state.NoSuchFile, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument) as error:
        raise ModelError(f"{name}: not a whole ONNX file: {_reason(error)}") from error
    except (state.Fail, state.NotImplemented, state.RuntimeException, state.EPFail, RuntimeError, ValueError) as error:
        if len(providers) > 1:
            raise ProviderError(f"{providers[0][0]} did not start: {_reason(error)}") from error
        raise ModelError(f"{name}: ONNX Runtime cannot run it: {_reason(error)}") from error
    finally:
        if len(providers) > 1:
            onnxruntime.set_default_logger_severity(2)
    asked, got = [provider for provider, _ in providers], session.get_providers()
    if got[: len(asked)] != asked:
        raise ProviderError(f"{asked[0]} was asked for, and ONNX Runtime gave {', '.join(got)}")
    return session


def _reason(error: BaseException) -> str:
    """ONNX Runtime's message without its codes."""
    return str(error).rpartition(" : ")[2].strip() or str(error)


def _port(value: Any) -> Port:
    if not value.shape:
        raise ModelError(f"'{value.name}' has no batch dimension (shape {value.shape}); rows in batches are expected")
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in value.shape)
    if value.type != "tensor(float)":
        raise ModelError(f"'{value.name}' is {value.type}; models with tensor(float) inputs and outputs are supported")
    return Port(value.name, shape)
