"""What takes part in a benchmark, how its answers are compared, and files that none can run."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from runtime import InputError, ModelError, Port, bench
from runtime.timing.contenders import INTO, PLAIN, PREDICT, contenders_of, tract_cpu
from runtime.timing.contest import Contender, ContenderProcess
from runtime.timing.rows import seeded_rows
from runtime.timing.worker import Commands, Unsuitable

helper = onnx.helper


def saved(path: Path, nodes: list[Any], width: int | str = 3, **constants: np.ndarray) -> Path:
    """A file of one input x [n, width] and one output y."""
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width]) for name in "xy"]
    values = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], values)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_other_runtimes_take_part_on_a_cpu_only() -> None:
    assert [one.name for one in contenders_of(Path("m.onnx"), "cuda:0", {})] == [PREDICT, INTO, PLAIN]


def compared(output: Any, expected: Any) -> float:
    commands = Commands()
    commands.make_call = lambda _feed: lambda: output
    return commands.load({"x": np.zeros((1, 1), np.float32)}, expected, 1e-3)


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("output", "expected", "distance"),
    [
        ([2.0, 4.002], [2.0, 4.0], 0.0005),
        ([0.0, 0.0005], [0.0, 0.0], 0.0005),
        ([NAN, INF], [NAN, INF], 0.0),
        ([1.0, INF], [1.0, INF], 0.0),
    ],
)
def test_outputs_are_compared_where_they_are_finite(
    output: list[float], expected: list[float], distance: float
) -> None:
    found = np.array(output, np.float32)
    for given in (found, [found], {"y": found}):
        assert compared(given, [np.array(expected)]) == pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize("output", [[NAN, 1.0], [-INF, 1.0], [3.0, 1.0]])
def test_infinity_and_nan_must_be_where_they_belong(output: list[float]) -> None:
    with pytest.raises(Unsuitable, match=r"it gives a wrong answer: inf of the largest output away, allowed 0\.001"):
        compared(np.array(output, np.float32), [np.array([INF, 1.0])])


def test_tract_gets_the_shapes_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    facts: list[tuple[int, str]] = []
    names = ["a", "b"]
    runnable = SimpleNamespace(run=lambda arrays: [SimpleNamespace(to_numpy=lambda: arrays[0] + arrays[1])])
    model = SimpleNamespace(
        input_count=lambda: 2,
        input_name=names.__getitem__,
        set_input_fact=lambda index, fact: facts.append((index, fact)),
        into_model=lambda: SimpleNamespace(into_runnable=lambda: runnable),
    )
    tract = SimpleNamespace(onnx=lambda: SimpleNamespace(load={"m.onnx": model}.get))
    monkeypatch.setitem(sys.modules, "tract", tract)
    call = tract_cpu("m.onnx")({"b": np.ones((2, 3), np.int64), "a": np.ones((2, 3), np.float32)})
    assert [output.tolist() for output in call()] == [[[2.0] * 3] * 2]
    assert facts == [(0, "2,3,f32"), (1, "2,3,i64")]


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="this system has no call without an end")
def test_a_contender_in_an_endless_call_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.timing.contest._END", 0.05)
    process = ContenderProcess(Contender("endless", "signal:pause"))
    process.send("open", factory="signal:pause", arguments={})
    start = monotonic()
    process.close()
    assert monotonic() - start < 10


@pytest.fixture
def only_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the others, whose processes take a second to start."""
    monkeypatch.setattr(
        "runtime.timing.comparison.contenders_of",
        lambda path, *_: [Contender(PLAIN, "runtime.timing.contenders:plain", {"path": str(path)})],
    )


@pytest.mark.usefixtures("only_plain")
def test_a_file_that_fails_on_a_batch_is_an_error_that_names_it(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = saved(tmp_path / "m.onnx", [node], shape=np.array([5, 3]))
    with pytest.raises(ModelError, match=r"m\.onnx: it cannot be run on 2 rows: "):
        bench(path, batches=[2], seconds=0.01, device="cpu")


@pytest.mark.usefixtures("only_plain")
def test_a_file_of_open_rows_is_not_measured_without_data(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], width="width")
    with pytest.raises(InputError, match=r"'x' has rows of an open shape \(n, width\)"):
        bench(path, batches=[2], seconds=0.01, device="cpu")


@pytest.mark.usefixtures("only_plain")
def test_a_file_whose_answers_change_cannot_be_compared(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", [helper.make_node("RandomNormalLike", ["x"], ["y"])])
    told = r"plain ONNX Runtime, which the others are compared with, cannot run it\..*run: it gives a wrong answer"
    with pytest.raises(ModelError, match=told):
        bench(path, batches=[2], seconds=0.01, device="cpu")


def test_indices_are_drawn_between_their_limits_and_are_zero_without_any() -> None:
    port = Port("x", ("batch", 2), dtype="int64", indices=((3, 5), None))
    drawn = seeded_rows([port], 100)["x"]
    assert drawn.dtype == np.int64
    assert set(drawn[:, 0]) == {3, 4, 5}
    assert set(drawn[:, 1]) == {0}
