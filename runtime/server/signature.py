"""What a request to a model must look like: names, shapes and datatypes of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from runtime.data.arrays import to_int64
from runtime.json_types import Json
from runtime.model.port import Port

from .refusals import Malformed, TooLarge

FP32, INT64, BYTES = "FP32", "INT64", "BYTES"
_INTEGERS = {
    f"{sign}INT{bits}": np.dtype(f"<{kind}{bits // 8}")
    for sign, kind in (("", "i"), ("U", "u"))
    for bits in (64, 32, 16, 8)
}
DTYPES = {FP32: np.dtype("<f4")} | _INTEGERS
"""The datatypes of requests, as they are sent."""
DATATYPES: dict[str, tuple[str, ...]] = {
    "float32": (FP32,),
    "int64": (INT64, *(name for name in _INTEGERS if name != INT64)),
}
"""The datatypes that an input accepts, by the dtype of its port; metadata name the first."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model: ``row`` is the shape of a row, -1 where the file leaves a size open."""

    name: str
    row: tuple[int, ...]
    width: int | None
    """The values of a row; None where a size is open."""
    batch: int | None
    """The rows of every batch, where the file fixes them."""
    datatypes: tuple[str, ...] = (FP32,)
    """Those that it accepts."""
    port: Port | None = None
    """What the file says of an input whose features are all categories, which accepts words as BYTES."""
    missing: bool = False
    """Whether values may be missing; null in JSON is then NaN."""

    @property
    def datatype(self) -> str:
        """The one that metadata name."""
        return self.datatypes[0]

    @property
    def shape(self) -> list[int]:
        """As V2 has it, with -1 for what is open."""
        return [-1 if self.batch is None else self.batch, *self.row]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    max_rows: int

    @property
    def fixed(self) -> bool:
        """Whether every size but the batch is known, so that rows of several requests can share a call."""
        ports = (*self.inputs.values(), *self.outputs.values())
        return all(port.width is not None and port.batch is None for port in ports)

    def input(self, name: object, datatype: object, shape: Json) -> tuple[Tensor, int]:
        """The input that a request names, and how many values its shape has. Raises Malformed, TooLarge."""
        tensor = self.inputs.get(name) if isinstance(name, str) else None
        if tensor is None:
            raise Malformed(f"no input is called {_shorten(name)}: the model's are {_format_names(self.inputs)}")
        if datatype not in tensor.datatypes:
            accepted = tensor.datatype if len(tensor.datatypes) == 1 else f"{INT64} or a smaller type of integers"
            accepted += f", or words as {BYTES}" if tensor.port is not None else ""
            raise Malformed(f"input '{tensor.name}' has datatype {_shorten(datatype)}, and the model takes {accepted}")
        if type(shape) is not list or len(shape) != 1 + len(tensor.row):
            raise Malformed(f"input '{tensor.name}' has shape {_shorten(shape)}, and the model takes {tensor.shape}")
        for size, expected in zip(shape, (tensor.batch, *tensor.row), strict=True):
            fits = type(size) is int and size >= 0 and (expected in (None, -1) or size == expected)
            if not fits:
                raise Malformed(
                    f"input '{tensor.name}' has shape {_shorten(shape)}, and the model takes {tensor.shape}"
                )
        if shape[0] > self.max_rows:
            raise TooLarge(f"{shape[0]:,} rows, and this server takes {self.max_rows:,} in a request")
        return tensor, prod(shape)

    def complete(self, feed: dict[str, np.ndarray]) -> int:
        """The rows of a feed that has every input. Raises Malformed."""
        if len(feed) != len(self.inputs):
            missing = [name for name in self.inputs if name not in feed]
            raise Malformed(f"the request lacks the input{'s' if len(missing) > 1 else ''} {_format_names(missing)}")
        rows = {len(values) for values in feed.values()}
        if len(rows) > 1:
            counts = ", ".join(f"'{name}' {len(values)}" for name, values in feed.items())
            raise Malformed(f"the inputs have different numbers of rows: {counts}")
        return rows.pop()

    def output(self, name: object) -> str:
        """The output that a request names. Raises Malformed."""
        if not isinstance(name, str) or name not in self.outputs:
            raise Malformed(f"no output is called {_shorten(name)}: the model's are {_format_names(self.outputs)}")
        return name


def signature_of(inputs: tuple[Port, ...], outputs: tuple[Port, ...], max_rows: int) -> Signature:
    """From the ports of a session, with what its file says of them."""
    return Signature({p.name: _tensor(p) for p in inputs}, {p.name: _tensor(p) for p in outputs}, max_rows)


def _tensor(port: Port) -> Tensor:
    batch, *rest = port.shape or ("batch",)
    row = tuple(size if isinstance(size, int) else -1 for size in rest)
    width, fixed = None if -1 in row else prod(row), batch if isinstance(batch, int) else None
    datatypes, has_words = DATATYPES[port.dtype], port.categories is not None and all(port.categories)
    if has_words:
        return Tensor(port.name, row, width, fixed, (*datatypes, BYTES), port)
    return Tensor(port.name, row, width, fixed, datatypes, missing=port.missing)


def to_model_dtype(tensor: Tensor, values: np.ndarray, datatype: str) -> np.ndarray:
    """Values (count,) of a request's ``datatype`` as float32 or int64, as the model takes them.

    Raises Malformed: a value is not a whole number, or outside of the datatype's range.
    """
    if datatype == FP32:
        return values
    limits = np.iinfo(DTYPES[datatype].name)
    integers, wrong = to_int64(values)
    if wrong is None and datatype != INT64 and values.dtype != DTYPES[datatype]:
        wrong = (integers < limits.min) | (integers > limits.max)
    if wrong is not None and wrong.any():
        index = int(wrong.argmax())
        raise out_of_range(tensor, values.flat[index], index, datatype)
    return integers


def out_of_range(tensor: Tensor, value: object, index: int, datatype: str) -> Malformed:
    """The refusal of the value at an index of an input."""
    types = datatype if datatype == INT64 else f"both {datatype} and {INT64}"
    entry = f"input '{tensor.name}' has {str(value)[:40]}, value {index + 1}"
    return Malformed(f"{entry}, which is not a whole number that {types} can hold")


def _format_names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _shorten(value: object) -> str:
    """A client's value for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
