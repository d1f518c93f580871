"""Values that run but should be reported: NaN and infinity, and values outside the ranges that the file declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime.model.port import Port, feature_name, format_number, format_range, limits

from .flaws import Flaw, RowNumbers, first_of, flaw_of_values


@dataclass(frozen=True)
class NonFinite:
    """How many rows and values are NaN or infinite, and the first of them.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> from runtime import score_file
        >>> np.save("gaps.npy", np.array([[21.0, 45.0], [np.nan, 80.0]], np.float32))
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     nonfinite = score_file(session, "gaps.npy", "gaps_scores.npy").nonfinite
        >>> nonfinite.rows, nonfinite.feature
        (1, 'temperature')
    """

    rows: int
    nan_values: int
    infinite_values: int
    first_row: int
    """Counted from 1."""
    feature: str
    """Its name, or its position in a row, counted from 1."""
    value: float

    def joined(self, other: NonFinite) -> NonFinite:
        """The counts of these and later rows."""
        counts = ("rows", "nan_values", "infinite_values")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in counts})


@dataclass(frozen=True)
class Outside:
    """How often one feature leaves its declared range, and the first time.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> from runtime import score_file
        >>> np.save("hot.npy", np.array([[21.0, 45.0], [55.0, 80.0]], np.float32))
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     (outside,) = score_file(session, "hot.npy", "hot_scores.npy").outside
        >>> outside.feature, outside.value, outside.range
        ('temperature', 55.0, (0.0, 40.0))
    """

    feature: str
    """Its name, or its position in a row, counted from 1."""
    rows: int
    first_row: int
    """Counted from 1."""
    value: float
    """In the first row; NaN is outside every range."""
    range: tuple[float, float]
    unit: str | None = None


def find_nonfinite(
    rows: Mapping[str, np.ndarray], ports: Sequence[Port], excluded: np.ndarray | None = None
) -> tuple[NonFinite, Flaw] | None:
    """The NaN and infinite values in the rows (batch, *row) of every input; None if there are none.

    NaN of an input whose values may be missing does not count, nor do the rows ``excluded``, bool (batch,). The flaw is
    for callers that refuse such values.
    """
    if all(_is_finite(rows[port.name]) for port in ports):
        return None
    count = len(rows[ports[0].name])
    values = np.concatenate([rows[port.name].reshape(count, -1) for port in ports], axis=1)
    wrong = ~np.isfinite(values)
    may_miss = np.concatenate([np.full(rows[port.name].reshape(count, -1).shape[1], port.missing) for port in ports])
    if may_miss.any():
        wrong &= ~(np.isnan(values) & may_miss)
    if excluded is not None:
        wrong &= ~excluded[:, None]
    if not wrong.any():
        return None

    columns = [(port, column) for port in ports for column in range(rows[port.name][0].size)]

    def name(column: int) -> str:
        port, own = columns[column]
        return feature_name(port, own, rows[port.name].shape[1:])

    def describe(row: int, column: int, number: str) -> str:
        return f"'{name(column)}' is {float(values[row, column])!r}{number and f' in {number}'}"

    row, column = first_of(wrong)
    nan = int(np.count_nonzero(np.isnan(values) & wrong))
    infinite = int(np.count_nonzero(wrong)) - nan
    first = row + 1, name(column), float(values[row, column])
    hint = "correct or drop those rows, or let them through without reject_nonfinite (--reject-nonfinite)"
    flaw = flaw_of_values(wrong, describe, hint)
    return NonFinite(int(flaw.rows.sum()), nan, infinite, *first), flaw


def find_outside(rows: np.ndarray, port: Port, excluded: np.ndarray | None = None) -> tuple[int, dict[int, Outside]]:
    """How many of the float32 rows (batch, *row) leave a declared range; and each feature that does, by its column.

    Ranges are compared as float32, as the values are; a missing value is NaN, and in any range. The rows ``excluded``,
    bool (batch,), do not count.
    """
    ranges = limits(port)
    if ranges is None or not rows.size:
        return 0, {}
    is_declared = ~np.isnan(ranges[0])
    low, high = (limit.astype(np.float32) for limit in ranges)
    values = rows.reshape(len(rows), -1)
    wrong = is_declared & ~((values >= low) & (values <= high))
    if port.missing:
        wrong &= ~np.isnan(values)
    if excluded is not None:
        wrong &= ~excluded[:, None]
    counts = np.count_nonzero(wrong, axis=0)
    features: dict[int, Outside] = {}
    for column in map(int, np.flatnonzero(counts)):
        row = int(wrong[:, column].argmax())
        own = port.ranges[column] if port.ranges is not None else None
        low_high = own or port.range
        assert low_high is not None  # otherwise the column would not be declared
        features[column] = Outside(
            feature=feature_name(port, column, rows.shape[1:]),
            rows=int(counts[column]),
            first_row=row + 1,
            value=float(str(values[row, column])),
            range=(low_high[0], low_high[1]),
            unit=port.units[column] if port.units is not None else None,
        )
    return int(wrong.any(axis=1).sum()), features


class OutsideTally:
    """The counts of ``find_outside`` over several batches."""

    def __init__(self) -> None:
        self.rows: int = 0
        self._features: dict[int, Outside] = {}

    def add(self, rows: int, features: Mapping[int, Outside], first: int) -> None:
        """Add a batch with ``first`` rows before it."""
        self.rows += rows
        for column, new in features.items():
            known = self._features.get(column) or replace(new, rows=0, first_row=new.first_row + first)
            self._features[column] = replace(known, rows=known.rows + new.rows)

    @property
    def features(self) -> tuple[Outside, ...]:
        """The features with values outside their ranges so far, in the order of their columns."""
        return tuple(self._features[column] for column in sorted(self._features))


def format_nonfinite(nonfinite: NonFinite | None, rows: int, origin: str, *, lines: bool = False) -> str | None:
    """The note on NaN and infinite values in ``rows`` rows of ``origin``; None if there are none."""
    if nonfinite is None:
        return None
    counts = {"NaN": nonfinite.nan_values, "infinite": nonfinite.infinite_values}
    values = " and ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    first = f"first '{nonfinite.feature}' in {RowNumbers(lines=lines)(nonfinite.first_row - 1)}: {nonfinite.value!r}"
    return f"{values} values in {nonfinite.rows:,} of the {rows:,} rows of {origin} went through the model, {first}"


def format_outside(count: int, features: Sequence[Outside], rows: int, origin: str, *, lines: bool = False) -> str:
    """The note on ``count`` of the ``rows`` rows of ``origin`` that leave the declared ranges, with the first one."""
    first = min(features, key=lambda feature: feature.first_row)
    unit = f" {first.unit}" if first.unit else ""
    value = f"{format_number(first.value)}{unit}, and its range is {format_range(first.range)}{unit}"
    row = RowNumbers(lines=lines)(first.first_row - 1)
    several = f"{len(features):,} features, first " if len(features) > 1 else ""
    message = f"{count:,} of the {rows:,} rows of {origin} are outside the declared ranges"
    return f"{message}, in {several}'{first.feature}' in {row}: {value}"


def format_failed(count: int, first: Sequence[str], rows: int, origin: str) -> str | None:
    """The note on ``count`` rows that could not be read, with the first of them; None if all could."""
    if not count:
        return None
    more = f"; and {count - len(first):,} more" if count > len(first) else ""
    message = f"{count:,} of the {rows:,} rows of {origin} could not be read and have empty results"
    return f"{message}: {'; '.join(first)}{more}"


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are finite; costs no more than a sum if they are."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())
