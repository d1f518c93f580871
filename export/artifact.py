"""The file: its bytes, its metadata, and how it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import nn

from runtime import Summary, whole_file

from .graph import ELEMENT_TYPES
from .streaming import little_endian, write_model

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
    summary: Summary
    proved: bool = False


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and values of the tensors of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    tensors = {key: value for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{values.dtype}\0{list(values.shape)}\0".encode())
        # numpy has no bfloat16; integers of the same size have the same bytes
        digest.update(values.view(_INTEGERS[values.dtype.itemsize]).numpy().data)
    return digest.hexdigest()


def is_external(weights: Mapping[str, np.ndarray], asked: bool | None) -> bool:
    """Whether the weights go into a file of their own: as asked, else above what one file can hold."""
    return sum(values.nbytes for values in weights.values()) > ONE_FILE_LIMIT if asked is None else asked


def write(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], path: Path, *, external: bool) -> int:
    """Write the model with its weights, with ``external`` in ``NAME.onnx.data`` beside it; the number of bytes written.

    Raises OutputError; an older file stays whole.
    """
    with ExitStack() as files:
        # Entered first, renamed last: the model appears when its data is there.
        target = files.enter_context(whole_file(path))
        beside = 0
        if external:
            data_path = path.with_name(f"{path.name}.data")
            with open(files.enter_context(whole_file(data_path)), "wb") as file:
                model.graph.initializer.extend(_beside(file, data_path.name, weights))
                beside = file.tell()
        with open(target, "wb") as file:
            write_model(file, model, {} if external else weights)
            return file.tell() + beside


def _beside(file: BinaryIO, location: str, weights: Mapping[str, np.ndarray]) -> Iterator[TensorProto]:
    """Write the weights one after the other, each at an aligned place, and say where."""
    for name, values in weights.items():
        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
        file.write(b"\0" * (offset - file.tell()))
        file.write(little_endian(values).data)
        tensor = TensorProto(name=name, data_type=ELEMENT_TYPES[str(values.dtype)], dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        yield tensor
