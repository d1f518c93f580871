"""An ONNX file as the verifier reads it: operators and constants, with the names they are known by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.graph import Rows, Shape
from runtime import ModelError, read_header

from .tensors import Tensors

_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_SIZED = ("Reshape", "Expand")
"""Operators whose second input is a shape."""
_OF_SIZES = ("Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Cast", "Mul")
"""Operators that an exporter writes to compute the shape which a Reshape gives."""
_OF_CONSTANTS = (
    *("Transpose", *_RESHAPES, "Cast", "Add", "Sub", "Mul", "Div", "Sqrt", "Neg"),
    *("Max", "Min", "Abs", "Reciprocal", "Clip"),
)
"""Operators that are computed here where all that they read is constant: one float32 rounding at most."""
NUMBERS = {"value_float": "<f4", "value_floats": "<f4", "value_int": "<i8", "value_ints": "<i8"}
"""The types of the numbers that a Constant may hold in place of a tensor, by the attribute."""
_MOST_SIZES = 64
"""Of a shape, and operators in a row to compute one."""
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
    problem: str | None = None
    """What makes the file's meaning depend on who reads it, if anything does; nothing is proved of it then."""
    recovering: bool = False
    """Whether the file is only read back: a Dropout that does nothing in inference may stand in it then, and its output
    may give the module's rows in another shape.
    """

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The inputs that are not constants."""
        return [value for value in self.proto.graph.input if value.name not in self.constants]

    @property
    def batch(self) -> int | None:
        """The number of rows that the file fixes, if it does; its inputs then take no other."""
        sizes = [value.type.tensor_type.shape.dim[:1] for value in self.inputs]
        return next((dims[0].dim_value for dims in sizes if dims and dims[0].dim_value), None)

    @cached_property
    def nodes(self) -> list[NodeProto]:
        """The operators that compute something; constants, Identity and changes of shape are seen through."""
        nodes = [n for n in self.proto.graph.node if not (_is_plain(n) or self._reshapes(n) or self._is_constant(n))]
        return [n for n in nodes if not set(n.output) <= self._sizes]

    @cached_property
    def _sizes(self) -> set[str]:
        """Values that only say what shape a Reshape gives, computed from the shape of a value."""
        found: set[str] = set()
        for node in reversed(self.proto.graph.node):
            if node.op_type in _SIZED and len(node.input) > 1:
                found.add(node.input[1])
            elif found.intersection(node.output) and node.op_type in _OF_SIZES:
                found.update(node.input)
        data = {n for node in self.proto.graph.node if node.op_type not in (*_OF_SIZES, *_SIZED) for n in node.input}
        reshaped = {node.input[0] for node in self.proto.graph.node if node.op_type in (*_SIZED, "Shape")}
        outputs = {value.name for value in self.proto.graph.output}
        return found - data - reshaped - outputs

    @cached_property
    def _sources(self) -> dict[str, str]:
        """What a value is a copy of, or the same rows in another shape."""
        found: dict[str, str] = {}
        for node in self.proto.graph.node:
            if node.input and not self._is_constant(node) and (_is_plain(node) or self._reshapes(node)):
                found[node.output[0]] = found.get(node.input[0], node.input[0])
        return found

    @cached_property
    def _readers(self) -> dict[str, list[NodeProto]]:
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(self.value(name) for name in node.input):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def _inferred(self) -> dict[str, onnx.ValueInfoProto]:
        """Types and shapes of values, as ONNX infers them."""
        whole = ModelProto()
        whole.CopyFrom(self.proto)
        float32 = TensorProto.FLOAT
        whole.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, float32, self.constants[name].shape) for name in self.large
        )
        inferred = onnx.shape_inference.infer_shapes(whole).graph
        return {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}

    @cached_property
    def rows(self) -> dict[str, tuple[int, ...]]:
        """The shapes of rows of values; where ONNX cannot infer one, a value is missing."""
        known = {name: value for name, value in self._inferred.items() if value.type.tensor_type.shape.dim}
        shapes = {name: row_shape(value) for name, value in known.items()}
        return {
            name: tuple(size for size in shape if isinstance(size, int))
            for name, shape in shapes.items()
            if all(isinstance(size, int) and size > 0 for size in shape)
        }

    def has_batch(self, name: str) -> bool:
        """Whether the first dimension of a value is that of the inputs, as far as ONNX can tell."""
        firsts = [self._inferred[n].type.tensor_type.shape.dim[:1] for n in (name, self.inputs[0].name)]
        return all(firsts) and firsts[0][0] == firsts[1][0]

    def element_type(self, name: str) -> int:
        """ONNX's number of a value's element type; that of float32 where it cannot be inferred."""
        known = self._inferred.get(name)
        return known.type.tensor_type.elem_type if known is not None else TensorProto.FLOAT

    def sizes(self, name: str, depth: int = 0) -> Shape | None:
        """A shape that the file gives, or computes of the shapes of values; None where it is computed of anything else.

        The batch is the first dimension of the file's inputs, if they leave it open.
        """
        if name not in self._known_sizes:
            sizes = self._computed_sizes(name, depth) if depth < _MOST_SIZES else None
            self._known_sizes[name] = sizes if sizes is not None and len(sizes) <= _MOST_SIZES else None
        return self._known_sizes[name]

    @cached_property
    def _known_sizes(self) -> dict[str, Shape | None]:
        return {}

    def _computed_sizes(self, name: str, depth: int) -> Shape | None:
        if name in self.constants:
            constant = self.constants[name]
            return tuple(constant.reshape(-1).tolist()) if constant.dtype == np.int64 else None
        maker = next((node for node in self.proto.graph.node if name in node.output), None)
        if maker is None:
            return None
        if maker.op_type == "Shape":
            shape, part = self._shape_of(maker.input[0]), {a.name: a.i for a in maker.attribute}
            return None if shape is None else shape[part.get("start", 0) : part.get("end")]
        parts = [self.sizes(part, depth + 1) for part in maker.input]
        known = [part for part in parts if part is not None]
        if len(known) != len(parts) or not known:
            return None
        if maker.op_type == "Concat":
            return tuple(size for part in known for size in part)
        if maker.op_type in ("Unsqueeze", "Squeeze", "Cast", "Identity"):
            return known[0]
        if maker.op_type == "Gather":
            inside = [i for i in known[1] if isinstance(i, int) and -len(known[0]) <= i < len(known[0])]
            return tuple(known[0][i] for i in inside) if len(inside) == len(known[1]) else None
        if maker.op_type == "Mul":
            return _multiplied(known[0], known[1])
        return None

    def _shape_of(self, name: str) -> Shape | None:
        """As the file declares it, or ONNX infers it."""
        inferred = self._inferred.get(name)
        if inferred is None or not inferred.type.tensor_type.HasField("shape"):
            return None
        batches = {d.dim_param for value in self.inputs for d in value.type.tensor_type.shape.dim[:1]} - {""}
        given = any(value.name == name for value in self.inputs)
        sizes = [
            dim.dim_value or (Rows() if dim.dim_param in batches or (given and axis == 0) else None)
            for axis, dim in enumerate(inferred.type.tensor_type.shape.dim)
        ]
        known = tuple(size for size in sizes if size is not None)
        return known if len(known) == len(sizes) else None

    def value(self, name: str) -> str:
        """The value that a name stands for, seen through Identity and changes of shape."""
        return self._sources.get(name, name)

    def consumers(self, value: str) -> list[NodeProto]:
        """The operators that read a value, in whatever shape."""
        return self._readers.get(self.value(value), [])

    def _is_constant(self, node: NodeProto) -> bool:
        return bool(node.output) and node.output[0] in self.constants

    def _reshapes(self, node: NodeProto) -> bool:
        """An operator that gives the same rows in another shape. That rows stay rows is seen when the file is run."""
        if node.domain not in ("", "ai.onnx") or self._is_constant(node):
            return False
        if node.op_type == "Cast":
            same = self.element_type(node.input[0]) == TensorProto.FLOAT
            return same and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        if node.op_type == "Dropout":
            training = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.False_
            return self.recovering and len(node.output) == 1 and training is not None and not training.any()
        if node.op_type == "Transpose":
            return self._keeps_rows(node)
        return node.op_type in _RESHAPES

    def _keeps_rows(self, node: NodeProto) -> bool:
        """Whether a Transpose moves nothing but dimensions of size 1, so that the values keep their order."""
        known = self._inferred.get(node.input[0])
        sizes = [dim.dim_value for dim in known.type.tensor_type.shape.dim] if known is not None else []
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
        if len(perm) != len(sizes):
            return False
        moved = [axis for axis in perm if axis == 0 or sizes[axis] != 1]  # the first one is the batch, even of 1 row
        return moved == sorted(moved)

    @property
    def opset(self) -> int:
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def _multiplied(left: Shape, right: Shape) -> Shape | None:
    """A size times a number."""
    if len(left) != 1 or len(right) != 1:
        return None
    (a,), (b,) = left, right
    if isinstance(a, Rows) and isinstance(b, int):
        return (Rows(a.times * b),)
    if isinstance(a, int) and isinstance(b, Rows):
        return (Rows(a * b.times),)
    return (a * b,) if isinstance(a, int) and isinstance(b, int) else None


def external_data(path: Path) -> dict[str, Path]:
    """The files beside it that a model keeps constants in, by name. Raises ModelError: unreadable, or one missing."""
    return _beside(path, _parsed(path))


def _parsed(path: Path) -> ModelProto:
    read_header(path)  # says what is wrong with a file
    try:
        return onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a whole ONNX file: {error}") from None


def tensors_of(whole: ModelProto) -> dict[str, TensorProto]:
    """The tensors that a file stores, as initialisers and in Constant nodes, by the names of their values."""
    stored = {tensor.name: tensor for tensor in whole.graph.initializer}
    for node in whole.graph.node:
        if node.op_type == "Constant":
            stored |= {name: a.t for a in node.attribute if a.type == a.TENSOR for name in node.output}
    return stored


def _beside(path: Path, whole: ModelProto) -> dict[str, Path]:
    external = [t for t in tensors_of(whole).values() if t.data_location == TensorProto.EXTERNAL]
    names = {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}
    beside = {name: path.parent / name for name in sorted(names)}
    missing = next((data for data in beside.values() if not data.is_file()), None)
    if missing is not None:
        raise ModelError(f"{path}: its external data is missing. What to do: put {missing.name} beside it")
    return beside


def read_model(path: Path, *, recovering: bool = False) -> Model:
    """Read a file with its weights. Raises ModelError: missing, damaged or not ONNX."""
    whole = _parsed(path)
    _beside(path, whole)
    return model_of(path, whole, _problem(whole), recovering=recovering)


def model_of(path: Path, whole: ModelProto, problem: str | None = None, *, recovering: bool = False) -> Model:
    """A file that was parsed, with its constants: those stored, and where there is no ``problem`` those computed of
    nothing else. Raises ModelError: a constant is damaged.
    """
    tensors, constants = Tensors(path), dict[str, np.ndarray]()
    large = {tensor.name for tensor in whole.graph.initializer if _is_large(tensor)}
    try:
        for name, tensor in tensors_of(whole).items():
            constants[name] = tensors.array(tensor, f"the constant '{name}'")
            if tensor.data_location == TensorProto.EXTERNAL and name not in large:
                tensor.CopyFrom(numpy_helper.from_array(constants[name], tensor.name))
        for node in whole.graph.node if problem is None else ():
            if node.op_type == "Constant":
                constants |= dict.fromkeys(node.output, _constant(node, constants))
            elif (value := computed(whole, node, constants)) is not None:
                constants[node.output[0]] = value
    except ModelError:
        raise
    except Exception as error:  # whatever ONNX's reference raises for operators that do not fit their constants
        raise ModelError(f"{path}: a constant of the file is damaged: {error}") from None
    return Model(path, _without(whole, large), constants, frozenset(large), problem, recovering)


def _problem(whole: ModelProto) -> str | None:
    """Spellings that readers understand differently, and that no exporter of dense networks needs."""
    graph = whole.graph
    if whole.functions:
        return f"the file defines operators of its own: '{whole.functions[0].name}'"
    if graph.sparse_initializer:
        return "the file holds a sparse constant"
    for node in graph.node:
        if _is_plain(node) and (len(node.output) != 1 or len(node.input) != (node.op_type == "Identity")):
            return f"the file has a malformed {node.op_type}: '{node.name or list(node.output)}'"
        if not node.output:
            return f"the file has an operator without an output: {node.op_type} '{node.name}'"
    names = [name for node in graph.node for name in node.output if name] + [t.name for t in graph.initializer]
    given = {tensor.name for tensor in graph.initializer}
    names += [value.name for value in graph.input if value.name not in given]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    return None if twice is None else f"the file gives two things one name: '{twice}'"


def _is_plain(node: NodeProto) -> bool:
    return node.op_type in ("Constant", "Identity") and node.domain in ("", "ai.onnx")


def _is_large(tensor: TensorProto) -> bool:
    """Whether a constant is kept apart from the graph that is to be run."""
    apart = bool(tensor.raw_data) or tensor.data_location == TensorProto.EXTERNAL
    return apart and tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= _LARGE


def _without(whole: ModelProto, names: set[str]) -> ModelProto:
    """A copy without some constants (clearing them in place would not free them), and without inner Identities."""
    outputs = {value.name for value in whole.graph.output}
    aliases: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in whole.graph.node:
        if _is_plain(node) and len(node.input) == len(node.output) == 1 and node.output[0] not in outputs:
            aliases[node.output[0]] = aliases.get(node.input[0], node.input[0])
            continue
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [aliases.get(name, name) for name in node.input]
        kept.append(copied)
    graph = GraphProto(
        name=whole.graph.name,
        node=kept,
        input=whole.graph.input,
        output=whole.graph.output,
        initializer=[tensor for tensor in whole.graph.initializer if tensor.name not in names],
    )
    return ModelProto(
        ir_version=whole.ir_version,
        opset_import=whole.opset_import,
        metadata_props=whole.metadata_props,
        graph=graph,
    )


def computed(whole: ModelProto, node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The value of an operator that reads nothing but constants; None for any other."""
    plain = node.op_type in (*_OF_CONSTANTS, "Identity") and node.domain in ("", "ai.onnx") and len(node.output) == 1
    if not plain or not all(name in constants for name in node.input):
        return None
    if node.op_type == "Identity":
        return constants[node.input[0]]
    inputs = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input) if name]
    plain = NodeProto()
    plain.CopyFrom(node)
    plain.domain = ""
    graph = GraphProto(name="constant", node=[plain], input=inputs, output=[onnx.ValueInfoProto(name=node.output[0])])
    alone = ModelProto(ir_version=whole.ir_version, opset_import=whole.opset_import, graph=graph)
    (value,) = ReferenceEvaluator(alone).run(None, {name: constants[name] for name in node.input if name})
    return np.ascontiguousarray(value)


def _constant(node: NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a Constant node gives. Raises ValueError: neither one tensor nor one list of numbers."""
    (attribute,) = node.attribute
    if attribute.name == "value" and node.output[0] in constants:
        return constants[node.output[0]]
    return np.asarray(onnx.helper.get_attribute_value(attribute), NUMBERS[attribute.name])


def label(node: NodeProto) -> str:
    """An operator in messages, by its own name or that of its first output."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def attributes_of(node: NodeProto, opset: int) -> dict[str, Any]:
    """The attributes of a standard operator, with the opset's defaults where it has none of its own."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    defaults = [row.default_value for row in schema.attributes.values() if row.default_value.name]
    return {a.name: onnx.helper.get_attribute_value(a) for a in (*defaults, *node.attribute)}


def row_shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """The shape of a row of an input or output, without its first dimension."""
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)[1:]
