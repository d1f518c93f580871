"""Reading an ONNX file with its constants: those that it stores, and those computed from constants alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from runtime import ModelError

from .model import RESHAPES, Model, is_plain
from .source import Source, read_source
from .tensors import Tensors

_FOLDED = (
    *("Transpose", *RESHAPES, "Cast", "Add", "Sub", "Mul", "Div", "Sqrt", "Neg"),
    *("Max", "Min", "Abs", "Reciprocal", "Clip"),
)
"""Operators that are folded here where all their inputs are constants: each rounds at most once.

The runtime is asked for every result (``export.proof.running``).
"""
_MOVED = ("Transpose", *RESHAPES, "Identity")
"""Those that compute nothing."""
NUMBERS = {"value_float": "<f4", "value_floats": "<f4", "value_int": "<i8", "value_ints": "<i8"}
"""The types of the numbers that a Constant may hold in place of a tensor, by attribute."""
_LARGE = 2**10
"""Elements from which a constant is kept outside the graph: Protocol Buffers would copy it again and again."""


def tensors_of(proto: ModelProto) -> dict[str, TensorProto]:
    """The tensors that a file stores, as initialisers and in Constant nodes, by the names of their values."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            stored |= {name: a.t for a in node.attribute if a.type == a.TENSOR for name in node.output}
    return stored


def read_model(path: Path, *, recovering: bool = False) -> Model:
    """Read a file with its weights, once. Raises ModelError: missing, damaged or not ONNX."""
    proto, source = read_source(path)
    return model_of(path, proto, _problem(proto), recovering=recovering, source=source)


def model_of(
    path: Path,
    proto: ModelProto,
    problem: str | None = None,
    *,
    recovering: bool = False,
    source: Source | None = None,
) -> Model:
    """A parsed file with its constants: those stored, and where there is no ``problem`` those computed from constants.

    Raises ModelError: a constant is damaged.
    """
    tensors, constants = source.tensors if source is not None else Tensors(path), dict[str, np.ndarray]()
    large = {tensor.name for tensor in proto.graph.initializer if _is_large(tensor)}
    try:
        for name, tensor in tensors_of(proto).items():
            constants[name] = tensors.array(tensor, f"the constant '{name}'")
            if tensor.data_location == TensorProto.EXTERNAL and name not in large:
                tensor.CopyFrom(numpy_helper.from_array(constants[name], tensor.name))
        for node in proto.graph.node if problem is None else ():
            if node.op_type == "Constant":
                constants |= dict.fromkeys(node.output, _constant(node, constants))
            elif (value := _folded(proto, node, constants)) is not None:
                constants[node.output[0]] = value
        stripped = _stripped(proto, large)
    except ModelError:
        raise
    except Exception as error:  # whatever ONNX's reference raises for operators that do not fit their constants
        raise ModelError(f"{path}: a constant of the file is damaged: {error}") from None
    return Model(path, stripped, constants, frozenset(large), source, problem=problem, recovering=recovering)


