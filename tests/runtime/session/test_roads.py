"""Every way that a batch can take gives the same output: bound buffers, one call, chunks on several threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export import export
from runtime import InputError, ModelError, Session
from runtime.session.parallel import chunks
from runtime.session.processor import usable_cores
from runtime.session.settings import ALONE, Settings, resolve
from tests.support.cases import BLOCKS, WIDTHS, network, normal, relu_network
from tests.support.repeats import examples


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = relu_network("small")
    return export(module, tmp_path_factory.mktemp("roads") / "small.onnx", spec=spec).path


@pytest.mark.parametrize("block", BLOCKS)
def test_chunks_on_threads_give_the_bits_of_one_call(block: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 33}, BLOCKS[block], {"linear": 5}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    x = normal(1000, 7)
    with (
        Session(path, "cpu", workers=1, chunk_rows=2**31) as whole,
        Session(path, "cpu", workers=3, chunk_rows=64) as cut,
    ):
        assert cut.settings.shared_from <= len(x) < whole.settings.shared_from
        np.testing.assert_array_equal(cut.predict(x), whole.predict(x))


@settings(deadline=None, max_examples=examples(25, of=60))
@given(rows=st.integers(0, 3000), chunk=st.sampled_from([64, 100, 256, 1024]), workers=st.integers(1, 4))
def test_every_number_of_rows_in_chunks(small: Path, rows: int, chunk: int, workers: int) -> None:
    x = normal(3000, 64)
    with Session(small, "cpu", workers=workers, chunk_rows=chunk) as cut, Session(small, "cpu", workers=1) as plain:
        whole = plain.predict(x)
        found = cut.predict(x[:rows])
    assert found.shape == (rows, 10)
    # A batch of one row takes another kernel, whose sums are in another order.
    if rows > 1:
        np.testing.assert_array_equal(found, whole[:rows])
    else:
        np.testing.assert_allclose(found, whole[:rows], rtol=0, atol=1e-5)


@given(rows=st.integers(0, 10**7), chunk=st.integers(1, 10**6))
def test_chunks_cover_every_row_once(rows: int, chunk: int) -> None:
    cut = chunks(min(rows, 1000 * chunk), chunk)
    assert cut[0][0] == 0
    assert cut[-1][1] == min(rows, 1000 * chunk)
    assert all(stop == start for (_, stop), (start, _) in pairwise(cut))
    assert all(stop - start >= chunk for start, stop in cut) or len(cut) == 1


def test_outputs_are_the_callers_own(small: Path) -> None:
    x = normal(3, 64)
    with Session(small, "cpu") as session:
        first = session.predict(x)
        kept = first.copy()
        second = session.predict(-x)
        np.testing.assert_array_equal(first, kept)
        assert not np.array_equal(first, second)
        first[...] = 0
        np.testing.assert_array_equal(session.predict(x), kept)


def test_sixteen_threads_at_once(small: Path) -> None:
    """Small calls through bound buffers, middling ones, and large ones that share the workers."""
    x = normal(5000, 64)
    with Session(small, "cpu", chunk_rows=512, workers=2) as session:
        whole = session.predict(x)
        ready = threading.Barrier(16)

        def work(seed: int) -> int:
            rng, wrong = np.random.default_rng(seed), 0
            ready.wait()
            for _ in range(60):
                rows = int(rng.choice([2, 3, 16, 100, 2000, 5000], p=[0.3, 0.3, 0.2, 0.1, 0.08, 0.02]))
                start = int(rng.integers(0, 5001 - rows))
                wrong += not np.array_equal(session.predict(x[start : start + rows]), whole[start : start + rows])
            return wrong

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(work, range(16))) == 0


def test_a_replaced_file_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    (spec, old), (_, new) = (
        network([{"linear": 512}, "relu", {"linear": 3}], 300),
        network([{"linear": 512}, "relu", {"linear": 3}], 300, seed=1),
    )
    path = export(old, tmp_path / "m.onnx", spec=spec).path
    x = normal(4000, 300)
    with Session(path, "cpu", workers=1, chunk_rows=2**31, threads=2) as session:
        before = session.predict(x)
    with Session(path, "cpu") as session:
        session.predict(x[:1])
        export(new, path, spec=spec)
        for rows in (2, 50, 4000):
            np.testing.assert_array_equal(session.predict(x[:rows]), before[:rows])


def test_replaced_external_data_is_not_mixed_either(tmp_path: Path) -> None:
    (spec, old), (_, new) = (network([{"linear": 64}, "relu", {"linear": 3}], 30, seed=seed) for seed in (0, 1))
    path = export(old, tmp_path / "m.onnx", spec=spec, external_data=True).path
    other = export(new, tmp_path / "n.onnx", spec=spec, external_data=True).path
    x = normal(9000, 30)
    with Session(path, "cpu") as session:
        before = session.predict(x[:2])
        Path(f"{other}.data").replace(f"{path}.data")
        for rows in (2, 300, 9000):
            np.testing.assert_allclose(session.predict(x[:rows])[:2], before, rtol=0, atol=1e-5)


def test_replaced_external_data_of_any_name_is_not_mixed_either(tmp_path: Path) -> None:
    spec, module = network([{"linear": 64}, "relu", {"linear": 3}], 30)
    stored = onnx.load(str(export(module, tmp_path / "stored.onnx", spec=spec).path))
    path, weights = tmp_path / "m.onnx", tmp_path / "weights.bin"
    onnx.save_model(stored, str(path), save_as_external_data=True, location=weights.name, size_threshold=0)
    x = normal(9000, 30)
    with Session(path, "cpu") as session:
        before = session.predict(x[:2])
        for replace in (True, False):  # under its name, and in place
            other = tmp_path / "other.bin"
            other.write_bytes(bytes(weights.stat().st_size))
            other.replace(weights) if replace else weights.write_bytes(bytes(weights.stat().st_size))
            for rows in (2, 300, 9000):
                np.testing.assert_allclose(session.predict(x[:rows])[:2], before, rtol=0, atol=1e-5)


def test_a_signal_s_handler_may_predict_too(small: Path) -> None:
    x, other = normal(1, 64), normal(1, 64, seed=1)
    with Session(small, "cpu") as session:
        expected, out = session.predict(x), np.zeros((1, 10), np.float32)
        before = signal.signal(signal.SIGALRM, lambda *_: session.predict(other))
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        try:
            for _ in range(20_000):
                assert np.array_equal(session.predict(x), expected)
                session.predict_into(x.copy(), out)
                assert np.array_equal(out, expected)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


FORKED = """
import os, resource, sys
import numpy as np
import onnx
from runtime import Session
x = np.zeros((200_000, 64), np.float32)
with Session(sys.argv[1], "cpu", workers=2) as session:
    expected = session.predict(x)
    child = os.fork()
    if child == 0:
        for _ in range(3):
            session.predict(x)
        first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(12):
            same = np.array_equal(session.predict(x), expected)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first
        os._exit(0 if same and grown < 30_000 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_runs_large_batches(small: Path, root: Path) -> None:
    """A process that is forked has the threads' pool without its threads."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(small)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0", done.stderr


LATE = """
import sys, threading
import numpy as np
import onnx
from runtime import Session
session = Session(sys.argv[1], "cpu", workers=2)
def late():
    threading.main_thread().join()
    print(session.predict(np.zeros((200_000, 64), np.float32)).shape)
threading.Thread(target=late).start()
"""


def test_a_thread_that_outlives_the_main_one(small: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(small)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "(200000, 10)", done.stderr


def test_buffers_of_wide_outputs_are_not_kept(tmp_path: Path) -> None:
    spec, module = network([{"linear": 2048}], 1)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    with Session(path, "cpu") as session:
        tracemalloc.start()
        try:
            for rows in range(3000, 3010):
                session.predict(np.zeros((rows, 1), np.float32))
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert kept < 3000 * 2048 * 4


def test_a_closed_session_runs_nothing_in_any_thread(small: Path) -> None:
    x = normal(1, 64)
    session = Session(small, "cpu")
    session.predict(x)
    done = threading.Event()

    def other() -> None:
        session.predict(x)
        held.set()
        done.wait()
        with pytest.raises(ModelError, match="is closed"):
            session.predict(x)
        ended.append(True)

    held, ended = threading.Event(), []
    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    session.close()
    done.set()
    thread.join()
    assert ended
    with pytest.raises(ModelError, match="is closed"):
        session.predict_into(x, np.zeros((1, 10), np.float32))


def test_the_rule() -> None:
    tiny, small, large = (sum(a * b for a, b in pairwise(WIDTHS[name])) for name in ("tiny", "small", "large"))
    assert resolve(Settings(), tiny, 2).whole_from > 100
    assert 1 < resolve(Settings(), small, 2).whole_from <= -(-ALONE // small)
    assert resolve(Settings(), large, 2).whole_from == 1
    assert resolve(Settings(), large, 2).workers == 1  # its weights would be held twice
    assert resolve(Settings(), small, 8).workers == resolve(Settings(), small, 8).threads == 8
    one = resolve(Settings(threads=1), small, 8)
    assert (one.threads, one.workers, one.whole_from) == (1, 1, 1)
    assert resolve(Settings(threads=3, workers=2, spin_us=0, chunk_rows=77, prepack=False), tiny, 8).chunk_rows == 77
    sizes = [resolve(Settings(), 2**k, 2).chunk_rows for k in range(30)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16384
    assert sizes[-1] == 256


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"threads": True}, {"spin_us": -1}, {"chunk_rows": 0}, {"workers": 1.5}, {"prepack": 0}]
)
def test_settings_that_are_none(small: Path, wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Session(small, "cpu", **wrong)


def test_a_container_s_quota_counts(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert usable_cores(quota) == 1
    quota.write_text("max 100000\n")
    assert usable_cores(quota) == usable_cores(tmp_path / "missing") >= 1


def test_a_model_whose_rows_depend_on_each_other_is_not_cut(tmp_path: Path) -> None:
    """Only mlpx's own files are known to treat each row alone."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=0)], "g", ends[:1], ends[1:])
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x = normal(100_000, 4)
    with Session(path, "cpu") as session:
        assert len(x) > session.settings.shared_from
        np.testing.assert_allclose(session.predict(x).sum(axis=0), 1, rtol=1e-4)
