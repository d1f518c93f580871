"""How far the results of a file are from another's on the user's rows, and whether that passes a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.data.scoring import score
from runtime.errors import InputError
from runtime.model.onnx_header import read_header
from runtime.model.summary import rows_depend
from runtime.session.session import Session

from .rows import BATCH, batches, count_rows, spread

_MOST_ROWS = 20_000


@dataclass(frozen=True)
class Difference:
    """How far a file's outputs are from another's."""

    rows: int
    error: float
    """The largest absolute difference of an output; infinite where one is NaN and the other is not."""
    changed_labels: float | None
    """The share of rows with another label in any output that has labels; None where none has."""


@dataclass(frozen=True)
class Gate:
    """How far a file of reduced precision may be from the float32 file; None: no limit. Raises InputError."""

    max_error: float | None = None
    """The largest difference of any output, absolute."""
    max_changed_labels: float | None = None
    """The largest share of rows whose label changes, from 0 to 1."""

    def __post_init__(self) -> None:
        error, share = self.max_error, self.max_changed_labels
        if error is not None and not 0 <= error < np.inf:
            raise InputError(f"the largest error is a number from 0 on, not {error!r}")
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"the share of changed labels is a number from 0 to 1, not {share!r}")

    def why_not(self, difference: Difference) -> str | None:
        """Why a file is refused, in words; None where it passes."""
        reasons: list[str] = []
        if self.max_error is not None and not difference.error <= self.max_error:
            reasons.append(f"its error is {difference.error:.3g}, above {self.max_error:g}")
        if self.max_changed_labels is not None:
            if difference.changed_labels is None:
                reasons.append("the model has no labels to compare")
            elif difference.changed_labels > self.max_changed_labels:
                share = f"{100 * difference.changed_labels:.3g} % of the labels change"
                reasons.append(f"{share}, above {100 * self.max_changed_labels:g} %")
        return " and ".join(reasons) or None


def difference(reference: str | Path, other: str | Path, rows: Mapping[str, np.ndarray], batch: int = 1) -> Difference:
    """Run both files on ``rows``, float32 (batch, *row) by the inputs' names, and compare.

    A file whose rows depend on each other gets them in batches of ``batch``, as the traffic has them. Of more than
    20,000 rows so many are compared, evenly spread. Raises InputError: there are no rows.
    """
    rows = spread(rows, _MOST_ROWS)
    count = count_rows(rows)
    if not count:
        raise InputError("the data has no rows to compare results on. What to do: give rows like those of the traffic")
    error, changed, labelled = 0.0, np.zeros(count, bool), False
    with Session(reference, "cpu", tuning=None) as exact, Session(other, "cpu", tuning=None) as reduced:
        size = batch if rows_depend(read_header(other).metadata) else BATCH
        start = 0
        for chunk, padding in batches(rows, exact.inputs[0].shape[0], size):
            stop = start + count_rows(chunk) - padding
            for expected, actual in zip(score(exact, chunk), score(reduced, chunk), strict=True):
                error = max(error, _largest_difference(expected.outputs, actual.outputs))
                if expected.labels is not None and actual.labels is not None:
                    labelled = True
                    changed[start:stop] |= (expected.labels != actual.labels)[: stop - start]
            start = stop
    return Difference(count, error, float(changed.mean()) if labelled else None)


def _largest_difference(expected: np.ndarray, actual: np.ndarray) -> float:
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0.0, np.abs(expected.astype(np.float64) - actual.astype(np.float64)))
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0.0))
