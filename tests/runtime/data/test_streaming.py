"""Files of any size: memory that does not grow with them, nearest float32 numbers, batches that fit together."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, Port, Session, read_rows, score_file
from runtime.data.batches import decode_ahead
from tests.support.outcomes import outcome

WIDTH = 16
NAMES = [f"f{i}" for i in range(WIDTH)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MLPSpec(
        name="m",
        input={"name": "x", "features": [{"name": name, "range": [-9, 9]} for name in NAMES]},
        blocks=[{"linear": 32}, "relu", {"linear": 3}],
        output={"name": "y"},
    )
    folder = tmp_path_factory.mktemp("model")
    return export(assemble(spec, seed=1).eval(), folder / "m.onnx", spec=spec).path


def write(path: Path, rows: np.ndarray, times: int = 1) -> Path:
    """The rows, again and again."""
    columns = {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(NAMES)}
    table = pyarrow.table(columns)
    if path.suffix == ".npy":
        whole = np.lib.format.open_memmap(path, "w+", np.float32, (len(rows) * times, WIDTH))
        for index in range(times):
            whole[index * len(rows) : (index + 1) * len(rows)] = rows
    elif path.suffix == ".csv":
        text = polars.DataFrame(columns).write_csv(include_header=False).encode()
        with open(path, "wb") as file:
            file.write((",".join(NAMES) + "\n").encode())
            for _ in range(times):
                file.write(text)
    elif path.suffix == ".parquet":
        with pyarrow.parquet.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
            for _ in range(times):
                writer.write_table(table)
    else:
        with pyarrow.ipc.new_file(path, table.schema) as writer:
            for _ in range(times):
                writer.write_table(table)
    return path


def normal(rows: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, WIDTH)).astype(np.float32)


PEAK = """
import sys
from pathlib import Path
from runtime import Session, score_file
for data in sys.argv[2:]:
    score_file(Session(sys.argv[1], "cpu", threads=1), data, Path(data).with_suffix(".out.npy"))
    status = Path("/proc/self/status").read_text().split()
    print(int(status[status.index("VmHWM:") + 1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc, as on Linux")
@pytest.mark.parametrize("kind", ["npy", "csv", "parquet", "arrow"])
def test_memory_does_not_grow_with_the_file(kind: str, model: Path, root: Path, tmp_path: Path) -> None:
    rows = normal(100_000)
    small = write(tmp_path / f"small.{kind}", rows, 8)
    large = write(tmp_path / f"large.{kind}", rows, 48 if kind != "csv" else 24)
    grown = (large.stat().st_size - small.stat().st_size) / 2**20
    command = [sys.executable, "-c", PEAK, str(model), str(small), str(large)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert grown > 200
    assert second - first < 60


@pytest.mark.parametrize("kind", ["npy", "csv", "parquet", "arrow"])
def test_many_batches_are_one_result(kind: str, model: Path, tmp_path: Path) -> None:
    rows = normal(150_001)
    rows[[5, 140_000, 150_000], 3] = [20, 30, np.nan]
    path = write(tmp_path / f"rows.{kind}", rows)
    told: list[tuple[int, float]] = []
    with Session(model, "cpu") as session:
        expected = session.predict(rows)
        for output in ("npy", "npz", "csv", "parquet", "arrow"):
            told.clear()
            report = score_file(
                session, path, tmp_path / f"out.{output}", progress=lambda rows, share: told.append((rows, share))
            )
            found: Any = tmp_path / f"out.{output}"
            if output in ("npy", "npz"):
                array = np.load(found) if output == "npy" else np.load(found)["outputs"]
                np.testing.assert_array_equal(array, expected)
            else:
                read: Any = {"csv": polars.read_csv, "parquet": polars.read_parquet, "arrow": polars.read_ipc}[output]
                assert read(found).columns == ["y_0", "y_1", "y_2"]
                np.testing.assert_array_equal(read(found).to_numpy().astype(np.float32), expected)
            assert report.rows == 150_001
            assert report.rows_per_second > 0
            assert [rows for rows, _ in told] == sorted({rows for rows, _ in told})
            assert len(told) > 1
            assert told[-1] == (150_001, 1.0)
        assert report.outside_rows == 3
        assert [o.first_row for o in report.outside] == [6]
        assert report.nonfinite is not None
        assert report.nonfinite.first_row == 150_001
        rows[149_999, 2] = np.inf
        with pytest.raises(InputError, match=r"'f2' is inf in (row 150000|line 150001)"):
            score_file(session, write(path, rows), tmp_path / "new.npy", reject_nonfinite=True)
        with pytest.raises(InputError, match=r"4 of the 150,001 rows .* are outside"):
            score_file(session, path, tmp_path / "new.npy", strict=True)
        assert not (tmp_path / "new.npy").exists()


def test_other_types_and_orders_of_arrays(model: Path, tmp_path: Path) -> None:
    rows = normal(150_000)
    with Session(model, "cpu") as session:
        expected = session.predict(rows)
        for other in (rows.astype(np.float64), np.asfortranarray(rows), rows.astype(">f4")):
            np.save(tmp_path / "rows.npy", other)
            score_file(session, tmp_path / "rows.npy", tmp_path / "out.npy")
            np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
        other = rows.astype(np.float64)
        other[149_000, 7] = 0.1
        np.save(tmp_path / "rows.npy", other)
        with pytest.raises(InputError, match=r"0\.1 in row 149001, feature 'f7' would become"):
            score_file(session, tmp_path / "rows.npy", tmp_path / "out.npy")


def test_lines_broken_within_quotes(tmp_path: Path) -> None:
    """Blocks of the file end where lines do, wherever quotes are."""
    port = Port("x", ("batch", 1), features=("v",))
    rows = 600_000
    texts = np.array(['"plain"', '"two\nlines"', '"a ""quoted"" word\n\n"', '",\n"'])[np.arange(rows) % 4]
    lines = [f"{text},{i}" for i, text in enumerate(texts.tolist())]
    (tmp_path / "rows.csv").write_text("text,v\n" + "\n".join(lines) + "\n\n\n")
    assert (tmp_path / "rows.csv").stat().st_size > 8 << 20
    assert read_rows(tmp_path / "rows.csv", port)[0][:, 0].tolist() == list(range(rows))
    lines[590_000] = '"x",y'
    (tmp_path / "rows.csv").write_text("text,v\n" + "\n".join(lines))
    with pytest.raises(InputError, match="column 'v', line 590002: 'y' is not a number"):
        read_rows(tmp_path / "rows.csv", port)


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    port = Port("x", ("batch", 1), features=("v",))
    long = "x" * (20 << 20)
    (tmp_path / "rows.csv").write_text(f'text,v\n{long},1\n"{long[:9_000_000]}\n{long}",2\n,3\n')
    assert read_rows(tmp_path / "rows.csv", port)[0][:, 0].tolist() == [1, 2, 3]


def nearest(text: str) -> np.float32:
    """By exact arithmetic: the float32 nearest to a decimal number, of two the even one."""
    exact = Fraction(text)
    guess = np.float32(float(text))
    with np.errstate(over="ignore"):
        around = [guess, np.nextafter(guess, np.float32(-np.inf)), np.nextafter(guess, np.float32(np.inf))]
    found = min(
        (value for value in around if np.isfinite(value)),
        key=lambda value: (abs(Fraction(float(value)) - exact), int(value.view(np.uint32)) & 1),
    )
    return np.float32(-0.0 if found == 0 and text.startswith("-") else found)


HALFWAY = st.floats(0.5, 1e6, width=32).map(
    lambda low: (Fraction(low) + Fraction(float(np.nextafter(np.float32(low), np.float32(np.inf))))) / 2
)
TEXTS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.floats(-1e38, 1e38).map(repr),
    st.decimals(-10000, 10000, places=25).map(str),
    st.integers(-(10**12), 10**12).map(str),
    st.tuples(st.integers(-99999, 99999), st.integers(-50, 30)).map(lambda pair: f"{pair[0]}e{pair[1]}"),
    # Halfway between two, and a hair above, which only a parser that rounds once tells apart.
    st.tuples(HALFWAY, st.sampled_from(["", "0" * 25 + "1"])).map(lambda pair: decimal(pair[0]) + pair[1]),
)


def decimal(exact: Fraction) -> str:
    """Every digit of a fraction whose denominator is a power of two, with a decimal point."""
    places = exact.denominator.bit_length()
    digits = str(exact.numerator * 10**places // exact.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=20), spaced=st.booleans())
def test_numbers_of_a_csv_file_are_the_nearest_float32(texts: list[str], spaced: bool, tmp_path: Path) -> None:
    """On both roads: a space behind a number makes it go by way of its text."""
    path = tmp_path / "rows.csv"
    path.write_text("v\n" + "\n".join(f"{text} " if spaced else text for text in texts) + "\n")
    found = read_rows(path, Port("x", ("batch", 1)))[0][:, 0]
    assert found.tobytes() == np.array([nearest(text) for text in texts], np.float32).tobytes()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=10))
def test_float32_goes_through_csv_unchanged(values: list[list[float]], tmp_path: Path) -> None:
    rows = np.array(values, np.float32)
    polars.DataFrame({name: rows[:, i] for i, name in enumerate("abc")}).write_csv(tmp_path / "rows.csv")
    np.testing.assert_array_equal(read_rows(tmp_path / "rows.csv", Port("x", ("batch", 3)))[0], rows)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("0123456789.eE+-_xinfaNty \t", min_size=1, max_size=8))
def test_what_is_no_number_is_told(text: str, tmp_path: Path) -> None:
    """Against Python's own parser, which also takes underscores between digits and more spellings of infinity."""
    path = tmp_path / "rows.csv"
    path.write_text(f"v,w\n{text},1\n")
    try:
        expected = float(text) if "_" not in text else None
    except ValueError:
        expected = None
    found = outcome(InputError, read_rows, path, Port("x", ("batch", 2)))
    if isinstance(found, InputError):
        assert expected is None or (abs(expected) > 3e38 and "too large" in str(found)), str(found)
        assert "column 'v'" in str(found)
        assert "line 2" in str(found)
        return
    assert expected is not None
    np.testing.assert_equal(float(found[0][0, 0]), float(np.float32(expected)) if np.isfinite(expected) else expected)


def test_progress_on_a_terminal_and_none_in_a_pipe(model: Path, root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.npy", normal(100_000), 4)
    command = [sys.executable, "-m", "mlpx", "predict", str(model), str(path), "-o", str(tmp_path / "out.npy")]
    plain = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert re.match(r"400,000 rows on .*, by position, (0\.\d+ s|[\d.]+ s, [\d,]+ rows/s)\n", plain.stderr)
    terminal, device = pty.openpty()
    with subprocess.Popen(command, cwd=root, stderr=device, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(device)
        shown = b""
        with suppress(OSError):  # as Linux says that the other end is closed
            while part := os.read(terminal, 4096):
                shown += part
    os.close(terminal)
    assert process.returncode == 0
    assert b"scoring" in shown
    assert re.search(rb"[\d,]+ rows, .*[\d,]+ rows/s", shown)
    assert b"scoring" not in plain.stderr.encode()


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 30), threads=st.integers(1, 8), wrong_task=st.integers(0, 40), wrong_read=st.integers(0, 40)
)
def test_batches_and_errors_come_in_order(count: int, threads: int, wrong_task: int, wrong_read: int) -> None:
    def decode(number: int) -> int:
        if number == wrong_task:
            raise InputError(f"{number}")
        return number

    def tasks() -> Iterator[Callable[[], int]]:
        for number in range(count):
            if number == wrong_read:
                raise InputError(f"{number}")
            yield partial(decode, number)

    first_error = min(wrong_task, wrong_read)
    numbers: list[int] = []
    with pytest.raises(InputError, match=f"^{first_error}$") if first_error < count else nullcontext():
        for number in decode_ahead(tasks(), threads):
            numbers.append(number)
    assert numbers == list(range(min(count, first_error)))
