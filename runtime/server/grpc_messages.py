"""Requests and answers of the V2 protocol over gRPC: protobuf messages and numpy arrays.

Source: grpc_service.proto of https://github.com/triton-inference-server/common, as tritonclient ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .messages import (
    InferRequest,
    checked_place,
    parse_timeout,
    read_shared,
    refuse_unsupported,
    write_shared,
)
from .refusals import Malformed
from .shared_memory import Place, Regions, place_of
from .signature import BYTES, DTYPES, FP32, Signature, to_model_dtype
from .words import codes_of_bytes

_FLOAT32 = np.dtype("<f4")
_CONTENTS = {FP32: "fp32_contents", "INT64": "int64_contents", "UINT64": "uint64_contents"}
"""The field of the values, by datatype; that of the smaller integers is int_contents or uint_contents."""
_ALL_BINARY: frozenset[str] = frozenset()


def parse_request(message: Any, signature: Signature, regions: Regions | None = None) -> InferRequest:
    """The request in a ``ModelInferRequest``. Raises Malformed, TooLarge."""
    raw: Sequence[bytes] = message.raw_input_contents
    entries = message.inputs
    shared: list[str] = []
    """Inputs in shared memory, which have no raw_input_contents."""
    feed: dict[str, np.ndarray] = {}
    for position, entry in enumerate(entries):
        shape = list(entry.shape)
        tensor, count = signature.input(entry.name, entry.datatype, shape)
        if tensor.name in feed:
            raise Malformed(f"input '{tensor.name}' is given twice")
        if entry.parameters and (place := place_of(_plain(entry.parameters), tensor.name)) is not None:
            shared.append(tensor.name)
            feed[tensor.name] = read_shared(place, tensor, entry.datatype, count, regions).reshape(shape)
            continue
        index = position - len(shared)
        if raw and index >= len(raw):
            raise Malformed(f"input '{tensor.name}' has no raw_input_contents")
        if entry.datatype == BYTES:
            words = raw[index] if raw else _contents(entry, "bytes_contents")
            feed[tensor.name] = codes_of_bytes(words, tensor, count).reshape(shape)
            continue
        values = _parse_raw(raw[index], entry, count, shape) if raw else _parse_contents(entry, count)
        feed[tensor.name] = to_model_dtype(tensor, values, entry.datatype).reshape(shape)
    if raw and len(raw) != len(entries) - len(shared):
        counts = f"{len(entries) - len(shared)} inputs and {len(raw)} raw_input_contents"
        raise Malformed(f"the request has {counts}: one for each input is expected")
    timeout = None
    if message.parameters and "timeout" in message.parameters:
        parameter = message.parameters["timeout"]
        timeout = parse_timeout(getattr(parameter, parameter.WhichOneof("parameter_choice") or "int64_param"))
    rows = signature.complete(feed)
    placed: dict[str, Place] = {}
    names = _outputs(message, signature, placed, regions)
    return InferRequest(feed, rows, message.id, names, _ALL_BINARY, timeout, placed)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``InferParameter`` messages as values."""
    return {
        name: getattr(each, each.WhichOneof("parameter_choice") or "int64_param") for name, each in parameters.items()
    }


def _parse_raw(content: bytes, entry: Any, count: int, shape: list[int]) -> np.ndarray:
    if entry.HasField("contents"):
        raise Malformed(f"input '{entry.name}' has both contents and raw_input_contents")
    dtype = DTYPES[entry.datatype]
    if len(content) != dtype.itemsize * count:
        size = f"{len(content):,} bytes of raw_input_contents"
        raise Malformed(f"input '{entry.name}' has {size}, and its shape {shape} takes {dtype.itemsize * count:,}")
    return np.frombuffer(content, dtype)


def _parse_contents(entry: Any, count: int) -> np.ndarray:
    name = _CONTENTS.get(entry.datatype, "uint_contents" if entry.datatype.startswith("U") else "int_contents")
    values = _contents(entry, name)
    if len(values) != count:
        raise Malformed(f"input '{entry.name}' has {len(values):,} values, and its shape takes {count:,}")
    return np.array(values, _FLOAT32 if entry.datatype == FP32 else f"{DTYPES[entry.datatype].kind}8")


def _contents(entry: Any, name: str) -> Any:
    """The values in a field of an input's contents. Raises Malformed: they are in another one."""
    for field, _ in entry.contents.ListFields():
        if field.name != name:
            raise Malformed(f"input '{entry.name}' has {field.name}, and {entry.datatype} values belong in {name}")
    return getattr(entry.contents, name)


def _outputs(message: Any, signature: Signature, placed: dict[str, Place], regions: Regions | None) -> Sequence[str]:
    """The names of the outputs; those that go to shared memory are added to ``placed``."""
    names: list[str] = []
    for entry in message.outputs:
        name = signature.output(entry.name)
        if name in names:
            raise Malformed(f"output '{name}' is asked for twice")
        if entry.parameters:
            refuse_unsupported(name, entry.parameters)
            if (place := place_of(_plain(entry.parameters), name)) is not None:
                placed[name] = checked_place(place, name, regions)
        names.append(name)
    return names or list(signature.outputs)


def encode_response(
    model: str,
    version: str,
    request: InferRequest,
    outputs: Mapping[str, np.ndarray],
    regions: Regions | None = None,
) -> bytes:
    """A ``ModelInferResponse`` in protobuf's encoding, the outputs as ``raw_output_contents``.

    https://protobuf.dev/programming-guides/encoding: a field is its number and type, and here always its length.
    """
    pieces = [_field(1, model.encode()), _field(2, version.encode())]
    if request.id:
        pieces.append(_field(3, request.id.encode()))
    contents: list[bytes] = []
    for name in request.outputs:
        values = np.ascontiguousarray(outputs[name], _FLOAT32)
        shape = b"".join(map(_varint, values.shape))
        tensor = _field(1, name.encode()) + _field(2, b"FP32") + _field(3, shape)
        if name in request.placed:
            written = write_shared(request.placed[name], values, name, regions)
            pieces.append(_field(5, tensor + b"".join(_parameter(*each) for each in written.items())))
            continue
        pieces.append(_field(5, tensor))
        contents.append(_field(6, values.tobytes()))
    return b"".join([*pieces, *contents])


def _parameter(name: str, value: str | int) -> bytes:
    """An entry of an output's map of ``InferParameter``: int64_param is field 2, string_param 3."""
    content = _field(3, value.encode()) if isinstance(value, str) else b"\x10" + _varint(value)
    return _field(4, _field(1, name.encode()) + _field(2, content))


def _field(number: int, content: bytes) -> bytes:
    return b"%c%b%b" % (number << 3 | 2, _varint(len(content)), content)


def _varint(value: int) -> bytes:
    if value < 128:
        return b"%c" % value
    digits = bytearray()
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)
