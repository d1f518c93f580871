"""What is said between a client and a V2 server, whichever way it travels, and what a client can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Fault(Exception):
    """The server did not answer as it should.

    ``status`` is the HTTP status, or the one that a gRPC code stands for; None where nothing usable came. ``where`` is
    "way" where the server could not be spoken to at all. ``hint`` is what to do, where it is known.
    """

    def __init__(
        self, words: str, status: int | None = None, *, where: str = "answer", wait: float = 0.5, hint: str = ""
    ):
        super().__init__(words)
        self.status, self.where, self.wait, self.hint = status, where, wait, hint


@dataclass(frozen=True)
class TensorInfo:
    """An input or output as the server's metadata has it; -1 is a dimension that is open."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ServerInfo:
    """What the server says of itself."""

    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What the server says of a model; many leave parts of it empty."""

    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    sha256: str | None = None
    """Of the model's file, where the server tells it."""


@dataclass(frozen=True)
class Output:
    """A tensor of an answer. ``values`` is float64 of that shape; None where the datatype is not one of numbers."""

    datatype: str
    shape: tuple[int, ...]
    values: np.ndarray | None


@dataclass(frozen=True)
class Reply:
    """The answer to one request."""

    outputs: Mapping[str, Output]
    version: str = ""
    request: str = ""
    """The identity that the answer bears; "" for none."""


@dataclass(frozen=True)
class Question:
    """Rows for a model: float32 or int64 arrays (rows, ...) by the names of its inputs."""

    inputs: Mapping[str, np.ndarray]
    request: str
    version: str | None
    binary: bool = True
    """Whether tensors travel as bytes (over gRPC always), or as JSON."""
    most: int = field(default=2**26)
    """Bytes of an answer that are read at most."""


class Client(Protocol):
    """One connection to one server. Every method raises Fault."""

    def server(self) -> ServerInfo: ...

    def model(self, version: str | None) -> ModelInfo: ...

    def models(self) -> list[str]:
        """The names of all models, if the server lists them."""
        ...

    def infer(self, question: Question) -> Reply: ...

    def close(self) -> None: ...
