"""The header of an ONNX file, read without the package onnx and without the weights.

An ONNX file is one Protocol Buffers message (``ModelProto`` of onnx.proto): a sequence of fields, each with its
number, its wire type and, for texts and messages, its length. The graph is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from runtime.errors import ModelError

_IR_VERSION, _PRODUCER, _GRAPH, _OPSET_IMPORT, _METADATA_PROPS = 1, 2, 7, 8, 14
_LARGEST = 64 * 2**20
_MOST_OPSET = 2**31


@dataclass(frozen=True)
class Header:
    """The fields of an ONNX file other than its graph.

    Examples:
        >>> from runtime import read_header
        >>> header = read_header("comfort.onnx")
        >>> header.opset, header.ir_version, header.metadata["mlpx.name"]
        (17, 8, 'comfort')
    """

    size: int
    """Of the file, in bytes."""
    ir_version: int
    opset: int
    """Of the standard operators."""
    producer: str
    metadata: dict[str, str]


def read_header(path: str | Path) -> Header:
    """The header of an ONNX file. Raises ModelError: missing, truncated, or not ONNX.

    Examples:
        >>> from runtime import read_header
        >>> read_header("comfort.onnx").producer
        'mlpx'
    """
    path = Path(path)
    size = 0
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            fields = list(_fields(file, size, skip={_GRAPH}))
        opsets = [_pair(value, key=1, value=2) for number, value in fields if number == _OPSET_IMPORT]
        metadata = [_pair(value, key=1, value=2) for number, value in fields if number == _METADATA_PROPS]
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except _Malformed as error:
        raise ModelError(f"{path}: not a whole ONNX file ({size:,} bytes): {error}") from None
    numbers = {number for number, _ in fields}
    if any(isinstance(version, int) and not 0 <= version < _MOST_OPSET for _, version in opsets):
        listed = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in opsets)
        raise ModelError(f"{path}: not a whole ONNX file ({size:,} bytes): it declares the operator sets {listed}")
    if _GRAPH not in numbers or _OPSET_IMPORT not in numbers:
        raise ModelError(f"{path}: not a whole ONNX file ({size:,} bytes): it has no graph or no operator set")
    return Header(
        size=size,
        ir_version=next((value for number, value in fields if number == _IR_VERSION and isinstance(value, int)), 0),
        opset=next(
            (version for domain, version in opsets if domain in ("", "ai.onnx") and isinstance(version, int)), 0
        ),
        producer=_text(next((value for number, value in fields if number == _PRODUCER), b"")),
        metadata={_text(key): _text(value) for key, value in metadata},
    )


class _Malformed(Exception):
    pass


def _fields(file: BinaryIO, end: int, skip: set[int]) -> Iterator[tuple[int, int | bytes]]:
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, _varint(file)
            continue
        length = {1: 8, 2: None, 5: 4}.get(wire, -1)
        length = _varint(file) if length is None else length
        if length < 0 or number == 0:
            raise _Malformed(f"at byte {file.tell():,} it is not Protocol Buffers")
        if file.tell() + length > end:
            raise _Malformed(f"cut off, {file.tell() + length - end:,} bytes are missing")
        if number in skip:
            file.seek(length, os.SEEK_CUR)
            yield number, b""
        elif length > _LARGEST:
            raise _Malformed(f"field {number} has {length:,} bytes")
        else:
            yield number, file.read(length)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _Malformed("cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise _Malformed(f"at byte {file.tell():,} it is not Protocol Buffers")


def _pair(message: int | bytes, key: int, value: int) -> tuple[str, int | bytes | None]:
    """Two fields of a nested message: a text, and another that may be of any type or missing."""
    content = message if isinstance(message, bytes) else b""
    fields = dict(_fields(BytesIO(content), len(content), skip=set()))
    return _text(fields.get(key, b"")), fields.get(value)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
