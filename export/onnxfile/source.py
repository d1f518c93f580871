"""The bytes that an ONNX file consists of, as they were read: its own, and those of the files beside it that it names.

A file may hold a tensor anywhere: as an initialiser, in an attribute of any operator, in the body of a loop or of a
function, as part of a sparse one. Each may have its values in a file of external data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from runtime import ModelError, read_header
from runtime.model.onnx_messages import external_names

from .tensors import State, Tensors, state_of
from .texts import check_texts


@dataclass(frozen=True)
class Source:
    """A file as it was read: the SHA-256 of its bytes, and the files of external data that it names, open."""

    path: Path
    size: int
    """Of the file itself, in bytes."""
    sha256: str
    state: State
    tensors: Tensors
    data: Mapping[str, Path]
    """The files of external data, by the names that the file gives them."""

    @property
    def whole_size(self) -> int:
        """Bytes, with external data."""
        return self.size + sum(len(self.tensors.maps[name]) for name in self.data)

    def data_hashes(self) -> dict[str, str]:
        """The SHA-256 of each file of external data, of the bytes that were read. Raises ModelError: it has changed."""
        self.check()  # reading beyond the end of a file that was cut would end the process
        return {name: hashlib.sha256(self.tensors.maps[name]).hexdigest() for name in self.data}

    def check(self) -> None:
        """Raise ModelError where the file, or its external data, is not what was read, so that nothing is known of it.

        A file that was written to, replaced, or replaced and put back has another inode, time or change of its inode.
        """
        states = {self.path: self.state} | {path: self.tensors.states[name] for name, path in self.data.items()}
        for path, state in states.items():
            try:
                now = state_of(path.stat())
            except OSError:
                now = None
            if now != state:
                hint = "What to do: do it again once nothing writes to it"
                raise ModelError(f"{path}: the file has changed since it was read. {hint}")


def read_source(path: Path) -> tuple[ModelProto, Source]:
    """A file's message and bytes, read once. Raises ModelError: missing, damaged, or without its external data."""
    read_header(path)  # raises where the file is damaged
    try:
        with open(path, "rb") as file:
            state, content = state_of(os.fstat(file.fileno())), file.read()
        proto = ModelProto.FromString(content)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a proto ONNX file: {error}") from None
    check_texts(path, proto)
    tensors, data = Tensors(path), dict[str, Path]()
    for name in sorted(external_names(proto)):
        if not (path.parent / name).is_file():
            raise ModelError(f"{path}: its external data is missing. What to do: put {name} beside it")
        tensors.open(name, "a constant")
        data[name] = path.parent / name
    return proto, Source(path, len(content), hashlib.sha256(content).hexdigest(), state, tensors, data)


def external_data(path: Path) -> dict[str, Path]:
    """A model's external data files, by name. Raises ModelError: unreadable, or one is missing."""
    return dict(read_source(path)[1].data)