def _problem(proto: ModelProto) -> str | None:
    """A construct that readers interpret differently, and that exporters of dense networks do not write."""
    graph = proto.graph
    if len({opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")}) > 1:
        return "the file names two versions of ONNX's operators"
    if proto.functions:
        return f"the file defines operators of its own: '{proto.functions[0].name}'"
    if graph.sparse_initializer:
        return "the file holds a sparse constant"
    for node in graph.node:
        if node.op_type == "Constant" and any(a.name == "sparse_value" for a in node.attribute):
            return f"the file holds a sparse constant: '{node.name or list(node.output)}'"
        if is_plain(node) and (len(node.output) != 1 or len(node.input) != (node.op_type == "Identity")):
            return f"the file has a malformed {node.op_type}: '{node.name or list(node.output)}'"
        if not node.output:
            return f"the file has an operator without an output: {node.op_type} '{node.name}'"
    names = [name for node in graph.node for name in node.output if name] + [t.name for t in graph.initializer]
    stored = {tensor.name for tensor in graph.initializer}
    names += [value.name for value in graph.input if value.name not in stored]
    for what, listed in (("values", names), ("outputs", [value.name for value in graph.output])):
        repeated = next((name for name, count in Counter(listed).items() if count > 1), None)
        if repeated is not None:
            return f"the file uses one name for two {what}: '{repeated}'"
    return None


def _is_large(tensor: TensorProto) -> bool:
    """Whether a constant is kept outside the graph."""
    separable = bool(tensor.raw_data) or tensor.data_location == TensorProto.EXTERNAL
    return separable and tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= _LARGE


def _stripped(proto: ModelProto, large: set[str]) -> ModelProto:
    """A copy without the large constants (clearing them in place would not free them) and without inner Identities."""
    outputs = {value.name for value in proto.graph.output}
    aliases: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        if is_plain(node) and len(node.input) == len(node.output) == 1 and node.output[0] not in outputs:
            aliases[node.output[0]] = aliases.get(node.input[0], node.input[0])
            continue
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [aliases.get(name, name) for name in node.input]
        kept.append(copied)
    graph = GraphProto(
        name=proto.graph.name,
        node=kept,
        input=proto.graph.input,
        output=proto.graph.output,
        initializer=[tensor for tensor in proto.graph.initializer if tensor.name not in large],
    )
    return ModelProto(
        ir_version=proto.ir_version,
        opset_import=proto.opset_import,
        metadata_props=proto.metadata_props,
        graph=graph,
    )


def _folded(proto: ModelProto, node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The value of an operator that reads constants alone; None for any other."""
    foldable = node.op_type in (*_FOLDED, "Identity") and node.domain in ("", "ai.onnx") and len(node.output) == 1
    if not foldable or not all(name in constants for name in node.input):
        return None
    if node.op_type == "Identity":
        return constants[node.input[0]]
    inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name]
    standard = NodeProto()
    standard.CopyFrom(node)
    standard.domain = ""
    if not all(_is_computed_alike(standard, constants[name].dtype) for name in node.input if name):
        return None
    output = onnx.ValueInfoProto(name=node.output[0])
    graph = GraphProto(name="constant", node=[standard], input=inputs, output=[output])
    model = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, graph=graph)
    value: object
    (value,) = cast("Any", ReferenceEvaluator(model)).run(None, {name: constants[name] for name in node.input if name})
    array: np.ndarray = np.asarray(cast("Any", value), order="C")
    return array if node.op_type in _MOVED or _is_known(array.dtype) else None


def _is_known(dtype: np.dtype[Any]) -> bool:
    """Whether runtimes compute with numbers of this type as the type has it."""
    return dtype.kind in "iub" or dtype.name in ("float32", "float64")


def _is_computed_alike(node: NodeProto, dtype: np.dtype[Any]) -> bool:
    """Whether an operator on numbers of a type gives the same in every runtime.

    Arithmetic of float16 may be done in float32, and a text may be read as another number. To widen is exact.
    """
    wide = any(a.name == "to" and a.i in (TensorProto.FLOAT, TensorProto.DOUBLE) for a in node.attribute)
    widened = node.op_type == "Cast" and wide and dtype.name in ("float16", "bfloat16")
    return node.op_type in _MOVED or widened or _is_known(dtype)


def _constant(node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value of a Constant node. Raises ValueError: neither one tensor nor one list of numbers."""
    (attribute,) = node.attribute
    if attribute.name == "value" and node.output[0] in constants:
        return constants[node.output[0]]
    if attribute.name in ("value_string", "value_strings"):  # which nothing computes with
        return np.asarray(onnx.helper.get_attribute_value(attribute), object)
    return np.asarray(onnx.helper.get_attribute_value(attribute), NUMBERS[attribute.name])
