"""Requests and answers of the V2 protocol over gRPC: protobuf messages and float32 arrays.

Source: grpc_service.proto of https://github.com/triton-inference-server/common, as tritonclient ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .messages import Request, deadline
from .refusals import Malformed
from .signature import FP32, Signature

_FLOAT32 = np.dtype("<f4")
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
        feed[tensor.name] = values.reshape(shape)
    timeout = None
    if message.parameters and "timeout" in message.parameters:
        held = message.parameters["timeout"]
        timeout = deadline(getattr(held, held.WhichOneof("parameter_choice") or "int64_param"))
    return Request(feed, signature.complete(feed), message.id, _outputs(message, signature), _ALL_BINARY, timeout)


def _raw(content: bytes, entry: Any, count: int, shape: list[int]) -> np.ndarray:
    if entry.HasField("contents"):
        raise Malformed(f"input '{entry.name}' has both contents and raw_input_contents")
    if len(content) != 4 * count:
        has = f"{len(content):,} bytes of raw_input_contents"
        raise Malformed(f"input '{entry.name}' has {has}, and its shape {shape} takes {4 * count:,}")
    return np.frombuffer(content, _FLOAT32)


def _contents(entry: Any, count: int) -> np.ndarray:
    for field, _ in entry.contents.ListFields():
        if field.name != "fp32_contents":
            raise Malformed(f"input '{entry.name}' has {field.name}, and FP32 values stand in fp32_contents")
    given = entry.contents.fp32_contents
    if len(given) != count:
        raise Malformed(f"input '{entry.name}' has {len(given):,} values, and its shape takes {count:,}")
    return np.array(given, _FLOAT32)


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
