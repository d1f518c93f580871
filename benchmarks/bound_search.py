"""A search for rows of a box on which evaluations of a network are far from its exact outputs.

Rows are drawn anywhere and in corners; at the corners that a bound names and near them; climbed from there by the sign
of the gradient of the first-order error; and bred from those with the largest errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.bound_evaluations import adverse, first_order, shuffled
from export.bounds.boxes import Box
from export.bounds.enclosing import Network, NoBoundError, enclose
from export.bounds.errors import output_errors
from export.bounds.searching import Evaluation, outputs
from export.proof.rows import absolute_difference

_ROUNDS, _STEPS = 8, 8
"""Of breeding, and of climbing."""
_WORK = 2**28
"""Products of one evaluation of the drawn rows, about."""


@dataclass
class Largest:
    """The largest error of each output value, and the row (features,) on which it was made, by evaluation."""

    errors: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    rows: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    tried: int = 0

    def add(self, name: str, rows: np.ndarray, errors: np.ndarray) -> None:
        """Errors (rows, values) of one evaluation."""
        worst = errors.argmax(axis=0)
        most = errors.max(axis=0)
        if name not in self.errors:
            self.errors[name], self.rows[name] = most, rows[worst]
            return
        larger = most > self.errors[name]
        self.errors[name] = np.where(larger, most, self.errors[name])
        self.rows[name] = np.where(larger[:, None], rows[worst], self.rows[name])


@dataclass
class Search:
    """The search over one box. ``evaluations`` are float32's by their names; ``bound`` (values,) weighs the outputs."""

    network: Network
    box: Box
    bound: np.ndarray
    evaluations: Mapping[str, Evaluation]
    rng: np.random.Generator
    largest: Largest = field(default_factory=Largest)

    def run(self) -> Largest:
        """The largest errors that were found, of the evaluations, of "shuffled" sums and of "adverse" roundings."""
        parameters = sum(layer.parameters for layer in self.network.layers)
        count = int(np.clip(_WORK // max(1, parameters), 24, 192))
        pool = self._drawn(count)
        pool = np.concatenate([pool, self._climbed(pool[-max(8, count // 4) :])])
        errors = self._errors(pool)
        for _ in range(_ROUNDS):
            best = np.unique(np.argsort(-errors, axis=0)[:4].reshape(-1))
            best = best[np.argsort(-errors[best].max(axis=1))][: count // 2]
            pool, errors = pool[best], errors[best]
            bred = self._bred(pool, count)
            pool, errors = np.concatenate([pool, bred]), np.concatenate([errors, self._errors(bred)])
        few = max(4, count // 8)
        worst = pool[np.argsort(-errors.max(axis=1))[:few]]
        climbed = self._climbed(worst)
        both = self._rows(np.concatenate([worst, climbed]))
        exact = outputs(self.network, both, torch.float64)
        for _ in range(2):
            found = shuffled(self.network, both, int(self.rng.integers(2**32)))
            self.largest.add("shuffled", self._flat(both), absolute_difference(found, exact))
        self._adverse(climbed)
        self.largest.tried += len(climbed)
        return self.largest

    def _drawn(self, count: int) -> np.ndarray:
        """Positions in the box: anywhere, in corners, near the named ones, and in those."""
        features = sum(int(np.prod(shape)) for shape in self.box.shapes.values())
        anywhere = self.rng.random((count // 2, features))
        corners = self.rng.integers(0, 2, (count // 4, features)).astype(np.float64)
        named = self._named()[:16]
        near = named[self.rng.integers(0, len(named), count // 4)] if len(named) else corners
        near = np.where(self.rng.random(near.shape) < 0.1, 1 - near, near)
        return np.concatenate([anywhere, corners, near, named])

    def _named(self) -> np.ndarray:
        """The corners that are worst for the bound, of the outputs in the order of their bounds."""
        with suppress(NoBoundError):
            errors = output_errors(enclose(self.network, self.box.spans()))
            box = int(errors.bound.amax(dim=1).argmax())
            corners = (errors.corner[box].numpy() > 0).astype(np.float64)
            return np.unique(corners[np.argsort(-self.bound)[:16]], axis=0)
        return np.zeros((0, sum(int(np.prod(shape)) for shape in self.box.shapes.values())))

    def _targets(self, count: int) -> np.ndarray:
        """An output value for each row: that with the largest bound for half of them."""
        drawn = self.rng.integers(0, len(self.bound), count)
        return np.where(np.arange(count) % 2 == 0, int(self.bound.argmax()), drawn)

    def _climbed(self, positions: np.ndarray) -> np.ndarray:
        """From each position the best that was reached by steps along the gradient's sign."""
        targets = self._targets(len(positions))
        best, most, here, step = positions, np.full(len(positions), -np.inf), positions, 0.5
        for _ in range(_STEPS):
            found = first_order(self.network, self._rows(here), targets)
            better = found.values > most
            best, most = np.where(better[:, None], here, best), np.where(better, found.values, most)
            here = np.clip(np.where(better[:, None], here, best) + step * np.sign(found.uphill), 0, 1)
            step *= 0.6
        return best

    def _bred(self, parents: np.ndarray, count: int) -> np.ndarray:
        one, other = (parents[self.rng.integers(0, len(parents), count)] for _ in range(2))
        changed = self.rng.random(one.shape) < self.rng.choice([0.02, 0.1, 0.5], (count, 1))
        drawn = np.where(self.rng.random(one.shape) < 0.5, other, self.rng.random(one.shape))
        return np.where(changed, drawn, one)

    def _errors(self, positions: np.ndarray) -> np.ndarray:
        """(rows, values): the largest share of its bound."""
        rows = self._rows(positions)
        exact = outputs(self.network, rows, torch.float64)
        together = np.zeros_like(exact)
        for name, run in self.evaluations.items():
            errors = absolute_difference(run(rows).reshape(exact.shape), exact)
            self.largest.add(name, self._flat(rows), errors)
            together = np.maximum(together, errors)
        self.largest.tried += len(rows)
        return together / np.maximum(self.bound, 1e-300)

    def _adverse(self, positions: np.ndarray) -> None:
        """Every rounding against one output value, for the output with the largest bound and drawn ones."""
        rows = self._rows(positions)
        targets = self._targets(len(rows))
        exact = outputs(self.network, rows, torch.float64)
        found = adverse(self.network, rows, first_order(self.network, rows, targets))
        self.largest.add("adverse", self._flat(rows), absolute_difference(found, exact))

    def _rows(self, positions: np.ndarray) -> np.ndarray:
        """Rows of all inputs, in their own shape where there is one."""
        flat, shapes = self.box.rows(positions), list(self.box.shapes.values())
        return flat.reshape(len(flat), *shapes[0]) if len(shapes) == 1 else flat

    @staticmethod
    def _flat(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(rows), -1)
