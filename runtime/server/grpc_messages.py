"""Requests and answers of the V2 protocol over gRPC: protobuf messages and numpy arrays.

Source: grpc_service.proto of https://github.com/triton-inference-server/common, as tritonclient ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .messages import Request, deadline
from .refusals import Malformed
from .signature import DTYPES, FP32, Signature, held_as

_FLOAT32 = np.dtype("<f4")
_CONTENTS = {FP32: "fp32_contents", "INT64": "int64_contents", "UINT64": "uint64_contents"}
"""Where values stand, by datatype; of the smaller integers in int_contents and uint_contents."""
_UNREAD = ("classification", "shared_memory_region")
_ALL_BINARY: frozenset[str] = frozenset()


def parse(message: Any, signature: Signature) -> Request:
    """The request in a ``ModelInferRequest``. Raises Malformed, TooLarge."""
    raw: Sequence[bytes] = message.raw_input_contents
    given = message.inputs
    if raw and len(raw) != len(given):
        raise Malformed(f"the request has {len(given)} inputs and {len(raw)} raw_input_contents: one each is expected")
    feed: dict[str, np.ndarray] = {}
    for place, entry in enumerate(given):
        shape = list(entry.shape)
        tensor, count = signature.input(entry.name, entry.datatype, shape)
        if tensor.name in feed:
            raise Malformed(f"input '{tensor.name}' is given twice")
        if "shared_memory_region" in entry.parameters:
            raise Malformed(f"input '{tensor.name}' is in shared memory, which this server does not read")
        values = _raw(raw[place], entry, count, shape) if raw else _contents(entry, count)
        feed[tensor.name] = held_as(tensor, values, entry.datatype).reshape(shape)
    timeout = None
    if message.parameters and "timeout" in message.parameters:
        held = message.parameters["timeout"]
        timeout = deadline(getattr(held, held.WhichOneof("parameter_choice") or "int64_param"))
    return Request(feed, signature.complete(feed), message.id, _outputs(message, signature), _ALL_BINARY, timeout)


def _raw(content: bytes, entry: Any, count: int, shape: list[int]) -> np.ndarray:
    if entry.HasField("contents"):
        raise Malformed(f"input '{entry.name}' has both contents and raw_input_contents")
    dtype = DTYPES[entry.datatype]
    if len(content) != dtype.itemsize * count:
        has = f"{len(content):,} bytes of raw_input_contents"
        raise Malformed(f"input '{entry.name}' has {has}, and its shape {shape} takes {dtype.itemsize * count:,}")
    return np.frombuffer(content, dtype)


def _contents(entry: Any, count: int) -> np.ndarray:
    place = _CONTENTS.get(entry.datatype, "uint_contents" if entry.datatype.startswith("U") else "int_contents")
    for field, _ in entry.contents.ListFields():
        if field.name != place:
            raise Malformed(f"input '{entry.name}' has {field.name}, and {entry.datatype} values stand in {place}")
    given = getattr(entry.contents, place)
    if len(given) != count:
        raise Malformed(f"input '{entry.name}' has {len(given):,} values, and its shape takes {count:,}")
    return np.array(given, _FLOAT32 if entry.datatype == FP32 else f"{DTYPES[entry.datatype].kind}8")


def _outputs(message: Any, signature: Signature) -> Sequence[str]:
    names: list[str] = []
    for entry in message.outputs:
        name = signature.output(entry.name)
        if name in names:
            raise Malformed(f"output '{name}' is asked for twice")
        for unread in _UNREAD:
            if entry.parameters and unread in entry.parameters:
                raise Malformed(f"output '{name}' asks for {unread}, which this server does not do")
        names.append(name)
    return names or list(signature.outputs)


def answer(response: Any, request: Request, outputs: Mapping[str, np.ndarray]) -> None:
    """Write the outputs into a ``ModelInferResponse``, as ``raw_output_contents``."""
    if request.id:
        response.id = request.id
    for name in request.outputs:
        values = np.ascontiguousarray(outputs[name], _FLOAT32)
        response.outputs.add(name=name, datatype=FP32, shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
