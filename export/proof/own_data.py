"""A user's own rows, before they are passed through the proof like any other."""

from __future__ import annotations

import numpy as np

from export.graph import Shape
from runtime import InputError, Port
from runtime.ranges import outside, told

from .findings import Findings


def looked_at(data: np.ndarray | None, origin: str, port: Port, shape: Shape, found: Findings) -> np.ndarray | None:
    """The rows, if there are any, and warnings of what a user would want to know of them.

    Raises InputError: rows of another shape than the module takes.
    """
    if data is None:
        return None
    if data.shape[1:] != shape:
        raise InputError(f"the data has rows of shape {list(data.shape[1:])}, and the module takes {list(shape)}")
    if not len(data):
        found.warned("data", f"{origin} has no rows, so it shows nothing")
        return None
    odd = int((~np.isfinite(data.reshape(len(data), -1))).any(axis=1).sum())
    if odd:
        found.warned("data", f"{odd:,} of the {len(data):,} rows of {origin} hold NaN or infinity")
    count, features = outside(data, port)
    if features:
        found.warned("data", told(count, features, len(data), origin, line=origin.lower().endswith(".csv")))
    return np.require(data, requirements=["C", "W"])
