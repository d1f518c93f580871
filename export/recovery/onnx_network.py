"""From an ONNX file of a dense network to its spec and its weights."""

from __future__ import annotations

from math import prod
from pathlib import Path

from builder.block import MOST, Shape
from builder.errors import RecoveryError, SpecError
from export.onnxfile.reading import Model

from .layout import MOST_DIMENSIONS, Layout
from .onnx_chain import Chain, known_operators
from .onnx_reading import read_graph
from .recovered import Recovered, Step, fitted_name, network_of


def read_onnx(path: str | Path, *, keep_shape: bool = False, name: str | None = None) -> Recovered:
    """The spec and the weights of the dense network in an ONNX file: float32, opset 7 or later.

    The module takes (batch, features), the entries of a row in their order; ``keep_shape`` keeps the file's shape of a
    row and flattens it first. ``name`` is the model's, by default the file's. No weight is changed or rounded, and
    nothing in the file is run.

    Raises RecoveryError: a missing, damaged or hostile file, or the first operator that is none of a dense network's.
    """
    path = Path(path)
    model, notes = read_graph(path, known_operators())
    layout, row = _rows(model, notes)
    steps, after = Chain(model, notes).read(layout)
    if not steps:
        raise RecoveryError(f"{path}: it gives its input back; there is no block in it")
    kept = keep_shape and len(row) > 1
    if kept:
        steps.insert(0, Step("flatten"))
    elif len(row) > 1:
        notes.append(f"the file takes rows of shape {list(row)}, and the network {prod(row)} features in their order")
    if not after.leading:
        raise RecoveryError(
            f"{path}: not a dense network: its output has the shape {after}; rows of a batch are expected"
        )
    if after.dims not in ((None, after.size), (1, after.size)):
        notes.append(f"the file gives {after}, and the network [batch, {after.size}]")
    source = {"name": model.inputs[0].name} | ({"shape": list(row)} if kept else {"features": prod(row)})
    try:
        name = fitted_name(path) if name is None else name
        spec, weights = network_of(steps, name, source, model.proto.graph.output[0].name)
    except SpecError as error:
        raise RecoveryError(f"{path}: what it computes is no spec: {error}") from None
    for key, value in weights.items():
        if not all(bound.isfinite() for bound in value.aminmax()):
            notes.append(f"{key} holds NaN or infinite values")
    return Recovered(spec, weights, tuple(notes), None if kept or len(row) == 1 else row)


def _rows(model: Model, notes: list[str]) -> tuple[Layout, Shape]:
    """How the input lies in rows, and the shape of one."""
    (source,) = model.inputs
    given = source.type.tensor_type.shape.dim
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in given)
    shown = ", ".join("?" if size is None else str(size) for size in dims)
    if not 1 <= len(dims) <= MOST_DIMENSIONS:
        message = f"the input '{source.name}' has {len(dims)} dimensions; rows of features are expected"
        raise RecoveryError(f"{model.path}: {message}")
    batch, row = (dims[0], dims[1:]) if len(dims) > 1 else (1, dims)
    fixed = tuple(size for size in row if size is not None and 0 < size <= MOST)
    if fixed != row or prod(fixed) > MOST:
        hint = "What to do: write the shape into the file, as with onnx.tools.update_model_dims"
        message = (
            f"the input '{source.name}' has the shape [{shown}]; sizes of 1 to {MOST:,} after the batch are expected"
        )
        raise RecoveryError(f"{model.path}: {message}. {hint}")
    if len(dims) == 1:
        notes.append("the file takes one row without a batch dimension, and the network a batch of rows")
        return Layout(fixed), fixed
    if batch == 1:
        # A single row, and whatever its dimensions do to each other, it stays one.
        notes.append("the file takes one row at a time, and the network a batch of any size")
        return Layout((1, *fixed)), fixed
    if batch is not None and batch > 1:
        notes.append(f"the file takes batches of {batch} rows, and the network a batch of any size")
    return Layout((None, *fixed), max(batch or 0, 0)), fixed
