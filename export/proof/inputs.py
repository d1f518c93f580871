"""The inputs of a proof: seeded, and chosen to go wrong where float32 goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from export.evaluation import follow
from export.graph import Graph, batch_axis, width
from runtime import Port
from runtime.ranges import in_words, limits

from .rows import Domain, by_row, row_shape, rows_of_inputs, split

ROWS = 1000
MOST_ROWS = 10_000
"""Of the user's data; more are sampled, and said to be."""
BATCHES = (0, 1, 2, 7, 64)
"""Besides the whole sets."""
ALONE = 8
"""Rows that are run one by one, and compared with the same rows of a batch."""
USUAL = ("data", "range", "normal")
"""The kinds that a model is for: the others are chosen to go wrong."""
_UNITS = 32


@dataclass(frozen=True)
class Inputs:
    """Rows of one kind, float32 (rows, *row), and what they are in words."""

    kind: str
    words: str
    rows: np.ndarray


def planned(graph: Graph, port: Port, data: np.ndarray | None, origin: str, seed: int) -> list[Inputs]:
    """Everything but the search; the first set is the one that is nearest to what the model is for.

    ``port`` declares the ranges of the input, and fits the graph's.
    """
    rng = np.random.default_rng(seed)
    shape = row_shape(rows_of_inputs(graph.inputs))
    domain = Domain(graph.inputs)
    found: list[Inputs] = []
    if data is not None:
        words = f"{len(data):,} rows of {origin}"
        if len(data) > MOST_ROWS:
            data = data[np.sort(rng.choice(len(data), MOST_ROWS, replace=False))]
            words = f"{MOST_ROWS:,} rows sampled from the {words}"
        found.append(Inputs("data", words, data))
    declared = limits(port)
    if declared is not None:
        found.append(_within(declared, shape, rng))
    normal = domain.draw(rng.standard_normal((ROWS, *shape), dtype=np.float32), rng)
    words = "standard normal" if domain.is_free else "standard normal, and whole numbers over all that may come"
    found.append(Inputs("normal", f"{ROWS:,} rows, {words}", normal))
    kinks = _kinks(graph, rng) if domain.is_free else None
    if kinks is not None:
        words = f"{len(kinks):,} rows where a unit of the first linear layer is at 0, ±18, 88.8 or -104"
        found.append(Inputs("kinks", words, kinks))
    extremes = domain.fit(_extremes(int(np.prod(shape)), rng).reshape(-1, *shape))
    words = f"{len(extremes):,} rows of zeros, -0, denormals, ±1e4, ±1e30, near overflow, infinities, NaN, one-hot"
    found.append(Inputs("extremes", words, extremes))
    return [replace(given, rows=domain.fit(given.rows)) for given in found]


def _within(declared: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...], rng: np.random.Generator) -> Inputs:
    """Rows over the declared ranges, from one end to the other; where none is declared, standard normal."""
    low, high = declared
    drawn = rng.uniform(np.nan_to_num(low), np.nan_to_num(high), (ROWS, prod(shape)))
    without = np.isnan(low)
    if without.any():
        drawn[:, without] = rng.standard_normal((ROWS, int(without.sum())))
    ends = set(zip(low[~without].tolist(), high[~without].tolist(), strict=True))
    if len(ends) == 1:
        words = f"uniform over the declared range {in_words(next(iter(ends)))}"
    else:
        words = "each feature uniform over its declared range"
    if without.any():
        words += f", {int(without.sum()):,} without one standard normal"
    return Inputs("range", f"{ROWS:,} rows, {words}", drawn.astype(np.float32).reshape(ROWS, *shape))


def batches(inputs: Inputs) -> list[Inputs]:
    """The first rows of a set, again and again where they are few, in batches of every size, and some rows alone."""
    shape = inputs.rows.shape[1:]
    found = [
        Inputs(f"batch of {size}", f"the first rows of '{inputs.kind}'", np.resize(inputs.rows, (size, *shape)))
        for size in BATCHES
    ]
    return found + [
        Inputs("row alone", f"a row of '{inputs.kind}' alone", inputs.rows[i : i + 1])
        for i in range(min(ALONE, len(inputs.rows)))
    ]


def search(
    start: np.ndarray,
    shares: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    seed: int,
    rounds: int = 8,
    *,
    fit: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
) -> int:
    """Try to drive error / bound up: change the rows with the largest share, keep what grows; the number of rows tried.

    ``measure`` runs float32 rows and gives the largest share of the bound in each; ``fit`` makes rows of what may come.
    """
    rng = np.random.default_rng(seed)
    kept, best, size, tried = start, shares, 64, 0
    for _ in range(rounds):
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
    single[np.arange(12), rng.integers(0, features, 12)] = np.resize(
        np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-45], np.float32), 12
    )
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
    shape = row_shape(rows_of_inputs(graph.inputs))
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
