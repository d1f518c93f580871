"""The file: its bytes, its metadata, and how it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto

from runtime import Summary, whole_file

ONE_FILE_LIMIT = 2**31 - 2**20
"""Protocol Buffers end at 2 GB; beyond it the weights go into a file of their own."""
_ALIGNMENT = 4096
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Artifact:
    """An exported file. ``proved`` is False: that it computes the same has not been proved by writing it."""

    path: Path
    size: int
    """In bytes, an external data file included."""
    summary: Summary | None
    """None for a file that ``torch.onnx`` wrote as a fallback."""
    proved: bool = False


def weights_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, dtypes, shapes and values of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}\0{list(values.shape)}\0".encode())
        # numpy has no bfloat16; integers of the same size have the same bytes
        digest.update(values.view(_INTEGERS[values.dtype.itemsize]).numpy().data)
    return digest.hexdigest()


def write(
    model: onnx.ModelProto, weights: Mapping[str, np.ndarray], path: Path, *, external_data: bool | None = None
) -> int:
    """Write the model with its weights; the number of bytes written.

    One file, unless it would pass 2 GB or ``external_data`` asks for ``NAME.onnx.data`` beside it. Raises OutputError;
    an older file stays whole.
    """
    external = sum(v.nbytes for v in weights.values()) > ONE_FILE_LIMIT if external_data is None else external_data
    with ExitStack() as files:
        # Entered first, renamed last: the model appears when its data is there.
        target = files.enter_context(whole_file(path))
        beside = 0
        if external:
            data_path = path.with_name(f"{path.name}.data")
            data = files.enter_context(whole_file(data_path))
            with open(data, "wb") as file:
                for tensor, values, offset in _placed(weights):
                    file.write(b"\0" * (offset - file.tell()))
                    file.write(values.data)
                    tensor.data_location = TensorProto.EXTERNAL
                    entries = {"location": data_path.name, "offset": offset, "length": values.nbytes}
                    for key, value in entries.items():
                        tensor.external_data.add(key=key, value=str(value))
                    model.graph.initializer.append(tensor)
                beside = file.tell()
        else:
            for tensor, values, _ in _placed(weights):
                tensor.raw_data = values.tobytes()
                model.graph.initializer.append(tensor)
        content = model.SerializeToString(deterministic=True)
        target.write_bytes(content)
        return len(content) + beside


def _placed(weights: Mapping[str, np.ndarray]) -> Iterator[tuple[TensorProto, np.ndarray, int]]:
    """Each weight as an empty ONNX tensor, its little-endian values, and its place in a data file."""
    offset = 0
    for name, values in weights.items():
        offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
        values = np.ascontiguousarray(values, dtype="<f4")
        yield TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape), values, offset
        offset += values.nbytes
