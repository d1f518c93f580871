"""The rows that a proof tries: seeded, and chosen to go wrong where float32 goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from export.evaluation import follow
from export.graph import Graph, Input, Shape, batch_axis, width
from runtime import InputError, Port
from runtime.data.file_formats import has_lines
from runtime.data.unusual_values import find_outside, format_outside
from runtime.model.port import format_range, limits

from .report import Findings
from .rows import by_row, row_shape, rows_of_inputs, split

_WHOLE = 2**24
"""Whole numbers up to which float32 holds each."""
_ROWS = 1000
_MOST_ROWS = 10_000
"""Of the user's data; more are sampled, and said to be."""
_BATCHES = (0, 1, 2, 7, 64)
"""Besides the whole sets."""
_ALONE = 8
"""Rows that are run one by one, and compared with the same rows of a batch."""
USUAL = ("data", "range", "normal")
"""The kinds that a model is for: the others are chosen to go wrong."""
_UNITS = 32


class Domain:
    """Which numbers each value of a row may have: whole ones at the inputs that take them, within their limits."""

    def __init__(self, inputs: Mapping[str, Input]):
        limits: list[tuple[int, int] | None] = []
        for given in inputs.values():
            free = (-_WHOLE, _WHOLE) if given.dtype == "int64" else None
            limits += [each or free for each in given.indices or (None,) * prod(given.row)]
        self._whole = np.array([each is not None for each in limits], bool)
        self._low, self._high = (np.array([each[end] for each in limits if each], np.int64) for end in (0, 1))
        self.is_free = not self._whole.any()
        """Whether every float32 number may come everywhere."""

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """The rows with the nearest number that may come there, in an array of its own where whole numbers do."""
        with np.errstate(invalid="ignore"):
            return self._with(rows, lambda held: np.rint(np.nan_to_num(held, nan=0.0)).clip(self._low, self._high))

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rows with whole numbers drawn over all that may come."""
        return self._with(rows, lambda held: rng.integers(self._low, self._high + 1, held.shape))

    def _with(self, rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if self.is_free:
            return rows
        flat = rows.reshape(len(rows), len(self._whole)).copy()
        flat[:, self._whole] = change(flat[:, self._whole])
        return flat.reshape(rows.shape)


@dataclass(frozen=True)
class Inputs:
    """Rows of one kind, float32 (rows, *row), and what they are in words."""

    kind: str
    words: str
    rows: np.ndarray


def _looked_at(data: np.ndarray, origin: str, port: Port, shape: Shape, found: Findings) -> np.ndarray | None:
    """A user's own rows, if there are any, and warnings of what a user would want to know of them."""
    if data.shape[1:] != shape:
        raise InputError(f"the data has rows of shape {list(data.shape[1:])}, and the module takes {list(shape)}")
    if not len(data):
        found.warned("data", f"{origin} has no rows, so it shows nothing")
        return None
    odd = int((~np.isfinite(data.reshape(len(data), -1))).any(axis=1).sum())
    if odd:
        found.warned("data", f"{odd:,} of the {len(data):,} rows of {origin} hold NaN or infinity")
    count, features = find_outside(data, port)
    if features:
        found.warned("data", format_outside(count, [*features.values()], len(data), origin, lines=has_lines(origin)))
    return np.require(data, requirements=["C", "W"])


def planned(
    graph: Graph, port: Port, data: np.ndarray | None, origin: str, seed: int, findings: Findings
) -> list[Inputs]:
    """Everything but the search; the first set is the one that is nearest to what the model is for.

    ``port`` declares the ranges of the input. Raises InputError: data of another shape than the module takes.
    """
    rng = np.random.default_rng(seed)
    shape, domain = row_shape(graph.inputs), Domain(graph.inputs)
    if port.ranges is not None and len(port.ranges) != prod(shape):
        port = replace(port, ranges=None)  # a file of another shape fails for that
    found: list[Inputs] = []
    if data is not None and (data := _looked_at(data, origin, port, shape, findings)) is not None:
        words = f"{len(data):,} rows of {origin}"
        if len(data) > _MOST_ROWS:
            data = data[np.sort(rng.choice(len(data), _MOST_ROWS, replace=False))]
            words = f"{_MOST_ROWS:,} rows sampled from the {words}"
        found.append(Inputs("data", words, data))
    declared = limits(port)
    if declared is not None:
        found.append(_within(declared, shape, rng))
    normal = domain.draw(rng.standard_normal((_ROWS, *shape), dtype=np.float32), rng)
    words = "standard normal" if domain.is_free else "standard normal, and whole numbers over all that may come"
    found.append(Inputs("normal", f"{_ROWS:,} rows, {words}", normal))
    kinks = _kinks(graph, rng) if domain.is_free else None
    if kinks is not None:
        words = f"{len(kinks):,} rows where a unit of the first linear layer is at 0, ±18, 88.8 or -104"
        found.append(Inputs("kinks", words, kinks))
    extremes = _extremes(prod(shape), rng).reshape(-1, *shape)
    words = f"{len(extremes):,} rows of zeros, -0, denormals, ±1e4, ±1e30, near overflow, infinities, NaN, one-hot"
    found.append(Inputs("extremes", words, extremes))
    return [replace(given, rows=domain.fit(given.rows)) for given in found]


def _within(declared: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...], rng: np.random.Generator) -> Inputs:
    """Rows over the declared ranges, from one end to the other; where none is declared, standard normal."""
    low, high = declared
    drawn = rng.uniform(np.nan_to_num(low), np.nan_to_num(high), (_ROWS, prod(shape)))
    without = np.isnan(low)
    if without.any():
        drawn[:, without] = rng.standard_normal((_ROWS, int(without.sum())))
    ends = set(zip(low[~without].tolist(), high[~without].tolist(), strict=True))
    words = "each feature uniform over its declared range"
    if len(ends) == 1:
        words = f"uniform over the declared range {format_range(next(iter(ends)))}"
    if without.any():
        words += f", {int(without.sum()):,} without one standard normal"
    return Inputs("range", f"{_ROWS:,} rows, {words}", drawn.astype(np.float32).reshape(_ROWS, *shape))


