"""The box of inputs that a bound is for: from the ranges that a file declares, or from given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch

from export.graph import Input
from export.proof.rows import row_shapes, tensor_of
from export.proof.rules.spans import Span
from runtime import InputError, Port
from runtime.model.port import LARGEST, feature_name, limits

Range = tuple[float, float]
Ranges = Range | Sequence[Range] | Mapping[str, Range | Sequence[Range]]
"""The lowest and the highest value of every feature, or of each; or the same for each input by its name."""
_ENUMERATED = 64
"""Combinations of whole numbers up to which each has a box of its own."""
_HINT = "What to do: give --range LOW HIGH, or declare a range in the spec"


@dataclass(frozen=True)
class Box:
    """The lowest and the highest value of each feature: float64 arrays (features,) by the file's names of inputs.

    ``whole`` are features that take whole numbers only.
    """

    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def _joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all inputs side by side."""
        parts = self.low, self.high, self.whole
        low, high, whole = (np.concatenate([part[name] for name in self.low]) for part in parts)
        return low, high, whole

    def spans(self) -> dict[str, Span]:
        """The box as spans (boxes, *row) of the inputs: one box, or one for each combination of few whole numbers."""
        low, high, whole = self._joined
        count = prod(int(b - a) + 1 for a, b in zip(low[whole], high[whole], strict=True)) if whole.any() else 1
        if 1 < count <= _ENUMERATED:
            numbers = product(*(range(int(a), int(b) + 1) for a, b in zip(low[whole], high[whole], strict=True)))
            low, high = (np.repeat(end[None], count, axis=0) for end in (low, high))
            low[:, whole] = high[:, whole] = np.array(list(numbers), np.float64)
        else:
            low, high = low[None], high[None]
        return spans_of(tensor_of(low), tensor_of(high), self.shapes)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Rows of all inputs (rows, features) for positions from 0, the lowest value, to 1: numbers within the box."""
        low, high, whole = self._joined
        values = low + positions * (high - low)
        values = np.where(whole, np.round(values), values).astype(np.float32)
        return np.clip(values, low.astype(np.float32), high.astype(np.float32))

    def record(self) -> dict[str, list[Range]]:
        """As a report has it: one pair for an input whose features all have the same.

        The ends are the shortest decimals of their float32 numbers.
        """
        found: dict[str, list[Range]] = {}
        for name in self.low:
            low, high = ([_shortest(end) for end in ends] for ends in (self.low[name], self.high[name]))
            pairs = list(zip(low, high, strict=True))
            found[name] = pairs[:1] if len(set(pairs)) == 1 else pairs
        return found

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """Which rows of all inputs are within the box: (rows,)."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        low, high, _ = self._joined
        return np.all((flat >= low) & (flat <= high), axis=1)


def _shortest(end: float) -> float:
    """0.1 for the float32 number next to it; large whole numbers of a table have every digit."""
    near = np.float32(end)
    return float(str(near)) if float(near) == end else float(end)


def spans_of(low: torch.Tensor, high: torch.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Span]:
    """Spans of the inputs from (boxes, features of all inputs)."""
    sizes = [prod(shape) for shape in shapes.values()]
    parts = zip(torch.split(low, sizes, dim=1), torch.split(high, sizes, dim=1), strict=True)
    return {
        name: Span(a.reshape(len(low), *shape), b.reshape(len(low), *shape))
        for (name, shape), (a, b) in zip(shapes.items(), parts, strict=True)
    }


def box_of(inputs: Mapping[str, Input], ports: Sequence[Port], ranges: Ranges | None) -> Box:
    """The box of a file's ``inputs``, from ``ranges``, else from those that its ports declare.

    Raises InputError: an input without a range, an infinite, empty or reversed one, or one of another width.
    """
    by_name = {port.name: port for port in ports}
    given = ranges if isinstance(ranges, Mapping) else dict.fromkeys(inputs, ranges)
    if unknown := [name for name in given if name not in inputs]:
        raise InputError(f"a range is given for '{unknown[0]}'; the file's inputs are {', '.join(inputs)}")
    shapes = row_shapes(inputs)
    low, high, whole = dict[str, np.ndarray](), dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, declared in inputs.items():
        port, size = by_name.get(name, Port(name, ("batch", *shapes[name]))), prod(shapes[name])
        indices = np.array([pair or (np.nan, np.nan) for pair in declared.indices or (None,) * size], np.float64)
        indexed = ~np.isnan(indices[:, 0])
        wanted = given.get(name)
        ends = _declared(port, size) if wanted is None else _given(name, wanted, size)
        ends = np.where(np.isnan(ends), indices, ends)
        if np.isnan(ends).any():
            index = int(np.isnan(ends[:, 0]).argmax())
            feature = feature_name(port, index, shapes[name]) if size > 1 else "its value"
            raise InputError(f"the input '{name}' has no declared range (of feature {feature}, first). {_HINT}")
        whole[name] = indexed | (declared.dtype == "int64")
        # A table has no entry beyond its ends, and between whole numbers there is nothing.
        least, most = np.fmax(ends[:, 0], indices[:, 0]), np.fmin(ends[:, 1], indices[:, 1])
        # What is within the range in float64 is, rounded to float32, within its rounded ends.
        near = ends.astype(np.float32).astype(np.float64)
        least = np.where(whole[name], np.ceil(least), np.fmax(near[:, 0], np.where(indexed, least, -np.inf)))
        most = np.where(whole[name], np.floor(most), np.fmin(near[:, 1], np.where(indexed, most, np.inf)))
        if (empty := least > most).any():
            index = int(empty.argmax())
            message = f"the range of feature {index} of '{name}' holds no number that the file takes"
            raise InputError(f"{message}: {ends[index, 0]:g} to {ends[index, 1]:g}. {_HINT}")
        low[name], high[name] = least, most
    return Box(low, high, whole, shapes)


def _declared(port: Port, size: int) -> np.ndarray:
    """The declared ranges (features, 2), NaN where there is none."""
    both = limits(port)
    return np.full((size, 2), np.nan) if both is None else np.broadcast_to(np.stack(both, axis=1), (size, 2))


def _given(name: str, wanted: Range | Sequence[Range], size: int) -> np.ndarray:
    try:
        pairs = np.array(wanted, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"the range of '{name}' is {wanted!r}; expected LOW and HIGH, two numbers. {_HINT}") from None
    pairs = pairs[None] if pairs.ndim == 1 else pairs
    if pairs.ndim != 2 or pairs.shape[1:] != (2,) or len(pairs) not in (1, size):
        shape = f"ranges of {len(pairs)} features are given for '{name}', which has {size}"
        raise InputError(f"{shape}; expected one LOW and HIGH, or one for each. {_HINT}")
    for low, high in pairs.tolist():
        if not -LARGEST <= low <= LARGEST or not -LARGEST <= high <= LARGEST:
            raise InputError(f"the range of '{name}' is {low:g} to {high:g}; expected finite float32 numbers. {_HINT}")
        if low > high:
            raise InputError(f"the range of '{name}' is {low:g} to {high:g}; expected LOW at most HIGH. {_HINT}")
    return np.broadcast_to(pairs, (size, 2))
