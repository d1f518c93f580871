"""An input or output of a model: its features, ranges and labels, and how a file's metadata holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from runtime.errors import ModelError
from runtime.json_types import Json

T = TypeVar("T")
LARGEST = 3.4028234663852886e38
"""The largest float32 number."""
SMALLEST_INT, LARGEST_INT = -(2**63), 2**63 - 1
"""The limits of int64."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a category, in the order of their codes: 0, 1 and so on."""

    words: tuple[str, ...]
    unknown: int | None = None
    """The code of any other word; None if another word is an error."""


@dataclass(frozen=True)
class Port:
    """An input or output: ``shape`` begins with the symbolic batch dimension.

    Examples:
        >>> from mlpx import inspect
        >>> port = inspect("comfort.onnx").summary.inputs[0]
        >>> port.name, port.shape, port.units, port.dtype
        ('air', ('batch', 2), ('degC', 'percent'), 'float32')
    """

    name: str
    shape: tuple[int | str, ...]
    features: tuple[str, ...] | None = None
    """The names of the features."""
    units: tuple[str | None, ...] | None = None
    """The unit of each feature; None for a feature without one."""
    range: tuple[float, float] | None = None
    """The lowest and the highest value of every feature without a range of its own."""
    ranges: tuple[tuple[float, float] | None, ...] | None = None
    """The range of each feature; None for a feature without its own."""
    labels: tuple[str, ...] | None = None
    scores: str | None = None
    """What an output with labels holds: probabilities, logits or values."""
    dtype: str = "float32"
    """float32 or int64."""
    indices: tuple[tuple[int, int] | None, ...] | None = None
    """The lowest and the highest whole number allowed for each value of a row, in C order; None: any value.

    They are indices into tables of the network. A float32 input has them if the network casts it to an index.
    """
    descriptions: tuple[str | None, ...] | None = None
    """What each feature is, in a line; None for a feature without a description."""
    categories: tuple[Vocabulary | None, ...] | None = None
    """The words that each feature of an int64 input has codes for; None for a feature of whole numbers."""
    missing: bool = False
    """Whether NaN stands for a value that is not known, which the network replaces."""

    def to_record(self) -> dict[str, Any]:
        """What the metadata holds. Keys that were added later than the others are left out if they are None."""
        added = {"units": None, "ranges": None, "indices": None, "descriptions": None}
        added |= {"categories": None, "missing": False}
        return {key: value for key, value in asdict(self).items() if key not in added or value != added[key]}


def limits(port: Port) -> tuple[np.ndarray, np.ndarray] | None:
    """The lowest and the highest value of the features, float64 (features,) or (1,) for all; NaN if not declared.

    None if the port declares no range.
    """
    ranges = port.ranges if port.ranges is not None else (None,)
    both = np.array([own or port.range or (np.nan, np.nan) for own in ranges], np.float64)
    return None if np.isnan(both).all() else (both[:, 0], both[:, 1])


def threshold(port: Port) -> float:
    """The score above which a single output means the second of two labels: that of a logit, or of a probability."""
    return 0.0 if port.scores == "logits" else 0.5


def feature_name(port: Port, column: int, shape: Sequence[int]) -> str:
    """The name of a value in a row of this shape, or its position counted from 1, such as ``3`` or ``1, 3``."""
    if port.features is not None:
        return port.features[column]
    return ", ".join(str(int(index) + 1) for index in np.unravel_index(column, shape))


def format_feature(port: Port, column: int, shape: Sequence[int]) -> str:
    """``feature 'speed'``, or ``feature 3`` if the features have no names."""
    name = feature_name(port, column, shape)
    return f"feature {name if port.features is None else repr(name)}"


def format_range(limits: tuple[float, float]) -> str:
    """``0 to 30``, with every digit."""
    return f"{format_number(limits[0])} to {format_number(limits[1])}"


def format_number(value: float) -> str:
    """With every digit, and without the ``.0`` of whole numbers."""
    return f"{value!r}".removesuffix(".0")


def annotate_ports(described: Sequence[Port] | None, ports: Sequence[Port], path: Path | None) -> tuple[Port, ...]:
    """``ports`` of a session with the features, units, ranges, labels and so on that the metadata describe.

    ``path`` is the file's, None for bytes. Raises ModelError if the metadata describe other ports.
    """
    if described is None:
        return tuple(ports)
    by_name = {port.name: port for port in described}
    if len(described) == len(ports) == 1:  # the name does not matter
        by_name = {ports[0].name: described[0]}
    for port in ports:
        other = by_name.get(port.name)
        if other is None or not _may_be_equal(other.shape[1:], port.shape[1:]):
            shape = list(other.shape[1:]) if other is not None else "nothing"
            message = f"its metadata describes rows of shape {shape}, and '{port.name}' has {list(port.shape[1:])}"
            raise ModelError(f"{path or 'the model'}: {message}. What to do: export it again")
    return tuple(_annotated(port, by_name[port.name]) for port in ports)