def batches(inputs: Inputs) -> list[Inputs]:
    """The first rows of a set, again and again where they are few, in batches of every size, and some rows alone."""
    rows, words = inputs.rows, f"a row of '{inputs.kind}' alone"
    sized = [(f"batch of {size}", np.resize(rows, (size, *rows.shape[1:]))) for size in _BATCHES]
    found = [Inputs(kind, f"the first rows of '{inputs.kind}'", part) for kind, part in sized]
    return found + [Inputs("row alone", words, rows[i : i + 1]) for i in range(min(_ALONE, len(rows)))]


def search(
    start: np.ndarray,
    shares: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    seed: int,
    fit: Callable[[np.ndarray], np.ndarray],
) -> int:
    """Try to drive error / bound up: change the rows with the largest share, keep what grows; the number of rows tried.

    ``measure`` runs float32 rows and gives the largest share of the bound in each; ``fit`` makes rows of what may come.
    """
    rng = np.random.default_rng(seed)
    kept, best, size, tried = start, shares, 64, 0
    for _ in range(8):
        top = np.argsort(-best, kind="stable")[:16]
        kept, best = kept[top], best[top]
        parents = kept[rng.integers(0, len(kept), size)].reshape(size, -1).astype(np.float64)
        others = kept[rng.integers(0, len(kept), size)].reshape(size, -1)
        chosen = rng.random(parents.shape) < rng.uniform(0.02, 1, (size, 1))
        scaled = parents * np.exp2(rng.uniform(-4, 4, (size, 1)))
        noisy = parents + rng.standard_normal(parents.shape) * np.exp2(rng.uniform(-12, 2, (size, 1)))
        changes = [scaled, noisy, np.where(chosen, others, parents), np.where(chosen, 0, parents)]
        changes.append(np.where(chosen, -parents, parents))
        picked = np.choose(rng.integers(0, len(changes), (size, 1)), changes)
        with np.errstate(over="ignore"):
            rows = picked.astype(np.float32).reshape(size, *start.shape[1:])
        rows = fit(rows[np.isfinite(rows).reshape(size, -1).all(axis=1)])
        if len(rows):
            kept, best = np.concatenate([kept, rows]), np.concatenate([best, measure(rows)])
            tried += len(rows)
    return tried


def _extremes(features: int, rng: np.random.Generator) -> np.ndarray:
    everywhere = [0.0, -0.0, 1e-45, -1e-45, 1e-39, 2e-38, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38, 18.0, -18.0, 20.0, 88.8]
    everywhere += [-104.0, np.inf, -np.inf, np.nan]
    whole = np.repeat(np.array(everywhere, np.float32)[:, None], features, axis=1)
    hot = np.sort(rng.choice(features, min(features, 64), replace=False))
    one_hot = np.zeros((len(hot), features), np.float32)
    one_hot[np.arange(len(hot)), hot] = 1
    single = rng.standard_normal((12, features), dtype=np.float32)
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-45], np.float32)
    single[np.arange(12), rng.integers(0, features, 12)] = np.resize(odd, 12)
    denormal = np.ldexp(rng.uniform(-1, 1, (4, features)), -127).astype(np.float32)
    scales = np.ldexp(rng.uniform(-1, 1, (32, features)), rng.integers(-120, 120, (32, 1))).astype(np.float32)
    mixed = np.ldexp(rng.uniform(-1, 1, (16, features)), rng.integers(-20, 20, (16, features))).astype(np.float32)
    return np.concatenate([whole, one_hot, single, denormal, scales, mixed])


def _kinks(graph: Graph, rng: np.random.Generator) -> np.ndarray | None:
    """Normal rows moved along the gradient of one unit of the first linear layer until it has a wanted value.

    At 0 a ReLU has its kink; around ±18, 88.8 and -104 implementations of exp, sigmoid and tanh saturate.
    """
    index = next((i for i, node in enumerate(graph.nodes) if node.op == "linear"), None)
    if index is None or batch_axis(graph.nodes[index].shape) is None:
        return None
    node = graph.nodes[index]
    wide = width(node)
    targets = torch.tensor([0.0, 0.0, 18.0, -18.0, 88.8, -104.0], dtype=torch.float64)
    units = torch.from_numpy(np.resize(rng.choice(wide, min(wide, _UNITS), replace=False), 96))
    wanted = targets[torch.arange(len(units)) % len(targets)]
    shape = row_shape(graph.inputs)
    x = torch.from_numpy(rng.standard_normal((len(units), *shape))).requires_grad_()
    parts = split(x, rows_of_inputs(graph.inputs))
    values = follow(graph.nodes[: index + 1], parts, precision=torch.float64, rows=len(units))
    z = by_row(values[node.output], len(units), node.shape).gather(1, units[:, None])
    if not z.requires_grad:
        return None
    (slope,) = torch.autograd.grad(z.sum(), x)
    along = slope.flatten(1)
    length = (along * along).sum(dim=1, keepdim=True)
    step = torch.where(length > 0, (wanted[:, None] - z) / length, 0.0) * along
    with np.errstate(over="ignore"):
        moved = (x.flatten(1) + step).detach().numpy().astype(np.float32)
    finite = np.isfinite(moved).all(axis=1)
    return moved[finite].reshape(-1, *shape) if finite.any() else None
