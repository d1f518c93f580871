"""Bodies of inference requests that hypothesis makes: right ones, right ones with something changed, and any bytes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

FEATURES = 5


class Given(NamedTuple):
    """A body, its Inference-Header-Content-Length, and the rows that it rightly asks for; None where it is wrong."""

    body: bytes
    head: str | None
    rows: np.ndarray | None


_KEYS = ("name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "binary_data_size", "timeout")
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(_KEYS),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(_KEYS) | st.text(), inner, max_size=4),
    max_leaves=20,
)
_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def right(draw: st.DrawFn) -> Given:
    """A request that must be answered, as JSON flat or nested, or as bytes."""
    count = draw(st.integers(1, 8))
    values = draw(st.lists(_FLOATS, min_size=FEATURES * count, max_size=FEATURES * count))
    rows = np.array(values, np.float32).reshape(count, FEATURES)
    entry: dict[str, Any] = {"name": "input", "shape": [count, FEATURES], "datatype": "FP32"}
    record: dict[str, Any] = {"inputs": [entry]}
    if draw(st.booleans()):
        record["id"] = draw(st.text(max_size=30))
    if draw(st.booleans()):
        record["outputs"] = [{"name": "output"}]
    if not draw(st.booleans()):
        entry["data"] = rows.tolist() if draw(st.booleans()) else rows.reshape(-1).tolist()
        return Given(json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace"), None, rows)
    entry["parameters"] = {"binary_data_size": rows.nbytes}
    head = json.dumps(record).encode()
    return Given(head + rows.astype("<f4").tobytes(), str(len(head)), rows)


@st.composite
def changed(draw: st.DrawFn) -> Given:
    """A right request of which a value anywhere is another, or bytes are cut, doubled or replaced."""
    given = draw(right())
    length = len(given.body) if given.head is None else int(given.head)
    if draw(st.booleans()):
        record = json.loads(given.body[:length])
        place: Any = record
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 3)) == 0:
                place[key] = draw(_ANY)
                break
            place = place[key]
        head = json.dumps(record).encode("utf-8", "replace")
        return Given(head + given.body[length:], None if given.head is None else str(len(head)), None)
    at = draw(st.integers(0, len(given.body)))
    there = draw(st.integers(at, len(given.body)))
    body = given.body[:at] + draw(st.binary(max_size=12)) + given.body[there:]
    return Given(body, draw(st.just(given.head) | st.integers(-2, 2 * len(body)).map(str)), None)


anything = st.builds(Given, st.binary(max_size=400), st.none() | st.integers(-9, 500).map(str), st.none())
somehow = st.builds(Given, _ANY.map(lambda value: json.dumps(value).encode("utf-8", "replace")), st.none(), st.none())
given_bodies = right() | changed() | anything | somehow
