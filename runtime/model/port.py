"""An input or output of a model, and how a file's metadata holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, TypeVar

T = TypeVar("T")
LARGEST = 3.4028234663852886e38
"""Of float32."""
SMALLEST_INT, LARGEST_INT = -(2**63), 2**63 - 1
"""Of int64."""


@dataclass(frozen=True)
class Port:
    """An input or output: ``shape`` begins with the symbolic batch dimension."""

    name: str
    shape: tuple[int | str, ...]
    features: tuple[str, ...] | None = None
    """The names of the features, where it has them."""
    units: tuple[str | None, ...] | None = None
    """The unit of each of the features, where one has any."""
    range: tuple[float, float] | None = None
    """The lowest and the highest value of every feature without a range of its own."""
    ranges: tuple[tuple[float, float] | None, ...] | None = None
    """The range of each of the features, where one has its own."""
    labels: tuple[str, ...] | None = None
    scores: str | None = None
    """What an output with labels holds: probabilities, logits or values."""
    dtype: str = "float32"
    """float32 or int64."""
    indices: tuple[tuple[int, int] | None, ...] | None = None
    """For each value of a row, in C order, the lowest and the highest whole number that may come; None: any value.

    They are indices into tables that the network holds. A float32 input has them where the network casts to an index.
    """

    def to_record(self) -> dict[str, Any]:
        """What the metadata holds. Keys that came later than others are left out where they say nothing."""
        return {k: v for k, v in asdict(self).items() if v is not None or k not in ("units", "ranges", "indices")}


def port_of(record: Any) -> Port:
    """The port that a record holds; keys that it does not know are passed over.

    Raises ValueError, TypeError or KeyError for a record of another make.
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
    )
    count = len(port.features or ())
    sizes = [size for size in port.shape[1:] if isinstance(size, int)]
    width = prod(sizes) if len(sizes) == len(port.shape) - 1 else None
    if port.features is not None and count != width:
        raise ValueError(f"{count} features in rows of shape {port.shape[1:]}")
    if any(given is not None and len(given) != count for given in (port.units, port.ranges)):
        raise ValueError(f"units or ranges of another number than the {count} features")
    if port.indices is not None and len(port.indices) != width:
        raise ValueError(f"{len(port.indices)} limits of indices for rows of shape {port.shape[1:]}")
    if port.features is not None and (port.labels is not None or len(set(port.features)) != count):
        raise ValueError("features beside labels, or two of one name")
    if port.labels is not None and len(port.labels) != width and (len(port.labels), width) != (2, 1):
        raise ValueError(f"{len(port.labels)} labels for rows of shape {port.shape[1:]}")
    return port


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _size(value: Any) -> int | str:
    if type(value) not in (int, str):
        raise TypeError(f"{value!r} is no size")
    return value


def _limits(value: Any) -> tuple[float, float]:
    low, high = value
    if not {type(low), type(high)} <= {int, float} or not -LARGEST <= low <= high <= LARGEST:
        raise ValueError(f"{value!r} is no range")
    return float(low), float(high)


def _index_limits(value: Any) -> tuple[int, int]:
    low, high = value
    if not type(low) is type(high) is int or not SMALLEST_INT <= low <= high <= LARGEST_INT:
        raise ValueError(f"{value!r} is not the lowest and the highest index")
    return low, high


def _optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


def _each(value: Any, read: Callable[[Any], T]) -> tuple[T, ...] | None:
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return None if value is None else tuple(read(item) for item in value)
