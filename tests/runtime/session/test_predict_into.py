"""``predict_into``: the output in an array of the caller, and no other array made."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from export import export
from runtime import InputError, Session
from tests.support.cases import network, normal, relu_network


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = relu_network("small")
    return export(module, tmp_path_factory.mktemp("roads") / "small.onnx", spec=spec).path


@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_predict_into_gives_what_predict_gives(small: Path, rows: int) -> None:
    x = normal(rows, 64)
    with Session(small, "cpu") as session:
        expected = session.predict(x)
        out = np.full((rows, 10), np.nan, np.float32)
        for _ in range(2):  # before and after the buffers are there
            session.predict_into(x, out)
            np.testing.assert_array_equal(out, expected)
        wide = np.zeros((rows, 128), np.float32)
        wide[:, ::2] = x
        out[...] = np.nan
        session.predict_into(wide[:, ::2], out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("rows", [1, 5])
def test_predict_into_the_same_arrays_again_and_again(small: Path, rows: int) -> None:
    """After the second time they are bound themselves; what is in them still decides, and nothing else is touched."""
    x, out = normal(rows, 64), np.zeros((rows, 10), np.float32)
    other, elsewhere = normal(rows, 64, seed=1), np.zeros((rows, 10), np.float32)
    with Session(small, "cpu") as session:
        for turn in range(12):
            x[...] = normal(rows, 64, seed=turn)
            out[...] = np.nan
            session.predict_into(x, out)
            np.testing.assert_array_equal(out, session.predict(x))
            if turn % 5 == 4:  # others between
                kept = out.copy()
                session.predict_into(other, elsewhere)
                session.predict_into(other, elsewhere)
                session.predict_into(other, elsewhere)
                np.testing.assert_array_equal(elsewhere, session.predict(other))
                np.testing.assert_array_equal(out, kept)


def test_predict_into_arrays_that_change_their_shape(tmp_path: Path) -> None:
    spec, module = network(["tanh"], 4)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    x, out = normal(2, 4), np.zeros((2, 4), np.float32)
    with Session(path, "cpu") as session:
        for _ in range(4):
            session.predict_into(x, out)
        again = x.reshape(4, 2)
        with pytest.raises(InputError, match=r"got \(4, 2\)"):
            session.predict_into(again, out)
        sealed = normal(2, 4, seed=1)
        sealed.flags.writeable = False
        for _ in range(4):
            session.predict_into(sealed, out)
            np.testing.assert_array_equal(out, session.predict(sealed))


def test_predict_into_arrays_that_share_memory(tmp_path: Path) -> None:
    spec, module = network([{"linear": 7}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    with Session(path, "cpu") as session:
        both = np.zeros((1, 10), np.float32)
        x, out = both[:, :7], both[:, 3:]
        for turn in range(6):
            both[...] = normal(1, 10, seed=turn)
            expected = session.predict(x.copy())
            session.predict_into(x, out)
            np.testing.assert_array_equal(out, expected)


def test_predict_into_makes_no_array(small: Path) -> None:
    x, out = normal(64, 64), np.zeros((64, 10), np.float32)
    peaks: list[int] = []
    with Session(small, "cpu") as session:
        for _ in range(3):
            session.predict_into(x, out)
        gc.disable()
        try:
            tracemalloc.start()
            for _ in range(5):  # other threads may allocate meanwhile
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                for _ in range(100):
                    session.predict_into(x, out)
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            session.predict(x)
            fresh = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
            gc.enable()
    assert min(peaks) < 1000
    assert fresh >= out.nbytes > 2000


def test_predict_into_refuses_what_it_cannot_fill(small: Path) -> None:
    x = normal(2, 64)
    sealed = np.zeros((2, 10), np.float32)
    sealed.flags.writeable = False
    with Session(small, "cpu") as session:
        for _ in range(2):
            for out, words in [
                (np.zeros((2, 9), np.float32), r"'out' expects shape \(2, 10\), and got \(2, 9\)"),
                (np.zeros((2, 10)), "'out' is float64"),
                ([[0.0] * 10] * 2, "'out' is list"),
                (sealed, "read-only"),
            ]:
                with pytest.raises(InputError, match=words):
                    session.predict_into(x, out)  # type: ignore[arg-type]
            with pytest.raises(InputError, match="'x' is float64"):
                session.predict_into(x.astype(np.float64), np.zeros((2, 10), np.float32))
            with pytest.raises(InputError, match=r"expects shape \(batch, 64\), and got \(2, 63\)"):
                session.predict_into(x[:, :63], np.zeros((2, 10), np.float32))
        session.predict_into(x, np.zeros((2, 10), np.float32))
