"""Rows from files and results into files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, OutputError, Port, Session, read_rows, score_file
from runtime.data.scoring import Scores
from runtime.errors import RoundingWarning

NAMES = ["age", "height", "weight"]
ROWS = np.array([[1, 2.5, -3], [4, 0.1, 6], [7, 8, 9]], np.float32)


def exported(folder: Path, *, names: bool = True, last: str | None = None, width: int = 2, **output: Any) -> Session:
    features: Any = NAMES if names else 3
    blocks = [{"linear": width}, *([last] if last else [])]
    spec = MLPSpec(name="m", input={"name": "x", "features": features}, blocks=blocks, output={"name": "y", **output})
    export(assemble(spec, seed=1).eval(), folder / "m.onnx", spec=spec)
    return Session(folder / "m.onnx", "cpu")


def write(path: Path, columns: dict[str, Any]) -> Path:
    frame = polars.DataFrame(columns)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


def columns(**more: Any) -> dict[str, Any]:
    return {name: ROWS[:, i] for i, name in enumerate(NAMES)} | more


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
@pytest.mark.parametrize("names", [True, False])
def test_every_format_gives_the_same_rows(kind: str, names: bool, tmp_path: Path) -> None:
    port = Port("x", ("batch", 3), features=tuple(NAMES) if names else None)
    path = tmp_path / f"rows.{kind}"
    if kind == "npy":
        np.save(path, ROWS)
    elif kind == "npz":
        np.savez(path, x=ROWS, other=np.zeros(3))
    else:
        write(path, columns())
    rows, how = read_rows(path, port)
    assert rows.tobytes() == ROWS.tobytes()
    by_name = names and kind in ("csv", "parquet")
    assert ("by name" in how) == by_name


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_are_matched_by_name_in_any_order(kind: str, tmp_path: Path) -> None:
    shuffled = {"id": ["a", "b", "c"]} | dict(reversed(columns().items()))
    rows, how = read_rows(write(tmp_path / f"r.{kind}", shuffled), Port("x", ("batch", 3), features=tuple(NAMES)))
    assert rows.tobytes() == ROWS.tobytes()
    assert how == "columns by name, 'id' not used"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("data", "names", "expected"),
    [
        ({"age": [1.0], "weight": [2.0]}, True, r"1 of the model's 3 columns are missing: 'height'; the file has 'age'"),
        ({"age": [1.0], "weight": [2.0]}, False, r"expects 3 columns and the model names no features; the file has 2"),
        ({"age": [1.0, 2.0], "height": [1.0, None], "weight": [0.0, 0.0]}, True, r"'height' has 1 empty values, the first in (line 3|row 2)"),
        ({"age": [1.0], "height": ["tall"], "weight": [0.0]}, True, r"column 'height'(, line 2: 'tall' is not a number| holds String)"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit(kind: str, data: dict, names: bool, expected: str, tmp_path: Path) -> None:
    port = Port("x", ("batch", 3), features=tuple(NAMES) if names else None)
    with pytest.raises(InputError, match=expected) as caught:
        read_rows(write(tmp_path / f"r.{kind}", data), port)
    assert f"r.{kind}" in str(caught.value)


PORT = Port("x", ("batch", 3), features=tuple(NAMES))


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_float64_columns_of_files_become_the_nearest_float32_and_that_is_said_once(kind: str, tmp_path: Path) -> None:
    columns = {"age": [1.0, 2.0], "height": [0.5, 0.1], "weight": [0.2, None]}
    path, port = tmp_path / f"r.{kind}", replace(PORT, missing=True)
    frame = polars.DataFrame(columns)
    frame.write_parquet(path) if kind == "parquet" else frame.write_ipc(path)
    with pytest.warns(RoundingWarning, match=f"float64 columns of r.{kind} become the nearest float32") as said:
        rows, _ = read_rows(path, port)
    assert [warning.filename for warning in said] == [__file__]
    np.testing.assert_array_equal(rows, np.array([[1, 0.5, 0.2], [2, 0.1, np.nan]], np.float32))
    assert read_rows(path, port, dtype="float32")[0].tobytes() == rows.tobytes()  # no warning, which would be an error


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2**24 + 1], r"column 'height' is int64.*16777217 in row 2 would become 16777216"),
        ([1.0, 1e39], r"column 'height' is float64 and the model takes float32: 1e\+39 in row 2 would become inf"),
    ],
)
def test_parquet_values_that_float32_cannot_hold_name_their_column(
    values: list[Any], expected: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "r.parquet", {"age": [1, 2], "height": values, "weight": [1.0, 1.0]})
    with pytest.raises(InputError, match=expected):
        read_rows(path, PORT)


def test_a_table_of_exact_doubles_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", {"age": [1.0, 2.0], "height": [0.5, -np.inf], "weight": [np.nan, 1.0]})
    assert read_rows(path, PORT)[0][0, 1] == 0.5  # no warning, which would be an error


def test_csv_texts(tmp_path: Path) -> None:
    port = Port("x", ("batch", 1))
    path = tmp_path / "r.csv"
    path.write_text("a\n 0.1 \n1e-3\n-inf\nnan\n7\n")
    rows, _ = read_rows(path, port)
    assert rows[[0, 1, 2, 4], 0].tolist() == [np.float32(0.1), np.float32(1e-3), -np.inf, 7]
    assert np.isnan(rows[3, 0])
    path.write_text("a\n1e300\n")
    with pytest.raises(InputError, match=r"line 2: '1e300' is too large for float32"):
        read_rows(path, port)
    path.write_text("1.5\n2.5\n")
    with pytest.raises(InputError, match=r"the first line \(1.5, …\) holds values"):
        read_rows(path, port)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.npy", b"not numpy", r"cannot be read as .npy"),
        ("r.npz", b"not a zip", r"cannot be read as .npz"),
        ("r.parquet", b"not parquet", r"cannot be read as Parquet"),
        ("r.csv", b"", r"cannot be read as CSV"),
        (
            "r.txt",
            b"1 2 3",
            r"data is read from .npy, .npz, .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .arrow, .feather files",
        ),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_rows(tmp_path / name, Port("x", ("batch", 3)))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([[None, 1, 2]], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"cannot be read as .npy.*[Oo]bject"):
        read_rows(tmp_path / "r.npy", Port("x", ("batch", 3)))


def test_an_archive_of_several_arrays_needs_the_inputs_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", a=ROWS, b=ROWS)
    with pytest.raises(InputError, match=r"it holds a, b; the array for the model is called 'x'"):
        read_rows(tmp_path / "r.npz", Port("x", ("batch", 3)))


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet"])
def test_every_format_holds_the_same_results(kind: str, tmp_path: Path) -> None:
    session = exported(tmp_path, labels=["no", "yes"])
    np.save(tmp_path / "rows.npy", ROWS)
    report = score_file(session, tmp_path / "rows.npy", tmp_path / f"out.{kind}")
    assert report.rows == 3
    assert report.device == "cpu"
    assert report.output == tmp_path / f"out.{kind}"
    outputs = session.predict(ROWS)
    probabilities = torch.softmax(torch.from_numpy(outputs).double(), dim=1).float().numpy()
    labels = np.array(["no", "yes"])[outputs.argmax(axis=1)]
    if kind == "npy":
        assert np.load(tmp_path / "out.npy").tobytes() == outputs.tobytes()
    elif kind == "npz":
        with np.load(tmp_path / "out.npz") as file:
            found = dict(file)
        assert found["outputs"].tobytes() == outputs.tobytes()
        assert found["labels"].tolist() == labels.tolist()
        assert np.allclose(found["probabilities"], probabilities, rtol=0, atol=1e-7)
    else:
        frame = (polars.read_csv if kind == "csv" else polars.read_parquet)(tmp_path / f"out.{kind}")
        assert frame.columns == ["label", "probability_no", "probability_yes", "y_no", "y_yes"]
        assert frame["label"].to_list() == labels.tolist()
        assert frame["y_yes"].to_numpy().astype(np.float32).tobytes() == outputs[:, 1].tobytes()
        assert np.allclose(frame["probability_yes"].to_numpy(), probabilities[:, 1], rtol=0, atol=1e-7)


def test_what_outputs_mean() -> None:
    values = np.array([[0.9], [0.5], [0.2], [np.nan]], np.float32)
    probability = Scores(values, Port("y", ("batch", 1), labels=("bad", "good"), scores="probabilities"))
    assert probability.labels is not None
    assert probability.labels.tolist() == ["good", "bad", "bad", None]
    assert probability.probabilities is not None
    assert np.allclose(probability.probabilities[:3], [[0.1, 0.9], [0.5, 0.5], [0.8, 0.2]])
    logit = Scores(values, Port("y", ("batch", 1), labels=("bad", "good"), scores="logits"))
    assert logit.labels is not None
    assert logit.labels.tolist() == ["good", "good", "good", None]
    assert logit.probabilities is not None
    assert np.allclose(logit.probabilities[0], [1 / (1 + np.exp(0.9)), 1 / (1 + np.exp(-0.9))])
    infinite = Scores(np.array([[np.inf, 0]], np.float32), Port("y", ("batch", 2), labels=("a", "b"), scores="logits"))
    assert infinite.labels is not None
    assert infinite.labels.tolist() == ["a"]
    assert infinite.probabilities is not None
    assert np.isnan(infinite.probabilities[0, 0])
    plain = Scores(values, Port("y", ("batch", 1)))
    assert plain.labels is None
    assert plain.probabilities is None
    assert list(plain.columns()) == ["y"]
    three = Scores(np.array([[1, 3, 2]], np.float32), Port("y", ("batch", 3), labels=("a", "b", "c"), scores="values"))
    assert three.labels is not None
    assert three.labels.tolist() == ["b"]
    assert three.probabilities is None
    assert list(three.columns()) == ["label", "y_a", "y_b", "y_c"]


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet"])
def test_no_rows_give_no_results(kind: str, tmp_path: Path) -> None:
    session = exported(tmp_path, labels=["no", "yes"])
    if kind == "npy":
        np.save(tmp_path / "rows.npy", np.zeros((0, 3), np.float32))
    else:
        write(tmp_path / f"rows.{kind}", {name: np.zeros(0, np.float32) for name in NAMES})
    report = score_file(session, tmp_path / f"rows.{kind}", tmp_path / "out.csv")
    assert report.rows == 0
    assert (tmp_path / "out.csv").read_text() == "label,probability_no,probability_yes,y_no,y_yes\n"


def test_a_files_name_is_no_pattern(tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        write(tmp_path / f"rows[1].{kind}", {"a": [1.0]})
        write(tmp_path / f"rows1.{kind}", {"a": [100.0]})
        rows, _ = read_rows(tmp_path / f"rows[1].{kind}", Port("x", ("batch", 1)))
        assert rows.tolist() == [[1.0]]


@pytest.mark.parametrize("first", ["0,0", "0,", "nan,nan", "1.5,x"])
def test_a_csv_without_names_is_refused_before_its_first_row_is_lost(first: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(f"{first}\n1,2\n3,4\n")
    with pytest.raises(InputError, match="holds values, not names of columns"):
        read_rows(tmp_path / "r.csv", Port("x", ("batch", 2)))


def test_csv_headers(tmp_path: Path) -> None:
    port = Port("x", ("batch", 2), features=("0", 'a "b"'))
    (tmp_path / "r.csv").write_text('\ufeff"a ""b""", 0,c\r\n1,2,x\r\n\r\n', encoding="utf-8")
    rows, how = read_rows(tmp_path / "r.csv", port)
    assert rows.tolist() == [[2.0, 1.0]]
    assert "'c' not used" in how
    (tmp_path / "r.csv").write_text('0,"a ""b""",0\n1,2,3\n')
    with pytest.raises(InputError, match="more than one column named '0'"):
        read_rows(tmp_path / "r.csv", port)


