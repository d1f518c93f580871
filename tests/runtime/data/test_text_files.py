"""Columns that are kept, separators, compressed files, folders, and standard input and output."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pytest

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, Session, score_file
from tests.support.commands import Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MLPSpec(name="m", input={"features": ["a", "b"]}, blocks=[{"linear": 1}], output={"name": "y"})
    return export(assemble(spec, seed=1).eval(), tmp_path_factory.mktemp("m") / "m.onnx", spec=spec).path


FRAME = polars.DataFrame(
    {"id": ["x1", None, "x;3"], "a": [1.5, 2.0, -3.0], "name": ["Ada", "Bo, Jr", "Ö"], "b": [0.25, 4.0, 8.0]},
    schema_overrides={"a": polars.Float32, "b": polars.Float32},
)


def expected(model: Path) -> list[float]:
    with Session(model, "cpu") as session:
        return session.predict(FRAME.select("a", "b").to_numpy())[:, 0].tolist()


@pytest.mark.parametrize("results", ["csv", "tsv", "parquet", "arrow"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_columns_are_kept(kind: str, results: str, model: Path, tmp_path: Path, run: Run) -> None:
    path, output = tmp_path / f"r.{kind}", tmp_path / f"o.{results}"
    getattr(FRAME, {"csv": "write_csv", "parquet": "write_parquet", "arrow": "write_ipc"}[kind])(path)
    done = run("predict", model, path, "-o", output, "--keep", "id", "--keep", "a")
    assert done.code == 0
    assert "'name' not used" in done.err
    assert "'id'" not in done.err
    read: Any = {"parquet": polars.read_parquet, "arrow": polars.read_ipc, "csv": polars.read_csv}
    found = read[results](output) if results in read else polars.read_csv(output, separator="\t")
    assert found.columns == ["id", "a", "y"]
    assert found["id"].to_list() == FRAME["id"].to_list()
    assert found["a"].cast(polars.Float32).to_list() == FRAME["a"].to_list()
    assert found["y"].cast(polars.Float32).to_list() == expected(model)


def test_rows_that_cannot_be_read_keep_their_columns(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "r.csv").write_text("id,a,b\n7,1,2\n8,fast,2\n9,1,2\n")
    done = run("predict", model, tmp_path / "r.csv", "-o", tmp_path / "o.csv", "--keep", "id", "--on-error", "null")
    assert done.code == 0
    found = polars.read_csv(tmp_path / "o.csv")
    assert found["id"].to_list() == [7, 8, 9]
    assert found["y"].is_null().to_list() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--keep", "no"], "to keep, exactly one column 'no' is expected; the file has 'id', 'a', 'name', 'b'"),
        (["--keep", "y"], "exactly one column 'y'"),
        (["--separator", ";;"], "a separator is one character, such as ';' or a tab, not ';;'"),
    ],
)
def test_what_cannot_be_kept_is_said(options: list[str], expected: str, model: Path, tmp_path: Path, run: Run) -> None:
    FRAME.write_csv(tmp_path / "r.csv")
    done = run("predict", model, tmp_path / "r.csv", "-o", tmp_path / "o.csv", *options)
    assert done.code == 2
    assert expected in " ".join(done.err.split())


def test_a_kept_column_with_the_name_of_a_result_is_refused(model: Path, tmp_path: Path) -> None:
    FRAME.rename({"id": "y"}).write_csv(tmp_path / "r.csv")
    FRAME.write_parquet(tmp_path / "r.parquet")
    with Session(model, "cpu") as session:
        with pytest.raises(InputError, match="column 'y' cannot be kept, since a column of the results has that name"):
            score_file(session, tmp_path / "r.csv", tmp_path / "o.csv", keep=["y"])
        with pytest.raises(InputError, match=r"a \.npz file keeps no columns"):
            score_file(session, tmp_path / "r.csv", tmp_path / "o.npz", keep=["y"])
        with pytest.raises(InputError, match=r"'separator' is for \.csv, \.tsv, \.csv\.gz files, not for Parquet"):
            score_file(session, tmp_path / "r.parquet", tmp_path / "o.csv", separator=";")
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("name", "separator", "options"),
    [
        ("r.csv", ";", ["--separator", ";"]),
        ("r.csv", "|", ["--separator", "|"]),
        ("r.tsv", "\t", []),
        ("r.csv.gz", ",", []),
        ("r.TSV.GZ", "\t", []),
        ("r.csv.gz", ";", ["--separator", ";"]),
    ],
)
def test_separators_and_compressed_files(
    name: str, separator: str, options: list[str], model: Path, tmp_path: Path, run: Run
) -> None:
    text = FRAME.write_csv(separator=separator).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    done = run("predict", model, tmp_path / name, "-o", tmp_path / "o.csv", "--keep", "name", *options)
    assert done.code == 0, done.err
    found = polars.read_csv(tmp_path / "o.csv", schema_overrides={"y": polars.Float32})
    assert found["name"].to_list() == FRAME["name"].to_list()
    assert found["y"].to_list() == expected(model)
    (tmp_path / name).write_bytes(gzip.compress(text.replace(b"2.0", b"zwei"))[:-9])
    assert run("predict", model, tmp_path / name, "-o", tmp_path / "p.csv", *options).code == 2


def test_lines_of_another_separator_are_counted(model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a;b\n1;2\n1;2;3\n")
    with (
        Session(model, "cpu") as session,
        pytest.raises(InputError, match="line 3 has 3 values, and the header has 2 names"),
    ):
        score_file(session, tmp_path / "r.csv", None, separator=";")


def test_standard_input_and_output(model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(text: bytes) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))

    given(FRAME.write_csv(separator=";").encode())
    done = run("predict", model, "-", "-o", "-", "--separator", ";", "--keep", "id")
    assert done.code == 0
    assert polars.read_csv(done.out.encode())["y"].cast(polars.Float32).to_list() == expected(model)
    given(b"a,b\n1,fast\n")
    done = run("predict", model, "-")
    assert done.code == 2
    assert "standard input: column 'b', line 2: 'fast' is not a number" in " ".join(done.err.split())
    given(b"a,b\n1,fast\nnan,2\n")
    done = run("predict", model, "-", "--on-error", "null")
    assert done.code == 0
    assert "1 of the 2 rows of standard input could not be read" in " ".join(done.err.split())
    assert "1 of the 2 rows of standard input went through the model" in " ".join(done.err.split())


def test_a_folder_is_scored_file_by_file(model: Path, tmp_path: Path, run: Run) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    (data / "day").mkdir(parents=True)
    FRAME.write_csv(data / "one.csv")
    FRAME.write_parquet(data / "day" / "two.parquet")
    (data / "three.csv.gz").write_bytes(gzip.compress(FRAME.write_csv().encode()))
    (data / "_notes.txt").write_text("left out")
    done = run("predict", model, data, "-o", output, "--keep", "id")
    assert done.code == 0, done.err
    assert "9 rows on cpu" in done.err
    assert "(3 files)" in done.err
    names = sorted(str(path.relative_to(output)) for path in output.rglob("*.*"))
    assert names == ["day/two.parquet", "one.csv", "three.csv"]
    assert polars.read_parquet(output / "day" / "two.parquet")["y"].to_list() == expected(model)
    again = run("predict", model, data, "-o", output)
    assert again.code == 2
    assert "it exists and is not an empty folder" in " ".join(again.err.split())
    record = json.loads(run("predict", model, data, "-o", tmp_path / "more", "--json").out)
    assert [file["rows"] for file in record["files"]] == [3, 3, 3]


def test_float64_columns_of_a_folder_are_noted_once(model: Path, tmp_path: Path, run: Run) -> None:
    (data := tmp_path / "data").mkdir()
    for name, value in (("one", 0.1), ("two", 0.1), ("three", 0.5)):
        polars.DataFrame({"a": [value], "b": [0.25]}).write_parquet(data / f"{name}.parquet")
    done = run("predict", model, data, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.err.count("note: numbers in float64 columns of data become the nearest float32") == 1
    for others in (["-o", tmp_path / "same", "--dtype", "float32"], ["-o", tmp_path / "exact.csv"]):
        given = data if "--dtype" in others else data / "three.parquet"
        assert "nearest float32" not in run("predict", model, given, *others).err


def test_commands_that_read_rows_note_it_without_a_line_of_code(model: Path, tmp_path: Path) -> None:
    polars.DataFrame({"a": [0.1], "b": [0.25]}).write_parquet(tmp_path / "r.parquet")
    command = [sys.executable, "-m", "mlpx", "inspect", str(model), "--data", str(tmp_path / "r.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("note: numbers in float64 columns of r.parquet become the nearest float32")
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "the folder holds no file of rows"),
        ({"a.csv": b"a,b\n1,2\n", "b.txt": b""}, "data is read from .npy, .npz, .csv"),
        ({"a.csv": b"a,b\n1,2\n", "a.csv.gz": b""}, "the results of a.csv and a.csv.gz would both be a.csv"),
        ({"a.csv": b"a,b\n1,2\n", "b.csv": b"a,b\n1,fast\n"}, "b.csv: column 'b', line 2: 'fast' is not a number"),
    ],
)
def test_a_folder_is_scored_whole_or_not_at_all(
    files: dict[str, bytes], expected: str, model: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "data").mkdir()
    for name, content in files.items():
        (tmp_path / "data" / name).write_bytes(content)
    done = run("predict", model, tmp_path / "data", "-o", tmp_path / "out")
    assert done.code == 2
    assert expected in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()
    within = run("predict", model, tmp_path / "data", "-o", tmp_path / "data" / "out")
    assert "the results would lie within the data" in " ".join(within.err.split())
    assert np.all([path.name in files for path in (tmp_path / "data").iterdir()])


def test_compressed_files_keep_the_dots_of_their_names(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    for name in ("2024.01", "2024.02"):
        (tmp_path / "in" / f"{name}.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    done = run("predict", model, tmp_path / "in", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2024.01.csv", "2024.02.csv"]


def test_standard_output_is_no_file(model: Path, tmp_path: Path, run: Run) -> None:
    FRAME.write_csv(tmp_path / "r.csv")
    assert "--json needs an output file" in run("predict", model, tmp_path / "r.csv", "-o", "-", "--json").err
    assert "needs one for the results" in " ".join(run("predict", model, tmp_path, "-o", "-").err.split())
    done = run("predict", model, "-", "-o", tmp_path / "out", "--engine", "ray")
    assert "not standard input" in " ".join(done.err.split())


def test_several_columns_are_kept_by_one_option(model: Path, tmp_path: Path, run: Run) -> None:
    FRAME.write_csv(tmp_path / "r.csv")
    assert run("predict", model, tmp_path / "r.csv", "-o", tmp_path / "o.csv", "--keep", "id, name").code == 0
    assert polars.read_csv(tmp_path / "o.csv").columns == ["id", "name", "y"]
