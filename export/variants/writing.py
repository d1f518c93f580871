"""A file of reduced precision, made of a file of mlpx or of another tool: its linear layers are rewritten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from export.errors import ExportError
from export.inspection import inner_values
from export.onnxfile.model import Model, live_and_dead, values_read
from export.onnxfile.reading import read_model
from runtime import InputError, ModelError, read_header, sha256, summary_of, through_link, write_whole

from .kinds import KINDS, Kind, LayerWriter, LinearLayer, Range, way_of

LABEL = "not proved equal, measured"
"""The label of every file of reduced precision: no proof bounds its distance from the file that it was made of."""
_LARGEST_FILE = 2**31 - 2**20
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Variant:
    """A file of reduced precision that was written.

    Examples:
        >>> from export import write_variant
        >>> variant = write_variant("comfort.onnx", "weights8", "variants")
        >>> variant.kind, variant.layers, variant.calibration_rows
        ('weights8', 2, None)
    """

    path: Path
    kind: str
    way: str
    """How its products are computed."""
    size: int
    """In bytes."""
    layers: int
    """How many linear layers were rewritten; the other operators are unchanged."""
    calibration_rows: int | None = None


def write_variant(
    source: str | Path,
    kind: str,
    folder: str | Path | None = None,
    *,
    rows: Mapping[str, np.ndarray] | None = None,
    way: str | None = None,
) -> Variant:
    """Write the network of the ONNX file ``source`` in fewer bits, as ``NAME.KIND.onnx``, beside it or in ``folder``.

    ``kind`` is one of ``KINDS``. ``rows``, float32 (batch, *row) by the inputs' names, are what int8-static takes its
    ranges from. ``way`` is one of the kind's ways; by default the first whose products are exact on this machine.
    The same source, rows and way give the same bytes. Inputs, outputs and their batch dimension stay.

    Raises ExportError: an unknown kind, no rows where they are needed, a network that the kind cannot represent;
    ModelError; InputError; OutputError.

    Examples:
        >>> from export import write_variant
        >>> write_variant("comfort.onnx", "float16", "variants").path.name
        'comfort.float16.onnx'
    """
    source = Path(source)
    row = KINDS.get(kind)
    if row is None:
        raise ExportError(f"'{kind}' is not a kind of reduced precision. What to do: give one of {', '.join(KINDS)}")
    if way is not None and way not in row.ways:
        raise ExportError(f"{kind} has no way '{way}'. What to do: give one of {', '.join(row.ways)}")
    if row.calibrated and rows is None:
        raise ExportError(f"{kind} needs your own rows for its ranges. What to do: give rows like those of the traffic")
    calibration = rows if row.calibrated else None
    model = read_model(source)
    layers = _checked_layers(model, kind, row)
    limits = {} if calibration is None else _ranges(source, layers, calibration)
    way = way or way_of(kind)
    variant = _rewrite(model, layers, row, way, limits)
    record: dict[str, Any] = {"kind": kind, "label": LABEL, "way": way, "by_batch": row.by_batch}
    record |= {"source": source.name, "source_sha256": sha256(source)}
    count = None
    if calibration is not None:
        count = record["calibration_rows"] = len(next(iter(calibration.values())))
    _set_metadata(variant, record)
    path = through_link(source if folder is None else Path(folder) / source.name)
    path = path.with_name(f"{source.stem}.{kind}.onnx")
    if sum(len(tensor.raw_data) for tensor in variant.graph.initializer) > _LARGEST_FILE:
        raise ExportError(f"{source}: its {kind} file would exceed 2 GB, the limit of an ONNX file")
    refuse_other(path)
    content = variant.SerializeToString(deterministic=True)
    write_whole(path, content)
    return Variant(path, kind, way, len(content), len(layers), count)


def refuse_other(path: Path) -> None:
    """Raise ExportError where ``path`` is a file, and not one of reduced precision that mlpx made."""
    if not path.exists():
        return
    with suppress(ModelError):
        if "mlpx.variant" in read_header(path).metadata:
            return
    hint = "move it, or choose another folder (-o)"
    raise ExportError(f"{path} exists, and is not a file of reduced precision that mlpx made. What to do: {hint}")


def _checked_layers(model: Model, kind: str, row: Kind) -> list[LinearLayer]:
    """The layers to rewrite. Raises ExportError: there are none, or the kind cannot represent them."""
    path, layers = model.path, _linear_layers(model)
    if model.problem is not None:
        raise ModelError(f"{path}: {model.problem}")
    if any(entry.key == "mlpx.variant" for entry in model.proto.metadata_props):
        raise ExportError(f"{path} is of reduced precision itself. What to do: name the float32 file it was made of")
    if not layers:
        raise ExportError(f"{path}: no linear layer (Gemm or MatMul with a constant float32 weight) was found in it")
    if model.opset < row.opset:
        message = f"{path} is of opset {model.opset}, and {kind} needs opset {row.opset}"
        raise ExportError(f"{message}. What to do: export it again with --opset {row.opset} or more")
    for layer in layers:
        if not all(np.isfinite(values).all() for values in (layer.weight, layer.bias) if values is not None):
            raise ExportError(f"{path}: '{layer.name}' has weights that are not finite, and {kind} needs finite ones")
        largest = float(np.abs(layer.weight).max())
        if kind == "float16" and largest > _LARGEST_FLOAT16:
            message = f"{path}: a weight of '{layer.name}' is {largest:.6g} in magnitude"
            raise ExportError(f"{message}, and float16 ends at {_LARGEST_FLOAT16:.6g}")
    return layers


def _linear_layers(model: Model) -> list[LinearLayer]:
    """Every Gemm, MatMul and MatMul with Add of one-dimensional rows and a constant float32 weight, in order.

    Others stay unchanged: a product of two values, or of rows of more than one dimension.
    """
    readers = {"Gemm": _gemm, "MatMul": _matmul}
    layers: list[LinearLayer | None] = []
    for node in model.proto.graph.node:
        if node.op_type in readers and node.domain in ("", "ai.onnx") and node.input[0] not in model.constants:
            weight = model.constants.get(node.input[1])
            if weight is not None and weight.dtype == np.float32 and weight.ndim == 2 and weight.size:
                layers.append(readers[node.op_type](model, node, weight))
    return [layer for layer in layers if layer is not None]


def _gemm(model: Model, node: NodeProto, weight: np.ndarray) -> LinearLayer | None:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("transA", 0):
        return None
    weight = np.float32(attributes.get("alpha", 1.0)) * (weight.T if attributes.get("transB", 0) else weight)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = _bias(model, node.input[2], weight.shape[1])
        if bias is None:
            return None
        bias = np.float32(attributes.get("beta", 1.0)) * bias
    return LinearLayer(node.name or node.output[0], (node,), node.input[0], node.output[0], weight, bias)


def _matmul(model: Model, node: NodeProto, weight: np.ndarray) -> LinearLayer | None:
    if len(model.rows.get(node.input[0], ())) != 1:
        return None
    name, output = node.name or node.output[0], node.output[0]
    readers = [other for other in model.proto.graph.node if output in values_read(other)]
    is_output = any(value.name == output for value in model.proto.graph.output)
    if len(readers) == 1 and readers[0].op_type == "Add" and not is_output:
        (add,) = readers
        other = add.input[1] if add.input[0] == output else add.input[0]
        bias = _bias(model, other, weight.shape[1])
        if bias is not None:
            return LinearLayer(name, (node, add), node.input[0], add.output[0], weight, bias)
    return LinearLayer(name, (node,), node.input[0], output, weight, None)


def _bias(model: Model, name: str, width: int) -> np.ndarray | None:
    """A constant that is added to every row, as (width,)."""
    values = model.constants.get(name)
    if values is None or values.dtype != np.float32 or values.shape not in ((), (1,), (width,), (1, 1), (1, width)):
        return None
    return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (width,)))


def _ranges(path: Path, layers: Sequence[LinearLayer], rows: Mapping[str, np.ndarray]) -> dict[str, Range]:
    """The lowest and the highest input of each layer, by the input's name, when the file at ``path`` runs on ``rows``.

    Raises InputError: no rows, or values that are not finite.
    """
    if not min(len(values) for values in rows.values()):
        raise InputError("the data has no rows to measure ranges on. What to do: give rows like those of the traffic")
    names = list(dict.fromkeys(layer.input for layer in layers))
    limits: dict[str, Range] = {}
    model = onnx.load(str(path))  # pyright: ignore[reportUnknownMemberType] - a path without type
    for values in inner_values(model, names, rows):
        for name in names:
            low, high = float(values[name].min()), float(values[name].max())
            if not np.isfinite([low, high]).all():
                message = f"the data makes the value '{name}' {low if not np.isfinite(low) else high}"
                raise InputError(f"{message}, which has no range. What to do: drop rows that are not finite")
            lowest, highest = limits.get(name, (low, high))
            limits[name] = min(lowest, low), max(highest, high)
    return limits


def _rewrite(model: Model, layers: list[LinearLayer], kind: Kind, way: str, limits: Mapping[str, Range]) -> ModelProto:
    """The model with every layer written in this way, without what nothing reads any more."""
    graph = model.proto.graph
    taken = set(model.constants)
    for node in graph.node:
        taken |= {*values_read(node), *node.output, node.name}
    constants, replaced = dict(model.constants), dict[str, list[NodeProto]]()
    for layer in layers:
        writer = LayerWriter(layer, taken)
        kind.ways[way](writer, limits.get(layer.input, (0.0, 0.0)))
        constants |= writer.constants
        replaced |= {name: [] for node in layer.nodes for name in node.output}
        replaced[layer.output] = writer.nodes
    nodes = [written for node in graph.node for written in replaced.get(node.output[0], [node])]
    outputs = {value.name for value in graph.output}
    nodes, _ = live_and_dead(nodes, outputs)
    needed = outputs.union(*map(values_read, nodes))
    computed = {name for node in nodes for name in node.output}
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(values), name)
        for name, values in constants.items()
        if name in needed and name not in computed
    ]
    proto = GraphProto(name=graph.name, node=nodes, input=model.inputs, output=graph.output, initializer=initializers)
    opsets = [*model.proto.opset_import, *(helper.make_opsetid(domain, 1) for domain in kind.domains)]
    return ModelProto(
        ir_version=model.proto.ir_version,
        producer_name="mlpx",
        opset_import={opset.domain: opset for opset in opsets}.values(),
        metadata_props=model.proto.metadata_props,
        graph=proto,
    )


def _set_metadata(variant: ModelProto, record: dict[str, Any]) -> None:
    """Keep the source's metadata, with what this file is, and without the hash of weights that it no longer has."""
    metadata = {entry.key: entry.value for entry in variant.metadata_props}
    summary = summary_of(metadata)
    if summary is None:
        metadata["mlpx.variant"] = json.dumps(record, ensure_ascii=False)
    else:
        summary = replace(summary, weights_sha256=None, external_data=False, variant=record)
        metadata = summary.to_metadata() | dict(summary.metadata)
    variant.ClearField("metadata_props")
    for key, value in sorted(metadata.items()):
        variant.metadata_props.add(key=key, value=value)
