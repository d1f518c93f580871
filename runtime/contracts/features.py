"""The features of a file's inputs and outputs: what their names say, and what the file applies to each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from runtime.model.port import Port, Vocabulary

from .steps import DEFAULTS, Step

T = TypeVar("T")
_NAME = re.compile(r"(?P<term>.+?)(?:\[(?P<place>\d+)\]|:(?P<joint>.+?))?(?:@-(?P<age>\d+))?", re.DOTALL)


@dataclass(frozen=True)
class Meaning:
    """What a feature's name says: ``joint_pos:left_knee@-2`` is of the term joint_pos, of a joint, two steps old."""

    term: str
    joint: str | None
    age: int
    """How many steps old the value is; 0 for the newest."""


def meaning_of(name: str) -> Meaning:
    """The term, the joint and the age in a feature's name: ``TERM``, ``TERM[0]`` or ``TERM:JOINT``, and ``@-2``."""
    found = _NAME.fullmatch(name)
    if found is None:
        return Meaning(name, None, 0)
    return Meaning(found["term"], found["joint"], int(found["age"] or 0))


def without_age(name: str) -> str:
    """A feature's name without its age."""
    return name.rpartition("@-")[0] if meaning_of(name).age else name


@dataclass(frozen=True)
class Feature:
    """One value of a row, and what the file does to it first, or last if it is an output."""

    index: int
    name: str | None
    unit: str | None
    range: tuple[float, float] | None
    description: str | None
    applied: tuple[tuple[str, Mapping[str, np.float32]], ...]
    """The blocks in their order, each with its constants for this feature."""
    categories: Vocabulary | None = None
    """Of an input: the words of its codes."""
    bound: float | None = None
    """Of an output: how far a correct float32 runtime may be from the exact value, by the certificate."""

    @property
    def meaning(self) -> Meaning | None:
        """What the name says; None without one."""
        return None if self.name is None else meaning_of(self.name)


@dataclass(frozen=True)
class Interface:
    """An input or output: how the file declares it, and what the file does to each of its features."""

    port: Port
    steps: tuple[Step, ...] = ()
    """In their order: the first of all operators for an input, the last for an output."""
    bounds: tuple[float, ...] | None = None
    source: str | None = None
    """Of an output: what makes the values that its steps are applied to, as ``layer 3``; None where it is not known."""

    @property
    def width(self) -> int:
        """The values of a row; 0 where the file does not fix their number."""
        sizes = [size for size in self.port.shape[1:] if isinstance(size, int)]
        return prod(sizes) if len(sizes) == len(self.port.shape) - 1 else 0

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the features, or the labels; None if the file gives none."""
        port = self.port
        labels = port.labels if port.labels is not None and len(port.labels) == self.width else None
        return port.features if port.features is not None else labels

    @property
    def features(self) -> tuple[Feature, ...]:
        """Every value of a row, in the order of the row."""
        port = self.port
        return tuple(
            Feature(
                index=index,
                name=_at(self.names, index),
                unit=_at(port.units, index),
                range=_at(port.ranges, index) or port.range,
                description=_at(port.descriptions, index),
                applied=tuple(
                    (step.kind, {role: step.values[role][min(index, len(step.values[role]) - 1)] for role in roles})
                    for step in self.steps
                    if (roles := [role for role in DEFAULTS[step.kind] if role in step.values])
                ),
                categories=_at(port.categories, index),
                bound=_at(self.bounds, index),
            )
            for index in range(self.width)
        )


def _at(values: Sequence[T] | None, index: int) -> T | None:
    return None if values is None else values[index]
