"""Exact probes: which weights does this runtime use, and does it add in float32?

Each affine layer is run on its own, with inputs whose result takes a single rounding whatever the order of summation:

- x = 0 gives b;
- x = 2^k·(a unit vector) gives fl(2^k·w + b), for k = 0, and for k = 40 where the bias cannot hide the weight;
- integers with Σ|w·x| + |b| < 2^24 give the exact sum: the runtime's products and sums are float32 at every width.

All of it is compared bit for bit, zeros unsigned. Where 2^k·w or the result is beyond the normal float32 numbers the
element is skipped, and counted. Every other layer is run over the whole range of float32 and held against its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .layerwise import LayerCheck
from .operators import attribute
from .reading import Model
from .running import Opener, alone
from .structure import Layer, Structure

_ROWS = 512
_SMALLEST, _LARGEST = np.float32(2.0**-126), np.finfo(np.float32).max
EXPONENTS = (0, 40)


@dataclass(frozen=True)
class Mismatch:
    """A probe that did not give its one right result."""

    path: str
    probe: str
    output: int
    found: float
    exact: float
    count: int


@dataclass
class Probed:
    """What the exact probes of a file compared, skipped and found."""

    layers: int = 0
    rounded_twice: int = 0
    """Affine layers whose results take more than one rounding, so that no bits can be asked of them."""
    elements: int = 0
    skipped: int = 0
    mismatches: list[Mismatch] | None = None

    def compare(self, layer: Layer, probe: Callable[[int], str], found: np.ndarray, exact: np.ndarray) -> None:
        """Rows of results against the rows that they must be, both (rows, out); NaN where nothing is asked."""
        normal = (np.abs(exact) >= _SMALLEST) & (np.abs(exact) <= _LARGEST) | (exact == 0)
        self.elements += int(normal.sum())
        self.skipped += int((~normal & ~np.isnan(exact)).sum())
        wrong = (normal & (found != exact)).reshape(len(exact), -1)
        found, exact = found.reshape(wrong.shape), exact.reshape(wrong.shape)
        if wrong.any():
            row, column = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            values = float(found[row, column]), float(exact[row, column])
            self.mismatches = self.mismatches or []
            self.mismatches.append(Mismatch(layer.path, probe(row), column, *values, int(wrong.sum())))


def probe_affine(model: Model, layers: tuple[Layer, ...], opener: Opener, seed: int) -> Probed:
    """Every linear, scale and standardize of the file, exactly."""
    probed = Probed()
    for layer in layers:
        exact = {"linear": _linear, "scale": _scale, "standardize": _standardize}.get(layer.held.op)
        if exact is None:
            continue
        if _is_scaled(layer):
            probed.rounded_twice += 1
            continue
        probed.layers += 1
        with alone(model, layer, opener) as run:
            for probe, rows, expected in exact(layer):
                if layer.held.op != "linear":  # one value per feature, on rows of any shape
                    rows, expected = (
                        np.broadcast_to(part, (len(part), *layer.held.shape)) for part in (rows, expected)
                    )
                probed.compare(layer, probe, run(np.ascontiguousarray(rows)), expected)
        if layer.held.op == "linear":
            rows, expected, constants = _integers(model, layer, seed)
            with alone(model, layer, opener, constants) as run:
                probed.compare(layer, lambda row: f"integers, row {row}", run(rows), expected)
    return probed


def probe_ranges(model: Model, structure: Structure, opener: Opener, seed: int) -> Iterator[LayerCheck]:
    """Every other layer with one input over the whole range of float32, within its bound."""
    shapes = structure.graph.shapes
    for layer in structure.layers:
        node, check = layer.held, LayerCheck((layer,))
        row = shapes[node.inputs[0]]
        if node.op in ("linear", "flatten") or len(node.inputs) > 1:
            continue
        with alone(model, layer, opener) as run:
            rows = whole_range(int(np.prod(row)), seed).reshape(-1, *row)
            values = {layer.inputs[0]: rows, layer.output: run(rows)}
            check.compare("whole range", values, rows)
        yield check


def whole_range(features: int, seed: int, count: int = 2**15) -> np.ndarray:
    """Rows of every scale: all exponents at once, one exponent per row, around ±30, and standard normal."""
    rows = max(64, count // features // 4)
    rng = np.random.default_rng(seed)
    shape = (rows, features)
    signs = rng.choice(np.array([-1.0, 1.0]), (4, *shape))
    mantissas = rng.uniform(1, 2, (4, *shape))
    exponents = [
        rng.integers(-149, 128, shape),
        np.repeat(rng.integers(-149, 120, (rows, 1)), features, axis=1),
        rng.integers(-6, 6, shape),
        rng.integers(-3, 2, shape),
    ]
    return np.concatenate(
        [(s * np.ldexp(m, e)).astype(np.float32) for s, m, e in zip(signs, mantissas, exponents, strict=True)]
    )


Exact = Iterator[tuple[Callable[[int], str], np.ndarray, np.ndarray]]


def _linear(layer: Layer) -> Exact:
    weight = np.ascontiguousarray(layer.held.tensors["weight"].values.T)
    n, out = weight.shape
    bias = layer.held.tensors["bias"].values if "bias" in layer.held.tensors else np.zeros(out, np.float32)
    yield (lambda row: "x = 0"), np.zeros((1, n), np.float32), bias[None, :]
    for k in EXPONENTS:
        for start in range(0, n, _ROWS):
            part = weight[start : start + _ROWS]
            rows = np.zeros((len(part), n), np.float32)
            rows[np.arange(len(part)), np.arange(start, start + len(part))] = 2.0**k
            with np.errstate(over="ignore"):
                scaled = part * np.float32(2.0**k)
                # a weight below the normal numbers may be flushed, so its sum is not one rounding
                exact = np.where((np.abs(part) < _SMALLEST) & (part != 0), np.inf, scaled + bias)
            yield (lambda row, s=start, k=k: f"x = 2^{k} at input {s + row}"), rows, exact


def _constant(layer: Layer, role: str, missing: float) -> np.ndarray:
    """A constant of the layer with a value per feature."""
    node = layer.held
    if role in node.tensors:
        return node.tensors[role].values
    return np.full(node.shape[-1:], np.float32(node.attributes.get(role, missing)), np.float32)


def _scale(layer: Layer) -> Exact:
    factor, offset = _constant(layer, "factor", 1.0), _constant(layer, "offset", 0.0)
    with np.errstate(over="ignore"):
        for k in (None, *EXPONENTS):
            x = np.float32(0 if k is None else 2.0**k)
            flushed = (np.abs(factor) < _SMALLEST) & (factor != 0)
            exact = np.where(flushed, np.inf, factor * x + offset)
            yield (lambda row, x=x: f"x = {x:g}"), np.full((1, len(factor)), x), exact[None, :]


def _standardize(layer: Layer) -> Exact:
    """A quotient of exact differences: x = 0, x = mean, x = 2·mean; and x = 1 where the mean is 0."""
    mean, std = _constant(layer, "mean", 0.0), _constant(layer, "std", 1.0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for words, x in (("0", 0 * mean), ("mean", mean), ("2 mean", np.float32(2) * mean)):
            yield (lambda row, w=words: f"x = {w}"), x[None, :], ((x - mean) / std)[None, :]
        lone = mean == 0
        yield (lambda row: "x = 1"), np.ones((1, len(mean)), np.float32), np.where(lone, 1 / std, np.nan)[None, :]


def _is_scaled(layer: Layer) -> bool:
    """A Gemm whose alpha or beta is no power of two: its results take more than one rounding."""
    factors = [attribute(layer.nodes[0], name, 1.0) for name in ("alpha", "beta")]
    return layer.held.op == "linear" and any(abs(np.frexp(factor)[0]) != 0.5 for factor in factors)


def _integers(model: Model, layer: Layer, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Rows, their exact results, and the layer's constants filled with integers, as the file stores them."""
    shape = layer.held.tensors["weight"].values.shape
    node, last = layer.nodes[0], layer.nodes[-1]
    stored = next(name for name in node.input[:2] if name in model.constants)
    others = [name for name in last.input[::-1] if name in model.constants and name != stored]
    bias = bool(others)
    rng = np.random.default_rng(seed)
    largest = max(1, min(2**13 - 1, (2**24 - 2**13) // (3 * shape[1])))
    weight = rng.integers(-largest, largest + 1, shape).astype(np.float32)
    offset = rng.integers(-4096, 4097, shape[0]).astype(np.float32) if bias else np.zeros(shape[0], np.float32)
    if bias and model.constants[others[0]].size == 1:  # one number for every output
        offset[:] = offset[0]
    rows = rng.integers(-3, 4, (16, shape[1])).astype(np.float32)
    sign = -1.0 if last.op_type == "Sub" else attribute(last, "beta", 1.0)
    exact = attribute(node, "alpha", 1.0) * (rows.astype(np.float64) @ weight.astype(np.float64).T) + sign * offset
    turned = stored == node.input[1] and not attribute(node, "transB", 0)
    constants = {stored: np.ascontiguousarray(weight.T) if turned else weight}
    if bias:
        constants[others[0]] = offset[: model.constants[others[0]].size].reshape(model.constants[others[0]].shape)
    return rows, exact.astype(np.float32), constants
