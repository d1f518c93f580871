"""Bounds of single rows: each row is a box of its own, of no width, so that only its roundings remain."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch

from export.evaluation import threads_for
from export.onnxfile.reading import read_model
from export.proof.rows import row_shapes, tensor_of

from .boxes import spans_of
from .enclosing import Network, NoBoundError, enclose
from .errors import output_errors
from .files import structure_of
from .substitution import tightening

_ROWS = 16
"""That are bounded together."""
_PRODUCTS = 2.0**33
_MARGIN = 1 + 2.0**-30


def row_bounds(path: str | Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far a correct float32 runtime may be from the exact outputs of a file, on each of some rows.

    ``inputs`` are float32 (rows, ...) by name. The result is float64 (rows, values) by the name of the output, infinite
    where there is no bound. Raises InputError: the network cannot be read from the file.
    """
    structure = structure_of(read_model(Path(path), recovering=True), None, None, None, "forward")
    shapes = row_shapes(structure.wiring.inputs)
    rows = np.concatenate([inputs[name].reshape(len(inputs[name]), -1) for name in shapes], axis=1).astype(np.float64)
    sizes = {name: prod(row) for name, row in structure.wiring.outputs.items()}
    bounds = np.full((len(rows), sum(sizes.values())), np.inf)
    finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
    try:
        network = Network.of(structure)
    except NoBoundError:
        finite = finite[:0]
    else:
        with threads_for(sum(layer.parameters for layer in network.layers)):
            for start in range(0, len(finite), _ROWS):
                chosen = finite[start : start + _ROWS]
                bounds[chosen] = _bounds(network, rows[chosen], shapes, bounds.shape[1])
    parts = np.split(bounds, np.cumsum(list(sizes.values()))[:-1], axis=1)
    return dict(zip(sizes, parts, strict=True))


def _bounds(network: Network, rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]], width: int) -> np.ndarray:
    """(rows, values); where some row has no bound, each half is tried by itself."""
    ends = tensor_of(rows)
    try:
        with torch.no_grad():
            enclosed = enclose(network, spans_of(ends, ends, shapes), tightening(_PRODUCTS))
            return output_errors(enclosed, _PRODUCTS).bound.numpy() * _MARGIN
    except NoBoundError:
        if len(rows) == 1:
            return np.full((1, width), np.inf)
        half = len(rows) // 2
        return np.concatenate([_bounds(network, part, shapes, width) for part in (rows[:half], rows[half:])])
