"""Checking a model, and writing it with its weights straight from their arrays.

``SerializeToString`` would copy every weight three times. In Protocol Buffers fields follow one another, each with its
number, wire type and length in front (protobuf.dev, Encoding), so the library serialises the small parts, and the
values of the weights are written straight from memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from torch import nn

from runtime import Summary, whole_file

from .errors import ExportError
from .graph import ELEMENT_TYPES

ONE_FILE_LIMIT = 2**31 - 2**20
"""Protocol Buffers are limited to 2 GB; above this, which leaves room for the graph, weights go into another file."""
_ALIGNMENT = 4096
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SMALL = 64
_COMPLETE = 13
"""The opset from which every operator can be written."""
# Field numbers in onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


@dataclass(frozen=True)
class Artifact:
    """An exported file. ``proved`` is False until it is proved to compute what its module computes.

    Examples:
        >>> from torch import nn
        >>> from mlpx import export
        >>> artifact = export(nn.Linear(4, 3), "linear.onnx")
        >>> artifact.path.name, artifact.proved, [block.op for block in artifact.summary.blocks]
        ('linear.onnx', False, ['linear'])
    """

    path: Path
    size: int
    """Bytes, with an external data file."""
    summary: Summary
    proved: bool = False

    def __repr__(self) -> str:
        """In one line; ``vars`` has the whole."""
        state = "proved" if self.proved else "unproved"
        return f"Artifact({str(self.path)!r}, {self.size:,} bytes, {state})"


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and values of the tensors of a state dict, in the order of the names."""
    return tensors_hash(module.state_dict())


def weights_hashing(module: nn.Module) -> Future[str]:
    """``weights_hash`` in a thread of its own; hashing releases the interpreter lock."""
    pool = ThreadPoolExecutor(1)
    hashing = pool.submit(tensors_hash, module.state_dict())
    pool.shutdown(wait=False)
    return hashing


def tensors_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 of the tensors of a state dict, as ``weights_hash``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name}\0{values.dtype}\0{list(values.shape)}\0".encode())
            # NumPy has no bfloat16, so the bytes are read as integers of the same size
            digest.update(values.view(_INTEGERS[values.dtype.itemsize]).numpy().data)
    return digest.hexdigest()


def check(model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    """Run ``onnx.checker`` with full, strict shape inference, and compare the shapes of the outputs.

    Large weights are replaced by inputs: the checker would copy their values, which takes longer than the export.
    Raises ExportError: ONNX does not accept the graph, which is a defect of the exporter.
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
        onnx.checker.check_model(skeleton, full_check=True)  # pyright: ignore[reportUnknownMemberType] - a path without type
        for output in skeleton.graph.output:
            output.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        opset = model.opset_import[0].version
        if opset < _COMPLETE:
            message = f"an operator of the network takes less in opset {opset} than is needed here"
            raise ExportError(f"{message} ({error}). What to do: give opset {_COMPLETE} or more") from error
        raise ExportError(f"the exported graph is not valid ONNX, which is a defect of mlpx: {error}") from error
    for output, other in zip(model.graph.output, inferred.graph.output, strict=True):
        declared, shape = _dims(output), _dims(other)
        if len(declared) != len(shape) or not all(map(_agree, declared, shape)):
            message = f"the output '{output.name}' should have shape {declared}, but ONNX infers {shape}"
            raise ExportError(f"{message}: a defect of mlpx")


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def _agree(declared: int | str, inferred: int | str) -> bool:
    """Whether two sizes agree; one that ONNX cannot infer, as of an Expand, agrees with any."""
    return declared == inferred or (isinstance(inferred, str) and inferred.startswith("unk__"))


def is_external(weights: Mapping[str, np.ndarray], requested: bool | None) -> bool:
    """Whether the weights go into a file of their own: as requested, else only if one file cannot hold them."""
    return sum(values.nbytes for values in weights.values()) > ONE_FILE_LIMIT if requested is None else requested


def refuse_foreign_data(path: Path) -> None:
    """Raise ExportError for a ``NAME.onnx.data`` that the NAME.onnx beside it does not use: it would be overwritten."""
    data = path.with_name(f"{path.name}.data")
    if data.exists() and data.name not in _data_names(path):
        used = f"the {path.name} beside it does not use it" if path.exists() else f"there is no {path.name} beside it"
        hint = "What to do: move it away, or choose another name for the file"
        raise ExportError(f"{data} exists, and {used}: the weights would overwrite what another program wrote. {hint}")


def _data_names(path: Path) -> set[str]:
    """The files of external data that an ONNX file names; none for what is no ONNX file."""
    try:
        model = cast("Any", onnx).load(str(path), load_external_data=False)
    except (OSError, ValueError, DecodeError):
        return set()
    tensors = model.graph.initializer
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}


def write(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], path: Path, *, external: bool) -> int:
    """Write the model with its weights, with ``external`` in ``NAME.onnx.data`` beside it; the number of bytes written.

    The model has no initialisers yet. Raises OutputError; an older file stays whole. Raises ExportError: the data file
    exists and is not the older file's.
    """
    if external:
        refuse_foreign_data(path)
    with ExitStack() as files:
        # Entered first, renamed last: the model appears when its data is there.
        target = files.enter_context(whole_file(path))
        beside = 0
        if external:
            data_path = path.with_name(f"{path.name}.data")
            with open(files.enter_context(whole_file(data_path)), "wb") as file:
                model.graph.initializer.extend(_write_beside(file, data_path.name, weights))
                beside = file.tell()
        with open(target, "wb") as file:
            _write_model(file, model, {} if external else weights)
            return file.tell() + beside


def _write_beside(file: BinaryIO, location: str, weights: Mapping[str, np.ndarray]) -> Iterator[TensorProto]:
    """Write the weights at aligned offsets; yields the tensors that refer to them."""
    for name, values in weights.items():
        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
        file.write(b"\0" * (offset - file.tell()))
        file.write(_stored(values))
        tensor = _tensor(name, values)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        yield tensor


def _write_model(file: BinaryIO, model: onnx.ModelProto, weights: Mapping[str, np.ndarray]) -> None:
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    shell.ClearField("graph")
    graph = model.graph.SerializeToString(deterministic=True)
    heads = {name: _initializer_head(name, values) for name, values in weights.items()}
    length = len(graph) + sum(len(heads[name]) + values.nbytes for name, values in weights.items())
    file.write(shell.SerializeToString(deterministic=True) + _field(_MODEL_GRAPH, length) + graph)
    for name, values in weights.items():
        file.write(heads[name])
        file.write(_stored(values))


def _initializer_head(name: str, values: np.ndarray) -> bytes:
    """The bytes of an initializer before its values."""
    tensor = _tensor(name, values).SerializeToString(deterministic=True) + _field(_TENSOR_RAW_DATA, values.nbytes)
    return _field(_GRAPH_INITIALIZER, len(tensor) + values.nbytes) + tensor


def _tensor(name: str, values: np.ndarray) -> TensorProto:
    """A weight without its values."""
    return TensorProto(name=name, data_type=ELEMENT_TYPES[str(values.dtype)], dims=values.shape)


def _stored(values: np.ndarray) -> memoryview:
    """Values as ONNX stores them, little-endian and contiguous; a copy only where they are not."""
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data


def _field(number: int, length: int) -> bytes:
    """The bytes before a message or a byte string: the field's number, wire type 2, the length."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
