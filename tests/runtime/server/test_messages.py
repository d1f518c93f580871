"""REST's bodies: what is written is what is read, and whatever is malformed is refused as such."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.model.port import Port
from runtime.server.messages import format_response, parse_request
from runtime.server.refusals import Malformed, TooLarge
from runtime.server.signature import Signature, signature_of
from tests.support.outcomes import outcome
from tests.support.repeats import examples

SIGNATURE = signature_of(
    (Port("a", ("batch", 3)), Port("b", ("batch", 2, 2))), (Port("y", ("batch", 2)), Port("z", ("batch",))), 20
)
FLOATS = arrays.arrays(np.float32, st.tuples(st.just(4), st.just(7)), elements=st.floats(width=32))
FORMS = st.sampled_from(["flat", "nested", "binary"])


SIZES = st.sampled_from([-4, 0, 4, 8, 11, 12, 13, 16, 20, 24, 28, 32])


def written(feed: dict[str, np.ndarray], forms: dict[str, str], **more: Any) -> tuple[bytes, int | None]:
    """A body as a client writes it, and the length of its JSON where bytes follow."""
    inputs, rest = [], b""
    for name, values in feed.items():
        held: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if forms[name] == "binary":
            held["parameters"] = {"binary_data_size": values.nbytes}
            rest += values.tobytes()
        else:
            held["data"] = values.tolist() if forms[name] == "nested" else values.ravel().tolist()
        inputs.append(held)
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + rest, len(head) if "binary" in forms.values() else None


@given(FLOATS, st.integers(0, 4), FORMS, FORMS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_inputs_arrive_as_they_were_sent(values: np.ndarray, rows: int, a: str, b: str, turned: bool) -> None:
    feed = {"a": values[:rows, :3].copy(), "b": values[:rows, 3:].reshape(rows, 2, 2).copy()}
    sent = dict(reversed(feed.items())) if turned else feed
    request = parse_request(*written(sent, {"a": a, "b": b}, id="i"), SIGNATURE)
    assert (request.rows, request.id, list(request.outputs), request.timeout) == (rows, "i", ["y", "z"], None)
    for name, wanted in feed.items():
        found = request.feed[name]
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        assert found.flags.aligned
        np.testing.assert_array_equal(found, wanted)


@given(FLOATS, st.sets(st.sampled_from(["y", "z"])), st.sampled_from([None, ["y"], ["z", "y"]]))
@settings(max_examples=200, deadline=None)
def test_answers_can_be_read_back(values: np.ndarray, binary: set[str], asked: list[str] | None) -> None:
    outputs = {"y": values[:, :2], "z": values[:, 2]}  # not contiguous: parts of a shared call are not
    wanted = [{"name": name, "parameters": {"binary_data": name in binary}} for name in asked or outputs]
    feed = {"a": values[:, :3], "b": np.ascontiguousarray(values[:, 3:]).reshape(4, 2, 2)}
    request = parse_request(*written(feed, {"a": "flat", "b": "flat"}, outputs=wanted), SIGNATURE)
    pieces, length = format_response("m", "3", request, outputs)
    body = b"".join(pieces)
    record = json.loads(body[:length])
    assert (record["model_name"], record["model_version"]) == ("m", "3")
    assert "id" not in record
    assert [one["name"] for one in record["outputs"]] == (asked or ["y", "z"])
    at = length or len(body)
    for one in record["outputs"]:
        if one["name"] in binary:
            size = one["parameters"]["binary_data_size"]
            found, at = np.frombuffer(body[at : at + size], "<f4"), at + size
        else:
            found = np.array(one["data"], np.float32)
        np.testing.assert_array_equal(found.reshape(one["shape"]), outputs[one["name"]])
    assert at == len(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", "b", "FP32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
GOOD = {"name": "a", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
OTHER = {"name": "b", "datatype": "FP32", "shape": [1, 2, 2], "data": [1, 2, 3, 4]}
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]) | JSON,
        "datatype": st.just("FP32") | JSON,
        "shape": st.lists(st.integers(-2, 2**70), max_size=4) | JSON,
        "data": st.lists(JSON, max_size=4) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), JSON) | JSON,
    },
)
NEARLY = st.builds(
    lambda first, second, more: {"inputs": [GOOD | first, OTHER | second]} | more,
    ENTRY,
    ENTRY,
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters", "inputs"]), JSON, max_size=2),
)


@given(NEARLY | JSON, st.none() | st.integers(-5, 300), st.binary(max_size=20))
@settings(max_examples=examples(300, of=1500), deadline=None)
def test_whatever_comes_is_a_request_or_refused(record: Any, head: int | None, tail: bytes) -> None:
    judged(json.dumps(record).encode() + tail, head)


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300))
@settings(max_examples=examples(200, of=500), deadline=None)
def test_bytes_are_refused(body: bytes, head: int | None) -> None:
    judged(body, head)


@given(st.data())
@settings(max_examples=examples(200, of=500), deadline=None)
def test_a_body_that_was_damaged(data: st.DataObject) -> None:
    feed = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 2, 2), np.float32)}
    body, head = written(feed, {"a": "flat", "b": data.draw(FORMS)})
    at = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(at, min(at + 4, len(body))))
    judged(body[:at] + data.draw(st.binary(max_size=4)) + body[end:], head)


def judged(body: bytes, head: int | None) -> None:
    request = outcome((Malformed, TooLarge), parse_request, body, head, SIGNATURE)
    if isinstance(request, Malformed | TooLarge):
        assert 0 < len(str(request)) < 1000
        return
    assert {name: values.shape for name, values in request.feed.items()} == {
        "a": (request.rows, 3),
        "b": (request.rows, 2, 2),
    }
    assert all(values.dtype == np.float32 for values in request.feed.values())
    assert request.rows <= 20
    assert set(request.outputs) <= {"y", "z"}
    assert request.binary <= set(request.outputs)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_that_is_nested_deeply(depth: int) -> None:
    for text in ("[" * depth + "]" * depth, '{"inputs":' * depth + "1" + "}" * depth, '{"a": NaN, "b": ' + "[" * depth):
        with pytest.raises(Malformed):
            parse_request(text.encode(), None, SIGNATURE)


def test_sizes_that_a_file_leaves_open_or_fixes() -> None:
    fixed: Signature = signature_of((Port("a", (2, 3)),), (Port("y", (2, 1)),), 20)
    free: Signature = signature_of((Port("a", ("batch", "width")),), (Port("y", ("batch", 1)),), 20)
    assert (fixed.fixed, free.fixed, SIGNATURE.fixed) == (False, False, True)

    def read(rows: int, width: int, signature: Signature) -> tuple[int, ...]:
        feed = {"a": np.zeros((rows, width), np.float32)}
        return parse_request(*written(feed, {"a": "binary"}), signature).feed["a"].shape

    assert read(2, 3, fixed) == (2, 3)
    assert read(5, 7, free) == (5, 7)
    with pytest.raises(Malformed, match=r"takes \[2, 3\]"):
        read(1, 3, fixed)
    with pytest.raises(Malformed, match=r"takes \[-1, 3\]"):
        parse_request(*written({"a": np.zeros((1, 4), np.float32)}, {"a": "flat"}), SIGNATURE)


@given(SIZES, SIZES, SIZES)
@example(12, 16, 28)
@example(8, 16, 28)
@example(16, 12, 28)
@settings(max_examples=300, deadline=None)
def test_binary_sizes_that_lie(first: int, second: int, sent: int) -> None:
    inputs = [
        {key: held for key, held in one.items() if key != "data"} | {"parameters": {"binary_data_size": size}}
        for one, size in ((GOOD, first), (OTHER, second))
    ]
    head = json.dumps({"inputs": inputs}).encode()
    if (first, second, sent) == (12, 16, 28):
        assert parse_request(head + bytes(abs(sent)), len(head), SIGNATURE).rows == 1
    else:
        with pytest.raises(Malformed):
            parse_request(head + bytes(abs(sent)), len(head), SIGNATURE)


def test_inputs_of_different_rows_are_refused() -> None:
    feed = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((3, 2, 2), np.float32)}
    with pytest.raises(Malformed, match="the inputs have different numbers of rows: 'a' 2, 'b' 3"):
        parse_request(*written(feed, {"a": "flat", "b": "flat"}), SIGNATURE)
