"""A bound for every input of a box, as a certificate holds it, and the words for it.

However a correct float32 evaluation rounds, it is no further than the bound from the file's network in real arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

from runtime.json_types import Json

from .port import expect, format_range

Limits = tuple[float, float]
_UP = Context(prec=3, rounding=ROUND_CEILING)


@dataclass(frozen=True)
class OutputBound:
    """One output of the file: a number for each value of a row, in C order.

    ``bound``: the largest error; ``seen``: the largest that a search found; ``interval``: encloses the exact value.
    """

    bound: tuple[float, ...]
    seen: tuple[float, ...]
    interval: tuple[Limits, ...]
    folding: tuple[float, ...] | None = None
    """How far folding moved the file's exact results from the module's; None if that is not known."""


@dataclass(frozen=True)
class Bound:
    """A bound for every input of a box, or why there is none."""

    box: Mapping[str, tuple[Limits, ...]]
    """For each input the lowest and the highest value of each feature; one pair if all have the same."""
    outputs: Mapping[str, OutputBound]
    """By name; empty where there is no bound."""
    why: str | None
    """Why there is no bound; None where there is one."""
    largest: float | None
    """The largest bound of any value; None where there is no bound."""
    seen: float | None
    """The largest error that a search found; None where there is no bound."""
    ratio: float | None
    """The largest bound over the largest error seen; None where there is no bound, or hardly any error was seen."""
    margin: float | None
    """For a classifier: where the exact margin is above it, no correct evaluation gives another label; else None."""

    def to_record(self) -> dict[str, Any]:
        """The bound without the figures of single values, and its words: what JSON holds where a model is shown."""
        figures = {"largest": self.largest, "seen": self.seen, "ratio": self.ratio, "margin": self.margin}
        return {"words": format_bound(self), "box": dict(self.box), **figures, "why": self.why}


def read_bound(record: Any, sha256: str) -> Bound:
    """The bound in the certificate of a file with this SHA-256; unknown keys are ignored.

    Raises AttributeError, KeyError, TypeError or ValueError for a record that is none, or of another file.
    """
    if record["sha256"] != sha256:
        raise ValueError("the bound of another file")
    outputs = {_text(name): _output(output) for name, output in record["outputs"].items()}
    why, labels = record.get("why"), record.get("labels")
    if not outputs and why is None:
        raise ValueError("neither a bound nor why there is none")
    largest = max((value for output in outputs.values() for value in output.bound), default=math.inf)
    seen = max((value for output in outputs.values() for value in output.seen), default=0.0)
    bounded = math.isfinite(largest)
    ratio = largest / seen if seen > 0 else math.inf
    return Bound(
        box={_text(name): _box(ranges) for name, ranges in record["box"].items()},
        outputs=outputs,
        why=None if why is None else _text(why),
        largest=largest if bounded else None,
        seen=seen if bounded else None,
        ratio=ratio if bounded and math.isfinite(ratio) else None,
        margin=None if labels is None else _size(labels["margin"]),
    )


def format_bound(bound: Bound) -> str:
    """``at most 0.0065 for every input with pixels 0 to 16 (largest seen 0.00031)``, or why there is none."""
    box = format_box(bound.box)
    if bound.largest is None or bound.seen is None:
        return f"none for inputs with {box}: {(bound.why or 'that of an output is infinite').rstrip('.')}"
    seen = f"largest seen {bound.seen:.3g}" if bound.seen else "no error was seen"
    return f"at most {format_up(bound.largest)} for every input with {box} ({seen})"


def format_box(box: Mapping[str, Sequence[Limits]]) -> str:
    """``pixels 0 to 16``; of features with different ranges, the lowest and the highest value of all."""
    words: list[str] = []
    for name, ranges in box.items():
        whole = min(low for low, _ in ranges), max(high for _, high in ranges)
        several = f" (each of its {len(ranges):,} features in a range of its own)" if len(set(ranges)) > 1 else ""
        words.append(f"{name} {format_range(whole)}{several}")
    return " and ".join(words)


def format_up(value: float) -> str:
    """To three digits, rounded up, so that what is at most this value is at most the number shown."""
    return f"{float(_UP.create_decimal(repr(float(value)))):.3g}" if math.isfinite(value) else str(value)


def _output(record: Mapping[str, Any]) -> OutputBound:
    bound, seen = (tuple(map(_size, _list(record[key]))) for key in ("bound", "seen"))
    interval = tuple(map(_limits, _list(record["interval"])))
    if not bound or not len(bound) == len(seen) == len(interval):
        raise ValueError(f"{len(bound)} bounds, {len(seen)} errors and {len(interval)} intervals of the same values")
    folding = None if record.get("folding") is None else tuple(map(_size, _list(record["folding"])))
    return OutputBound(bound, seen, interval, folding if folding is None or len(folding) == len(bound) else None)


def _box(ranges: Any) -> tuple[Limits, ...]:
    limits = tuple(map(_limits, _list(ranges)))
    if not limits or not all(math.isfinite(value) for pair in limits for value in pair):
        raise ValueError(f"{limits} are not the ranges of an input")
    return limits


def _limits(pair: Any) -> Limits:
    low, high = map(_number, _list(pair))
    if not low <= high:
        raise ValueError(f"{low} to {high} is not a range")
    return low, high


def _size(value: Any) -> float:
    if not (size := _number(value)) >= 0:
        raise ValueError(f"{size} is not the size of an error")
    return size


def _number(value: Any) -> float:
    """JSON has no infinity: it is the word that pydantic writes."""
    if value in ("Infinity", "-Infinity") or type(value) in (int, float):
        return float(value)
    raise TypeError(f"{value!r} is not a number")


def _list(value: Json) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


_text = expect(str)
