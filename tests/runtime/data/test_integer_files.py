"""Whole numbers in files of rows: every kind of table, and what is said of a wrong index in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from runtime import InputError, Part, Port, Session, read_inputs, score_file
from runtime.data.scoring import score_table
from runtime.ray.worker import score_part
from tests.support.commands import Run
from tests.support.embeddings import CAST, GENRES, of_both, of_indices, only_indices
from tests.support.indices import COLUMNS, OBS, embedding_files, near


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return embedding_files(tmp_path_factory.mktemp("integers"))


def written(folder: Path, kind: str, columns: dict[str, Any]) -> Path:
    """The columns as a file of one of the formats."""
    path, frame = folder / f"data.{kind}", polars.DataFrame(columns)
    {
        "csv": frame.write_csv,
        "parquet": frame.write_parquet,
        "arrow": frame.write_ipc,
        "npy": lambda path: np.save(path, np.stack([np.asarray(column) for column in columns.values()], axis=1)),
    }[kind](path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
@pytest.mark.parametrize("index", [np.int64, np.uint8, np.float64])
def test_tables_of_both_kinds(files: dict[str, Path], tmp_path: Path, kind: str, index: Any) -> None:
    columns = COLUMNS | {"genre": COLUMNS["genre"].astype(index)}
    expected = of_both(OBS, COLUMNS["genre"].astype(int))
    with Session(files["both"], "cpu") as session:
        score_file(session, written(tmp_path, kind, columns), tmp_path / "out.npy")
        near(np.load(tmp_path / "out.npy"), expected)
        near(session.predict(polars.DataFrame(columns)), expected)
        near(session.predict(pandas.DataFrame(columns)), expected)
        near(session.predict(pyarrow.table(columns)), expected)
        near(np.stack(list(score_table(session, columns).values()), axis=1), expected)


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "npy"])
@pytest.mark.parametrize("name", ["indices", "cast"])
def test_a_wrong_index_in_a_file(files: dict[str, Path], tmp_path: Path, run: Run, kind: str, name: str) -> None:
    columns: dict[str, Any] = {"genre": [3, 0, 12, 9, 4], "mood": [1, 2, 3, 0, 5]}
    if name == "cast":
        columns = {"speed": [0.5] * 5, "torque": [1.0] * 5, "genre": [3.0, 0.0, 12.0, -1.0, 2.5]}
        place, wrong = "'x'", {2: "12(.0)?", 3: r"-1(\.0)?", 4: r"2\.5"}
    else:
        place, wrong = "'ids'", {2: "12", 3: "0"}
    data = written(tmp_path, kind, columns)
    where = "line 4" if kind == "csv" else "row 3"
    done = run("predict", files[name], data, "-o", tmp_path / "out.npy")
    assert done.code == 2
    assert not (tmp_path / "out.npy").exists()
    assert f"{data}: {place}, {where}, feature 'genre': 12" in done.err
    assert "is not a whole number from 0 to 9" in done.err
    assert "--on-error null" in done.err
    done = run("predict", files[name], data, "-o", tmp_path / "out.npy", "--on-error", "null")
    assert done.code == 0, done.err
    assert f"{len(wrong)} of the 5 rows" in done.err
    assert f"{where}: {place}, feature 'genre': 12" in done.err
    found = np.load(tmp_path / "out.npy")
    assert np.isnan(found).all(axis=1).tolist() == [row in wrong for row in range(5)]
    near(
        found[:2],
        of_indices(np.array([[3, 1], [0, 2]]))
        if name == "indices"
        else of_both(np.array([[0.5, 1.0]] * 2), np.array([3, 0])),
    )
    with pytest.raises(InputError, match=r"feature 'genre': 12"):
        read_inputs(data, [GENRES if name == "indices" else CAST])


@pytest.mark.parametrize(
    ("text", "why"), [("2.5", "not a whole number"), ("x", "not a"), ("", "empty"), ("1e30", "not")]
)
def test_texts_that_are_no_index(files: dict[str, Path], tmp_path: Path, text: str, why: str) -> None:
    data = tmp_path / "data.csv"
    data.write_text(f"mood,genre,unused\n1, 3.0,a\n2,{text},b\n3e0,+4,c\n", encoding="utf-8")
    with Session(files["indices"], "cpu") as session:
        with pytest.raises(InputError, match=rf"column 'genre'.* line 3.*|column 'genre', line 3: .*{why}"):
            score_file(session, data, tmp_path / "out.npy")
        report = score_file(session, data, tmp_path / "out.npy", on_error="null")
    assert report.failed_rows == 1
    assert why in report.failed[0]
    found = np.load(tmp_path / "out.npy")
    near(found[[0, 2]], of_indices(np.array([[3, 1], [4, 3]])))
    assert np.isnan(found[1]).all()


def test_large_indices_keep_every_digit_on_the_way(tmp_path: Path) -> None:
    """As through float64 they would not: 2**53 + 1 is no float64."""
    wide = Port("ids", ("batch", 2), features=("genre", "mood"), dtype="int64", indices=((0, 9), (1, 2**53)))
    path, large = only_indices(tmp_path / "m.onnx", wide), 2**53 + 1
    with Session(path, "cpu") as session:
        for kind in ("csv", "parquet", "arrow", "npy"):
            data = written(tmp_path, kind, {"genre": [1], "mood": [large]})
            with pytest.raises(InputError, match=f"feature 'mood': {large} is not a whole number from 1 to {2**53}"):
                score_file(session, data, tmp_path / "out.npy")


def test_archives_hold_each_input_in_its_dtype(files: dict[str, Path], tmp_path: Path) -> None:
    ids = np.array([[3], [0], [9]], np.int32)
    np.savez(tmp_path / "data.npz", obs=OBS, ids=ids)
    with Session(files["both"], "cpu") as session:
        score_file(session, tmp_path / "data.npz", tmp_path / "out.npy")
        near(np.load(tmp_path / "out.npy"), of_both(OBS, ids[:, 0]))
        np.savez(tmp_path / "data.npz", obs=OBS, ids=ids + 0.5)
        with pytest.raises(InputError, match=r"'ids', row 1, feature 'genre': 3.5 is not a whole number"):
            score_file(session, tmp_path / "data.npz", tmp_path / "out.npy")
        np.savez(tmp_path / "data.npz", obs=OBS, ids=ids > 0)
        with pytest.raises(InputError, match="'ids' holds bool"):
            score_file(session, tmp_path / "data.npz", tmp_path / "out.npy")


def test_a_part_of_a_folder_skips_wrong_indices(files: dict[str, Path], tmp_path: Path) -> None:
    data = written(tmp_path, "parquet", {"genre": [3, 12], "mood": [1, 2]})
    part = Part(str(data), data.name, (0,), 0, 2, "out.parquet")
    with Session(files["indices"], "cpu") as session:
        scored = score_part(session, part, tmp_path, on_error="null")
        with pytest.raises(InputError, match="row 2, feature 'genre': 12"):
            score_part(session, part, tmp_path)
    assert scored.failed_rows == 1
    assert "feature 'genre': 12" in scored.failed[0]
