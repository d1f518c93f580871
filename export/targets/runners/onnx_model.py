"""The model of this package in ONNX Runtime: requests are checked one by one, and waiting ones are run as one batch.

It needs numpy and onnxruntime, and is the same for every server.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import onnxruntime

_DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
"""The protocol's datatype of each type that an input or output of a packaged file has."""
_DTYPES = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}


class WrongRequestError(ValueError):
    """An invalid request: what was expected and what came, for its client, with status 400."""


class Tensor(NamedTuple):
    """An input or output: the name, the shape with -1 for any number of rows, and the protocol's datatype."""

    name: str
    shape: list[int]
    datatype: str = "FP32"

    @property
    def metadata(self) -> dict[str, Any]:
        """As the protocol's metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


class RequestTensor(NamedTuple):
    """An input of a request; ``data`` is bytes (little-endian, row by row), numbers, or lists of them."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any


class OnnxModel:
    """The model on the CPU or a GPU. ``run`` is for one event loop."""

    def __init__(
        self, path: str | Path, *, threads: int = 1, max_batch: int = 1024, delay_us: int = 0, device: str = "cpu"
    ):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if device != "cpu":
            # TF32 would leave the bound that the file was proved with.
            providers = [("CUDAExecutionProvider", {"use_tf32": "0"})]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if device != "cpu" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeError("the device is cuda, and ONNX Runtime cannot use it here: see its messages above")
        self.inputs = {port.name: _tensor(port) for port in self._session.get_inputs()}
        self.outputs = {port.name: _tensor(port) for port in self._session.get_outputs()}
        self.max_batch, self._delay = max_batch, delay_us / 1e6
        self._any_rows = all(port.shape[0] == -1 for port in (*self.inputs.values(), *self.outputs.values()))
        self.batch = None if self._any_rows else next(iter(self.inputs.values())).shape[0]
        """The rows that every request has, where the file fixes them."""
        self._waiting: list[tuple[Mapping[str, np.ndarray], asyncio.Future[dict[str, np.ndarray]]]] = []

    def feed(self, tensors: Iterable[RequestTensor]) -> dict[str, np.ndarray]:
        """The arrays of a request's inputs. Raises WrongRequestError."""
        feed: dict[str, np.ndarray] = {}
        for tensor in tensors:
            port = self.inputs.get(tensor.name)
            if port is None:
                raise WrongRequestError(f"there is no input '{tensor.name}'; the model takes {_names(self.inputs)}")
            if tensor.name in feed:
                raise WrongRequestError(f"the input '{tensor.name}' is given twice")
            feed[tensor.name] = self._array(port, tensor)
        if missing := [name for name in self.inputs if name not in feed]:
            raise WrongRequestError(f"the input {_names(missing)} is missing")
        if len({len(array) for array in feed.values()}) > 1:
            counts = ", ".join(f"'{name}' {len(array)}" for name, array in feed.items())
            raise WrongRequestError(f"all inputs have the same number of rows, and these have: {counts}")
        return feed

    def requested(self, names: Iterable[str]) -> list[str]:
        """The outputs that a request names, or all where it names none. Raises WrongRequestError."""
        outputs = list(names) or list(self.outputs)
        for name in outputs:
            if name not in self.outputs:
                raise WrongRequestError(f"there is no output '{name}'; the model gives {_names(self.outputs)}")
        if len(set(outputs)) < len(outputs):
            raise WrongRequestError(f"an output is asked for twice: {_names(outputs)}")
        return outputs

    async def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output for a request's arrays, run in one batch with the other requests that wait."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, np.ndarray]] = loop.create_future()
        if not self._waiting:
            loop.call_later(self._delay, self._run_waiting) if self._delay else loop.call_soon(self._run_waiting)
        self._waiting.append((feed, future))
        return await future

    def _run_waiting(self) -> None:
        """Run the waiting requests, in batches of ``max_batch`` rows at most, and answer all at once."""
        waiting, self._waiting = [entry for entry in self._waiting if not entry[1].done()], []
        feeds, answers = [feed for feed, _ in waiting], list[dict[str, np.ndarray]]()
        try:
            while len(answers) < len(feeds):
                answers += self._run_batch(self._next_batch(feeds[len(answers) :]))
        except Exception as error:
            for _, future in waiting:
                future.set_exception(error)
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            future.set_result(answer)

    def _next_batch(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> Sequence[Mapping[str, np.ndarray]]:
        """As many of the first requests as fit; one where the file has a fixed number of rows."""
        count, rows = 1, _rows(feeds[0])
        while self._any_rows and count < len(feeds) and rows + _rows(feeds[count]) <= self.max_batch:
            rows += _rows(feeds[count])
            count += 1
        return feeds[:count]

    def _run_batch(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """Every output for each request's arrays."""
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        results = self._session.run(list(self.outputs), joined)
        ends = np.cumsum([_rows(feed) for feed in feeds])[:-1]
        parts = zip(*(np.split(result, ends) for result in results), strict=True)
        return [dict(zip(self.outputs, part, strict=True)) for part in parts]

    def _array(self, port: Tensor, tensor: RequestTensor) -> np.ndarray:
        where = f"the input '{port.name}'"
        if tensor.datatype != port.datatype:
            raise WrongRequestError(f"{where} has the datatype {port.datatype}, and {tensor.datatype} was given")
        shape = list(tensor.shape)
        fits = len(shape) == len(port.shape) and all(type(size) is int for size in shape) and shape[0] > 0
        if not fits or any(expected not in (-1, size) for expected, size in zip(port.shape, shape, strict=True)):
            raise WrongRequestError(f"{where} has the shape {port.shape}, and {shape} was given")
        if shape[0] > self.max_batch:
            raise WrongRequestError(f"{where} has {shape[0]} rows, and a request has {self.max_batch} at most")
        data = tensor.data
        if isinstance(data, bytes | bytearray | memoryview):
            raw = cast("bytes | bytearray | memoryview[int]", data)
            dtype = _DTYPES[port.datatype]
            if len(raw) != math.prod(shape) * dtype.itemsize:
                raise WrongRequestError(f"{where} has {len(raw)} bytes, which do not fit the shape {shape}")
            return np.frombuffer(raw, dtype).reshape(shape)
        return _from_numbers(where, port, shape, data)


def plain(values: np.ndarray) -> list[float | None]:
    """Values for JSON, flat; NaN and infinity, which JSON lacks, become null."""
    flat = values.ravel().tolist()
    return flat if np.isfinite(values).all() else [value if math.isfinite(value) else None for value in flat]


def _rows(feed: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(feed.values())))


def _from_numbers(where: str, port: Tensor, shape: list[int], data: Any) -> np.ndarray:
    try:
        values = np.asarray(data)
    except (ValueError, RecursionError, OverflowError):
        raise WrongRequestError(f"{where} has data that is not an array of numbers") from None
    if values.dtype.kind not in "iuf":
        raise WrongRequestError(f"{where} has data that is not all numbers")
    if list(values.shape) != shape and (values.ndim != 1 or values.size != math.prod(shape)):
        raise WrongRequestError(f"{where} has data of shape {list(values.shape)}, which does not fit the shape {shape}")
    if port.datatype == "INT64":
        if values.dtype.kind == "f" and not (np.isfinite(values) & (np.floor(values) == values)).all():
            raise WrongRequestError(f"{where} has a number that is not whole, and is {port.datatype}")
        with np.errstate(invalid="ignore"):
            integers = values.astype(_DTYPES["INT64"]).reshape(shape)
        if not np.array_equal(integers.ravel(), values.ravel()):
            raise WrongRequestError(f"{where} has a number that is too large for {port.datatype}")
        return integers
    with np.errstate(over="ignore"):
        array = values.astype(_DTYPES["FP32"]).reshape(shape)
    if not np.array_equal(np.isfinite(array).ravel(), np.isfinite(values).ravel()):
        raise WrongRequestError(f"{where} has a number that is too large for {port.datatype}")
    return array


def _tensor(port: onnxruntime.NodeArg) -> Tensor:
    shape = [size if isinstance(size, int) else -1 for size in port.shape]
    return Tensor(port.name, shape, _DATATYPES.get(port.type, "FP32"))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
