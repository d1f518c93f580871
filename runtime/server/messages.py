"""Requests and answers of the V2 protocol over REST: JSON, and the binary tensor extension.

Source: the Open Inference Protocol, https://github.com/kserve/open-inference-protocol, and Triton's binary tensor data
extension, https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson

from runtime.json_types import Json
from runtime.model.port import LARGEST_INT, SMALLEST_INT

from .refusals import Malformed, TooLarge
from .shared_memory import OFFSET, REGION, SIZE, Place, Regions, place_of
from .signature import BYTES, DTYPES, FP32, Signature, Tensor, out_of_range, to_model_dtype
from .words import codes_of_bytes, codes_of_texts

_FLOAT32 = np.dtype("<f4")
_NUMBERS = {int, float}
_SHARED = -1
"""Instead of a number of bytes: the input is in shared memory."""


@dataclass(slots=True)
class InferRequest:
    """An inference request: float32 or int64 arrays (rows, *row) by input, and the form of its answer."""

    feed: dict[str, np.ndarray]
    rows: int
    id: str | None
    outputs: Sequence[str]
    binary: frozenset[str]
    """The outputs that are sent as bytes."""
    timeout: float | None
    """In seconds."""
    placed: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """The outputs that are written to shared memory."""


def parse_request(
    body: bytes, json_length: int | None, signature: Signature, regions: Regions | None = None
) -> InferRequest:
    """The request in a body; ``json_length`` is its Inference-Header-Content-Length. Raises Malformed, TooLarge.

    ``regions`` are where tensors in shared memory are.
    """
    if json_length is None:
        record, binary = _parse_json(body), None
    elif 0 <= json_length <= len(body):
        record, binary = _parse_json(body[:json_length]), memoryview(body)[json_length:]
    else:
        raise Malformed(f"Inference-Header-Content-Length is {json_length}, and the body has {len(body):,} bytes")
    entries: Json = record.get("inputs")
    if type(entries) is not list:
        raise Malformed('the request has no list of "inputs"')
    feed: dict[str, np.ndarray] = {}
    offset = 0
    entry: Json
    for entry in entries:
        if type(entry) is not dict:
            raise Malformed('every one of "inputs" must be an object with "name", "shape", "datatype" and "data"')
        tensor, count = signature.input(entry.get("name"), entry.get("datatype"), entry.get("shape"))
        if tensor.name in feed:
            raise Malformed(f"input '{tensor.name}' is given twice")
        size = _binary_size(entry, tensor.name)
        if size is _SHARED:
            values = _shared(entry, tensor, count, regions)
        elif size is None and entry["datatype"] == BYTES:
            values = codes_of_texts(entry.get("data"), tensor, count, len(entry["shape"]))
        elif size is None:
            values = _parse_numbers(entry.get("data"), tensor, entry["datatype"], count, len(entry["shape"]))
        else:
            if "data" in entry:
                raise Malformed(f"input '{tensor.name}' has both \"data\" and binary_data_size")
            if binary is None:
                raise Malformed(f"input '{tensor.name}' is binary, and Inference-Header-Content-Length is missing")
            dtype = DTYPES.get(entry["datatype"])
            takes = size if dtype is None else dtype.itemsize * count  # texts have their own lengths
            if size != takes or offset + size > len(binary):
                sizes = f"binary_data_size {size}, and {len(binary) - offset:,} bytes are left"
                needed = "" if dtype is None else f"; its shape {entry['shape']} takes {takes:,}"
                raise Malformed(f"input '{tensor.name}' has {sizes}{needed}")
            content = binary[offset : offset + size]
            offset += size
            if dtype is None:
                values = codes_of_bytes(content, tensor, count)
            else:
                values = np.frombuffer(content, dtype)
                values = to_model_dtype(tensor, values if values.flags.aligned else values.copy(), entry["datatype"])
        feed[tensor.name] = values.reshape(entry["shape"])
    if binary is not None and offset != len(binary):
        raise Malformed(f"{len(binary) - offset:,} bytes are left after the last binary input")
    return _with_outputs(record, feed, signature.complete(feed), signature, regions)


def _shared(entry: Mapping[str, Any], tensor: Tensor, count: int, regions: Regions | None) -> np.ndarray:
    """An input in shared memory, as float32 or int64 (count,)."""
    place = place_of(entry["parameters"], tensor.name)
    if "data" in entry or place is None:
        raise Malformed(f"input '{tensor.name}' has both \"data\" and {REGION}")
    return read_shared(place, tensor, entry["datatype"], count, regions)


def read_shared(place: Place, tensor: Tensor, datatype: str, count: int, regions: Regions | None) -> np.ndarray:
    """An input (count,) in shared memory, as float32 or int64. Raises Malformed."""
    if regions is None:
        raise Malformed(f"input '{tensor.name}' is in shared memory, which a request with so much JSON cannot use")
    dtype = DTYPES.get(datatype)
    if dtype is not None and place.size != dtype.itemsize * count:
        takes = f"its shape takes {dtype.itemsize * count:,}"
        raise Malformed(f"input '{tensor.name}' has {place.size:,} bytes of shared memory, and {takes}")
    if dtype is None and place.size > regions.max_text:
        size = f"{place.size:,} bytes of shared memory"
        raise TooLarge(f"input '{tensor.name}' has {size}, and this server takes {regions.max_text:,} of texts")
    content = regions.read(place, tensor.name)
    if dtype is None:
        return codes_of_bytes(bytes(content), tensor, count)
    return to_model_dtype(tensor, np.frombuffer(content, dtype), datatype)


def _parse_json(body: bytes) -> dict[str, Any]:
    record: Json
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        record = _parse_nan_json(body, error)
    if type(record) is not dict:
        raise Malformed("the body is not a JSON object")
    return record


def _parse_nan_json(body: bytes, error: orjson.JSONDecodeError) -> Any:
    """JSON with NaN and Infinity, as Python, tritonclient and Triton write them."""
    if b"NaN" in body or b"Infinity" in body:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise Malformed(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})")


def _binary_size(entry: Mapping[str, Any], name: str) -> int | None:
    parameters: Json = entry.get("parameters")
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise Malformed(f"the parameters of input '{name}' are not an object")
    if REGION in parameters:
        return _SHARED
    size: Json = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise Malformed(f"input '{name}' has binary_data_size {size!r}, which is not a number of bytes")
    return size


def _parse_numbers(data: Json, tensor: Tensor, datatype: str, count: int, depth: int) -> np.ndarray:
    """A flat list of numbers, or one nested at most ``depth`` deep, as float32 or int64 (count,).

    Where values may be missing, null is NaN, for which JSON has no form.
    """
    name = tensor.name
    if type(data) is not list:
        raise Malformed(f"input '{name}' has no list of numbers as \"data\"")
    types: set[type] = set(map(type, data))
    for _ in range(depth - 1):
        if types != {list}:
            break
        data = list(chain.from_iterable(data))
        types = set(map(type, data))
    if len(data) != count:
        raise Malformed(f"input '{name}' has {len(data):,} values, and its shape takes {count:,}")
    if not types <= (_NUMBERS | {type(None)} if tensor.missing else _NUMBERS):
        names = sorted(kind.__name__ for kind in types - _NUMBERS)
        raise Malformed(f"input '{name}' has values that are not numbers: {', '.join(names)}")
    if datatype != FP32:
        try:
            values = np.array(data, np.float64 if float in types else np.int64)
        except OverflowError:
            index = next(i for i, number in enumerate(data) if not SMALLEST_INT <= number <= LARGEST_INT)
            raise out_of_range(tensor, data[index], index, datatype) from None
        return to_model_dtype(tensor, values, datatype)
    with np.errstate(over="ignore"):
        try:
            values = np.array(data, _FLOAT32)
        except OverflowError:  # an integer beyond float64
            values = np.array([np.inf], _FLOAT32)
            data = [0.0]
    if not np.isfinite(values).all() and bool((np.isinf(values) & np.isfinite(np.array(data, np.float64))).any()):
        raise Malformed(f"input '{name}' has numbers that FP32 cannot hold: the largest is 3.4028235e38")
    return values


def _with_outputs(
    record: Mapping[str, Any],
    feed: dict[str, np.ndarray],
    rows: int,
    signature: Signature,
    regions: Regions | None,
) -> InferRequest:
    """A request whose inputs are parsed: its id, its parameters and the outputs that it names."""
    identity = record.get("id")
    if identity is not None and type(identity) is not str:
        raise Malformed(f"the request's id must be text, not {type(identity).__name__}")
    all_binary, timeout = False, None
    parameters: Json = record.get("parameters")
    if parameters is not None:
        if type(parameters) is not dict:
            raise Malformed("the request's parameters are not an object")
        all_binary = parameters.get("binary_data_output") is True
        timeout = parse_timeout(parameters.get("timeout"))
    entries: Json = record.get("outputs")
    if not entries:
        names = list(signature.outputs)
        return InferRequest(feed, rows, identity, names, frozenset(names) if all_binary else frozenset(), timeout)
    if type(entries) is not list:
        raise Malformed('"outputs" is not a list')
    names: list[str] = []
    binary: set[str] = set()
    placed: dict[str, Place] = {}
    entry: Json
    for entry in entries:
        if type(entry) is not dict:
            raise Malformed('every one of "outputs" must be an object with a "name"')
        name = signature.output(entry.get("name"))
        parameters = entry.get("parameters") or {}
        if name in names:
            raise Malformed(f"output '{name}' is asked for twice")
        if type(parameters) is not dict:
            raise Malformed(f"the parameters of output '{name}' are not an object")
        refuse_unsupported(name, parameters)
        place = place_of(parameters, name)
        if place is not None:
            placed[name] = checked_place(place, name, regions)
        elif parameters.get("binary_data", all_binary):
            binary.add(name)
        names.append(name)
    return InferRequest(feed, rows, identity, names, frozenset(binary), timeout, placed)


def checked_place(place: Place, output: str, regions: Regions | None) -> Place:
    """The place of an output, before anything is computed. Raises Malformed."""
    if regions is None:
        raise Malformed(f"output '{output}' goes to shared memory, which a request with so much JSON cannot use")
    regions.find(place, output)
    return place


def refuse_unsupported(output: str, parameters: Iterable[str]) -> None:
    """Raises Malformed: a request has one of Triton's parameters of an output that this server does not have."""
    if "classification" in parameters:
        raise Malformed(f"output '{output}' asks for classification, which this server does not do")