def _annotated(port: Port, described: Port) -> Port:
    categories = described.categories if port.dtype == "int64" else None
    missing = described.missing and port.dtype == "float32"
    return replace(described, name=port.name, dtype=port.dtype, categories=categories, missing=missing)


def _may_be_equal(shape: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    """Whether two shapes have as many sizes, and no two known sizes differ."""
    return len(shape) == len(other) and all(
        isinstance(a, str) or isinstance(b, str) or a == b for a, b in zip(shape, other, strict=True)
    )


def read_port(record: Any) -> Port:
    """The port in a record of the metadata; unknown keys are ignored.

    Raises ValueError, TypeError or KeyError for a record that does not describe a port.
    """
    port = Port(
        name=_text(record["name"]),
        shape=tuple(_size(size) for size in record["shape"]),
        features=_each(record.get("features"), _text),
        units=_each(record.get("units"), _optional(_text)),
        range=_optional(_limits)(record.get("range")),
        ranges=_each(record.get("ranges"), _optional(_limits)),
        labels=_each(record.get("labels"), _text),
        scores=_optional(_text)(record.get("scores")),
        dtype=_text(record.get("dtype", "float32")),
        indices=_each(record.get("indices"), _optional(_index_limits)),
        descriptions=_each(record.get("descriptions"), _optional(_text)),
        categories=_each(record.get("categories"), _optional(_vocabulary)),
        missing=expect(bool)(record.get("missing", False)),
    )
    count = len(port.features or ())
    sizes = [size for size in port.shape[1:] if isinstance(size, int)]
    width = prod(sizes) if len(sizes) == len(port.shape) - 1 else None
    if port.features is not None and count != width:
        raise ValueError(f"{count} features in rows of shape {port.shape[1:]}")
    of_each = (port.units, port.ranges, port.descriptions, port.categories)
    if any(listed is not None and len(listed) != count for listed in of_each):
        raise ValueError(f"there are not as many units, ranges, descriptions or categories as the {count} features")
    if (port.categories is not None and port.dtype != "int64") or (port.missing and port.dtype != "float32"):
        raise ValueError(f"categories or missing values of an input of {port.dtype}")
    if port.indices is not None and len(port.indices) != width:
        raise ValueError(f"{len(port.indices)} index limits for rows of shape {port.shape[1:]}")
    if port.features is not None and (port.labels is not None or len(set(port.features)) != count):
        raise ValueError("features and labels, or two features of the same name")
    if port.labels is not None and len(port.labels) != width and (len(port.labels), width) != (2, 1):
        raise ValueError(f"{len(port.labels)} labels for rows of shape {port.shape[1:]}")
    return port


def expect(kind: type[T]) -> Callable[[Any], T]:
    """What returns a value of this type, and raises TypeError for any other."""

    def check(value: Any) -> T:
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is not a {kind.__name__}")
        return value

    return check


_text = expect(str)


def _size(value: Any) -> int | str:
    if type(value) not in (int, str):
        raise TypeError(f"{value!r} is not a size")
    return value


def _limits(value: Any) -> tuple[float, float]:
    low, high = value
    if not {type(low), type(high)} <= {int, float} or not -LARGEST <= low <= high <= LARGEST:
        raise ValueError(f"{value!r} is not a range")
    return float(low), float(high)


def _index_limits(value: Any) -> tuple[int, int]:
    low, high = value
    if not type(low) is type(high) is int or not SMALLEST_INT <= low <= high <= LARGEST_INT:
        raise ValueError(f"{value!r} is not the lowest and the highest index")
    return low, high


def _vocabulary(value: Any) -> Vocabulary:
    words, unknown = _each(value["words"], _text), value.get("unknown")
    if not words or len(set(words)) != len(words):
        raise ValueError(f"{value!r} has no words, or one of them twice")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(words)):
        raise ValueError(f"{unknown!r} is not the code of a word")
    return Vocabulary(words, unknown)


def _optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _each(value: Json, read: Callable[[Any], T]) -> tuple[T, ...] | None:
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return None if value is None else tuple(read(item) for item in value)
