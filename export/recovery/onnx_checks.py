"""Reading an ONNX file safely: its graph with every constant, or one error that says what is wrong with the file."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs

from builder.errors import RecoveryError
from export.onnxfile.model import Model, attributes_of, label
from export.onnxfile.reading import NUMBERS, model_of, tensors_of
from runtime import ModelError

_SPEC_NOTE = "the file carries the spec that mlpx exported it from; it was not used, the operators were read"
_OLDEST = 7
"""From this opset on, operators broadcast as NumPy does."""


def read_graph(path: Path, known: frozenset[str]) -> tuple[Model, list[str]]:
    """The graph of the file at ``path``, whose operators are all in ``known``, and notes on what was left out.

    Raises RecoveryError: unreadable, damaged or not ONNX; operators, types or ports that a dense network does not have.
    """
    proto = _parsed(path)
    notes = [_SPEC_NOTE] if any(entry.key == "mlpx.spec" for entry in proto.metadata_props) else []
    try:
        _Checks(path, proto, known).run()
        notes += _prune(proto)
        model = model_of(path, proto, recovering=True)
    except UnicodeDecodeError:
        raise RecoveryError(f"{path}: damaged: it holds a text that is no UTF-8") from None
    except ModelError as error:
        raise RecoveryError(str(error)) from None
    for node in proto.graph.node:
        training = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        if training and (training not in model.constants or model.constants[training].any()):
            hint = "What to do: export the network in evaluation mode"
            raise RecoveryError(f"{path}: {label(node)} drops entries in inference too. {hint}")
    return model, notes


def _prune(proto: ModelProto) -> list[str]:
    """Take out what the output does not depend on; a note if there is any, and one on Dropout."""
    needed, kept, idle = {value.name for value in proto.graph.output}, [], []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
        else:
            idle.append(node)
    dropouts = sum(node.op_type == "Dropout" for node in kept)
    notes = [f"{dropouts} Dropout left out: it does nothing in inference"] if dropouts else []
    if idle:
        words = "operators that the output does not depend on left out"
        notes.append(f"{len(idle)} {words}: {label(idle[-1])}, ...")
        kept = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
    return notes


def _parsed(path: Path) -> ModelProto:
    try:
        if not path.is_file():
            raise RecoveryError(f"{path}: {'is no ordinary file' if path.exists() else 'there is no such file'}")
        model = ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise RecoveryError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (DecodeError, ValueError) as error:
        raise RecoveryError(f"{path}: damaged, cut short or not an ONNX file: {error}") from None
    if not model.HasField("graph") or not model.opset_import:
        raise RecoveryError(f"{path}: damaged, cut short or not an ONNX file: it holds no graph")
    return model


class _Checks:
    def __init__(self, path: Path, model: ModelProto, known: frozenset[str]):
        self.path = path
        self.model = model
        self.graph: GraphProto = model.graph
        self.known = known

    def run(self) -> None:
        opset = self._opset()
        stored = [tensor.name for tensor in self.graph.initializer]
        source = self._port([value for value in self.graph.input if value.name not in stored], "input")
        if not source.type.tensor_type.HasField("shape"):
            raise self._error(f"the input '{source.name}' has no shape")
        output = self._port(list(self.graph.output), "output")
        for node in self.graph.node:
            self._refuse_foreign(node)
        for node in self.graph.node:
            self._check_form(node, opset)
        self._check_names(stored, source.name, output.name)
        for name, tensor in tensors_of(self.model).items():
            if tensor.data_type not in _TYPES_READ:
                raise self._error(f"the constant '{name}' {_another_type(tensor.data_type)}")

    def _opset(self) -> int:
        if self.model.functions:
            raise self._error(f"it defines operators of its own ('{self.model.functions[0].name}')")
        if self.graph.sparse_initializer:
            raise self._error(f"it holds a sparse constant ('{self.graph.sparse_initializer[0].values.name}')")
        versions = [o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")]
        newest = defs.onnx_opset_version()
        if len(versions) != 1 or not _OLDEST <= versions[0] <= newest:
            found = ", ".join(map(str, versions)) or "none"
            raise self._error(f"its opset is {found}; from {_OLDEST} to {newest} is understood")
        return versions[0]

    def _port(self, ports: list[ValueInfoProto], what: str) -> ValueInfoProto:
        if len(ports) != 1:
            named = ", ".join(f"'{value.name}'" for value in ports) or "none"
            raise self._error(f"a dense network has one {what}, and the file has {len(ports)}: {named}")
        (value,) = ports
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            raise self._error(f"the {what} '{value.name}' is no tensor")
        found = value.type.tensor_type.elem_type
        if found != TensorProto.FLOAT and not (what == "output" and found == TensorProto.UNDEFINED):
            names = {number: name for name, number in TensorProto.DataType.items()}
            name = names.get(found, str(found)).lower()
            hint = "What to do: recover from the float32 file"
            raise self._error(f"a {name} file: its {what} '{value.name}' is {name}, and float32 is read. {hint}")
        if not value.name:
            raise self._error(f"the {what} has no name")
        return value

    def _refuse_foreign(self, node: NodeProto) -> None:
        if node.domain not in ("", "ai.onnx"):
            hint = "What to do: recover from the file as it was exported, before a runtime optimised it"
            raise self._error(f"{label(node)} is of the domain '{node.domain}', not of standard ONNX. {hint}")
        if node.op_type not in self.known:
            raise self._error(f"not a dense network: {label(node)} is {foreign(node.op_type)}")
        if not node.output or not node.output[0]:
            raise self._error(f"{label(node)} has no output")

    def _check_form(self, node: NodeProto, opset: int) -> None:
        """Attributes, inputs and outputs as the opset has them."""
        if node.op_type == "Constant":
            names = [attribute.name for attribute in node.attribute]
            if len(names) != 1 or names[0] not in ("value", *NUMBERS) or node.input or len(node.output) != 1:
                holds = f"holds {', '.join(names) or 'nothing'}; one tensor or number is expected"
                raise self._error(f"the {label(node)} {holds}")
            return
        try:
            schema = defs.get_schema(node.op_type, opset, "")
        except defs.SchemaError:
            raise self._error(f"{label(node)} is not in opset {opset}, which the file says it is written in") from None
        for attribute in node.attribute:
            row = schema.attributes.get(attribute.name)
            if row is None or row.type != _TYPES.get(attribute.type) or attribute.ref_attr_name:
                raise self._error(
                    f"{label(node)} has an attribute '{attribute.name}' that opset {opset} does not know so"
                )
        attributes = attributes_of(node, opset)
        missing = [name for name, row in schema.attributes.items() if row.required and name not in attributes]
        if missing:
            raise self._error(f"{label(node)} lacks the attribute '{missing[0]}'")
        count = len(node.input)
        if not schema.min_input <= count <= schema.max_input or len(node.output) > schema.max_output:
            expected = f"{schema.min_input} to {schema.max_input}"
            raise self._error(f"{label(node)} has {count} inputs and {len(node.output)} outputs; {expected} inputs fit")

    def _check_names(self, stored: list[str], source: str, output: str) -> None:
        """One thing per name, and nothing read before it is there."""
        given = {source}
        made = {name for node in self.graph.node for name in node.output if name}
        for name in stored:
            if name in given or not name:
                raise self._error(f"two things bear the name '{name}'" if name else "a constant has no name")
            given.add(name)
        for node in self.graph.node:
            for name in node.input:
                if name and name not in given:
                    reason = "which comes later or lies in a circle" if name in made else "which nothing gives"
                    raise self._error(f"{label(node)} reads '{name}', {reason}")
            for name in filter(None, node.output):
                if name in given:
                    raise self._error(f"two things bear the name '{name}'")
                given.add(name)
        if output not in given:
            raise self._error(f"the output '{output}' is given by no operator")

    def _error(self, message: str) -> RecoveryError:
        return RecoveryError(f"{self.path}: {message}")


_TYPES = {
    AttributeProto.FLOAT: defs.OpSchema.AttrType.FLOAT,
    AttributeProto.INT: defs.OpSchema.AttrType.INT,
    AttributeProto.STRING: defs.OpSchema.AttrType.STRING,
    AttributeProto.FLOATS: defs.OpSchema.AttrType.FLOATS,
    AttributeProto.INTS: defs.OpSchema.AttrType.INTS,
}
_TYPES_READ = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
_QUANTISED = ("INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16", "FLOAT8", "FLOAT4", "INT2", "UINT2")


def _another_type(data_type: int) -> str:
    known = {number: name for name, number in TensorProto.DataType.items()}
    name = known.get(data_type, f"of unknown type {data_type}")
    hint = "What to do: recover from the float32 file"
    if name.startswith(_QUANTISED):
        return f"is {name.lower()}, a quantised value; a dense network has float32 weights. {hint} it was made from"
    return f"is {name.lower()}; a dense network has float32 weights. {hint}"


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
    "normalisation over something else than the features": "InstanceNormalization GroupNormalization LRN "
    "LpNormalization MeanVarianceNormalization RMSNormalization",
    "an activation that no block has": "Selu Celu HardSwish Mish Softsign ThresholdedRelu LogSoftmax Hardmax Shrink "
    "Sin Cos Swish",
    "a reading of the input's shape": "Shape Size",
    "a change of the image's size": "Resize Upsample DepthToSpace SpaceToDepth Pad",
    "random numbers": "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial",
    "a tree or a classical model": "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor SVMClassifier "
    "LinearClassifier LinearRegressor Normalizer Scaler ZipMap",
    "a conversion to another type of number": "Cast CastLike",
}
IN_WORDS = {operator: words for words, operators in _KINDS.items() for operator in operators.split()}
"""What an operator is, where it is not one of a dense network."""


def foreign(kind: str) -> str:
    """Why an operator is refused, in words."""
    return IN_WORDS.get(kind, "an operator that no block has")
