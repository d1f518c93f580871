"""What a network does to each feature by itself: clips, normalisers and scales, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DEFAULTS: dict[str, dict[str, float]] = {
    "clip": {"min": -np.inf, "max": np.inf},
    "standardize": {"mean": 0.0, "std": 1.0},
    "scale": {"factor": 1.0, "offset": 0.0},
}
"""The blocks by their names in a spec, and of each the constants without effect, in the order that they apply in."""
CALLED = {"standardize": "normaliser"}
"""What blocks are called in words, where it is not their name."""
KINDS = {role: kind for kind, roles in DEFAULTS.items() for role in roles}


@dataclass(frozen=True, eq=False)
class Step:
    """``clip``: min(max(x, min), max); ``standardize``: (x - mean) / std; ``scale``: x·factor + offset.

    ``values`` are float32 (features,), by role; one that is left out has no effect. None are known where it is empty.
    """

    kind: str
    values: Mapping[str, np.ndarray]
    nodes: tuple[Any, ...] = field(default=(), repr=False)
    """The operators of the file that compute it."""

    def value(self, role: str, features: int) -> np.ndarray:
        """float32 (features,): a constant, or what has no effect."""
        found = self.values.get(role)
        return np.full(features, DEFAULTS[self.kind][role], np.float32) if found is None else found

    @property
    def is_identity(self) -> bool:
        """Whether it changes no number, as far as its constants are known."""
        return bool(self.values) and all((self.values[role] == DEFAULTS[self.kind][role]).all() for role in self.values)

    def taken(self, order: Iterable[int]) -> Step:
        """The step of features in another order: ``order`` has the present index of each."""
        order = list(order)
        return Step(self.kind, {role: values[order] for role, values in self.values.items()})

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """The step's result for rows (..., features), in their type."""
        width = rows.shape[-1]
        first, second = (self.value(role, width).astype(rows.dtype) for role in DEFAULTS[self.kind])
        if self.kind == "clip":
            return np.minimum(np.maximum(rows, first), second)
        return (rows - first) / second if self.kind == "standardize" else rows * first + second

    def undone(self, rows: np.ndarray) -> np.ndarray:
        """What the step makes ``rows`` of; a clip is taken as not there. Features with a factor of 0 give NaN."""
        width = rows.shape[-1]
        first, second = (self.value(role, width).astype(rows.dtype) for role in DEFAULTS[self.kind])
        if self.kind == "clip":
            return rows
        return rows * second + first if self.kind == "standardize" else (rows - second) / first


def joined(steps: Iterable[Step]) -> list[Step]:
    """The steps of single operators, with neighbours that are one block joined: a Sub and a Div are a normaliser."""
    result: list[Step] = []
    for step in steps:
        both = _joined(result[-1], step) if result else None
        result[-1 if both else len(result) :] = [both or step]
    return result


def _joined(first: Step, second: Step) -> Step | None:
    values, nodes = {**first.values, **second.values}, (*first.nodes, *second.nodes)
    if (first.kind, list(first.values), list(second.values)) == ("scale", ["offset"], ["std"]):
        return Step("standardize", {"mean": -first.values["offset"], **second.values}, nodes)
    roles = list(DEFAULTS[first.kind])
    if first.kind == second.kind and list(values) == roles and len(first.values) == len(second.values) == 1:
        return Step(first.kind, values, nodes)
    return None
