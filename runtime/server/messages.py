"""Requests and answers of the V2 protocol over REST: JSON, and the binary tensor extension.

Source: the Open Inference Protocol, https://github.com/kserve/open-inference-protocol, and Triton's binary tensor data
extension, https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from runtime.model.port import LARGEST_INT, SMALLEST_INT

from .refusals import Malformed
from .signature import DTYPES, FP32, Signature, Tensor, held_as, not_held

_FLOAT32 = np.dtype("<f4")
_NUMBERS = {int, float}


@dataclass(slots=True)
class Request:
    """One request: float32 or int64 arrays (rows, *row) by input, and how the answer is wanted."""

    feed: dict[str, np.ndarray]
    rows: int
    id: str | None
    outputs: Sequence[str]
    binary: frozenset[str]
    """The outputs that are wanted as bytes."""
    timeout: float | None
    """In seconds."""


def parse(body: bytes, head: int | None, signature: Signature) -> Request:
    """The request in a body; ``head`` is the Inference-Header-Content-Length. Raises Malformed, TooLarge."""
    if head is None:
        record, rest = _json(body), None
    elif 0 <= head <= len(body):
        record, rest = _json(body[:head]), memoryview(body)[head:]
    else:
        raise Malformed(f"Inference-Header-Content-Length is {head}, and the body has {len(body):,} bytes")
    given = record.get("inputs")
    if type(given) is not list:
        raise Malformed('the request has no list of "inputs"')
    feed: dict[str, np.ndarray] = {}
    at = 0
    for entry in given:
        if type(entry) is not dict:
            raise Malformed('every one of "inputs" is an object with "name", "shape", "datatype" and "data"')
        tensor, count = signature.input(entry.get("name"), entry.get("datatype"), entry.get("shape"))
        if tensor.name in feed:
            raise Malformed(f"input '{tensor.name}' is given twice")
        size = _binary_size(entry, tensor.name)
        if size is None:
            values = _numbers(entry.get("data"), tensor, entry["datatype"], count, len(entry["shape"]))
        else:
            if "data" in entry:
                raise Malformed(f"input '{tensor.name}' has both \"data\" and binary_data_size")
            if rest is None:
                raise Malformed(f"input '{tensor.name}' is binary, and Inference-Header-Content-Length is missing")
            dtype = DTYPES[entry["datatype"]]
            if size != dtype.itemsize * count or at + size > len(rest):
                has = f"binary_data_size {size}, and {len(rest) - at:,} bytes are left"
                raise Malformed(
                    f"input '{tensor.name}' has {has}; its shape {entry['shape']} takes {dtype.itemsize * count:,}"
                )
            values = np.frombuffer(rest[at : at + size], dtype)
            at += size
            if not values.flags.aligned:
                values = values.copy()
            values = held_as(tensor, values, entry["datatype"])
        feed[tensor.name] = values.reshape(entry["shape"])
    if rest is not None and at != len(rest):
        raise Malformed(f"{len(rest) - at:,} bytes are left after the last binary input")
    return _asked(record, feed, signature.complete(feed), signature)


def _json(body: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        record = _with_nan(body, error)
    if type(record) is not dict:
        raise Malformed("the body is no JSON object")
    return record


def _with_nan(body: bytes, error: orjson.JSONDecodeError) -> Any:
    """JSON with NaN and Infinity, as Python, tritonclient and Triton write them."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise Malformed(f"the body is no JSON: {error.msg} (line {error.lineno}, column {error.colno})")


def _binary_size(entry: Mapping[str, Any], name: str) -> int | None:
    parameters = entry.get("parameters")
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise Malformed(f"the parameters of input '{name}' are no object")
    if "shared_memory_region" in parameters:
        raise Malformed(f"input '{name}' is in shared memory, which this server does not read")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise Malformed(f"input '{name}' has binary_data_size {size!r}, which is no number of bytes")
    return size


