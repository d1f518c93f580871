"""Data that cannot be read, and results that cannot be written: what is said, and that nothing half is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, Session, score_file
from tests.support.commands import Run

NAMES = ["a", "b", "c"]
KINDS = ["npy", "npz", "csv", "parquet", "arrow", "feather"]
ROWS = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = MLPSpec(
        name="m",
        input={"name": "x", "features": NAMES},
        blocks=[{"linear": 2}],
        output={"name": "y", "labels": ["no", "yes"]},
    )
    return export(assemble(spec, seed=1).eval(), tmp_path / "m.onnx", spec=spec).path


@pytest.fixture
def session(model: Path) -> Session:
    return Session(model, "cpu")


def write(path: Path, rows: Any, **options: Any) -> Path:
    """Rows as a file of any kind."""
    columns = rows if isinstance(rows, dict) else {name: rows[:, i] for i, name in enumerate(NAMES)}
    if path.suffix == ".npy":
        np.save(path, np.asarray(rows))
    elif path.suffix == ".npz":
        np.savez(path, x=np.asarray(rows))
    elif path.suffix == ".csv":
        polars.DataFrame(columns).write_csv(path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    else:
        polars.DataFrame(columns).write_ipc(path)
    return path


def results(path: Path) -> dict[str, list[Any]]:
    """The outputs and labels of a file of results, None where they are empty."""
    if path.suffix == ".npy":
        outputs = np.load(path)
        return {"y_no": outputs[:, 0].tolist(), "y_yes": outputs[:, 1].tolist()}
    if path.suffix == ".npz":
        with np.load(path) as found:
            return {
                "y_no": found["outputs"][:, 0].tolist(),
                "label": [text or None for text in found["labels"].tolist()],
            }
    read: Any = {".csv": polars.read_csv, ".parquet": polars.read_parquet}.get(path.suffix, polars.read_ipc)
    return read(path).to_dict(as_series=False)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


BROKEN: dict[str, tuple[str, dict[int, str]]] = {
    "a text": ("a,b,c\n1,2,3\n1,tall,3\n1,2,3\n", {1: "line 3: column 'b': 'tall' is not a number"}),
    "a gap": ("a,b,c\n1,2,3\n1,2,\n1, ,3\n", {1: "line 3: column 'c' is empty", 2: "line 4: column 'b' is empty"}),
    "too large": ("a,b,c\n1e39,2,3\n1,2,inf\n1,2,3\n", {0: "line 2: column 'a': '1e39' is too large for float32"}),
    "too few": ("a,b,c\n1,2\n1,2,3\n1,2,3\n", {0: "line 2: column 'c' is empty"}),
    "too many": ("a,b,c\n1,2,3\n1,2,3,4\n1,2,3\n", {1: "line 3: 4 values, and the header has 3 names"}),
    "an empty line": ("a,b,c\n1,2,3\n\n1,2,3\n", {1: "line 3: column 'a' is empty"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_rows_of_a_csv_file_that_cannot_be_read(name: str, session: Session, tmp_path: Path) -> None:
    text, reasons = BROKEN[name]
    (tmp_path / "rows.csv").write_text(text)
    before = files(tmp_path)
    places = "|".join(reason.partition(":")[0] for reason in reasons.values())
    with pytest.raises(InputError, match=rf"rows.csv: .*({places})"):
        score_file(session, tmp_path / "rows.csv", tmp_path / "new" / "out.csv")
    assert files(tmp_path) == before
    report = score_file(session, tmp_path / "rows.csv", tmp_path / "out.csv", on_error="null")
    assert (report.rows, report.failed_rows, report.failed) == (3, len(reasons), tuple(reasons.values()))
    found = results(tmp_path / "out.csv")
    assert [index for index, label in enumerate(found["label"]) if label is None] == list(reasons)
    assert [index for index, value in enumerate(found["y_no"]) if value is None] == list(reasons)


@pytest.mark.parametrize("output", KINDS)
@pytest.mark.parametrize("data", ["csv", "parquet", "arrow"])
def test_empty_results_in_every_format(data: str, output: str, session: Session, tmp_path: Path) -> None:
    columns: dict[str, Any] = {name: ROWS[:, i].tolist() for i, name in enumerate(NAMES)}
    columns["b"][3] = columns["a"][7] = None
    frame = polars.DataFrame(columns, schema=dict.fromkeys(NAMES, polars.Float32))
    path = tmp_path / f"rows.{data}"
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "arrow": frame.write_ipc}[data](path)
    place = "line" if data == "csv" else "row"
    with pytest.raises(
        InputError, match=f"column 'b' has 1 empty values, the first in {place} {5 if data == 'csv' else 4}"
    ):
        score_file(session, path, tmp_path / f"out.{output}")
    report = score_file(session, path, tmp_path / f"out.{output}", on_error="null")
    assert report.failed_rows == 2
    assert report.failed_words is not None
    assert "2 of the 20 rows" in report.failed_words
    found, expected = results(tmp_path / f"out.{output}"), session.predict(ROWS)
    empty = [i for i, v in enumerate(found["y_no"]) if v is None or np.isnan(v)]
    assert empty == [3, 7]
    assert all(found["y_no"][i] == expected[i, 0] for i in range(20) if i not in empty)
    if "label" in found:
        assert [i for i, label in enumerate(found["label"]) if label is None] == [3, 7]


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet", "arrow"])
def test_values_too_large_for_float32(kind: str, session: Session, tmp_path: Path) -> None:
    rows = ROWS.astype(np.float64)
    rows[4, 1] = 1e300
    path = write(tmp_path / f"rows.{kind}", rows)
    with pytest.raises(InputError, match=r"1e\+300 in row 5.* would become inf"):
        score_file(session, path, tmp_path / "out.csv", dtype="float32")
    report = score_file(session, path, tmp_path / "out.csv", dtype="float32", on_error="null")
    assert report.failed_rows == 1
    assert report.failed[0].startswith("row 5: ")
    rows[4, 1], rows[9, 0] = 1, 0.1
    path = write(tmp_path / f"rows.{kind}", rows)
    if kind in ("parquet", "arrow"):
        assert score_file(session, path, tmp_path / "new.csv").rounded
        return
    for on_error in ("fail", "null"):  # leaving rows out is no remedy for a file of another type
        with pytest.raises(
            InputError, match=r"is float64 and the model takes float32: 0\.1 in row 10.*--dtype float32"
        ):
            score_file(session, path, tmp_path / "new.csv", on_error=on_error)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_are_counted_or_refused(kind: str, session: Session, tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[2, 1], rows[2, 2], rows[5, 0] = np.nan, -np.inf, np.inf
    path, line = write(tmp_path / f"rows.{kind}", rows), "line 4" if kind == "csv" else "row 3"
    report = score_file(session, path, tmp_path / "out.npy")
    found = report.nonfinite
    assert found is not None
    assert (found.rows, found.nan_values, found.infinite_values) == (2, 1, 2)
    assert (found.first_row, found.feature) == (3, "b")
    assert np.isnan(found.value)
    words = f"1 NaN and 2 infinite values in 2 of the 20 rows of {path.name} went through the model"
    assert report.nonfinite_words == f"{words}, first 'b' in {line}: nan"
    assert np.load(tmp_path / "out.npy").tobytes() == session.predict(rows).tobytes()
    with pytest.raises(InputError, match=f"'b' is nan in {line}.*--reject-nonfinite"):
        score_file(session, path, tmp_path / "new.npy", reject_nonfinite=True)
    assert not (tmp_path / "new.npy").exists()
    report = score_file(session, path, tmp_path / "out.npy", reject_nonfinite=True, on_error="null")
    assert report.failed_rows == 2
    assert report.nonfinite is None
    assert report.failed == (f"{line}: 'b' is nan", f"{line[:-1]}{int(line[-1]) + 3}: 'a' is inf")
    assert np.flatnonzero(np.isnan(np.load(tmp_path / "out.npy")[:, 0])).tolist() == [2, 5]


def test_finite_values_are_not_called_infinite(session: Session, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", np.full((3, 3), 3e38, np.float32))
    report = score_file(session, path, tmp_path / "out.npy", reject_nonfinite=True)
    assert report.rows == 3
    assert report.nonfinite is None


def test_a_corrupt_row_group(session: Session, tmp_path: Path) -> None:
    rows = np.tile(ROWS, (50, 1))
    path = write(tmp_path / "rows.parquet", rows, row_group_size=200, compression="zstd", use_dictionary=False)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    start = metadata.row_group(2).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 300] = b"x" * 300
    path.write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"rows.parquet: row group 3 of 5 cannot be read: .*, from row 401 on"):
        score_file(session, path, tmp_path / "out.npy")
    assert files(tmp_path) == before
    report = score_file(session, path, tmp_path / "out.npy", on_error="null")
    assert (report.rows, report.failed_rows) == (1000, 200)
    assert "row 401: row group 3" in report.failed[0]
    found = np.load(tmp_path / "out.npy")
    assert np.isnan(found[400:600]).all()
    assert not np.isnan(found[:400]).any()
    assert not np.isnan(found[600:]).any()


@pytest.mark.parametrize("kind", ["npy", "parquet", "arrow", "npz"])
def test_files_that_end_too_soon(kind: str, session: Session, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows.{kind}", np.tile(ROWS, (50, 1)))
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(InputError, match=rf"rows\.{kind}: cannot be read"):
        score_file(session, path, tmp_path / "out.npy")
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"rows\.{kind}: cannot be read"):
        score_file(session, path, tmp_path / "out.npy")


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"a": [1.0], "c": [2.0]}, "1 of the model's 3 columns are missing: 'b'; the file has 'a', 'c'"),
        ({"a": [1.0], "b": ["x"], "c": [2.0]}, "column 'b'(, line 2: 'x' is not a number| holds String)"),
        ({"a": [1.0], "b": [None], "c": [2.0]}, "column 'b' (has 1 empty values|holds Null)"),
    ],
)
def test_columns_that_do_not_fit(kind: str, columns: dict, expected: str, session: Session, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows.{kind}", columns)
    with pytest.raises(InputError, match=expected):
        score_file(session, path, tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_surplus_and_reordered_columns(session: Session, tmp_path: Path) -> None:
    columns = {"id": ["x"] * 20, "c": ROWS[:, 2], "a": ROWS[:, 0], "b": ROWS[:, 1]}
    for kind in ("csv", "parquet", "arrow"):
        report = score_file(session, write(tmp_path / f"rows.{kind}", columns), tmp_path / "out.npy")
        assert report.matched == "columns by name, 'id' not used"
        assert np.load(tmp_path / "out.npy").tobytes() == session.predict(ROWS).tobytes()


def test_a_quotation_mark_that_is_not_closed(session: Session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('a,b,c\n1,2,3\n1,"2,3\n1,2,3\n')
    with pytest.raises(InputError, match=r"rows\.csv: cannot be read as CSV"):
        score_file(session, tmp_path / "rows.csv", tmp_path / "out.npy", on_error="null")


def test_the_command_tells_what_failed(run: Run, model: Path, tmp_path: Path) -> None:
    lines = ["a,b,c", *["1,2,3"] * 5, *["1,x,3"] * 7, "nan,2,3"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    code, out, err = run("predict", model, tmp_path / "rows.csv")
    assert code == 2
    assert out == ""
    assert "column 'b', line 7: 'x' is not a number" in err
    assert "--on-error null" in err
    code, out, err = run("predict", model, tmp_path / "rows.csv", "--on-error", "null")
    assert code == 0
    assert len(out.splitlines()) == 14
    assert out.splitlines()[6] == ",,,,"
    assert "note: 7 of the 13 rows of rows.csv could not be read and have empty results: line 7: column 'b'" in err
    assert "line 11: column 'b': 'x' is not a number; and 2 more" in err
    assert "note: 1 NaN values in 1 of the 13 rows of rows.csv went through the model, first 'a' in line 14: nan" in err
    arguments = ("predict", model, tmp_path / "rows.csv", "-o", tmp_path / "o.npy", "--on-error", "null", "--json")
    record = json.loads(run(*arguments).out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["failed_rows"] == 7
    assert len(record["failed"]) == 5
    found = {"rows": 1, "nan_values": 1, "infinite_values": 0, "first_row": 13, "feature": "a", "value": "nan"}
    assert record["nonfinite"] == found
    assert run("predict", model, tmp_path / "rows.csv", "--on-error", "skip").code == 2
    code, _, err = run("predict", model, tmp_path / "rows.csv", "--on-error", "null", "--reject-nonfinite")
    assert code == 0
    assert "8 of the 13 rows" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("kind", ["csv", "npy", "npz", "parquet"])
def test_an_ended_run_leaves_nothing(
    number: signal.Signals, code: int, kind: str, model: Path, root: Path, tmp_path: Path
) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (100_000_000, 3))  # takes no room
    del rows
    (tmp_path / f"out.{kind}").write_bytes(b"old")
    before = files(tmp_path)
    command = [sys.executable, "-m", "mlpx", "predict", model, tmp_path / "rows.npy", "-o", tmp_path / f"out.{kind}"]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        while files(tmp_path) == before and process.poll() is None:  # until it writes
            pass
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in told
    assert files(tmp_path) == before
    assert (tmp_path / f"out.{kind}").read_bytes() == b"old"
