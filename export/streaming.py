"""An ONNX model into a file, its weights straight from their arrays.

``SerializeToString`` would copy every weight three times. Protocol Buffers let a writer put fields one after the other,
each message behind its number, wire type and length (protobuf.dev, Encoding), so the small parts come from the
library and the values of the weights are written as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto

from .graph import ELEMENT_TYPES

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def write_model(file: BinaryIO, model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Write ``model``, whose graph has no initialisers yet, with ``weights`` as its initialisers."""
    around = onnx.ModelProto()
    around.CopyFrom(model)
    around.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    tensors = [(_tensor_head(name, values), values) for name, values in weights.items()]
    heads = [(_head(_GRAPH_INITIALIZER, len(head) + values.nbytes) + head, values) for head, values in tensors]
    length = len(graph) + sum(len(head) + values.nbytes for head, values in heads)
    file.write(around.SerializeToString(deterministic=True) + _head(_MODEL_GRAPH, length) + graph)
    for head, values in heads:
        file.write(head)
        file.write(little_endian(values).data)


def little_endian(values: np.ndarray) -> np.ndarray:
    """Values as ONNX stores them, without a copy where they lie so already."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))


def _tensor_head(name: str, values: np.ndarray) -> bytes:
    tensor = TensorProto(name=name, data_type=ELEMENT_TYPES[str(values.dtype)], dims=values.shape)
    return tensor.SerializeToString(deterministic=True) + _head(_TENSOR_RAW_DATA, values.nbytes)


def _head(field: int, length: int) -> bytes:
    """What stands before a message or a run of bytes: its number, the wire type 2, its length."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
