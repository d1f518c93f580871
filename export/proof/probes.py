"""Exact probes: which weights does this runtime use, and does it compute in float32?

Each layer with constants is run alone, on inputs whose result takes a single rounding in any order of summation:

- x = 0 gives b;
- x = 2^k·(a unit vector) gives fl(2^k·w + b), for k = 0, and for k = 40 where the bias cannot hide the weight;
- integers with Σ|w·x| + |b| < 2^24 give the exact sum: the runtime's products and sums are float32 at every width;
- one sum, difference or product with a constant is rounded once, and every row of a table is fetched unchanged.

All results are compared bit for bit, zeros unsigned. Where 2^k·w or the result is outside the normal float32 numbers
the element is skipped, and counted. Every other layer is run over the whole range of float32, within its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from export.evaluation import evaluate
from export.graph import Node, Rows
from export.onnxfile.model import Model
from export.onnxfile.pattern_matching import attribute

from .layer_bounds import LayerCheck
from .rows import tensor_of
from .running import FileRunner, row_sizes
from .structure import Layer, Structure

_ROWS = 512
_SMALLEST, _LARGEST = np.float32(2.0**-126), np.finfo(np.float32).max
EXPONENTS = (0, 40)


@dataclass
class ProbeResults:
    """What the exact probes of a file compared, skipped and found wrong."""

    layers: int = 0
    rounded_twice: int = 0
    """Linear layers whose results take more than one rounding, so that their bits are not determined."""
    elements: int = 0
    skipped: int = 0
    mismatches: int = 0
    first: str = ""
    """A description of the first mismatch: a probe without its only right result."""

    def compare(self, layer: Layer, probe: Callable[[int], str], results: np.ndarray, exact: np.ndarray) -> None:
        """Compare rows of results with the only right ones, both (rows, out); NaN: any; ``probe`` describes a row."""
        normal = (np.abs(exact) >= _SMALLEST) & (np.abs(exact) <= _LARGEST) | (exact == 0)
        self.elements += int(normal.sum())
        self.skipped += int((~normal & ~np.isnan(exact)).sum())
        if results.size != exact.size:
            self.first = f"'{layer.path}' gives values of shape {list(results.shape)}, not {list(exact.shape)}"
            self.mismatches += exact.size
            return
        wrong = (normal & (results.reshape(exact.shape) != exact)).reshape(len(exact), -1)
        if wrong.any() and not self.mismatches:
            row, column = divmod(int(np.argmax(wrong)), wrong.shape[1])
            have, need = (float(values.reshape(wrong.shape)[row, column]) for values in (results, exact))
            self.first = f"'{layer.path}' at {probe(row)}: output {column} is {have!r} and must be {need!r}"
        self.mismatches += int(wrong.sum())


def probe_constants(runner: FileRunner, layers: tuple[Layer, ...], seed: int) -> ProbeResults:
    """Run every product, sum, quotient and lookup with constants on its exact probes."""
    probed = ProbeResults()
    for layer in layers:
        exact = _EXACT.get(layer.expected.op)
        if exact is None or not layer.expected.tensors or not _is_in_rows(layer):
            continue
        factors = [attribute(layer.nodes[0], name, 1.0) for name in ("alpha", "beta")]
        if layer.expected.op == "linear" and any(abs(np.frexp(factor)[0]) != 0.5 for factor in factors):
            probed.rounded_twice += 1  # a Gemm whose alpha or beta is not a power of two
            continue
        probed.layers += 1
        with runner.open_layer(layer) as run:
            for probe, rows, expected in exact(layer):
                probed.compare(layer, probe, _run(run, layer, rows), expected)
        if layer.expected.op == "linear":
            rows, expected, constants = _integers(runner.model, layer, seed)
            with runner.open_layer(layer, constants) as run:
                probed.compare(layer, lambda row: f"integers, row {row}", _run(run, layer, rows), expected)
    return probed


def _is_in_rows(layer: Layer) -> bool:
    """Whether the layer has one input with the batch as its first dimension only, so that any rows fit."""
    if layer.input_dtypes != ("float32",) and (len(layer.input_dtypes) != 1 or layer.expected.op != "embedding"):
        return False
    grows = [isinstance(size, Rows) for size in layer.input_shapes[0]]
    return sum(grows) == 1 and grows[0]


def _run(run: Callable[[np.ndarray], np.ndarray], layer: Layer, rows: np.ndarray) -> np.ndarray:
    """Run a layer on rows (count, features); where its own rows have more dimensions, several rows fill one."""
    shape = row_sizes(layer.input_shapes[0])
    inner = shape[:-1] if layer.expected.op == "linear" else shape if layer.expected.op == "embedding" else ()
    if not inner:
        return run(np.ascontiguousarray(rows))
    count, per = len(rows), prod(inner)
    filled = np.zeros((-(-count // per) * per, *rows.shape[1:]), rows.dtype)
    filled[:count] = rows
    results = run(filled.reshape(-1, *inner, *rows.shape[1:]))
    return results.reshape(len(filled), -1)[:count]


def probe_ranges(runner: FileRunner, structure: Structure, seed: int) -> Iterator[LayerCheck]:
    """Compare every other layer with one float32 input with its bound, over the whole range of float32."""
    for layer in structure.layers:
        node, check = layer.expected, LayerCheck((layer,), structure.graph.rows_depend)
        if node.op in ("linear", "embedding", "expand") or not _is_in_rows(layer):
            continue
        first, row = layer.input_shapes[0][0], row_sizes(layer.input_shapes[0])
        times = first.times if isinstance(first, Rows) else 1
        with runner.open_layer(layer) as run:
            rows = _whole_range(prod(row), seed).reshape(-1, *row)
            rows = rows[: len(rows) // times * times]
            values = {layer.inputs[0]: rows, layer.output: run(rows)}
            check.compare("whole range", values, rows.reshape(len(rows) // times, -1))
        yield check


def unguarded(structure: Structure) -> Layer | None:
    """A layer that overflows, or takes the logarithm of 0, where the module does not, and is not run on its own."""
    for layer in structure.layers:
        operators = {node.op_type for node in layer.nodes}
        guards = {"softmax": "ReduceMax", "softplus": "Where"}.get(layer.expected.op)
        exponential = guards is not None and "Exp" in operators and guards not in operators
        logarithm = layer.expected.op in ("log_softmax", "log_sigmoid") and "Log" in operators
        if (exponential or logarithm) and not _is_in_rows(layer):
            return layer
    return None


def _whole_range(features: int, seed: int) -> np.ndarray:
    """Rows of every scale: all exponents at once, one exponent per row, around ±30, and standard normal."""
    rows = max(64, 2**15 // features // 4)
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
    return (signs * np.ldexp(mantissas, np.stack(exponents))).astype(np.float32).reshape(-1, features)


Exact = Iterator[tuple[Callable[[int], str], np.ndarray, np.ndarray]]


def _linear(layer: Layer) -> Exact:
    weight = np.ascontiguousarray(layer.expected.tensors["weight"].values.T)
    n, out = weight.shape
    bias = layer.expected.tensors["bias"].values if "bias" in layer.expected.tensors else np.zeros(out, np.float32)
    yield (lambda _: "x = 0"), np.zeros((1, n), np.float32), bias[None, :]
    for k in EXPONENTS:
        for start in range(0, n, _ROWS):
            part = weight[start : start + _ROWS]
            rows = np.zeros((len(part), n), np.float32)
            rows[np.arange(len(part)), np.arange(start, start + len(part))] = 2.0**k
            with np.errstate(over="ignore"):
                scaled = part * np.float32(2.0**k)
                # A weight below the normal numbers may be flushed, so its sum is not a single rounding.
                exact = np.where((np.abs(part) < _SMALLEST) & (part != 0), np.inf, scaled + bias)
            yield (lambda row, s=start, k=k: f"x = 2^{k} at input {s + row}"), rows, exact


def _matmul(layer: Layer) -> Exact:
    """A constant factor: a one at one index of the inner dimension gives a row or column of it."""
    node, row = layer.expected, row_sizes(layer.input_shapes[0])
    left = "self" in node.tensors
    n = row[-2] if left else row[-1]
    for k in EXPONENTS:
        rows = np.zeros((n, *row), np.float32)
        for i in range(n):
            rows[(i, ..., i, 0) if left else (i, ..., 0, i)] = 2.0**k
        yield (lambda row, k=k: f"x = 2^{k} at inner index {row}"), rows, _computed(node, rows)


def _elementwise(layer: Layer) -> Exact:
    """One rounding of x and a constant; quotients are exact for multiples of the constant only."""
    node, row = layer.expected, row_sizes(layer.input_shapes[0])
    (operand,) = (tensor.values for tensor in node.tensors.values())
    if np.broadcast_shapes(operand.shape, (1, *row)) != (1, *row):
        return
    operand = np.broadcast_to(operand, (1, *row))
    flushed = (np.abs(operand) < _SMALLEST) & (operand != 0)
    with np.errstate(invalid="ignore", over="ignore"):
        probes = [("0", 0 * operand), ("the constant", operand), ("2 constants", np.float32(2) * operand)]
    if node.op != "div":
        probes += [(f"2^{k}", np.full_like(operand, 2.0**k)) for k in EXPONENTS]
    for name, x in probes:
        rows = np.array(x)
        exact = np.where(flushed | ~np.isfinite(rows), np.inf, _computed(node, rows))
        yield (lambda _, name=name: f"x = {name}"), rows, exact


def _scaled_and_shifted(layer: Layer) -> Exact:
    """Folding's offset + factor·x: products with powers of two are exact."""
    node, row = layer.expected, row_sizes(layer.input_shapes[0])
    factor, offset = (np.broadcast_to(node.tensors[role].values, row) for role in ("tensor2", "self"))
    flushed = (np.abs(factor) < _SMALLEST) & (factor != 0)
    with np.errstate(over="ignore"):
        for x in (np.float32(0), *(np.float32(2.0**k) for k in EXPONENTS)):
            exact = np.where(flushed, np.inf, factor * x + offset)
            yield (lambda _, x=x: f"x = {x:g}"), np.full((1, *row), x), exact[None]


