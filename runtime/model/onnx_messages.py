"""The messages of an ONNX file, read and written without the package onnx.

Google's protobuf, which ONNX Runtime depends on, needs only the descriptions of the fields that are used here
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); what has no description is kept as it is. They are in a pool
of their own, where the package onnx, if it is loaded too, does not see them. Texts are bytes: a file may hold any.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import ModelError

if TYPE_CHECKING:
    from google.protobuf.message import Message

FLOAT = 1
"""TensorProto.FLOAT."""
_EXTERNAL = 1

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "ModelProto": {
        "ir_version": (1, "int64"),
        "graph": (7, "GraphProto"),
        "opset_import": (8, "OperatorSetIdProto[]"),
        "metadata_props": (14, "StringStringEntryProto[]"),
        "functions": (25, "FunctionProto[]"),
    },
    "OperatorSetIdProto": {"domain": (1, "bytes"), "version": (2, "int64")},
    "StringStringEntryProto": {"key": (1, "bytes"), "value": (2, "bytes")},
    "FunctionProto": {"node": (7, "NodeProto[]")},
    "GraphProto": {
        "node": (1, "NodeProto[]"),
        "name": (2, "bytes"),
        "initializer": (5, "TensorProto[]"),
        "input": (11, "ValueInfoProto[]"),
        "output": (12, "ValueInfoProto[]"),
        "sparse_initializer": (15, "SparseTensorProto[]"),
    },
    "NodeProto": {
        "input": (1, "bytes[]"),
        "output": (2, "bytes[]"),
        "name": (3, "bytes"),
        "op_type": (4, "bytes"),
        "attribute": (5, "AttributeProto[]"),
        "domain": (7, "bytes"),
    },
    "AttributeProto": {
        "name": (1, "bytes"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "t": (5, "TensorProto"),
        "g": (6, "GraphProto"),
        "floats": (7, "float[]"),
        "ints": (8, "int64[]"),
        "strings": (9, "bytes[]"),
        "tensors": (10, "TensorProto[]"),
        "graphs": (11, "GraphProto[]"),
        "sparse_tensor": (22, "SparseTensorProto"),
        "sparse_tensors": (23, "SparseTensorProto[]"),
    },
    "SparseTensorProto": {"values": (1, "TensorProto"), "indices": (2, "TensorProto")},
    "TensorProto": {
        "dims": (1, "int64[]"),
        "data_type": (2, "int32"),
        "float_data": (4, "float[]"),
        "int32_data": (5, "int32[]"),
        "int64_data": (7, "int64[]"),
        "name": (8, "bytes"),
        "raw_data": (9, "bytes"),
        "external_data": (13, "StringStringEntryProto[]"),
        "data_location": (14, "int32"),
    },
    "ValueInfoProto": {"name": (1, "bytes"), "type": (2, "TypeProto")},
    "TypeProto": {"tensor_type": (1, "TensorTypeProto")},
    "TensorTypeProto": {"elem_type": (1, "int32"), "shape": (2, "TensorShapeProto")},
    "TensorShapeProto": {"dim": (1, "DimensionProto[]")},
    "DimensionProto": {"dim_value": (1, "int64"), "dim_param": (2, "bytes")},
}
"""Messages, and of their fields the number and the type, with [] where it is repeated."""


@cache
def _message_class() -> Any:
    """The class of ModelProto; those of its fields' messages follow from it."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    described = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mlpx/onnx.proto", package="mlpx.onnx", syntax="proto2")
    for message, fields in _FIELDS.items():
        added = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            plain = kind.removesuffix("[]")
            label = described.LABEL_REPEATED if plain != kind else described.LABEL_OPTIONAL
            field = added.field.add(name=name, number=number, label=label)
            if plain in _FIELDS:
                field.type, field.type_name = described.TYPE_MESSAGE, f".mlpx.onnx.{plain}"
            else:
                field.type = getattr(described, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mlpx.onnx.ModelProto"))


def parse_model(content: bytes, name: str | Path) -> Any:
    """The ModelProto that a file consists of. Raises ModelError: it is none; ``name`` is the file's."""
    from google.protobuf.message import DecodeError

    try:
        return _message_class().FromString(content)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{name}: not a whole ONNX file ({len(content):,} bytes): {error}") from None


def new_model() -> Any:
    """An empty ModelProto."""
    return _message_class()()


def text(value: bytes) -> str:
    """A text of a message, of any bytes."""
    return value.decode("utf-8", "backslashreplace")


def attribute(node: Any, name: str) -> Any:
    """The attribute of a NodeProto; None where it has none of this name."""
    return next((each for each in node.attribute if each.name == name.encode()), None)


def number(node: Any, name: str, default: float) -> float:
    """A float attribute."""
    found = attribute(node, name)
    return default if found is None else float(found.f)


def integer(node: Any, name: str, default: int) -> int:
    """An integer attribute."""
    found = attribute(node, name)
    return default if found is None else int(found.i)


def external_names(model: Message) -> set[str]:
    """The names of all files of external data that a ModelProto, of these classes or of onnx's, refers to."""
    entries = (
        entry for tensor in _tensors(model) if tensor.data_location == _EXTERNAL for entry in tensor.external_data
    )
    names = (entry.value for entry in entries if entry.key in ("location", b"location"))
    return {name if isinstance(name, str) else text(name) for name in names}


def _tensors(message: Message) -> Iterator[Any]:
    """Every TensorProto that a message holds; protobuf limits how deep they are nested."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


def float_array(tensor: Any, folder: Path) -> np.ndarray:
    """The values of a float32 TensorProto; ``folder`` is where its external data is.

    Raises ModelError: another type, or not as many values as its shape says.
    """
    name, shape = text(tensor.name), tuple(tensor.dims)
    if tensor.data_type != FLOAT or any(size < 0 for size in shape):
        raise ModelError(f"the constant '{name}' is not a float32 array")
    try:
        if tensor.data_location == _EXTERNAL:
            values = _external(tensor, folder)
        elif tensor.raw_data:
            values = np.frombuffer(tensor.raw_data, "<f4")
        else:
            values = np.array(tensor.float_data, np.float32)
        return values.reshape(shape)
    except (OSError, OverflowError, ValueError) as error:
        raise ModelError(f"the constant '{name}' is damaged: {error}") from None


def _external(tensor: Any, folder: Path) -> np.ndarray:
    place = {text(entry.key): text(entry.value) for entry in tensor.external_data}
    with open(folder / place.get("location", ""), "rb") as file:
        file.seek(int(place.get("offset", "0")))
        count = int(place["length"]) if "length" in place else int(np.prod(tuple(tensor.dims), dtype=object)) * 4
        return np.frombuffer(file.read(count), "<f4")