def test_missing_values_in_the_last_rows_are_not_empty_lines(tmp_path: Path) -> None:
    port = Port("x", ("batch", 2))
    for rows, empty in (("1,2\n,\n,\n", True), ("1,2\n\n\n", False), ("1,2", False), ("1,2\r\n\r\n", False)):
        (tmp_path / "r.csv").write_text("a,b\n" + rows)
        if empty:
            with pytest.raises(InputError, match="column 'a' has 2 empty values, the first in line 3"):
                read_rows(tmp_path / "r.csv", port)
        else:
            assert read_rows(tmp_path / "r.csv", port)[0].tolist() == [[1.0, 2.0]]
    (tmp_path / "r.csv").write_bytes(b"a\r1\r2\r")
    with pytest.raises(InputError, match="CR alone"):
        read_rows(tmp_path / "r.csv", Port("x", ("batch", 1)))


def test_damaged_archives_and_decimals(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", x=np.zeros((50, 3), np.float32))
    content = (tmp_path / "r.npz").read_bytes()
    for damaged in (content[: len(content) // 2], content[:200] + b"x" + content[201:], b"PK\x03\x04"):
        (tmp_path / "r.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            read_rows(tmp_path / "r.npz", Port("x", ("batch", 3)))
    with (tmp_path / "r.npz").open("wb") as file:
        np.save(file, ROWS)
    with pytest.raises(InputError, match="a single array, not an archive"):
        read_rows(tmp_path / "r.npz", Port("x", ("batch", 3)))
    polars.DataFrame({"a": ["1.5"]}).select(polars.col("a").cast(polars.Decimal(10, 2))).write_parquet(
        tmp_path / "r.parquet"
    )
    with pytest.raises(InputError, match="column 'a' holds Decimal"):
        read_rows(tmp_path / "r.parquet", Port("x", ("batch", 1)))


def test_a_link_is_written_through_and_modes_are_kept(tmp_path: Path) -> None:
    session = exported(tmp_path)
    np.save(tmp_path / "rows.npy", ROWS)
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "real.csv").chmod(0o600)
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    score_file(session, tmp_path / "rows.npy", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("y_0,y_1")
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o600


def test_results_go_nowhere_when_rows_are_wrong(tmp_path: Path) -> None:
    session = exported(tmp_path)
    np.save(tmp_path / "rows.npy", np.zeros((3, 4), np.float32))
    for name in ("out.csv", "out.npy", "new/out.parquet"):
        with pytest.raises(InputError):
            score_file(session, tmp_path / "rows.npy", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "rows.npy"]
    with pytest.raises(
        InputError,
        match=r"results are written to .npy, .npz, .csv, .tsv, .parquet, .arrow, .feather files, not to '.txt'",
    ):
        score_file(session, tmp_path / "rows.npy", tmp_path / "out.txt")


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    session = exported(tmp_path)
    np.save(tmp_path / "rows.npy", ROWS)
    for kind in ("npy", "npz", "csv", "parquet", "arrow"):
        with pytest.raises(OutputError, match=r"cannot be written: a file stands where its folder should be"):
            score_file(session, tmp_path / "rows.npy", tmp_path / "m.onnx" / f"out.{kind}")


FULL = """
import resource, signal, sys
from runtime import Session, score_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
score_file(Session(sys.argv[1], "cpu"), sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet", "arrow"])
def test_a_disk_that_is_full_leaves_the_old_results_whole(kind: str, root: Path, tmp_path: Path) -> None:
    """A file size limit in a process of its own stands for the full disk: the write fails half way."""
    exported(tmp_path)
    np.save(tmp_path / "rows.npy", np.zeros((100, 3), np.float32))
    old = tmp_path / f"out.{kind}"
    old.write_bytes(b"old")
    command = [sys.executable, "-c", FULL, *(str(tmp_path / n) for n in ("m.onnx", "rows.npy")), str(old)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert "OutputError" in done.stderr
    assert "cannot be written: File too large; nothing was changed" in done.stderr
    assert old.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3
