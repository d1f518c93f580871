"""Requests that no server may answer, each made of a right one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .asking import Live, assert_proved, post, request, sixteen

Change = Callable[[dict[str, Any]], object]


def _set(key: str, value: object) -> Change:
    return lambda record: record["inputs"][0].__setitem__(key, value)


WRONG: dict[str, tuple[Change, str]] = {
    "a row that is too narrow": (_set("shape", [1, 2]), "has the shape [-1, 3], and [1, 2] was given"),
    "a dimension too many": (_set("shape", [1, 3, 1]), "has the shape [-1, 3], and [1, 3, 1] was given"),
    "no dimension": (_set("shape", []), "has the shape [-1, 3], and [] was given"),
    "no row": (_set("shape", [0, 3]), "has the shape [-1, 3], and [0, 3] was given"),
    "a negative dimension": (_set("shape", [-1, 3]), "has the shape [-1, 3], and [-1, 3] was given"),
    "an absurd dimension": (_set("shape", [2**40, 3]), "has 1099511627776 rows"),
    "more rows than a batch has": (_set("shape", [65, 3]), "has 65 rows, and a request has 64 at most"),
    "too few numbers": (_set("data", [1.0, 2.0]), "data of shape [2], which does not fit the shape [1, 3]"),
    "words": (_set("data", ["a", "b", "c"]), "data that is not all numbers"),
    "null": (_set("data", [None, 1.0, 2.0]), "data that is not all numbers"),
    "a ragged array": (_set("data", [[1.0, 2.0], [3.0]]), "data that is not an array of numbers"),
    "a number beyond float32": (_set("data", [1e39, 0.0, 0.0]), "a number that is too large for FP32"),
    "another datatype": (_set("datatype", "INT64"), "has the datatype FP32, and INT64 was given"),
    "another input": (_set("name", "nobody"), "there is no input 'nobody'; the model takes 'obs', 'goal'"),
    "one input only": (lambda record: record["inputs"].pop(), "the input 'goal' is missing"),
    "an input twice": (lambda record: record["inputs"].append(record["inputs"][0]), "the input 'obs' is given twice"),
    "another output": (lambda record: record.update(outputs=[{"name": "nobody"}]), "there is no output 'nobody'"),
}
"""What is changed of a request with the inputs obs (1, 3) and goal (1, 2), and words of the error."""


def wrong(live: Live, name: str) -> dict[str, Any]:
    """A row of the table as a request."""
    record = copy.deepcopy(request(live))
    WRONG[name][0](record)
    return record


def assert_neighbours_are_answered(live: Live) -> None:
    """Of sixteen requests at once every second one is wrong; all others have their own answers."""
    rows = sixteen(live.answers)
    bodies = [wrong(live, "too few numbers") if index % 2 else request(live, part) for index, part in enumerate(rows)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: post(live, body), bodies))
    assert [status for status, _ in answers] == [200, 400] * 8
    for part, (_, answer) in list(zip(rows, answers, strict=True))[::2]:
        assert_proved(live, part, {o["name"]: np.reshape(o["data"], o["shape"]) for o in answer["outputs"]})
