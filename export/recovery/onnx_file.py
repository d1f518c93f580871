"""Reading an ONNX file safely: what its graph is, or one error that says what is wrong with the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs

from builder.errors import RecoveryError

from .onnx_graph import Attribute, OnnxGraph, Operator
from .onnx_tensors import Tensors
from .onnx_words import foreign

_OLDEST = 7
"""From this opset on, operators broadcast as NumPy does."""
_SCALARS = {"value_float": "<f4", "value_floats": "<f4", "value_int": "<i8", "value_ints": "<i8"}


def read_graph(path: Path, known: frozenset[str]) -> OnnxGraph:
    """The graph of the file at ``path``, whose operators are all in ``known``.

    Raises RecoveryError: unreadable, damaged or not ONNX; operators, types or ports that a dense network does not have.
    """
    model = _parsed(path)
    try:
        return _Reader(path, model, known).read()
    except UnicodeDecodeError:
        raise RecoveryError(f"{path}: damaged: it holds a text that is no UTF-8") from None


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


class _Reader:
    def __init__(self, path: Path, model: ModelProto, known: frozenset[str]):
        self.path = path
        self.model = model
        self.graph: GraphProto = model.graph
        self.known = known
        self.tensors = Tensors(path)

    def read(self) -> OnnxGraph:
        opset = self._opset()
        stored = {tensor.name: tensor for tensor in self.graph.initializer}
        value, dims = self._input(set(stored))
        output = self._output()
        for node in self.graph.node:
            self._refuse_foreign(node)
        operators = [self._operator(node, opset) for node in self.graph.node if node.op_type != "Constant"]
        self._check_names(value.name, output.name)
        constants = {name: self.tensors.array(tensor, f"the constant '{name}'") for name, tensor in stored.items()}
        for node in self.graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = self._constant(node)
        return OnnxGraph(
            self.path,
            opset,
            value.name,
            dims,
            output.name,
            output.name,
            tuple(operators),
            constants,
            tuple(self._notes()),
        )

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

    def _input(self, stored: set[str]) -> tuple[ValueInfoProto, tuple[int | None, ...]]:
        inputs = [value for value in self.graph.input if value.name not in stored]
        if len(inputs) != 1:
            named = ", ".join(f"'{value.name}'" for value in inputs) or "none"
            raise self._error(f"a dense network has one input, and the file has {len(inputs)}: {named}")
        (value,) = inputs
        self._check_type(value, "input")
        if not value.type.tensor_type.HasField("shape"):
            raise self._error(f"the input '{value.name}' has no shape")
        dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
        return value, dims

    def _output(self) -> ValueInfoProto:
        outputs = self.graph.output
        if len(outputs) != 1:
            named = ", ".join(f"'{value.name}'" for value in outputs) or "none"
            raise self._error(f"a dense network has one output, and the file has {len(outputs)}: {named}")
        self._check_type(outputs[0], "output")
        return outputs[0]

    def _check_type(self, value: ValueInfoProto, what: str) -> None:
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

    def _refuse_foreign(self, node: NodeProto) -> None:
        label = f"{node.op_type} '{node.name or next(iter(node.output), '')}'"
        if node.domain not in ("", "ai.onnx"):
            hint = "What to do: recover from the file as it was exported, before a runtime optimised it"
            raise self._error(f"{label} is of the domain '{node.domain}', not of standard ONNX. {hint}")
        if node.op_type not in self.known:
            raise self._error(f"not a dense network: {label} is {foreign(node.op_type)}")
        if not node.output or not node.output[0]:
            raise self._error(f"{label} has no output")

    def _operator(self, node: NodeProto, opset: int) -> Operator:
        label = f"{node.op_type} '{node.name or node.output[0]}'"
        try:
            schema = defs.get_schema(node.op_type, opset, "")
        except defs.SchemaError:
            raise self._error(f"{label} is not in opset {opset}, which the file says it is written in") from None
        attributes = _read(schema_default.default_value for schema_default in schema.attributes.values())
        for attribute in node.attribute:
            row = schema.attributes.get(attribute.name)
            if row is None or row.type != _TYPES.get(attribute.type) or attribute.ref_attr_name:
                raise self._error(f"{label} has an attribute '{attribute.name}' that opset {opset} does not know so")
        attributes |= _read(node.attribute)
        missing = [name for name, row in schema.attributes.items() if row.required and name not in attributes]
        if missing:
            raise self._error(f"{label} lacks the attribute '{missing[0]}'")
        inputs = list(node.input)
        if not schema.min_input <= len(inputs) <= schema.max_input or len(node.output) > schema.max_output:
            expected = f"{schema.min_input} to {schema.max_input}"
            raise self._error(f"{label} has {len(inputs)} inputs and {len(node.output)} outputs; {expected} inputs fit")
        return Operator(node.op_type, node.name, tuple(inputs), tuple(node.output), attributes)

    def _check_names(self, source: str, output: str) -> None:
        """One thing per name, and nothing read before it is there."""
        stored = [tensor.name for tensor in self.graph.initializer]
        given = {source}
        made = {name for node in self.graph.node for name in node.output if name}
        for name in stored:
            if name in given or not name:
                raise self._error(f"two things bear the name '{name}'" if name else "a constant has no name")
            given.add(name)
        for node in self.graph.node:
            label = f"{node.op_type} '{node.name or node.output[0]}'"
            for name in node.input:
                if name and name not in given:
                    reason = "which comes later or lies in a circle" if name in made else "which nothing gives"
                    raise self._error(f"{label} reads '{name}', {reason}")
            for name in filter(None, node.output):
                if name in given:
                    raise self._error(f"two things bear the name '{name}'")
                given.add(name)
        if output not in given:
            raise self._error(f"the output '{output}' is given by no operator")

    def _constant(self, node: NodeProto) -> np.ndarray:
        found = {attribute.name: attribute for attribute in node.attribute}
        what = f"the Constant '{node.name or node.output[0]}'"
        if len(found) == len(node.attribute) == 1 and not node.input and len(node.output) == 1:
            (name, attribute), *_ = found.items()
            if name == "value" and attribute.type == AttributeProto.TENSOR:
                return self.tensors.array(attribute.t, what)
            value = _read([attribute]).get(name)
            if name in _SCALARS and isinstance(value, float | int | tuple):
                return np.asarray(value, _SCALARS[name])
        raise self._error(f"{what} holds {', '.join(found) or 'nothing'}; one tensor or number is expected")

    def _notes(self) -> Iterable[str]:
        if any(entry.key == "mlpx.spec" for entry in self.model.metadata_props):
            yield "the file carries the spec that mlpx exported it from; it was not used, the operators were read"

    def _error(self, message: str) -> RecoveryError:
        return RecoveryError(f"{self.path}: {message}")


_TYPES = {
    AttributeProto.FLOAT: defs.OpSchema.AttrType.FLOAT,
    AttributeProto.INT: defs.OpSchema.AttrType.INT,
    AttributeProto.STRING: defs.OpSchema.AttrType.STRING,
    AttributeProto.FLOATS: defs.OpSchema.AttrType.FLOATS,
    AttributeProto.INTS: defs.OpSchema.AttrType.INTS,
}
_FIELDS = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: a.s.decode(),
    AttributeProto.FLOATS: lambda a: tuple(a.floats),
    AttributeProto.INTS: lambda a: tuple(a.ints),
}


def _read(attributes: Iterable[AttributeProto]) -> dict[str, Attribute]:
    return {a.name: _FIELDS[a.type](a) for a in attributes if a.type in _FIELDS}
