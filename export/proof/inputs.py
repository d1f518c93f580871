"""The rows that a proof tries: seeded, and chosen to go wrong where float32 goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from export.evaluation import follow
from export.graph import Graph, Input, batch_axis, width
from runtime import Port
from runtime.data.file_formats import has_lines
from runtime.data.unusual_values import find_outside, format_outside
from runtime.model.port import format_range, limits

from .rows import by_row, row_shape, row_shapes, split, tensor_of

_INTEGERS = 2**24
"""float32 holds every integer up to here."""
_ROWS = 1000
_MOST_ROWS = 10_000
"""Of the user's data; of more a sample is taken."""
_BATCH_SIZES = (0, 1, 2, 7, 64)
"""Besides the whole sets."""
_GAPS = 0.2
"""The share of the values of a row that are missing, where an input may have missing values."""
_ALONE = 8
"""Rows that are run one by one, and compared with the same rows in a batch."""
USUAL = ("data", "range", "normal")
"""The kinds of rows that a model is for; the others are chosen to go wrong."""
_UNITS = 32


@dataclass(frozen=True)
class Inputs:
    """Rows of one kind, float32 (rows, *row), and a description of them."""

    kind: str
    words: str
    rows: np.ndarray


class Domain:
    """The numbers that each value of a row may have: integers within their limits where an input takes integers."""

    def __init__(self, inputs: Mapping[str, Input]):
        ranges: list[tuple[int, int] | None] = []
        for declared in inputs.values():
            default = (-_INTEGERS, _INTEGERS) if declared.dtype == "int64" else None
            ranges += [indices or default for indices in declared.indices or (None,) * prod(declared.row)]
        self._integer = np.array([limits is not None for limits in ranges], bool)
        self._low, self._high = (np.array([limits[end] for limits in ranges if limits], np.int64) for end in (0, 1))
        self.is_free: bool = not self._integer.any()
        """Whether every value may be any float32 number."""

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """The rows with the nearest allowed number everywhere; a copy where there are integers."""
        with np.errstate(invalid="ignore"):
            return self._with(rows, lambda own: np.rint(np.nan_to_num(own, nan=0.0)).clip(self._low, self._high))

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rows with all integers drawn again, uniformly over their limits."""
        return self._with(rows, lambda own: rng.integers(self._low, self._high + 1, own.shape))

    def _with(self, rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if self.is_free:
            return rows
        flat = rows.reshape(len(rows), len(self._integer)).copy()
        flat[:, self._integer] = change(flat[:, self._integer])
        return flat.reshape(rows.shape)


def data_warnings(data: np.ndarray, origin: str, port: Port) -> Iterator[str]:
    """What a user would want to know of their own rows."""
    if not len(data):
        yield f"{origin} has no rows, so it shows nothing"
        return
    wrong, what = (np.isinf(data), "infinity") if port.missing else (~np.isfinite(data), "NaN or infinity")
    if odd := int(wrong.reshape(len(data), -1).any(axis=1).sum()):
        yield f"{odd:,} of the {len(data):,} rows of {origin} hold {what}"
    count, features = find_outside(data, port)
    if features:
        yield format_outside(count, [*features.values()], len(data), origin, lines=has_lines(origin))


def plan_inputs(graph: Graph, port: Port, data: np.ndarray | None, origin: str, seed: int) -> list[Inputs]:
    """All rows except those of the search; the first set is the nearest to what the model is for.

    ``port`` declares the ranges of the input; ``data`` are the user's own rows.
    """
    rng = np.random.default_rng(seed)
    shape, domain = row_shape(graph.inputs), Domain(graph.inputs)
    sets: list[Inputs] = []
    if data is not None and len(data):
        words = f"{len(data):,} rows of {origin}"
        data = np.require(data, requirements=["C", "W"])
        if len(data) > _MOST_ROWS:
            data = data[np.sort(rng.choice(len(data), _MOST_ROWS, replace=False))]
            words = f"{_MOST_ROWS:,} rows sampled from the {words}"
        sets.append(Inputs("data", words, data))
    declared = limits(port)
    if declared is not None:
        sets.append(_over_ranges(declared, shape, rng, domain))
    normal = domain.draw(rng.standard_normal((_ROWS, *shape), dtype=np.float32), rng)
    words = "standard normal" if domain.is_free else "standard normal, and whole numbers over their whole range"
    sets.append(Inputs("normal", f"{_ROWS:,} rows, {words}", normal))
    if port.missing:
        usual = sets[0]
        gaps = np.where(rng.random(usual.rows.shape) < _GAPS, np.float32(np.nan), usual.rows)
        sets.append(Inputs("missing", f"{len(gaps):,} rows of '{usual.kind}' with values missing, which are NaN", gaps))
    kinks = _kinks(graph, rng) if domain.is_free else None
    if kinks is not None:
        words = f"{len(kinks):,} rows where a unit of the first linear layer is at 0, ±18, 88.8 or -104"
        sets.append(Inputs("kinks", words, kinks))
    extremes = _extremes(prod(shape), rng).reshape(-1, *shape)
    words = f"{len(extremes):,} rows of zeros, -0, denormals, ±1e4, ±1e30, near overflow, infinities, NaN, one-hot"
    sets.append(Inputs("extremes", words, extremes))
    return [replace(inputs, rows=domain.fit(inputs.rows)) for inputs in sets]


def _over_ranges(
    ranges: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...], rng: np.random.Generator, domain: Domain
) -> Inputs:
    """Rows uniform over the declared ranges; features without one are standard normal, or any of their integers."""
    low, high = ranges
    rows = rng.uniform(np.nan_to_num(low), np.nan_to_num(high), (_ROWS, prod(shape)))
    without = np.isnan(low)
    if without.any():
        rows[:, without] = rng.standard_normal((_ROWS, int(without.sum())))
        rows = np.where(without, domain.draw(rows, rng), rows)
    ends = set(zip(low[~without].tolist(), high[~without].tolist(), strict=True))
    words = "each feature uniform over its declared range"
    if len(ends) == 1:
        words = f"uniform over the declared range {format_range(next(iter(ends)))}"
    if without.any():
        words += f", {int(without.sum()):,} without one standard normal"
    return Inputs("range", f"{_ROWS:,} rows, {words}", rows.astype(np.float32).reshape(_ROWS, *shape))


def batch_inputs(inputs: Inputs) -> list[Inputs]:
    """Batches of every size from the first rows of a set, repeated where they are few, and some rows alone."""
    rows = inputs.rows
    batches = [
        Inputs(f"batch of {size}", f"the first rows of '{inputs.kind}'", np.resize(rows, (size, *rows.shape[1:])))
        for size in _BATCH_SIZES
    ]
    alone = [rows[i : i + 1] for i in range(min(_ALONE, len(rows)))]
    return batches + [Inputs("row alone", f"a row of '{inputs.kind}' alone", row) for row in alone]


def search(
    start: np.ndarray,
    shares: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    seed: int,
    fit: Callable[[np.ndarray], np.ndarray],
) -> int:
    """Search rows with a larger error / bound by mutating those with the largest; returns the number of rows tried.

    ``shares`` are those of the ``start``; ``measure`` gives the largest share of each row; ``fit`` makes rows valid.
    """
    rng = np.random.default_rng(seed)
    pool, best, size, tried = start, shares, 64, 0
    for _ in range(8):
        top = np.argsort(-best, kind="stable")[:16]
        pool, best = pool[top], best[top]
        parents = pool[rng.integers(0, len(pool), size)].reshape(size, -1).astype(np.float64)
        others = pool[rng.integers(0, len(pool), size)].reshape(size, -1)
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
            pool, best = np.concatenate([pool, rows]), np.concatenate([best, measure(rows)])
            tried += len(rows)
    return tried


def _extremes(features: int, rng: np.random.Generator) -> np.ndarray:
    """Rows (rows, features) of special values, everywhere or in one place, and of every scale."""
    everywhere = [0.0, -0.0, 1e-45, -1e-45, 1e-39, 2e-38, 1e4, -1e4, 1e30, -1e30, 3e38, -3e38, 18.0, -18.0, 20.0, 88.8]
    everywhere += [-104.0, np.inf, -np.inf, np.nan]
    constant = np.repeat(np.array(everywhere, np.float32)[:, None], features, axis=1)
    hot = np.sort(rng.choice(features, min(features, 64), replace=False))
    one_hot = np.zeros((len(hot), features), np.float32)
    one_hot[np.arange(len(hot)), hot] = 1
    single = rng.standard_normal((12, features), dtype=np.float32)
    odd = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-45], np.float32)
    single[np.arange(12), rng.integers(0, features, 12)] = np.resize(odd, 12)
    denormal = np.ldexp(rng.uniform(-1, 1, (4, features)), -127).astype(np.float32)
    scales = np.ldexp(rng.uniform(-1, 1, (32, features)), rng.integers(-120, 120, (32, 1))).astype(np.float32)
    mixed = np.ldexp(rng.uniform(-1, 1, (16, features)), rng.integers(-20, 20, (16, features))).astype(np.float32)
    return np.concatenate([constant, one_hot, single, denormal, scales, mixed])


def _kinks(graph: Graph, rng: np.random.Generator) -> np.ndarray | None:
    """Normal rows moved along the gradient of one unit of the first linear layer until it has a wanted value.

    At 0 a ReLU has its kink; around ±18, 88.8 and -104 implementations of exp, sigmoid and tanh saturate.
    """
    index = next((i for i, node in enumerate(graph.nodes) if node.op == "linear"), None)
    if index is None or batch_axis(graph.nodes[index].shape) is None:
        return None
    node = graph.nodes[index]
    targets = torch.tensor([0.0, 0.0, 18.0, -18.0, 88.8, -104.0], dtype=torch.float64)
    units = tensor_of(np.resize(rng.choice(width(node), min(width(node), _UNITS), replace=False), 96))
    wanted = targets[torch.arange(len(units)) % len(targets)]
    shape = row_shape(graph.inputs)
    x = tensor_of(rng.standard_normal((len(units), *shape))).requires_grad_()
    parts = split(x, row_shapes(graph.inputs))
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
