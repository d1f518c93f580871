"""Exact probes of the linear layers: does this runtime multiply the file's weights in float32, in batches of any size?

Every linear layer is run alone, on inputs whose result does not depend on the order of a sum (docs/parity.md):

- x = 0 gives the bias; x = 2^k at a single input gives fl(2^k·w + b), for k = 0 and for k = 40, where the bias cannot
  hide the weight. In batches of up to 512 rows, and row by row.
- Integers in place of the constants, with Σ|w·x| + |b| < 2^24, give the exact sum. Once the weights have 12 bits and
  the inputs one, once the other way round: TF32 keeps 11 bits, bfloat16 8, so a single product that is rounded shows.
  Every number is other than 0, so every product at every place of a batch counts.

Kernels differ by the size of the batch: a row alone is a product of a matrix and a vector, and tiles of 4 to 16 rows
leave remainders. So the integers are asked in batches of ``BATCHES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .linear_layers import LinearLayer
from .precisions import PRECISIONS
from .running import Opener

EXPONENTS = (0, 40)
BATCHES = (2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 64, 200, 256)
"""Rows of the batches of integers, besides single ones."""
_ROWS = 512
"""Unit vectors in a batch."""
_ALONE = 200
"""Single rows of integers, at most."""
_BUDGET = 2**28
"""Multiply-adds of a layer that its single rows may take together: about a tenth of a second."""
_SMALLEST, _LARGEST = np.float32(2.0**-126), np.finfo(np.float32).max
_WIDE = 2**12
"""The integers of 12 bits are odd ones from 2^11 to this, of which as many can be added exactly."""

Describe = Callable[[int], str]
"""What a row of a batch asks, in words."""


@dataclass
class Probed:
    """What the probes of one layer, or of all, compared."""

    elements: int = 0
    skipped: int = 0
    """Results that are no normal float32 number, so that a correct runtime may flush them."""
    wrong: int = 0
    first: str = ""
    """The first wrong result."""
    batches: dict[int, bool] = field(default_factory=dict[int, bool])
    """By the rows of a batch of integers: was every result right?"""
    suspects: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PRECISIONS, 0))
    """By the reduced precision: the wrong results of single weights that it explains."""
    single: int = 0
    """The wrong results of single weights."""

    @property
    def precision(self) -> str | None:
        """The reduced precision that explains every wrong result of a single weight."""
        return next((name for name, count in self.suspects.items() if count == self.single > 0), None)

    def compare(
        self,
        describe: Describe,
        results: np.ndarray,
        exact: np.ndarray,
        reduced: Callable[[str], np.ndarray] | None = None,
    ) -> bool:
        """Compare a batch of results with the only right ones, (rows, out) both; infinity: not determined.

        ``reduced`` gives what the results are in a precision, for those of single weights. True: all are right.
        """
        normal = (np.abs(exact) >= _SMALLEST) & (np.abs(exact) <= _LARGEST) | (exact == 0)
        wrong = normal & (results != exact)
        self.elements += int(normal.sum())
        self.skipped += int((~normal).sum())
        if not wrong.any():
            return True
        self.wrong += int(wrong.sum())
        if not self.first:
            row, column = divmod(int(np.argmax(wrong)), wrong.shape[1])
            have, need = float(results[row, column]), float(exact[row, column])
            self.first = f"{describe(row)}: output {column} is {have!r} and must be {need!r}"
        if reduced is not None:
            self.single += int(wrong.sum())
            for name in self.suspects:
                self.suspects[name] += int((wrong & (results == reduced(name))).sum())
        return False


def probe(layer: LinearLayer, source: Any, opener: Opener, multiply_adds: int, batch: int | None) -> Probed:
    """Run a layer of ``source``, a ModelProto, on its exact probes.

    ``batch`` is the number of rows that the file fixes, None where it is open. Raises ModelError: it cannot be run.
    """
    probed = Probed()
    with opener(layer.alone(source, layer.stored, layer.bias, multiply_adds)) as running:
        for describe, rows, exact, reduced in _units(layer, batch):
            probed.compare(describe, running.run({"x": rows})["y"], exact, reduced)
    for weights_are_wide in (True, False):
        stored, bias, base, exact = _integers(layer, weights_are_wide)
        kind = "weights" if weights_are_wide else "inputs"
        with opener(layer.alone(source, stored, bias, multiply_adds)) as running:
            for chosen, signs in _batches(layer, len(base), batch):
                rows, expected = base[chosen] * signs, exact[chosen] * signs + layer.bias_row(bias)
                results = running.run({"x": rows.astype(np.float32)})["y"]
                describe = _describing(f"integers, {kind} of 12 bits, in a batch of {len(rows)}: row")
                is_right = probed.compare(describe, results, expected)
                probed.batches[len(rows)] = probed.batches.get(len(rows), True) and is_right
    return probed


def _describing(words: str, first: int = 0) -> Describe:
    return lambda row: f"{words} {first + row}"


def _units(
    layer: LinearLayer, batch: int | None
) -> Iterator[tuple[Describe, np.ndarray, np.ndarray, Callable[[str], np.ndarray] | None]]:
    """Zeros, and 2^k at each input: descriptions, rows, the only right results, and those in a reduced precision."""
    n, out = layer.weight.shape
    bias = layer.bias_row(layer.bias)
    endless = ~np.isfinite(layer.weight).all(axis=0)  # 0 times infinity is NaN
    for rows in dict.fromkeys((batch or 1, _ALONE)):
        zeros = np.broadcast_to(np.where(endless, np.float32(np.inf), bias), (rows, out))
        yield lambda _: "x = 0", np.zeros((rows, n), np.float32), zeros, None
    blocks = [(k, start, min(start + _ROWS, n)) for k in EXPONENTS for start in range(0, n, _ROWS)]
    blocks += [(0, place, place + 1) for place in range(0, n, max(1, n * layer.stored.size // _BUDGET))]
    for k, start, stop in blocks:
        part = np.ascontiguousarray(layer.weight[start:stop])
        rows = np.zeros((len(part), n), np.float32)
        rows[np.arange(len(part)), np.arange(start, stop)] = 2.0**k

        def rounded(name: str, part: np.ndarray = part, k: int = k) -> np.ndarray:
            with np.errstate(all="ignore"):
                x, weights = (PRECISIONS[name](values) for values in (np.full((1, 1), 2.0**k, np.float32), part))
                return np.multiply(np.float32(layer.alpha), x * weights) + bias

        with np.errstate(all="ignore"):
            scaled = np.multiply(np.float32(layer.alpha), np.float32(2.0**k) * part)
            exact = scaled + bias
        # What is below the normal numbers may be flushed, so its sum is not a single rounding.
        hidden = _is_denormal(part) | _is_denormal(scaled) | _is_denormal(bias)
        exact = np.where(hidden | endless, np.float32(np.inf), exact)
        alone = ", a row alone" if len(part) == 1 else ""
        describe = _describing(f"x = 2^{k}{alone}, at input", start)
        yield describe, rows, exact, rounded


def _is_denormal(values: np.ndarray) -> np.ndarray:
    return (np.abs(values) < _SMALLEST) & (values != 0)


def _integers(
    layer: LinearLayer, weights_are_wide: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """Integers for the constants as the file stores them, base rows (count, in), and their exact products (count, out).

    The products are without the bias, and are sums of numpy's integers: no library's matrix product is trusted.
    """
    rng = np.random.default_rng(len(layer.stored))
    n, out = layer.weight.shape
    terms = min(n, _WIDE - 2)  # of a sum
    count = max(4, -(-n // terms))

    def signs(*shape: int) -> np.ndarray:
        return rng.integers(0, 2, shape, np.int32) * 2 - 1

    def wide(*shape: int) -> np.ndarray:
        return signs(*shape) * (rng.integers(_WIDE // 4, _WIDE // 2, shape, np.int32) * 2 + 1)

    weight, base = (wide(n, out), signs(count, n)) if weights_are_wide else (signs(n, out), wide(count, n))
    if terms < n:  # each input takes part in at least one row
        for row in range(count):
            start = row * (n - terms) // (count - 1)
            base[row, :start], base[row, start + terms :] = 0, 0
    exact = np.einsum("rn,no->ro", base, weight)
    bias = None if layer.bias is None else rng.integers(-_WIDE // 2, _WIDE // 2, layer.bias.shape).astype(np.float32)
    if bias is not None and (abs(layer.alpha), abs(layer.beta)) != (1, 1):
        bias[...] = 0  # so that a sum needs no more than 24 bits
    stored = np.ascontiguousarray(weight.T) if layer.transposed else weight
    return stored.astype(np.float32), bias, base, np.float32(layer.alpha) * exact.astype(np.float32)


def _batches(layer: LinearLayer, count: int, batch: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each batch, which base rows it has, and their signs (rows, 1): every place gets every base row in turn."""
    single = max(1, min(_ALONE, _BUDGET // layer.stored.size))
    sizes = [*[1] * single, *BATCHES] if batch is None else [batch] * (single if batch == 1 else 4)
    for index, size in enumerate(sizes):
        places = np.arange(size)
        yield (places + index) % count, np.where((places + index) // count % 2, -1, 1)[:, None]
