"""The ONNX checker, on the structure alone."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from .errors import ExportError
from .graph import ELEMENT_TYPES

_SMALL = 64
_COMPLETE = 13
"""The opset from which on every operator can be written."""


def check(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> None:
    """Run ``onnx.checker`` with full, strict shape inference, and compare the shapes of the outputs.

    Weights stand in as inputs of their shape: the checker would copy their values, which takes longer than the export.
    Raises ExportError: a graph that ONNX does not accept is a defect of the exporter, never of the caller.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    for name, values in weights.items():
        if values.size <= _SMALL:
            skeleton.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        else:
            info = helper.make_tensor_value_info(name, ELEMENT_TYPES[str(values.dtype)], values.shape)
            skeleton.graph.input.append(info)
    try:
        onnx.checker.check_model(skeleton, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(_without_output_shape(skeleton), strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        opset = model.opset_import[0].version
        if opset < _COMPLETE:
            message = f"an operator of the network takes less in opset {opset} than is needed here"
            raise ExportError(f"{message} ({error}). What to do: give opset {_COMPLETE} or more") from error
        raise ExportError(f"the exported graph is not valid ONNX, which is a defect of mlpx: {error}") from error
    for output, other in zip(model.graph.output, inferred.graph.output, strict=True):
        declared, found = _dims(output), _dims(other)
        if len(declared) != len(found) or not all(map(_agree, declared, found)):
            message = f"the output '{output.name}' should have shape {declared}, but ONNX infers {found}"
            raise ExportError(f"{message}: a defect of mlpx")


def _agree(declared: int | str, found: int | str) -> bool:
    """A size may be one that ONNX cannot infer: that of an Expand, or one that grows with the batch."""
    return declared == found or (isinstance(found, str) and found.startswith("unk__"))


def _without_output_shape(model: onnx.ModelProto) -> onnx.ModelProto:
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return model


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]
