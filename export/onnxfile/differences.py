"""Where a constant or an attribute of a file is not the module's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """A constant or an attribute that is not the module's: what, where in it, and both values."""

    path: str
    what: str
    count: int
    size: int
    index: tuple[int, ...]
    file: float | str
    module: float | str
    ulp: int = 0
    """The largest distance, in float32 numbers."""
    folded: bool = False

    def __str__(self) -> str:
        if not self.index:
            return f"{self.what} of '{self.path}' is {self.file}, and the module's is {self.module}"
        if self.folded:
            rounding = f"{self.count:,} of {self.size:,} values, by at most {self.ulp:,} ulp"
            found = f"first at {list(self.index)}: file {self.file!r}, folded from the module {self.module!r}"
            cause = " (another exporter's folding, which rounds more than once?)" if self.ulp <= 16 else ""
            return f"{self.what} of '{self.path}' is not what folding the module gives in {rounding}{cause}, {found}"
        many = f"{self.count:,} of {self.size:,} values" if self.size > 1 else "its value"
        where = f"first at {list(self.index)}: file {self.file!r}, module {self.module!r}"
        far = f", by at most {self.ulp:,} ulp" if self.ulp else ""
        return f"{self.what} of '{self.path}' differs from the module's in {many}{far}, {where}"


def compared(
    held: np.ndarray, expected: np.ndarray, path: str, what: str, *, exact: bool = True
) -> list[Difference] | None:
    """The difference between two constants, bit for bit; None for other shapes. A single number fits every shape."""
    if held.shape != expected.shape and (exact or held.size != 1):
        return None
    if held.dtype != np.float32 or expected.dtype != np.float32:
        return _whole(held, expected, path, what) if held.dtype == expected.dtype else None
    wanted = np.ascontiguousarray(expected, dtype=np.float32).reshape(held.shape)
    bits, right = np.ascontiguousarray(held).view(np.int32), wanted.view(np.int32)
    apart = bits != right
    if not apart.any():
        return []
    first = np.unravel_index(int(np.argmax(apart)), held.shape)
    index = tuple(int(i) for i in first)
    ulp = max(_distance_in_ulp(a, b) for a, b in zip(np.atleast_2d(bits), np.atleast_2d(right), strict=True))
    return [Difference(path, what, int(apart.sum()), held.size, index, float(held[first]), float(wanted[first]), ulp)]


def _whole(held: np.ndarray, expected: np.ndarray, path: str, what: str) -> list[Difference]:
    """The difference between whole numbers, or between truths."""
    wrong = held != expected.reshape(held.shape)
    if not wrong.any():
        return []
    first = np.unravel_index(int(np.argmax(wrong)), held.shape)
    index = tuple(int(i) for i in first)
    values = held[first].item(), expected.reshape(held.shape)[first].item()
    return [Difference(path, what, int(wrong.sum()), held.size, index, *values)]


def _distance_in_ulp(a: np.ndarray, b: np.ndarray) -> int:
    """How many float32 numbers lie between two rows of them, given as bits, at most; NaN and infinity aside."""
    finite = np.isfinite(a.view(np.float32)) & np.isfinite(b.view(np.float32))
    first, second = (np.where(wide >= 0, wide, -(2**31) - wide) for wide in (a.astype(np.int64), b.astype(np.int64)))
    return int(np.abs(first - second)[finite].max(initial=0))
