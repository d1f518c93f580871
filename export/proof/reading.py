"""An ONNX file as the verifier reads it: operators, constants, one input and one output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from runtime import ModelError, read_header

_LARGE = 2**10
"""Values from which a constant is kept apart: Protocol Buffers would copy it at every turn."""


@dataclass(frozen=True)
class Model:
    """A file's graph. ``constants`` holds every constant; ``proto`` has the small ones, ``large`` names the others.

    A graph that is to be run gets them back (``export.proof.running``).
    """

    path: Path
    proto: ModelProto
    constants: dict[str, np.ndarray]
    large: frozenset[str]

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The inputs that are not constants."""
        return [value for value in self.proto.graph.input if value.name not in self.constants]

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """The operators that compute something; constants and Identity are seen through."""
        return [node for node in self.proto.graph.node if node.op_type not in ("Constant", "Identity")]

    @cached_property
    def _aliases(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in self.proto.graph.node:
            if node.op_type == "Identity":
                found[node.output[0]] = found.get(node.input[0], node.input[0])
        return found

    def value(self, name: str) -> str:
        """The value that a name stands for, Identity operators seen through."""
        return self._aliases.get(name, name)

    def consumers(self, value: str) -> list[NodeProto]:
        """The operators that read a value."""
        return [node for node in self.nodes if value in (self.value(name) for name in node.input)]

    @property
    def opset(self) -> int:
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def read_model(path: Path) -> Model:
    """Read a file with its weights. Raises ModelError: missing, damaged or not ONNX."""
    read_header(path)
    try:
        whole = onnx.load(str(path))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: not a whole ONNX file: {error}") from None
    constants = {tensor.name: _values(tensor) for tensor in whole.graph.initializer}
    for node in whole.graph.node:
        if node.op_type == "Constant":
            constants |= dict.fromkeys(node.output, _constant(node))
    large = {t.name for t in whole.graph.initializer if _is_large(t)}
    return Model(path, _without(whole, large), constants, frozenset(large))


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and bool(tensor.raw_data) and int(np.prod(tensor.dims)) >= _LARGE


def _without(whole: ModelProto, names: set[str]) -> ModelProto:
    """A copy without some constants; clearing them in place would not free their memory."""
    graph = GraphProto(
        name=whole.graph.name,
        node=whole.graph.node,
        input=whole.graph.input,
        output=whole.graph.output,
        value_info=whole.graph.value_info,
        initializer=[tensor for tensor in whole.graph.initializer if tensor.name not in names],
    )
    return ModelProto(
        ir_version=whole.ir_version,
        opset_import=whole.opset_import,
        metadata_props=whole.metadata_props,
        functions=whole.functions,
        graph=graph,
    )


def _constant(node: NodeProto) -> np.ndarray:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    return _values(value) if isinstance(value, TensorProto) else np.asarray(value, dtype=np.float32)


def _values(tensor: TensorProto) -> np.ndarray:
    if tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
        return np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
    return numpy_helper.to_array(tensor)


def row_shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """The shape of a row of an input or output, without its first dimension."""
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)[1:]
