"""What is said of float64 columns whose numbers became the nearest float32, once for all of the data."""

from __future__ import annotations

import warnings
from inspect import currentframe

from runtime.errors import RoundingWarning

_PACKAGES = ("builder", "export", "mlpx", "runtime")


def format_rounded(origin: str) -> str:
    """The note on float64 columns of ``origin``."""
    message = f"numbers in float64 columns of {origin} become the nearest float32, as those of a CSV file do"
    return f"{message}; dtype='float32' (--dtype float32) says that this is meant"


def warn_of_rounding(origin: str) -> None:
    """Give a RoundingWarning that points at the line that called mlpx, through however many of its functions."""
    level, frame = 1, currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES:
        level, frame = level + 1, frame.f_back
    warnings.warn(format_rounded(origin), RoundingWarning, stacklevel=level)
