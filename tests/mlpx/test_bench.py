"""``mlpx bench``: what it reports, what it refuses, and that no wrong answer is timed."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import export
from runtime import InputError, Port, Session, bench
from runtime.timing.contenders import INTO, PLAIN, PREDICT, plain
from runtime.timing.contest import Contender, Contest
from runtime.timing.rows import described_inputs, seeded_rows
from runtime.timing.timer import Block, Timings, paired, time_block, time_rounds
from runtime.timing.worker import Commands
from tests.support.cases import network, normal
from tests.support.commands import Run

OPSET = [onnx.helper.make_opsetid("", 17)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = network([{"linear": 5}, "relu", {"linear": 2}])
    return export(module, tmp_path_factory.mktemp("model") / "m.onnx", spec=spec).path


def of_two_outputs(folder: Path) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(op, ["x"], [name]) for op, name in (("Relu", "a"), ("Neg", "b"))]
    ports = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in ("x", "a", "b")]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]), ir_version=8, opset_imports=OPSET),
        folder / "two.onnx",
    )
    return folder / "two.onnx"


def of_a_fixed_batch(folder: Path) -> Path:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, [4, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=OPSET), folder / "fixed.onnx")
    return folder / "fixed.onnx"


def test_what_is_reported_for_machines(model: Path, run: Run) -> None:
    done = run(
        "bench", model, "--batch", 1, "--batch", 40, "--seconds", 0.2, "--device", "cpu", "--threads", 1, "--json"
    )
    assert done.code == 0
    assert done.err == ""
    report = json.loads(done.out)
    assert report["device"] == "cpu"
    assert report["multiply_adds"] == 45
    assert report["settings"]["threads"] == 1
    assert [figures["batch"] for figures in report["batches"]] == [1, 40]
    for figures in report["batches"]:
        by_name = {one["name"]: one for one in figures["contenders"]}
        assert {PREDICT, INTO, PLAIN} <= set(by_name)
        assert figures["rounds"] >= 5
        for one in by_name.values():
            assert one["rows_per_s"] == pytest.approx(1e6 * figures["batch"] / one["median_us"])
            assert 0 < one["median_us"] <= one["p99_us"]
            assert one["cpu_us"] > 0
            assert one["apart"] < 1e-3
            ratio = one["over_plain"]
            assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert by_name[PLAIN]["over_plain"] == {"median": 1, "low": 1, "high": 1}


def test_what_is_printed(model: Path, run: Run) -> None:
    done = run("bench", model, "--batch", 3, "--seconds", 0.1, "--device", "cpu")
    assert done.code == 0
    assert "45 multiply-adds a row, on seeded normal rows" in done.out
    assert "Session: threads" in done.out
    for name in (PREDICT, INTO, PLAIN):
        assert any(line.split()[:2] == ["3", name] for line in done.out.splitlines())


def test_the_rows_of_a_file(model: Path, tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "rows.npy", normal(3, 7))
    done = run("bench", model, "--batch", 8, "--seconds", 0.1, "--data", tmp_path / "rows.npy", "--json")
    assert done.code == 0
    assert json.loads(done.out)["rows"] == f"the rows of {tmp_path / 'rows.npy'}"
    np.save(tmp_path / "none.npy", normal(0, 7))
    done = run("bench", model, "--data", tmp_path / "none.npy")
    assert done.code == 2
    assert "no rows to measure with" in done.err
    np.save(tmp_path / "other.npy", normal(3, 6))
    assert run("bench", model, "--data", tmp_path / "other.npy").code == 2


def test_files_of_several_outputs(tmp_path: Path) -> None:
    report = bench(of_two_outputs(tmp_path), batches=[2], seconds=0.1, device="cpu")
    (figures,) = report.batches
    assert {PREDICT, PLAIN} <= {one.name for one in figures.contenders}
    reasons = {one.name: one.reason for one in figures.left_out}
    assert reasons[INTO] == "it takes files of one input and one output"


def test_a_fixed_batch(tmp_path: Path, run: Run) -> None:
    path = of_a_fixed_batch(tmp_path)
    assert [figures.batch for figures in bench(path, seconds=0.1, device="cpu").batches] == [4]
    done = run("bench", path, "--batch", 5)
    assert done.code == 2
    assert "takes batches of exactly 4 rows, not 5. What to do" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch", 0], "a batch has at least 1 row, not 0"),
        (["--seconds", 0], "a number of seconds above 0"),
        (["--seconds", "nan"], "a number of seconds above 0"),
        (["--device", "tpu"], "the device is auto, cpu, cuda or cuda:N"),
        (["--data", "nowhere.npy"], "nowhere.npy: no such file"),
    ],
)
def test_wrong_use(arguments: list[object], told: str, model: Path, run: Run) -> None:
    done = run("bench", model, *arguments)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_a_file_that_cannot_be_run(tmp_path: Path, run: Run) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    assert run("bench", tmp_path / "m.onnx").code == 2
    assert run("bench", tmp_path / "none.onnx").code == 2


def test_torch_stays_out(model: Path, root: Path) -> None:
    code = "import sys; from runtime import bench; bench(sys.argv[1], batches=[1], seconds=0.1, device='cpu');"
    code += "print([name for name in ('torch', 'onnx', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, model], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rows_are_drawn_within_the_declared_ranges(tmp_path: Path) -> None:
    features = [{"name": "a", "range": [-3, 0.1]}, {"name": "b"}, {"name": "c", "range": [5, 5.5]}]
    spec, module = network([{"linear": 2}], features=3)
    spec = spec.model_validate(spec.model_dump() | {"input": {"name": "x", "features": features}})
    with Session(export(module, tmp_path / "m.onnx", spec=spec).path, "cpu") as session:
        rows = seeded_rows(described_inputs(session), 5000)["x"]
    a, b, c = rows.T
    assert a.min() >= -3
    assert a.max() <= np.float32(0.1)
    assert np.ptp(a) > 2.5
    assert b.min() < -3
    assert b.max() > 3
    assert c.min() >= 5
    assert c.max() <= 5.5


def test_rows_of_an_open_shape_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"'x' has rows of an open shape \(batch, n\)\. What to do: give rows"):
        seeded_rows([Port("x", ("batch", "n"))], 3)


def test_a_wrong_answer_is_not_timed(model: Path) -> None:
    names = ["wrong_weights", "other_shape", "not_a_number", "one_too_many", "chatty", "crashing", "raising"]
    entered = [Contender(name, f"tests.support.contenders:{name}", {"path": str(model)}) for name in names]
    rows = {"input": normal(3, 7)}
    with Contest(entered) as contest:
        early = {one.name: one.reason for one in contest.left_out}
        apart, left_out = contest.load(rows, plain(str(model))(rows)())
        late = {one.name: one.reason for one in left_out}
        timings = contest.time_rounds(2, dict.fromkeys(apart, 3))
    assert apart == {"chatty": 0}
    assert set(timings) == {"chatty"}
    assert early["crashing"] == "its process ended with code 9: a library's last words"
    assert early["raising"] == "RuntimeError: it does not like the file"
    assert "wrong answer" in late["wrong_weights"]
    assert "wrong answer: nan" in late["not_a_number"]
    assert "output of shape (2, 3), and (3, 2) is expected" in late["other_shape"]
    assert "gives 2 outputs, and 1 are expected" in late["one_too_many"]
    assert [block.seconds.shape for block in timings["chatty"].blocks] == [(3,), (3,)]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_contenders_that_wait_are_stopped(model: Path) -> None:
    entered = [Contender(name, "runtime.timing.contenders:plain", {"path": str(model)}) for name in "ab"]
    with Contest(entered) as contest:
        contest.load({"input": normal(1, 7)}, None)
        stopped, end = set(), monotonic() + 20
        while len(stopped) < 2 and monotonic() < end:
            found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
            if found is not None:
                stopped.add(found.si_pid)
        assert len(stopped) == 2
        assert set(contest.time_rounds(1, {"a": 1, "b": 1})) == {"a", "b"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells a process that its parent was killed")
def test_a_killed_parent_takes_its_contenders_along(model: Path, root: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys, time, numpy
        from pathlib import Path
        from runtime.timing.contest import Contender, Contest
        contest = Contest([Contender("a", "runtime.timing.contenders:plain", {"path": sys.argv[1]})])
        print(Path("/proc/thread-self/children").read_text(), flush=True)
        sys.stdin.read()"""
    pipe, environment = subprocess.PIPE, os.environ | {"TMPDIR": str(tmp_path)}  # what a killed process leaves
    command = [sys.executable, "-c", code, model]
    with subprocess.Popen(command, cwd=root, env=environment, stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        (child,) = map(int, parent.stdout.readline().split())
        watched = os.pidfd_open(child)
        parent.kill()
    assert select.select([watched], [], [], 20)[0]
    os.close(watched)


def timings(*medians: float) -> Timings:
    return Timings(tuple(Block(np.full(3, median), 2 * median) for median in medians))


SECONDS = st.floats(1e-7, 10)


@given(st.lists(st.tuples(SECONDS, st.floats(0.1, 10)), min_size=1, max_size=40))
def test_what_slows_a_whole_round_down_does_not_count(rounds: list[tuple[float, float]]) -> None:
    one, other = timings(*(factor * slow for slow, factor in rounds)), timings(*(slow for slow, _ in rounds))
    expected = np.quantile([factor for _, factor in rounds], [0.25, 0.5, 0.75])
    for ratio in (paired(one, other), paired(one, other, cpu=True)):
        assert (ratio.low, ratio.median, ratio.high) == pytest.approx(tuple(expected))


def test_a_disturbed_round_does_not_move_the_median() -> None:
    calm, disturbed = timings(2, 2, 2, 2, 2), timings(1, 1, 50, 1, 1)
    assert paired(disturbed, calm).median == 0.5
    assert disturbed.median == 1
    assert replace(disturbed.blocks[2], cpu=0).median == 50


def test_calls_are_timed_after_those_that_warm_up() -> None:
    made: list[int] = []
    block = time_block(lambda: made.append(1), 5)
    assert block.seconds.shape == (5,)
    assert len(made) == 6
    assert block.median < 0.01
    block = time_block(lambda: made.append(1), 5, warm_up=0.01)
    assert block.seconds.shape == (5,)
    assert len(made) > 100
    start = monotonic()
    block = time_block(lambda: made.append(1), 5, interval=0.02)
    assert monotonic() - start >= 6 * 0.02
    assert block.median < 0.01
    assert block.cpu < 0.02


def test_every_contender_has_a_block_in_every_round_in_another_order() -> None:
    order: list[str] = []
    done: list[int] = []

    def runner(name: str) -> Callable[[], Block]:
        return lambda: order.append(name) or Block(np.full(2, float(len(order))), 1.0)

    found = time_rounds({name: runner(name) for name in "abc"}, 4, done.append)
    rounds = [tuple(order[start : start + 3]) for start in range(0, 12, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) > 1
    assert done == [1, 2, 3, 4]
    assert list(found) == ["a", "b", "c"]
    assert found["a"].rounds == tuple(1.0 + order.index("a", start) for start in range(0, 12, 3))
    assert found["a"].calls == 8


def test_rows_from_another_process_are_like_a_user_s() -> None:
    """Session's fast path compares the dtype by identity, and an unpickled array has a dtype object of its own."""
    received: dict[str, np.ndarray] = {}
    commands = Commands()
    commands.make_call = lambda feed: partial(received.update, feed)
    commands.load(pickle.loads(pickle.dumps({"x": normal(2, 3)})), None, 0.0)
    assert received["x"].dtype is np.dtype(np.float32)
    assert np.array_equal(received["x"], normal(2, 3))
