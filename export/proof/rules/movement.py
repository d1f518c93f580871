"""The bounds of other shapes and orders: nothing is computed, so radii go where their values go."""

from __future__ import annotations

from export.proof.rounding import Rule

from .parts import moved_alike

RULES: dict[str, Rule] = dict.fromkeys(("reshape", "permute", "select", "slice", "expand", "cat"), moved_alike)
