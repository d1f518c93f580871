"""Saved answers beside those of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """Float64 (rows, values) by output: what was saved, what the file gives, and how far the two may be apart."""

    saved: Arrays
    file: Arrays
    allowed: Arrays
    """Infinite where there is no bound."""

    @cached_property
    def difference(self) -> dict[str, np.ndarray]:
        """How far they are apart; 0 where both are the same infinity or both are NaN, else infinite or NaN there."""
        found: dict[str, np.ndarray] = {}
        for name, saved in self.saved.items():
            file = self.file[name]
            with np.errstate(invalid="ignore"):
                same = (saved == file) | (np.isnan(saved) & np.isnan(file))
                found[name] = np.where(same, 0.0, np.abs(saved - file))
        return found

    @cached_property
    def beyond(self) -> dict[str, np.ndarray]:
        """Which values are further apart than is allowed; NaN beside a number is."""
        return {
            name: np.isfinite(self.allowed[name]) & ~(values <= self.allowed[name])
            for name, values in self.difference.items()
        }

    @property
    def wrong(self) -> bool:
        """Whether any value is too far off."""
        return any(values.any() for values in self.beyond.values())

    @property
    def judged(self) -> np.ndarray:
        """(rows,): which rows have a bound for every value."""
        return np.all([np.isfinite(values).all(axis=1) for values in self.allowed.values()], axis=0)

    @property
    def largest(self) -> float:
        """The largest difference; infinite where a number is beside NaN."""
        return max(float(np.nan_to_num(each, nan=np.inf).max(initial=0)) for each in self.difference.values())

    @cached_property
    def _shares(self) -> dict[str, np.ndarray]:
        """Each difference as a part of what is allowed; 0 where nothing is known."""
        found: dict[str, np.ndarray] = {}
        for name, values in self.difference.items():
            allowed = self.allowed[name]
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.where(values == 0, 0.0, values / allowed)
            found[name] = np.where(np.isfinite(allowed), np.nan_to_num(share, nan=np.inf), 0.0)
        return found

    @property
    def share(self) -> float:
        """The largest difference as a part of what is allowed there."""
        return max(float(values.max(initial=0)) for values in self._shares.values())

    @property
    def worst(self) -> tuple[str, int, int]:
        """The output, the row and the index of the value that is off most.

        Of those that are off too far the one with the largest difference; else the one nearest to what is allowed.
        """
        far = {
            name: np.where(self.beyond[name], np.nan_to_num(each, nan=np.inf), -1.0)
            for name, each in self.difference.items()
        }
        sizes = far if self.wrong else self._shares
        name = max(sizes, key=lambda name: float(sizes[name].max(initial=-1)))
        row, index = np.unravel_index(int(sizes[name].argmax()), sizes[name].shape)
        return name, int(row), int(index)
