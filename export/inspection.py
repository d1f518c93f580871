"""Inspecting a model file: the summary that ``export`` stored in it, or for other files one read off the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from runtime import (
    BlockSummary,
    Header,
    InputError,
    ModelError,
    Port,
    Session,
    Summary,
    imported,
    read_certificate,
    read_header,
    read_inputs,
    summary_of,
    through_link,
)
from runtime.model.bound import Bound
from runtime.timing.rows import batches

from .block_settings import Settings, dropped, settings_of

_PRODUCTS = ("Gemm", "MatMul")
_NEEDS = "inspecting a file that mlpx did not write, or --data,"


@dataclass(frozen=True)
class DeadUnits:
    """The units of one ReLU whose output is 0 for every row of a data sample."""

    path: str
    units: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Inspection:
    """A file's size and summary; ``own`` if mlpx wrote it. ``dead`` is None where no data was given.

    ``bound`` is that of the certificate beside the file; None where none of exactly this file holds one. ``settings``
    are the slopes, limits and factors of blocks, ``dropped`` the p of the spec's Dropouts, both by the block's path.

    Examples:
        >>> from export import inspect
        >>> inspection = inspect("comfort.onnx", data="rows.csv")
        >>> inspection.rows, len(inspection.dead), inspection.settings["0"]["mean"]
        (2, 1, (20.0, 50.0))
    """

    path: Path
    size: int
    own: bool
    summary: Summary
    rows: int | None = None
    dead: tuple[DeadUnits, ...] | None = None
    bound: Bound | None = None
    settings: Settings = field(default_factory=dict[str, Any])
    dropped: Mapping[str, float] = field(default_factory=dict[str, float])


def inspect(path: str | Path, *, data: str | Path | None = None, dtype: str | None = None) -> Inspection:
    """The summary of an ONNX file. With ``data`` (see ``runtime.read_inputs``) also its dead ReLU units, per layer.

    A file that mlpx wrote is read without onnx and without its weights; others, and ``data``, need the extra
    ``mlpx[inspect]``. Raises ModelError, InputError and MissingPackageError.

    Examples:
        >>> from mlpx import inspect
        >>> inspection = inspect("comfort.onnx")
        >>> inspection.own, inspection.summary.opset
        (True, 17)
    """
    path = Path(path)
    header = read_header(path)
    stored = summary_of(header.metadata)
    summary = stored or _summary_of_graph(path, header)
    beside = path.with_name(f"{path.name}.data")
    size = header.size + (beside.stat().st_size if summary.external_data and beside.exists() else 0)
    own = stored is not None
    settings = settings_of(path, summary.blocks, own=own)
    inspection = Inspection(
        path, size, own, summary, bound=_bound(path), settings=settings, dropped=dropped(summary.spec)
    )
    if data is None:
        return inspection
    if not summary.inputs:
        raise ModelError(f"{path}: it has no input to feed data to")
    rows, _ = read_inputs(data, summary.inputs, dtype=dtype)
    return replace(inspection, rows=len(rows[summary.inputs[0].name]), dead=_dead_units(path, rows))


def _bound(path: Path) -> Bound | None:
    """The bound in ``NAME.parity.json``, if that is of exactly this file; its bytes are read only to find this out."""
    path = through_link(path)
    with suppress(InputError):
        certificate = read_certificate(path.with_name(f"{path.stem}.parity.json"))
        if certificate.bound is not None and certificate.is_of(path):
            return certificate.bound
    return None


def _load(path: Path) -> Any:
    onnx = imported("onnx", _NEEDS)
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not a whole ONNX file: {error}") from None
    from .onnxfile.texts import check_texts

    check_texts(path, model)
    return model


def _summary_of_graph(path: Path, header: Header) -> Summary:
    onnx = imported("onnx", _NEEDS)
    model = _load(path)
    with suppress(onnx.shape_inference.InferenceError):  # shapes are shown where they are known
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    sizes = {t.name: tuple(t.dims) for t in graph.initializer}
    uncounted = {t.name for t in graph.initializer if t.data_type in floats}
    shapes = {v.name: _dims(v) for v in [*graph.input, *graph.value_info, *graph.output]}
    blocks: list[BlockSummary] = []
    for index, node in enumerate(graph.node):
        constants = [name for name in node.input if name in sizes]
        source = shapes.get(next((name for name in node.input if name and name not in sizes), ""))
        result = shapes.get(node.output[0])
        matrix = next((sizes[n] for n in constants if len(sizes[n]) == 2 and node.op_type in _PRODUCTS), None)
        blocks.append(
            BlockSummary(
                path=node.name or f"node {index}",
                op=node.op_type,
                input_shape=source[1:] if source else None,
                output_shape=result[1:] if result else None,
                parameters=sum(prod(sizes[name]) for name in constants if name in uncounted),
                multiply_adds=prod(matrix) if matrix else 0,
            )
        )
        uncounted -= set(constants)
    return Summary(
        name=graph.name or path.stem,
        inputs=tuple(_port(value) for value in graph.input if value.name not in sizes),
        outputs=tuple(_port(value) for value in graph.output),
        blocks=tuple(blocks),
        opset=header.opset,
        ir_version=header.ir_version,
        remarks=_remarks(graph, sizes),
        metadata=header.metadata,
    )


def _remarks(graph: Any, sizes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Remarks on a graph of ONNX nodes."""
    remarks: list[str] = []
    producers = {name: node for node in graph.node for name in node.output}

    def linear_behind(node: Any) -> Any:
        """The Gemm or MatMul before a chain of additions of constants, dropouts and identities."""
        while node is not None and node.op_type in ("Add", "Dropout", "Identity"):
            inner = [name for name in node.input if name not in sizes]
            if len(inner) != 1 and node.op_type == "Add":
                return None
            node = producers.get(inner[0])
        return node if node is not None and node.op_type in _PRODUCTS else None

    for node in graph.node:
        if node.op_type in _PRODUCTS:
            before = linear_behind(producers.get(node.input[0]))
            if before is not None:
                first, second = (n.name or n.output[0] for n in (before, node))
                remarks.append(f"'{first}' and '{second}' stand in a row without an activation between: one affine map")
        if node.op_type == "Dropout":
            remarks.append(f"the dropout '{node.name or node.output[0]}' is still in the file")
    batch = _dims(graph.input[0])[:1] if graph.input else ()
    if batch and isinstance(batch[0], int):
        remarks.append(f"the batch is fixed at {batch[0]}")
    return tuple(remarks)


