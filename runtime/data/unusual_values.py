"""NaN and infinity among a model's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime.model.port import Port
from runtime.model.ranges import feature_at

from .columns import Counted, Flaw


@dataclass(frozen=True)
class NonFinite:
    """How many rows and values of some data are NaN or infinite, and where the first is."""

    rows: int
    nan_values: int
    infinite_values: int
    first_row: int
    """Counted from 1."""
    feature: str
    """Its name, or its place in a row, counted from 1."""
    value: float

    def joined(self, other: NonFinite) -> NonFinite:
        """This and what comes after it."""
        names = ("rows", "nan_values", "infinite_values")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


def nonfinite(
    rows: Mapping[str, np.ndarray], ports: Sequence[Port], without: np.ndarray | None = None, first: int = 0
) -> tuple[NonFinite, Flaw] | None:
    """The values that are NaN or infinite in float32 rows (batch, *row) of every input; None where there is none.

    The rows of ``without`` (bool) do not count; ``first`` is the number of rows before these. The flaw is what to say
    where such values are refused.
    """
    if all(_finite(rows[port.name]) for port in ports):
        return None
    count = len(rows[ports[0].name])
    bad = np.zeros(count, bool)
    places: dict[int, tuple[str, float]] = {}
    nans = infinite = 0
    for port in ports:
        flat = rows[port.name].reshape(count, -1)
        odd = ~np.isfinite(flat)
        if without is not None:
            odd &= ~without[:, None]
        if not odd.any():
            continue
        bad |= odd.any(axis=1)
        nan = int(np.count_nonzero(np.isnan(flat) & odd))
        nans, infinite = nans + nan, infinite + int(np.count_nonzero(odd)) - nan
        row = int(odd.any(axis=1).argmax())
        column = int(odd[row].argmax())
        places.setdefault(row, (feature_at(column, port, flat.shape[1]), float(flat[row, column])))
    if not places:
        return None
    row = min(places)
    feature, value = places[row]
    found_here = NonFinite(int(bad.sum()), nans, infinite, first + row + 1, feature, value)

    def reason(at: int) -> str:
        for port in ports:
            flat = rows[port.name].reshape(count, -1)[at]
            if not np.isfinite(flat).all():
                column = int((~np.isfinite(flat)).argmax())
                return f"'{feature_at(column, port, len(flat))}' is {float(flat[column])!r}"
        return "it is not finite"

    hint = "correct or drop those rows, or let them through without reject_nonfinite (--reject-nonfinite)"
    flaw = Flaw(bad, lambda counted: f"'{feature}' is {value!r} in {counted(row)}. What to do: {hint}", reason)
    return found_here, flaw


def nonfinite_words(found: NonFinite | None, rows: int, origin: str, *, line: bool = False) -> str | None:
    """In words: how many values, and the first of them; ``line`` counts as a CSV file does.

    None where there is none.
    """
    if found is None:
        return None
    kinds = [f"{n:,} {what}" for n, what in ((found.nan_values, "NaN"), (found.infinite_values, "infinite")) if n]
    place = Counted(lines=line)(found.first_row - 1)
    where = f"{found.rows:,} of the {rows:,} rows of {origin}"
    first = f"first '{found.feature}' in {place}: {found.value!r}"
    return f"{' and '.join(kinds)} values in {where} went through the model, {first}"


def _finite(values: np.ndarray) -> bool:
    """Whether all are, at the price of a sum unless one is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())
