"""An ONNX file of float64 numbers as one of float32 numbers, and what the file itself computes.

Nothing is proved of such a file: the network is one with rounded weights. The two are compared on rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from builder.errors import RecoveryError
from export.onnxfile.model import label
from export.onnxfile.reading import tensors_of
from export.proof.rows import in_batches

_DOUBLE, _FLOAT = TensorProto.DOUBLE, TensorProto.FLOAT


def rounded(proto: ModelProto) -> bool:
    """Make every float64 number and type of a file a float32 one; whether there was any.

    Raises RecoveryError: a number that float32 cannot hold, or constants outside the file.
    """
    graph, found = proto.graph, False
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == _DOUBLE:
            value.type.tensor_type.elem_type, found = _FLOAT, True
    for name, tensor in tensors_of(proto).items():
        if tensor.data_type == _DOUBLE:
            if tensor.data_location == TensorProto.EXTERNAL:
                raise RecoveryError(f"the float64 constant '{name}' is outside the file, and is not rounded from there")
            tensor.CopyFrom(numpy_helper.from_array(_in_float32(numpy_helper.to_array(tensor), name), tensor.name))
            found = True
    for node in graph.node:
        for attribute in node.attribute if node.op_type in ("Cast", "CastLike") else ():
            if attribute.name == "to" and attribute.i == _DOUBLE:
                attribute.i, found = _FLOAT, True
        if node.op_type == "ConstantOfShape":
            raise RecoveryError(f"{label(node)} makes a constant of a size that the file computes")
    return found


def _in_float32(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        small = values.astype(np.float32)
    if bool((np.isinf(small) & np.isfinite(values)).any()):
        raise RecoveryError(f"the constant '{name}' has values that float32 cannot hold: they would become infinite")
    return small


def reference_outputs(path: Path, rows: np.ndarray) -> np.ndarray:
    """What the file computes for float32 rows (batch, *row), by ONNX's reference in float64: (batch, outputs).

    Raises RecoveryError: the reference cannot run it.
    """
    proto = ModelProto.FromString(path.read_bytes())
    constants = {tensor.name for tensor in proto.graph.initializer}
    (source,) = [value for value in proto.graph.input if value.name not in constants]
    sizes = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    (output,) = proto.graph.output

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = feed[source.name].astype(dtype)
        given = given.reshape(sizes) if all(sizes) else given.reshape(len(given), *sizes[1:])
        return {output.name: np.asarray(evaluator.run(None, {source.name: given})[0])}

    batch = 1 if len(sizes) == 1 else sizes[0]
    try:
        evaluator = cast("Any", ReferenceEvaluator(proto))
        if batch == 1:
            return np.stack([run({source.name: row[None]})[output.name].reshape(-1) for row in rows])
        results = in_batches(run, {source.name: rows}, batch) if batch else run({source.name: rows})
    except Exception as error:  # the reference raises whatever NumPy raises
        raise RecoveryError(f"{path}: ONNX's reference cannot run it: {error}") from None
    return results[output.name].reshape(len(rows), -1)