def write_shared(place: Place, values: np.ndarray, name: str, regions: Regions | None) -> dict[str, str | int]:
    """Write an output to its place; the parameters of the answer that say so. Raises Malformed."""
    assert regions is not None  # or the request would have been refused
    regions.write(place, values.data.cast("B") if values.size else b"", name)
    return {REGION: place.region, SIZE: values.nbytes} | ({OFFSET: place.offset} if place.offset else {})


def parse_timeout(microseconds: object) -> float | None:
    """The ``timeout`` parameter, microseconds as in Triton, in seconds. Raises Malformed."""
    if microseconds is None or microseconds == 0:
        return None
    if type(microseconds) is not int or not 0 <= microseconds < 2**63:
        raise Malformed(f"the parameter timeout must be a whole number of microseconds, not {str(microseconds)[:40]}")
    return microseconds / 1e6


def format_response(
    model: str,
    version: str,
    request: InferRequest,
    outputs: Mapping[str, np.ndarray],
    regions: Regions | None = None,
) -> tuple[list[bytes | memoryview], int | None]:
    """The body in pieces, and the length of its JSON where bytes follow. Outputs in shared memory are written there.

    NaN and infinities are written as Python's json and Triton write them, since JSON has no form for them.
    """
    entries: list[dict[str, Any]] = []
    binary: list[bytes | memoryview] = []
    finite = True
    for name in request.outputs:
        values = np.ascontiguousarray(outputs[name], _FLOAT32)
        entry: dict[str, Any] = {"name": name, "datatype": FP32, "shape": list(values.shape)}
        if name in request.placed:
            entry["parameters"] = write_shared(request.placed[name], values, name, regions)
        elif name in request.binary:
            entry["parameters"] = {"binary_data_size": values.nbytes}
            binary.append(values.data.cast("B") if values.size else b"")
        else:
            entry["data"] = values.reshape(-1)
            finite = finite and bool(np.isfinite(values).all())
        entries.append(entry)
    record: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id:
        record["id"] = request.id
    if finite:
        head = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        for entry in entries:
            if "data" in entry:
                entry["data"] = [float(str(value)) for value in entry["data"]]
        head = json.dumps(record).encode()
    return [head, *binary], len(head) if binary else None