def _numbers(data: Any, tensor: Tensor, datatype: str, count: int, deepest: int) -> np.ndarray:
    """A flat or nested list of numbers as float32 or int64 (count,)."""
    name = tensor.name
    if type(data) is not list:
        raise Malformed(f"input '{name}' has no list of numbers as \"data\"")
    kinds = set(map(type, data))
    for _ in range(deepest - 1):
        if kinds != {list}:
            break
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if len(data) != count:
        raise Malformed(f"input '{name}' has {len(data):,} values, and its shape takes {count:,}")
    if not kinds <= _NUMBERS:
        found = sorted(kind.__name__ for kind in kinds - _NUMBERS)
        raise Malformed(f"input '{name}' has values that are no numbers: {', '.join(found)}")
    if datatype != FP32:
        try:
            values = np.array(data, np.float64 if float in kinds else np.int64)
        except OverflowError:
            place = next(i for i, number in enumerate(data) if not SMALLEST_INT <= number <= LARGEST_INT)
            raise not_held(tensor, data[place], place, datatype) from None
        return held_as(tensor, values, datatype)
    with np.errstate(over="ignore"):
        try:
            values = np.array(data, _FLOAT32)
        except OverflowError:  # an integer beyond float64
            values = np.array([np.inf], _FLOAT32)
            data = [0.0]
    if not np.isfinite(values).all() and bool((np.isinf(values) & np.isfinite(np.array(data, np.float64))).any()):
        raise Malformed(f"input '{name}' has numbers that FP32 cannot hold: the largest is 3.4028235e38")
    return values


def _asked(record: Mapping[str, Any], feed: dict[str, np.ndarray], rows: int, signature: Signature) -> Request:
    identity = record.get("id")
    if identity is not None and type(identity) is not str:
        raise Malformed(f"the request's id is text, not {type(identity).__name__}")
    every, timeout = False, None
    if (parameters := record.get("parameters")) is not None:
        if type(parameters) is not dict:
            raise Malformed("the request's parameters are no object")
        every = parameters.get("binary_data_output") is True
        timeout = deadline(parameters.get("timeout"))
    asked = record.get("outputs")
    if not asked:
        names = list(signature.outputs)
        return Request(feed, rows, identity, names, frozenset(names) if every else frozenset(), timeout)
    if type(asked) is not list:
        raise Malformed('"outputs" is no list')
    names, binary = [], set()
    for entry in asked:
        if type(entry) is not dict:
            raise Malformed('every one of "outputs" is an object with a "name"')
        name, parameters = signature.output(entry.get("name")), entry.get("parameters") or {}
        if name in names:
            raise Malformed(f"output '{name}' is asked for twice")
        if type(parameters) is not dict:
            raise Malformed(f"the parameters of output '{name}' are no object")
        for unread in ("classification", "shared_memory_region"):
            if unread in parameters:
                raise Malformed(f"output '{name}' asks for {unread}, which this server does not do")
        if parameters.get("binary_data", every):
            binary.add(name)
        names.append(name)
    return Request(feed, rows, identity, names, frozenset(binary), timeout)


def deadline(microseconds: object) -> float | None:
    """The ``timeout`` parameter, microseconds as Triton has it, in seconds. Raises Malformed."""
    if microseconds is None or microseconds == 0:
        return None
    if type(microseconds) is not int or not 0 <= microseconds < 2**63:
        raise Malformed(f"the parameter timeout is a whole number of microseconds, not {str(microseconds)[:40]}")
    return microseconds / 1e6


def answer(
    model: str, version: str, request: Request, outputs: Mapping[str, np.ndarray]
) -> tuple[list[bytes | memoryview], int | None]:
    """The body in pieces, and the length of its JSON where bytes follow.

    NaN and infinities are written as Python's json and Triton write them, since JSON has no word for them.
    """
    told, raw, plain = [], [], True
    for name in request.outputs:
        values = np.ascontiguousarray(outputs[name], _FLOAT32)
        entry: dict[str, Any] = {"name": name, "datatype": FP32, "shape": list(values.shape)}
        if name in request.binary:
            entry["parameters"] = {"binary_data_size": values.nbytes}
            raw.append(values.data.cast("B") if values.size else b"")
        else:
            entry["data"] = values.reshape(-1)
            plain = plain and bool(np.isfinite(values).all())
        told.append(entry)
    record: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": told}
    if request.id:
        record["id"] = request.id
    if plain:
        head = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        for entry in told:
            if "data" in entry:
                entry["data"] = [float(str(value)) for value in entry["data"]]
        head = json.dumps(record).encode()
    return [head, *raw], len(head) if raw else None