def _embedding(layer: Layer) -> Exact:
    table = layer.expected.tensors["weight"].values
    for start in range(0, len(table), _ROWS):
        part = table[start : start + _ROWS]
        indices = np.arange(start, start + len(part), dtype=np.int64)
        yield (lambda row, s=start: f"index {s + row}"), indices, part


def _computed(node: Node, rows: np.ndarray) -> np.ndarray:
    """The result of one float32 operation."""
    with np.errstate(all="ignore"), torch.inference_mode():
        return evaluate(node, [tensor_of(rows)], precision=torch.float32, rows=len(rows)).numpy()


_EXACT: dict[str, Callable[[Layer], Exact]] = {
    "linear": _linear,
    "matmul": _matmul,
    **dict.fromkeys(("add", "sub", "mul", "div"), _elementwise),
    "addcmul": _scaled_and_shifted,
    "embedding": _embedding,
}
"""By operator: descriptions of the probes, their rows (count, ...), and the only right results."""


def _integers(model: Model, layer: Layer, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Rows of integers, their exact results, and integers for the layer's constants, as the file stores them."""
    out, features = map(int, layer.expected.tensors["weight"].values.shape)
    node, last = layer.nodes[0], layer.nodes[-1]
    stored = next(name for name in node.input[:2] if name in model.constants)
    others = [name for name in last.input[::-1] if name in model.constants and name != stored]
    bias = bool(others)
    rng = np.random.default_rng(seed)
    largest = max(1, min(2**13 - 1, (2**24 - 2**13) // (3 * features)))
    weight = rng.integers(-largest, largest + 1, (out, features)).astype(np.float32)
    offset = rng.integers(-4096, 4097, out).astype(np.float32) if bias else np.zeros(out, np.float32)
    if bias and model.constants[others[0]].size == 1:  # the same for every output
        offset[:] = offset[0]
    rows = rng.integers(-3, 4, (16, features)).astype(np.float32)
    sign = -1.0 if last.op_type == "Sub" else attribute(last, "beta", 1.0)
    exact = attribute(node, "alpha", 1.0) * (rows.astype(np.float64) @ weight.astype(np.float64).T)
    with np.errstate(over="ignore"):
        exact = (exact + sign * offset.astype(np.float64)).astype(np.float32)
    transposed = stored == node.input[1] and not attribute(node, "transB", 0)
    constants = {stored: np.ascontiguousarray(weight.T) if transposed else weight}
    if bias:
        constants[others[0]] = offset[: model.constants[others[0]].size].reshape(model.constants[others[0]].shape)
    return rows, exact, constants