def _dims(value: Any) -> tuple[int | str, ...]:
    return tuple(
        d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim
    )


def _port(value: Any) -> Port:
    dtype = imported("onnx", _NEEDS).helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return Port(value.name, _dims(value), dtype=str(dtype))


def _dead_units(path: Path, rows: dict[str, np.ndarray]) -> tuple[DeadUnits, ...]:
    if not len(next(iter(rows.values()))):
        raise InputError("the data has no rows, so every unit would count as dead")
    model = _load(path)
    relus = {node.output[0]: node.name or node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    alive: dict[str, np.ndarray] = {}
    for values in inner_values(model, relus, rows):
        for name in relus:
            alive[name] = alive.get(name, False) | (values[name] != 0).any(axis=0).reshape(-1)
    return tuple(
        DeadUnits(relus[name], tuple(np.flatnonzero(~units).tolist()), len(units)) for name, units in alive.items()
    )


def inner_values(model: Any, names: Iterable[str], rows: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The inputs, the outputs and the values called ``names`` of an ONNX model for ``rows``, batch by batch.

    Where the file fixes its batch, the last one is filled up with the last row.
    """
    from onnx import ValueInfoProto

    from .onnxfile.model import add_outputs

    add_outputs(model, (ValueInfoProto(name=name) for name in names if name not in rows))
    with Session(model.SerializeToString(), "cpu") as session:
        for chunk, _ in batches(rows, session.inputs[0].shape[0]):
            yield chunk | session.run(chunk)
