"""What an operator becomes: a part of another value, or statements that compute one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """A value whose numbers are those of another value, from ``offset`` on."""

    of: str
    offset: int = 0


@dataclass(frozen=True)
class Compute:
    """A value of ``size`` numbers, computed by C statements from the values that it ``reads``."""

    size: int
    reads: tuple[str, ...]
    lines: Callable[[str, Sequence[str]], Sequence[str]]
    """From the C expressions of the pointers to the result and to what is read: the statements."""
    in_place: bool = False
    """Whether it may overwrite its first operand, where no other is a part of the same value: each number of the first
    is read before the one at its place is written."""


Steps = Mapping[str, Alias | Compute]
"""By the name of each output of an operator."""
