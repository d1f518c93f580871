"""The code of packages that runs the file: what it refuses, and which requests it runs together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from export.targets.runners.onnx_model import OnnxModel, RequestTensor, WrongRequestError, plain
from tests.support.outcomes import outcome


def rows_file(folder: Path, batch: int | str = "batch") -> Path:
    """A model of ``x`` (batch, 2) whose output ``y`` is x, and ``rows`` how many rows were run at once."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Expand", ["number", "shape"], ["rows"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2]) for name in ("x", "y", "rows")]
    constants = [helper.make_tensor(name, TensorProto.INT64, [1], [n]) for n, name in enumerate(("zero", "one"))]
    graph = helper.make_graph(nodes, "rows", tensors[:1], tensors[1:], constants)
    path = folder / "rows.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def asked(rows: int, first: float = 0.0) -> RequestTensor:
    return RequestTensor("x", "FP32", [rows, 2], [first + i for i in range(2 * rows)])


def together(model: OnnxModel, sizes: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The answers of requests of so many rows that come at once."""

    async def ask() -> list[dict[str, np.ndarray]]:
        feeds = [model.feed([asked(rows, 100.0 * index)]) for index, rows in enumerate(sizes)]
        return await asyncio.gather(*(model.run(feed) for feed in feeds))

    return asyncio.run(ask())


@pytest.mark.parametrize("delay_us", [0, 1000])
@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([1] * 16, [16] * 16),
        ([3, 1, 2], [6, 6, 6]),
        ([16, 1], [16, 1]),
        ([9, 7, 1], [16, 16, 1]),
        ([9, 8, 8], [9, 16, 16]),
    ],
)
def test_requests_that_wait_are_run_together_and_each_has_its_own_rows(
    tmp_path: Path, sizes: list[int], runs: list[int], delay_us: int
) -> None:
    model = OnnxModel(rows_file(tmp_path), max_batch=16, delay_us=delay_us)
    answers = together(model, sizes)
    assert [answer["rows"][0, 0] for answer in answers] == runs
    for index, (rows, answer) in enumerate(zip(sizes, answers, strict=True)):
        assert answer["y"].ravel().tolist() == asked(rows, 100.0 * index).data


def test_a_file_of_a_fixed_batch_is_run_for_each_request_alone(tmp_path: Path) -> None:
    model = OnnxModel(rows_file(tmp_path, batch=3), max_batch=6)
    assert [answer["rows"][0, 0] for answer in together(model, [3, 3])] == [3, 3]
    with pytest.raises(WrongRequestError, match=r"has the shape \[3, 2\], and \[2, 2\] was given"):
        model.feed([asked(2)])


def test_a_request_that_was_given_up_costs_the_others_nothing(tmp_path: Path) -> None:
    model = OnnxModel(rows_file(tmp_path), max_batch=16)

    async def ask() -> list[Any]:
        tasks = [asyncio.ensure_future(model.run(model.feed([asked(1, index)]))) for index in range(3)]
        asyncio.get_running_loop().call_soon(tasks[1].cancel)
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, given_up, last = asyncio.run(ask())
    assert isinstance(given_up, asyncio.CancelledError)
    assert first["y"][0, 0] == 0
    assert last["y"][0, 0] == 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return OnnxModel(rows_file(tmp_path_factory.mktemp("model")), max_batch=8)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
SHAPES = st.lists(st.integers(-2, 9) | st.just(2**70) | st.booleans(), max_size=4)


@given(
    shape=SHAPES | st.just([2, 2]), data=JSON | st.binary(max_size=20) | st.lists(st.floats(), min_size=4, max_size=4)
)
@settings(deadline=None)
def test_any_input_is_refused_or_is_the_array_that_was_sent(model: OnnxModel, shape: list[int], data: Any) -> None:
    feed = outcome(WrongRequestError, model.feed, [RequestTensor("x", "FP32", shape, data)])
    if isinstance(feed, WrongRequestError):
        assert "the input 'x'" in str(feed)
        return
    array = feed["x"]
    assert array.dtype == np.float32
    assert list(array.shape) == shape
    assert 1 <= shape[0] <= 8
    sent = np.frombuffer(data, "<f4") if isinstance(data, bytes) else np.array(data, np.float64).astype(np.float32)
    np.testing.assert_array_equal(array.ravel(), sent.ravel())


@pytest.mark.parametrize(
    ("data", "taken"),
    [([1, 2, 3, 4], True), ([[1, 2], [3, 4]], True), ([[1, 2, 3, 4]], False), ([[1], [2], [3], [4]], False)],
)
def test_numbers_come_flat_or_in_the_shape(model: OnnxModel, data: list[Any], taken: bool) -> None:
    if taken:
        assert model.feed([RequestTensor("x", "FP32", [2, 2], data)])["x"].tolist() == [[1, 2], [3, 4]]
    else:
        with pytest.raises(WrongRequestError, match="which does not fit the shape"):
            model.feed([RequestTensor("x", "FP32", [2, 2], data)])


def test_the_outputs_that_are_asked_for(model: OnnxModel) -> None:
    assert model.requested(name for name in ()) == ["y", "rows"]
    assert model.requested(["rows"]) == ["rows"]
    with pytest.raises(WrongRequestError, match="asked for twice"):
        model.requested(["y", "y"])


def test_json_has_null_for_nan_and_infinity() -> None:
    assert plain(np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)) == [1.5, None, None, None]
    assert plain(np.array([0.1], np.float32)) == [float(np.float32(0.1))]
