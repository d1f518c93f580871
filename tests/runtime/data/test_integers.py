"""Whole numbers in sessions, tables and files: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import load as load_onnx

from runtime import InputError, Port, Session, Summary, score_file, summary_of
from runtime.model.summary import rows_depend
from runtime.session.buffers import MAX_PADDED
from runtime.session.gpu import GpuRunner
from runtime.session.settings import Settings
from runtime.timing.rows import described_inputs, seeded_rows
from tests.support.commands import Run
from tests.support.embeddings import GENRES, SHIFTED, of_both, of_indices, only_indices
from tests.support.indices import COLUMNS, IDS, OBS, embedding_files, near


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return embedding_files(tmp_path_factory.mktemp("integers"))


@pytest.mark.parametrize("name", ["indices", "foreign"])
@pytest.mark.parametrize(
    "x",
    [
        IDS,
        IDS.tolist(),
        IDS.astype(float).tolist(),
        torch.from_numpy(IDS),
        torch.from_numpy(IDS).to(torch.int32),
        torch.from_numpy(IDS).to(torch.bfloat16),
        np.asfortranarray(IDS.astype(">i8")),
        {"ids": IDS},
        polars.DataFrame({"genre": IDS[:, 0], "mood": IDS[:, 1].astype("f4")}),
        *(IDS.astype(kind) for kind in "bhilqBHILQefdg"),
    ],
    ids=str,
)
def test_every_way_to_hold_whole_numbers(files: dict[str, Path], name: str, x: Any) -> None:
    with Session(files[name], "cpu") as session:
        assert [port.dtype for port in session.inputs] == ["int64"]
        for _ in range(3):  # before and after the buffers are there
            near(session.predict(x), of_indices(IDS))
        near(session.run(x)["y"], of_indices(IDS))


def test_large_and_empty_batches(files: dict[str, Path]) -> None:
    ids = np.random.default_rng(1).integers(1, 6, (70_001, 2))
    with Session(files["indices"], "cpu", workers=2, chunk_rows=1000) as session:
        assert session.divisible
        near(session.predict(ids), of_indices(ids))
        assert session.predict(ids[:0]).shape == (0, 3)
        ids[60_000, 1] = 0
        with pytest.raises(InputError, match=r"'ids', row 60001, feature 'mood': 0 is not a whole number from 1 to 5"):
            session.predict(ids)


def test_indices_beside_floats(files: dict[str, Path]) -> None:
    ids = np.array([[3], [0], [9]])
    with Session(files["both"], "cpu") as session:
        near(session.predict({"obs": OBS, "ids": ids}), of_both(OBS, ids[:, 0]))
        near(session.predict({"obs": OBS.astype("f8"), "ids": ids.astype("u1")}), of_both(OBS, ids[:, 0]))
        with pytest.raises(InputError, match=r"'ids', row 2, feature 'genre': -1 is not a whole number from 0 to 9"):
            session.predict({"obs": OBS, "ids": [[3], [-1], [9]]})
        with pytest.raises(InputError, match="different numbers of rows"):
            session.predict({"obs": OBS, "ids": ids[:2]})


REFUSED: dict[str, tuple[Any, str]] = {
    "above": ([[1, 2], [10, 2]], r"'ids', row 2, feature 'genre': 10 is not a whole number from 0 to 9. What to do: "),
    "below": (np.array([[1, 2], [1, 2], [1, 0]]), r"row 3, feature 'mood': 0 is not a whole number from 1 to 5"),
    "half": (np.array([[1, 2], [1.5, 2]]), r"row 2, feature 'genre': 1\.5 is not a whole number"),
    "nan": (np.array([[1, np.nan]], "f4"), r"row 1, feature 'mood': nan is not a whole number"),
    "infinite": ([[float("inf"), 2.0]], r"feature 'genre': inf is not a whole number"),
    "inexact": ([[2**53 + 1, 2.0]], r"feature 'genre': 9007199254740992\.0 is a float from 2\*\*53 on"),
    "unsigned": (np.array([[2**63, 1]], np.uint64), r"feature 'genre': 9223372036854775808 is not a whole number"),
    "bool": (
        np.ones((1, 2), bool),
        r"'ids' holds bool, .*index the rows of a table. What.*astype\(numpy.int64\)",
    ),
    "bool in a list": ([[True, 2]], r"'ids' holds bool"),
    "text": ([["a", "b"]], r"'ids' expects numbers; this holds <U1 values"),
    "shape": ([1, 2], r"'ids' expects shape \(batch, 2\), and got \(2,\); for a single row, give x\[None\]"),
    "table": (
        pandas.DataFrame({"genre": [1.0, 2.5], "mood": [1, 2]}),
        r"column 'genre', row 2: 2\.5 is not a whole number",
    ),
    "gap": (
        pandas.DataFrame({"genre": pandas.array([1, None], "Int64"), "mood": [1, 2]}),
        r"column 'genre' has 1 empty values, the first in row 2",
    ),
    "table of bool": (polars.DataFrame({"genre": [True], "mood": [1]}), r"column 'genre' holds bool"),
    "table above": (
        pyarrow.table({"genre": [1, 2], "mood": [1, 7]}),
        r"row 2, feature 'mood': 7 is not .* from 1 to 5",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_index_is_named(files: dict[str, Path], kind: str) -> None:
    x, words = REFUSED[kind]
    with Session(files["indices"], "cpu") as session:
        session.predict(IDS[: len(x)])  # the buffers are there
        for ask in (session.predict, session.run):
            with pytest.raises(InputError, match=words):
                ask(x)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12)), min_size=1, max_size=20))
def test_the_first_row_beyond_the_limits_is_named(files: dict[str, Path], rows: list[tuple[int, int]]) -> None:
    wrong = [
        (row, name, value, limits)
        for row, values in enumerate(rows, start=1)
        for name, value, limits in zip(GENRES.features or (), values, GENRES.indices or (), strict=True)
        if limits is not None and not limits[0] <= value <= limits[1]
    ]
    with Session(files["indices"], "cpu") as session:
        if not wrong:
            near(session.predict(rows), of_indices(np.array(rows)))
            return
        with pytest.raises(InputError) as caught:
            session.predict(rows)
    row, name, value, (low, high) = wrong[0]
    assert f"'ids', row {row}, feature '{name}': {value} is not a whole number from {low} to {high}. " in str(
        caught.value
    )


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=True) | st.integers(-12, 12).map(float), st.sampled_from(["f4", "f8"]))
def test_a_float_is_taken_where_it_is_a_whole_number(files: dict[str, Path], value: float, kind: str) -> None:
    with np.errstate(over="ignore"):
        x = np.array([[1, 2], [value, 2]]).astype(kind)
    with Session(files["indices"], "cpu") as session:
        if x[1, 0] in range(10):
            near(session.predict(x), of_indices(x.astype(int)))
        else:
            with pytest.raises(InputError, match="row 2, feature 'genre'"):
                session.predict(x)


@pytest.mark.parametrize("value", [10, -1, 2.5, float("nan"), float("inf")])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_float_column_that_becomes_an_index(files: dict[str, Path], value: float, rows: int) -> None:
    x = np.stack(list(COLUMNS.values()), axis=1)[:rows]
    out = np.full((rows, 3), np.nan, np.float32)
    with Session(files["cast"], "cpu") as session:
        for _ in range(4):
            near(session.predict(x), of_both(x[:, :2], x[:, 2].astype(int)))
            session.predict_into(x, out)
            near(out, of_both(x[:, :2], x[:, 2].astype(int)))
        x[0, 0] = 0.5  # anything may stand in a column without limits
        near(session.predict(x), of_both(x[:, :2], x[:, 2].astype(int)))
        x[-1, 2] = value
        words = rf"'x', row {rows}, feature 'genre': {value!s}(\.0)? is not a whole number from 0 to 9"
        for ask in (session.predict, session.run, lambda x: session.predict_into(x, out)):
            with pytest.raises(InputError, match=words):
                ask(x)


def test_predict_into_takes_the_dtype_of_the_input(files: dict[str, Path]) -> None:
    out = np.empty((3, 3), np.float32)
    with Session(files["indices"], "cpu") as session:
        for _ in range(4):
            session.predict_into(IDS, out)
            near(out, of_indices(IDS))
        ids = IDS.copy()
        session.predict_into(ids, out)
        ids[1, 0] = 10
        with pytest.raises(InputError, match="row 2, feature 'genre': 10"):
            session.predict_into(ids, out)
        with pytest.raises(InputError, match="takes int64 arrays, and 'x' is float32"):
            session.predict_into(IDS.astype("f4"), out)


@pytest.mark.parametrize("name", ["foreign", "foreign cast"])
@pytest.mark.parametrize("rows", [1, 3, 5000])
def test_what_onnx_runtime_says_of_an_index_is_an_error_of_the_input(
    files: dict[str, Path], name: str, rows: int
) -> None:
    x = np.ones((rows, 2 if name == "foreign" else 3), "i8" if name == "foreign" else "f4")
    with Session(files[name], "cpu") as session:
        session.predict(x)
        x[-1, -1] = 77
        with pytest.raises(InputError, match=r"index that a table of the model does not have: .*idx=77 must be within"):
            session.predict(x)


@pytest.mark.parametrize("rows", [0, 1, 3, MAX_PADDED + 5])
def test_buckets_hold_whole_numbers(files: dict[str, Path], rows: int) -> None:
    """On the CPU, as on a GPU; padding holds rows that the model takes."""
    with_limits = GpuRunner(files["indices"], (("CPUExecutionProvider", {}),), Settings(), kind="cpu", graphs=False)
    ids = np.random.default_rng(2).integers(1, 6, (rows, 2))
    near(with_limits.run(["y"], {"ids": ids})[0], of_indices(ids))
    near(with_limits.predict_tensor(torch.from_numpy(ids).int()), of_indices(ids))
    with_limits.close()


def test_what_fills_up_a_batch_is_in_the_table(tmp_path: Path) -> None:
    path, ids = only_indices(tmp_path / "m.onnx", SHIFTED), IDS + 100
    padded = GpuRunner(path, (("CPUExecutionProvider", {}),), Settings(), kind="cpu", graphs=False)
    near(padded.run(["y"], {"ids": ids})[0], of_indices(IDS))
    padded.close()
    np.save(tmp_path / "ids.npy", np.vstack([ids, [[3, 100]]]))
    with Session(path, "cpu") as session:
        score_file(session, tmp_path / "ids.npy", tmp_path / "out.npy", on_error="null")
        near(np.load(tmp_path / "out.npy")[:3], of_indices(IDS))
        assert np.isfinite(session.run(seeded_rows(described_inputs(session), 20))["y"]).all()


# What a file says


def test_the_record_of_limits_is_read_back_and_left_out_where_there_are_none(files: dict[str, Path]) -> None:
    with Session(files["indices"], "cpu") as session, Session(files["foreign"], "cpu") as foreign:
        assert session.summary is not None
        assert session.summary.inputs == (GENRES,)
        assert session.inputs[0].indices == GENRES.indices
        assert foreign.inputs[0].indices is None
    assert "indices" not in Port("x", ("batch", 2)).to_record()
    assert "mlpx.rows_depend" not in Summary("m", (), (), (), 17, 8).to_metadata()


@pytest.mark.parametrize(
    "indices", [[[0, 9]], [[0, 9], [5, 1]], [[0, 9], [0, 1.5]], [[0, 9], [0, True]], [[0, 9], 3], [[0, 2**63], None]]
)
def test_limits_that_are_none_make_a_record_foreign(indices: Any) -> None:
    metadata = Summary("m", (GENRES,), (), (), 17, 8, mlpx_version="0").to_metadata()
    assert summary_of(metadata) is not None
    record = json.loads(metadata["mlpx.inputs"])
    record[0]["indices"] = indices
    assert summary_of(metadata | {"mlpx.inputs": json.dumps(record)}) is None


def test_the_graph_has_the_last_word_on_the_type(tmp_path: Path) -> None:
    path = only_indices(tmp_path / "m.onnx")
    model = load_onnx(path)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"int64"', '"float32"')
    path.write_bytes(model.SerializeToString())
    ids = np.tile(IDS, (5000, 1))  # too many for buffers, which would convert them
    np.save(tmp_path / "ids.npy", ids)
    with Session(path, "cpu") as session:
        assert session.inputs[0].dtype == "int64"
        near(session.predict(ids), of_indices(ids))
        score_file(session, tmp_path / "ids.npy", tmp_path / "out.npy")
        near(np.load(tmp_path / "out.npy"), of_indices(ids))


def test_rows_that_depend_are_run_as_they_come(tmp_path: Path, run: Run) -> None:
    path = only_indices(tmp_path / "m.onnx", rows_depend=True)
    metadata = {entry.key: entry.value for entry in load_onnx(path).metadata_props}
    found = summary_of(metadata)
    assert rows_depend(metadata)
    assert found is not None
    assert found.rows_depend
    ids = np.random.default_rng(3).integers(1, 6, (20_001, 2))
    expected = of_indices(ids)
    expected -= expected.mean(axis=0)
    np.save(tmp_path / "ids.npy", ids)
    on_gpu = GpuRunner(path, (("CPUExecutionProvider", {}),), Settings(), kind="cpu", graphs=False)
    with Session(path, "cpu", workers=2, chunk_rows=500) as session:
        assert not session.divisible
        assert not on_gpu.model.divisible
        np.testing.assert_allclose(session.predict(ids), expected, atol=1e-3)
        np.testing.assert_allclose(on_gpu.run(["y"], {"ids": ids})[0], expected, atol=1e-3)
        score_file(session, tmp_path / "ids.npy", tmp_path / "out.npy")
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-3)
        near(session.predict(ids[:1]), np.zeros((1, 3)))  # not padded
    assert "depend on each other" in run("inspect", path).out


@pytest.mark.parametrize("name", ["indices", "foreign", "both", "cast"])
def test_rows_that_are_made_up_can_be_run(files: dict[str, Path], name: str, run: Run) -> None:
    with Session(files[name], "cpu") as session:
        rows = seeded_rows(described_inputs(session), 500)
        assert [rows[port.name].dtype for port in session.inputs] == [port.dtype for port in session.inputs]
        assert np.isfinite(session.run(rows)["y"]).all()
        if name == "indices":
            assert set(rows["ids"][:, 0]) == set(range(10))
            assert set(rows["ids"][:, 1]) == set(range(1, 6))
    done = run("bench", files[name], "--batch", 1, "--seconds", 0.1)
    assert done.code == 0, done.err


def test_inspect_shows_the_limits(files: dict[str, Path], run: Run) -> None:
    done = run("inspect", files["indices"])
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["input", "ids", "(batch,", "2)", "int64"] in lines
    assert ["genre", "0", "to", "9"] in lines
    assert ["mood", "1", "to", "5"] in lines
