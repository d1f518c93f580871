"""The Open Inference Protocol (V2) independent of transport: requests, responses, tensors, and what a client can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from runtime.json_types import Json

DTYPES = {
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "BOOL": "|b1",
}
"""The numeric datatypes, little-endian as on the wire; numpy has no BF16, and BYTES are not numbers."""
_MAX_DIMENSIONS = 32


class ServerError(Exception):
    """The server did not answer as the protocol requires. The message is one line that cannot control a terminal.

    ``status`` is the HTTP status, or the one that a gRPC code corresponds to; None without a usable answer.
    ``unreachable``: no request could be exchanged at all. ``hint``: what to do, if known. ``wait``: the seconds after
    which to ask a busy server again.
    """

    status: int | None
    unreachable: bool
    hint: str
    wait: float

    def __init__(
        self, message: str, status: int | None = None, unreachable: bool = False, hint: str = "", wait: float = 0.5
    ):
        super().__init__("".join(c if c.isprintable() else " " for c in message).strip())
        self.status, self.unreachable, self.hint, self.wait = status, unreachable, hint, wait

    @property
    def no_answer(self) -> bool:
        """Whether nothing came at all: the next request would fare no better."""
        return self.unreachable or self.status == 504


@dataclass(frozen=True)
class TensorInfo:
    """An input or output in the server's metadata; -1 is an open dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ServerInfo:
    """The server's metadata."""

    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """A model's metadata; many servers leave parts of it empty."""

    versions: tuple[str, ...] = ()
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    sha256: str | None = None
    """Of the model's file, if the server reports it."""


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of a response. ``values`` is float64 of that shape; None for a datatype that is not numeric."""

    datatype: str
    shape: tuple[int, ...]
    values: np.ndarray | None

    @classmethod
    def decode(cls, name: str, datatype: str, shape: Json, data: Json | bytes | memoryview) -> OutputTensor:
        """From bytes, or from JSON: flat or nested lists of numbers, where null becomes NaN.

        Raises ServerError: ``shape`` is not a shape, or ``data`` is not numbers, too many or too few.
        """
        sizes = _checked_shape(shape, name)
        if datatype not in DTYPES:
            return cls(datatype, sizes, None)
        if isinstance(data, bytes | memoryview):
            size = prod(sizes) * np.dtype(DTYPES[datatype]).itemsize
            if size != len(data):
                raise ServerError(f"'{name}' is {datatype} {list(sizes)}, {size} bytes, and came as {len(data)}")
            values = np.frombuffer(data, DTYPES[datatype]).astype(np.float64)
        else:
            values = _numbers(name, data if isinstance(data, list) else [data])
            if values.size != prod(sizes):
                raise ServerError(f"'{name}' has the shape {list(sizes)}, and {values.size} values came")
        try:
            return cls(datatype, sizes, values.reshape(sizes))
        except ValueError:  # no values, but sizes that no array can have
            raise ServerError(f"the shape of '{name}' is {list(sizes)}, which no array can have") from None


@dataclass(frozen=True)
class Response:
    """The answer to one request."""

    outputs: Mapping[str, OutputTensor]
    version: str = ""
    id: str = ""
    """The request's, as the server repeats it; "" if it does not."""


class Client(Protocol):
    """One connection to one server. Every method raises ServerError."""

    def server_info(self) -> ServerInfo:
        """The server's metadata."""
        ...

    def model_info(self, version: str | None) -> ModelInfo:
        """The metadata of a version of the model; None: of the one that the server chooses."""
        ...

    def model_names(self) -> list[str]:
        """All models of the server; listing them is an extension of the protocol."""
        ...

    def infer(self, inputs: Mapping[str, np.ndarray], request_id: str, version: str | None, binary: bool) -> Response:
        """Send float32 or int64 rows (rows, ...) by input name, as bytes or as JSON; over gRPC always as bytes."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


def datatype_of(values: np.ndarray) -> str:
    """The datatype of a certificate's input or output: INT64, or FP32, whose exact answers are float64."""
    return "INT64" if values.dtype == np.int64 else "FP32"


def encode(values: np.ndarray) -> tuple[str, bytes]:
    """The datatype of an input, and its values as bytes."""
    datatype = datatype_of(values)
    return datatype, np.ascontiguousarray(values, DTYPES[datatype]).tobytes()


def _checked_shape(shape: Json, name: str) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
        or prod(shape) >= 2**31
    ):
        raise ServerError(f"the shape of '{name}' is {str(shape)[:80]!r} instead of a list of sizes")
    return tuple(shape)


def _numbers(name: str, data: list[Any]) -> np.ndarray:
    numbers: list[float] = []
    levels: list[Iterator[Any]] = [iter(data)]  # a server may nest deeper than Python recurses
    while levels:
        item: Json = next(levels[-1], levels)
        if item is levels:
            levels.pop()
        elif isinstance(item, list):
            levels.append(iter(item))
        elif item is None or isinstance(item, int | float):
            try:
                numbers.append(np.nan if item is None else float(item))
            except OverflowError:
                raise ServerError(f"'{name}' holds a number beyond float64") from None
        else:
            raise ServerError(f"'{name}' holds {str(item)[:40]!r} instead of a number")
    return np.array(numbers, np.float64)
