"""Requests that are wrong, each with its status: none is a 500, and no other client's answer changes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.serving import Server, serving
from tests.support.stress.checker import Checker
from tests.support.stress.models import Proved, proved

INFER = "/v2/models/arm/infer"
HEAD = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


@pytest.fixture(scope="module")
def service(arm: Proved) -> Iterator[Server]:
    limits = ("--max-body", 2_000_000, "--max-rows", 1000)
    with serving(arm.file.parent, "--device", "auto", *limits) as service:
        with Checker(service.address, "arm", arm.answers) as checker:
            yield service
            checker.progress()
        assert not service.unexpected()


def entry(**changed: Any) -> dict[str, Any]:
    held = {"name": "input", "shape": [1, 5], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4, 0.5]} | changed
    return {key: value for key, value in held.items() if value is not ...}


def with_input(**changed: Any) -> bytes:
    return json.dumps({"inputs": [entry(**changed)]}).encode()


def nested(depth: int) -> bytes:
    return b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"


NOT_JSON = {
    "nothing": b"",
    "a word": b"hello",
    "cut off": with_input()[:-9],
    "a list": b"[]",
    "a number": b"1e999",
    "not UTF-8": b'{"inputs": "\xff\xfe"}',
    "UTF-16": with_input().decode().encode("utf-16"),
    "half a surrogate": b'{"id": "\\ud800", "inputs": []}',
    "two documents": with_input() + b"{}",
    "a zero byte": with_input() + b"\0",
    "nested 100 times": nested(100),
    "nested 100,000 times": nested(100_000),
    "nested 900,000 times": nested(900_000),
    "nested, with NaN": nested(100_000)[:-1] + b', "x": NaN}',
    "nested data": with_input(data=...)[:-3] + b', "data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
    "a huge integer": b'{"inputs": [{"name": "input", "shape": [1, 5], "datatype": "FP32", "data": ['
    + b"9" * 5000
    + b",1,1,1,1]}]}",
}
INPUTS: dict[str, Any] = {
    "none": {"inputs": []},
    "null": {"inputs": None},
    "an object": {"inputs": {}},
    "numbers": {"inputs": [1, 2]},
    "twice the same": {"inputs": [entry(), entry()]},
    "one too many": {"inputs": [entry(), entry(name="other")]},
    "outputs that there are not": {"inputs": [entry()], "outputs": [{"name": "other"}]},
    "outputs that are no list": {"inputs": [entry()], "outputs": {"name": "output"}},
    "an output twice": {"inputs": [entry()], "outputs": [{"name": "output"}, {"name": "output"}]},
    "outputs that are numbers": {"inputs": [entry()], "outputs": [1]},
    "an output whose parameters are a list": {
        "inputs": [entry()],
        "outputs": [{"name": "output", "parameters": [1]}],
    },
    "an output without a name": {"inputs": [entry()], "outputs": [{}]},
    "an id that is no text": {"inputs": [entry()], "id": 7},
    "a negative deadline": {"inputs": [entry()], "parameters": {"timeout": -1}},
    "a deadline that is text": {"inputs": [entry()], "parameters": {"timeout": "1"}},
    "parameters that are a list": {"inputs": [entry()], "parameters": [1]},
}
ENTRIES: dict[str, dict[str, Any]] = {
    "another name": {"name": "other"},
    "a name that is a list": {"name": ["input"]},
    "no name": {"name": ...},
    "no datatype": {"datatype": ...},
    "float64": {"datatype": "FP64"},
    "text as datatype": {"datatype": "BYTES", "data": ["a"]},
    "a datatype that is a number": {"datatype": 32},
    "no shape": {"shape": ...},
    "another width": {"shape": [1, 4], "data": [1, 2, 3, 4]},
    "too flat": {"shape": [5]},
    "too deep": {"shape": [1, 1, 5]},
    "more than there is": {"shape": [2, 5]},
    "less than there is": {"shape": [0, 5]},
    "negative": {"shape": [-1, 5]},
    "negative both": {"shape": [-1, -5]},
    "beyond 64 bits": {"shape": [2**70, 5]},
    "a product beyond 64 bits": {"shape": [2**40, 2**40]},
    "a fraction": {"shape": [1.0, 5]},
    "true": {"shape": [True, 5]},
    "text in the shape": {"shape": ["1", "5"]},
    "a shape that is a number": {"shape": 5},
    "no data": {"data": ...},
    "null as data": {"data": None},
    "a number as data": {"data": 3},
    "text as data": {"data": "abcde"},
    "text in the data": {"data": [1, 2, 3, 4, "5"]},
    "null in the data": {"data": [1, 2, 3, 4, None]},
    "true in the data": {"data": [1, 2, 3, 4, True]},
    "objects in the data": {"data": [{}, {}, {}, {}, {}]},
    "rows of different lengths": {"shape": [2, 5], "data": [[1, 2, 3, 4, 5], [1, 2, 3, 4]]},
    "numbers and rows": {"shape": [1, 5], "data": [1, 2, 3, [4, 5]]},
    "beyond float32": {"data": [1e39, 0, 0, 0, 0]},
    "bytes that do not follow": {"data": ..., "parameters": {"binary_data_size": 20}},
    "a size that is text": {"data": ..., "parameters": {"binary_data_size": "20"}},
    "parameters that are text": {"parameters": "x"},
}
WRONG = (
    {f"not JSON: {name}": body for name, body in NOT_JSON.items()}
    | {f"inputs: {name}": json.dumps(record).encode() for name, record in INPUTS.items()}
    | {f"input: {name}": with_input(**changed) for name, changed in ENTRIES.items()}
)


def assert_refused(status: int, answer: tuple[int, bytes, dict[str, str]]) -> None:
    """The status, and the error as V2 has it, without the payload."""
    assert answer[0] == status, answer[1][:300]
    error = json.loads(answer[1])["error"]
    assert 0 < len(error) < 600


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_request_is_400(service: Server, kind: str) -> None:
    assert_refused(400, service.ask("POST", INFER, WRONG[kind]))


def binary(size: object = 20, rest: bytes = bytes(20), head: str | None = None, **changed: Any) -> tuple[bytes, str]:
    """Body and header of a request in bytes."""
    text = with_input(**({"data": ..., "parameters": {"binary_data_size": size}} | changed))
    return text + rest, str(len(text)) if head is None else head


LIES = {
    "a size too small": binary(16),
    "a size too large": binary(24),
    "a negative size": binary(-20),
    "a size beyond 64 bits": binary(2**70),
    "a fraction of a size": binary(20.0),
    "true as size": binary(True, rest=b"\0"),
    "fewer bytes than said": binary(rest=bytes(19)),
    "no bytes": binary(rest=b""),
    "more bytes than said": binary(rest=bytes(21)),
    "bytes and data": binary(data=[1, 2, 3, 4, 5]),
    "bytes for data": binary(data=[1, 2, 3, 4, 5], parameters={}),
    "a head beyond the body": binary(head="100000"),
    "a head of nothing": binary(head="0"),
    "a head that ends too early": binary(head="10"),
    "a negative head": binary(head="-1"),
    "a head that is text": binary(head="many"),
    "a head beyond 64 bits": binary(head="9" * 30),
    "another sign for digits": binary(head="\u00b2"),
}


@pytest.mark.parametrize("kind", LIES)
def test_sizes_that_lie_are_400(service: Server, kind: str) -> None:
    body, head = LIES[kind]
    assert_refused(400, service.ask("POST", INFER, body, {HEAD: head}))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_in_json_are_those_of_float32(service: Server, value: str) -> None:
    """As tritonclient writes them, and as the same bytes would be answered."""
    body = with_input(data=[float(value.replace("inity", "")), 0.5, 0.5, 0.5, 0.5])
    status, answer, _ = service.ask("POST", INFER, body)
    raw, head = binary(rest=np.array([float(value.replace("inity", "")), 0.5, 0.5, 0.5, 0.5], "<f4").tobytes())
    same = service.ask("POST", INFER, raw, {HEAD: head})
    assert status == same[0] == 200
    told = [json.loads(each)["outputs"][0]["data"] for each in (answer, same[1])]
    np.testing.assert_array_equal(told[0], told[1])
    assert not np.isfinite(told[0]).all()


LARGE = {
    "bytes": with_input(data=[0.123456] * 300_000, shape=[60_000, 5]),
    "rows": with_input(data=[0] * 5005, shape=[1001, 5]),
    "rows that are not there": with_input(shape=[2**40, 5]),
}


@pytest.mark.parametrize("kind", LARGE)
def test_what_is_too_large_is_413(service: Server, kind: str) -> None:
    assert_refused(413, service.ask("POST", INFER, LARGE[kind]))


def test_a_compressed_body_is_read_and_a_bomb_is_not(service: Server) -> None:
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        packed = pack(with_input())
        assert service.ask("POST", INFER, packed, {"Content-Encoding": encoding})[0] == 200
        assert_refused(400, service.ask("POST", INFER, packed[:-6], {"Content-Encoding": encoding}))
        assert_refused(400, service.ask("POST", INFER, with_input(), {"Content-Encoding": encoding}))
        bomb = pack(bytes(100_000_000))
        assert_refused(413, service.ask("POST", INFER, bomb, {"Content-Encoding": encoding}))
    assert_refused(415, service.ask("POST", INFER, with_input(), {"Content-Encoding": "br"}))
