"""Reads an ONNX file safely: its graph with every constant, or one error that says what is wrong with the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs

from builder.errors import RecoveryError
from export.onnxfile.model import Model, attributes_of, label, live_and_dead
from export.onnxfile.reading import NUMBERS, model_of, tensors_of

from .rounding import rounded

_SPEC_NOTE = "the file carries the spec that mlpx exported it from; it was not used, the operators were read"
_OLDEST_OPSET = 7
"""The first opset whose operators broadcast as NumPy does."""


def read_graph(
    path: Path, proto: ModelProto, known: frozenset[str], *, rounding: bool = False
) -> tuple[Model, list[str]]:
    """The graph of the file at ``path``, whose operators are all in ``known``, and notes on what was left out.

    With ``rounding`` the file's float64 numbers are rounded to float32.
    Raises RecoveryError or ModelError: damaged; operators, types or ports that a dense network does not have.
    """
    if rounding and not rounded(proto):
        raise RecoveryError("--dtype float32 is for files of float64, and this has none. What to do: leave it out")
    try:
        notes = [_SPEC_NOTE] if any(entry.key == "mlpx.spec" for entry in proto.metadata_props) else []
        _check(proto, known)
        notes += _prune(proto)
        model = model_of(path, proto, recovering=True)
    except UnicodeDecodeError:
        raise RecoveryError("damaged: it holds a text that is not UTF-8") from None
    for node in proto.graph.node:
        training = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        if training and (training not in model.constants or model.constants[training].any()):
            hint = "What to do: export the network in evaluation mode"
            raise RecoveryError(f"{label(node)} also drops entries in inference. {hint}")
    return model, notes


def _prune(proto: ModelProto) -> list[str]:
    """Remove the operators that the output does not depend on; notes on them and on Dropout."""
    kept, unused = live_and_dead(proto.graph.node, (value.name for value in proto.graph.output))
    dropouts = sum(node.op_type == "Dropout" for node in kept)
    notes = [f"{dropouts} Dropout left out: it does nothing in inference"] if dropouts else []
    if unused:
        what = "operators that the output does not depend on left out"
        notes.append(f"{len(unused)} {what}: {label(unused[0])}, ...")
        kept = [NodeProto.FromString(node.SerializeToString()) for node in kept]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
    return notes


def parsed(path: Path) -> ModelProto:
    """What the file at ``path`` holds. Raises RecoveryError: unreadable, or not ONNX."""
    try:
        if not path.is_file():
            raise RecoveryError("not a regular file" if path.exists() else "there is no such file")
        model = ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise RecoveryError(f"cannot be read: {error.strerror or error}") from None
    except DecodeError as error:
        raise RecoveryError(f"damaged, cut short or not an ONNX file: {error}") from None
    if not model.HasField("graph") or not model.opset_import:
        raise RecoveryError("damaged, cut short or not an ONNX file: it holds no graph")
    return model


def _check(model: ModelProto, known: frozenset[str]) -> None:
    graph, opset = model.graph, _opset(model)
    stored = [tensor.name for tensor in graph.initializer]
    source = _checked_port([value for value in graph.input if value.name not in stored], "input")
    if not source.type.tensor_type.HasField("shape"):
        raise RecoveryError(f"the input '{source.name}' has no shape")
    output = _checked_port(graph.output, "output")
    for node in graph.node:
        _check_operator(node, known)
    for node in graph.node:
        _check_signature(node, opset)
    _check_names(graph, stored, source.name, output.name)
    for name, tensor in tensors_of(model).items():
        if tensor.data_type not in _TYPES_READ:
            raise RecoveryError(f"the constant '{name}' is {_format_foreign_type(tensor.data_type)}")


def _opset(model: ModelProto) -> int:
    if model.functions:
        raise RecoveryError(f"it defines operators of its own ('{model.functions[0].name}')")
    if model.graph.sparse_initializer:
        raise RecoveryError(f"it holds a sparse constant ('{model.graph.sparse_initializer[0].values.name}')")
    versions = sorted({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")})
    newest = defs.onnx_opset_version()
    if len(versions) != 1 or not _OLDEST_OPSET <= versions[0] <= newest:
        listed = ", ".join(map(str, versions)) or "none"
        raise RecoveryError(f"its opset is {listed}; {_OLDEST_OPSET} to {newest} are supported")
    return versions[0]


def _checked_port(ports: Sequence[ValueInfoProto], what: str) -> ValueInfoProto:
    """The only input or output, a float32 tensor."""
    if len(ports) != 1:
        names = ", ".join(f"'{value.name}'" for value in ports) or "none"
        raise RecoveryError(f"a chain of blocks with one {what} is recovered, and the file has {len(ports)}: {names}")
    (value,) = ports
    if value.type.WhichOneof("value") not in ("tensor_type", None):
        raise RecoveryError(f"the {what} '{value.name}' is not a tensor")
    data_type = value.type.tensor_type.elem_type
    if data_type != TensorProto.FLOAT and not (what == "output" and data_type == TensorProto.UNDEFINED):
        name = _type_name(data_type)
        hint = "What to do: recover from the float32 file"
        hint += ", or round its weights with --dtype float32" if data_type == TensorProto.DOUBLE else ""
        raise RecoveryError(f"a {name} file: its {what} '{value.name}' is {name}; float32 is expected. {hint}")
    if not value.name:
        raise RecoveryError(f"the {what} has no name")
    return value


def _check_operator(node: NodeProto, known: frozenset[str]) -> None:
    if node.domain not in ("", "ai.onnx"):
        hint = "What to do: recover from the file as it was exported, before a runtime optimised it"
        raise RecoveryError(f"{label(node)} is of the domain '{node.domain}', not of standard ONNX. {hint}")
    if node.op_type not in known:
        kind = FOREIGN_OPERATORS.get(node.op_type, "an operator that no block has")
        raise RecoveryError(f"not a dense network: {label(node)} is {kind}")
    if not node.output or not node.output[0]:
        raise RecoveryError(f"{label(node)} has no output")


def _check_signature(node: NodeProto, opset: int) -> None:
    """Attributes, inputs and outputs are those of the operator in the opset."""
    if node.op_type == "Constant":
        names = [attribute.name for attribute in node.attribute]
        if len(names) != 1 or names[0] not in ("value", *NUMBERS) or node.input or len(node.output) != 1:
            content = ", ".join(names) or "nothing"
            raise RecoveryError(f"the {label(node)} holds {content}; one tensor or number is expected")
        return
    try:
        schema = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        raise RecoveryError(f"{label(node)} does not exist in opset {opset}, the opset of the file") from None
    for attribute in node.attribute:
        row = schema.attributes.get(attribute.name)
        if row is None or row.type != _ATTRIBUTE_TYPES.get(attribute.type) or attribute.ref_attr_name:
            unknown = f"an attribute '{attribute.name}' that opset {opset} does not have, or not with this type"
            raise RecoveryError(f"{label(node)} has {unknown}")
    attributes = attributes_of(node, opset)
    missing = [name for name, row in schema.attributes.items() if row.required and name not in attributes]
    if missing:
        raise RecoveryError(f"{label(node)} lacks the attribute '{missing[0]}'")
    count = len(node.input)
    if not schema.min_input <= count <= schema.max_input or len(node.output) > schema.max_output:
        expected = f"{schema.min_input} to {schema.max_input} inputs are expected"
        raise RecoveryError(f"{label(node)} has {count} inputs and {len(node.output)} outputs; {expected}")


def _check_names(graph: GraphProto, stored: list[str], source: str, output: str) -> None:
    """Every name is given once, and nothing is read before it is given."""
    known = {source}
    computed = {name for node in graph.node for name in node.output if name}
    for name in stored:
        if name in known or not name:
            raise RecoveryError(f"two values have the name '{name}'" if name else "a constant has no name")
        known.add(name)
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                reason = "which comes later or is part of a circle" if name in computed else "which nothing gives"
                raise RecoveryError(f"{label(node)} reads '{name}', {reason}")
        for name in filter(None, node.output):
            if name in known:
                raise RecoveryError(f"two values have the name '{name}'")
            known.add(name)
    if output not in known:
        raise RecoveryError(f"the output '{output}' is the result of no operator")


_ATTRIBUTE_TYPES = {
    AttributeProto.FLOAT: defs.OpSchema.AttrType.FLOAT,
    AttributeProto.INT: defs.OpSchema.AttrType.INT,
    AttributeProto.STRING: defs.OpSchema.AttrType.STRING,
    AttributeProto.FLOATS: defs.OpSchema.AttrType.FLOATS,
    AttributeProto.INTS: defs.OpSchema.AttrType.INTS,
}
_TYPES_READ = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_QUANTISED = ("int8", "uint8", "int4", "uint4", "int16", "uint16", "float8", "float4", "int2", "uint2")


def _type_name(data_type: int) -> str:
    if data_type not in TensorProto.DataType.values():
        return f"of unknown type {data_type}"
    return TensorProto.DataType.Name(data_type).lower()


def _format_foreign_type(data_type: int) -> str:
    name, hint = _type_name(data_type), "What to do: recover from the float32 file"
    if name.startswith(_QUANTISED):
        return f"{name}, a quantised value; a dense network has float32 weights. {hint} it was made from"
    return f"{name}; a dense network has float32 weights. {hint}"


_FLOAT = "What to do: recover from the float file that it was quantised from"
_KINDS = {
    "a convolution": "Conv ConvTranspose DeformConv",
    "a recurrent cell": "LSTM GRU RNN",
    "pooling": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool MaxRoiPool RoiAlign MaxUnpool",
    "attention": "Attention MultiHeadAttention GroupQueryAttention RotaryEmbedding",
    f"quantisation. {_FLOAT}": "QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger "
    "QLinearMatMul QLinearConv QLinearAdd",
    "control flow": "If Loop Scan",
    "a join of several values": "Concat ConcatFromSequence",
    "a split into several values": "Split SplitToSequence",
    "a choice of entries": "Gather GatherND GatherElements Slice Compress TopK ArgMax ArgMin OneHot NonZero",
    "normalisation over other axes than the features": "InstanceNormalization GroupNormalization LRN "
    "LpNormalization MeanVarianceNormalization RMSNormalization",
    "an activation that no block has": "Selu Celu HardSwish Mish ThresholdedRelu LogSoftmax Hardmax Shrink "
    "Sin Cos Swish",
    "a reading of the input's shape": "Shape Size",
    "a change of the image's size": "Resize Upsample DepthToSpace SpaceToDepth Pad",
    "random numbers": "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial",
    "a tree or a classical model": "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor SVMClassifier "
    "LinearClassifier LinearRegressor Normalizer Scaler ZipMap",
    "a conversion to another type of number": "Cast CastLike",
}
FOREIGN_OPERATORS = {operator: kind for kind, operators in _KINDS.items() for operator in operators.split()}
"""What an operator is that a dense network does not have."""
