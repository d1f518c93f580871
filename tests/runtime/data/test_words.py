"""Words and missing values in tables, files and arrays: as eager PyTorch takes them, or refused by row and column."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from export import publish
from runtime import InputError, Session, read_inputs, score_file, score_table
from runtime.data.categories import encode_rows
from runtime.data.scoring import input_ports
from runtime.model.port import Port, Vocabulary
from tests.support.commands import Run
from tests.support.repeats import examples
from tests.support.words import CARRIERS, ORIGINS, delays, eager


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, float]:
    """The network, its file, and how far any row of its ranges may be from the exact answer."""
    spec, module = delays()
    path = tmp_path_factory.mktemp("words") / "delays.onnx"
    artifact, report = publish(module, path, spec=spec, device="cpu", page=False)
    assert report.bound is not None
    assert report.bound.largest is not None
    return module, artifact.path, report.bound.largest


@pytest.fixture(scope="module")
def session(made: tuple[nn.Module, Path, float]) -> Any:
    with Session(made[1], "cpu") as opened:
        yield opened


ROWS: dict[str, list[Any]] = {
    "carrier": ["AA", "Ü 2", "??", None],
    "wind": [3.0, None, 1.5, None],
    "origin": ["JFK", "EWR", "LGA", "JFK"],
    "distance": [500.0, 250.0, None, 1.0],
}
NUMBERS = np.array([[500, 3], [250, np.nan], [np.nan, 1.5], [1, np.nan]], np.float32)
CODES = np.array([[0, 1], [3, 0], [2, 2], [2, 1]])


def arrow(columns: dict[str, list[Any]]) -> pyarrow.Table:
    table: Any = pyarrow.table(columns)
    return table.set_column(0, "carrier", table["carrier"].dictionary_encode())


TABLES: dict[str, Any] = {
    "pandas": pandas.DataFrame,
    "pandas categories": lambda columns: pandas.DataFrame(columns).astype(
        {"carrier": "category", "origin": "category"}
    ),
    "pandas strings": lambda columns: pandas.DataFrame(columns).astype({"carrier": "string", "origin": "string"}),
    "pandas of Arrow": lambda columns: arrow(columns).to_pandas(types_mapper=pandas.ArrowDtype),
    "polars": polars.DataFrame,
    "polars categories": lambda columns: polars.DataFrame(columns).cast({"carrier": polars.Categorical}),
    "polars enums": lambda columns: polars.DataFrame(columns).cast({"origin": polars.Enum(ORIGINS)}),
    "arrow": arrow,
    "arrow in chunks": lambda columns: pyarrow.concat_tables([arrow(columns).slice(0, 1), arrow(columns).slice(1)]),
    "arrays": lambda columns: {
        name: np.ma.masked_array([v or 0.0 for v in values], [v is None for v in values])
        if name in ("wind", "distance")
        else np.array(values, object)
        for name, values in columns.items()
    },
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_hold_words_and_gaps(kind: str, made: tuple[nn.Module, Path, float], session: Session) -> None:
    found = score_table(session, TABLES[kind](ROWS), dtype="float32")
    np.testing.assert_allclose(found["delay"], eager(made[0], NUMBERS, CODES)[:, 0], rtol=0, atol=made[2])
    assert set(found) == {"label", "probability_on time", "probability_late", "delay"}


def written(kind: str, folder: Path) -> Path:
    path = folder / f"rows.{kind}"
    frame = polars.DataFrame(ROWS).cast({polars.Float64: polars.Float32, "origin": polars.Categorical})
    if kind == "csv":
        frame.write_csv(path)
    elif kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_ipc(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_files_hold_words_and_gaps(kind: str, made: tuple[nn.Module, Path, float], tmp_path: Path, run: Run) -> None:
    done = run("predict", made[1], written(kind, tmp_path), "-o", tmp_path / "out.csv")
    assert done.code == 0
    assert "NaN" not in done.err  # missing values are no surprise
    found = polars.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(found["delay"], eager(made[0], NUMBERS, CODES)[:, 0], rtol=0, atol=made[2])


def test_arrays_hold_words_or_codes(session: Session) -> None:
    numbers = NUMBERS[:2]
    words = [["AA", "JFK"], ["Ü 2", "EWR"]]
    expected = session.predict({"numbers": numbers, "words": CODES[:2]})
    for given_words in (words, np.array(words), np.array(words, object)):
        assert np.array_equal(session.predict({"numbers": numbers, "words": given_words}), expected)
    with pytest.raises(InputError, match=r"'words', row 2, feature 'origin': 'EWK' is none of its 3 .*mean 'EWR'"):
        session.predict({"numbers": numbers, "words": [["AA", "JFK"], ["AA", "EWK"]]})
    with pytest.raises(InputError, match=r"row 1, feature 'origin': 3 is not a whole number from 0 to 2"):
        session.predict({"numbers": numbers, "words": [[0, 3], [0, 0]]})
    with pytest.raises(InputError, match="expects shape"):
        session.predict({"numbers": numbers, "words": np.array(words)[:, :1]})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("origin", "JKF", "column 'origin', {} 3: 'JKF' is none of its 3 categories (did you mean 'JFK'?)"),
        ("origin", "Oslo", "column 'origin', {} 3: 'Oslo' is none of its 3 categories (they are 'EWR', 'JFK', 'LGA')"),
        ("origin", None, "column 'origin' has 1 empty values, the first in {} 3"),
    ],
)
def test_an_unknown_word_names_row_and_column(
    kind: str, column: str, value: Any, expected: str, made: tuple[nn.Module, Path, float], tmp_path: Path, run: Run
) -> None:
    columns = {name: list(values) for name, values in ROWS.items()}
    columns[column][2 if kind == "parquet" else 1] = value
    frame = polars.DataFrame(columns).cast({polars.Float64: polars.Float32})
    path = tmp_path / f"r.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    done = run("predict", made[1], path, "-o", tmp_path / "out.csv")
    assert done.code == 2
    assert expected.format("line" if kind == "csv" else "row") in done.err
    done = run("predict", made[1], path, "-o", tmp_path / "out.csv", "--on-error", "null")
    assert done.code == 0
    assert "1 of the 4 rows" in done.err


def test_an_empty_field_is_an_error_that_counts_without_impute(tmp_path: Path) -> None:
    port = Port("x", ("batch", 2), ("a", "b"))
    (tmp_path / "r.csv").write_text("a,b\n1,2\n,2\n3,\n,5\n")
    with pytest.raises(InputError, match="column 'a' has 2 empty values, the first in line 3"):
        read_inputs(tmp_path / "r.csv", [port])


CODED = Port("x", ("batch", 1), ("city",), dtype="int64", categories=(Vocabulary(("Oslo", "Rome")),), indices=((0, 1),))
DIGITS = Port("x", ("batch", 1), ("hour",), dtype="int64", categories=(Vocabulary(("5", "6", "-1"), 1),))


@pytest.mark.parametrize("dtype", ["int64", "int8", "float64", "uint16"])
def test_whole_numbers_are_codes_or_where_the_words_are_numbers_words(dtype: str, tmp_path: Path) -> None:
    for values, port, expected in (([1, 0], CODED, [1, 0]), ([6, 5], DIGITS, [1, 0]), ([9, 5], DIGITS, [1, 0])):
        frame = pandas.DataFrame({str((port.features or ("",))[0]): np.array(values, dtype)})
        frame.to_parquet(tmp_path / "r.parquet")
        rows, _ = read_inputs(tmp_path / "r.parquet", [port])
        assert rows["x"].tolist() == [[code] for code in expected]
    pandas.DataFrame({"city": np.array([0, 2], dtype)}).to_parquet(tmp_path / "r.parquet")
    with pytest.raises(InputError, match="row 2, feature 'city': 2 is not a whole number from 0 to 1"):
        read_inputs(tmp_path / "r.parquet", [CODED])


def test_a_csv_file_holds_words_only(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("city\nOslo\n 1\n")
    with pytest.raises(InputError, match="column 'city', line 3: '1' is none of its 2 categories"):
        read_inputs(tmp_path / "r.csv", [CODED])


WORDS = st.sampled_from([*CARRIERS, *ORIGINS, "", "??", "0", "nan", "AA "]) | st.text("AB6UEWRJFKLG ,\"'\n", max_size=4)
VALUES = st.none() | st.floats(-1e4, 1e4, width=32) | st.just(float("nan"))


@settings(deadline=None, max_examples=examples(40, of=300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(VALUES, VALUES, st.none() | WORDS, st.none() | WORDS), min_size=1, max_size=8),
    kind=st.sampled_from(["csv", "parquet", "pandas", "polars"]),
)
def test_generated_rows_equal_eager_pytorch_or_are_named(
    rows: list[tuple[Any, ...]], kind: str, made: tuple[nn.Module, Path, float], session: Session, tmp_path: Path
) -> None:
    frame = polars.DataFrame(
        rows,
        schema={"distance": polars.Float32, "wind": polars.Float32, "carrier": polars.String, "origin": polars.String},
        orient="row",
    )
    # A CSV field has no space around it, and does not tell an empty text from none.
    texts = [(row[2], row[3]) if kind != "csv" else tuple((w or "").strip() for w in row[2:]) for row in rows]
    codes = [[CARRIERS.index(a) if a in CARRIERS else 2, ORIGINS.index(b) if b in ORIGINS else -1] for a, b in texts]
    refused = [code < 0 for _, code in codes]
    numbers = np.array([[np.nan if v is None else v for v in row[:2]] for row in rows], np.float32)
    expected = eager(made[0], numbers, np.maximum(codes, 0))[:, 0]
    if kind in ("pandas", "polars"):
        table = frame.to_pandas() if kind == "pandas" else frame
        if not any(refused):
            np.testing.assert_allclose(score_table(session, table)["delay"], expected, rtol=0, atol=made[2])
            return
        first = min(row for row, is_refused in enumerate(refused) if is_refused)
        with pytest.raises(InputError) as caught:
            score_table(session, table)
        assert f"row {first + 1}" in str(caught.value)
        return
    path = tmp_path / f"rows.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    report = score_file(session, path, tmp_path / "out.npz", on_error="null")
    found = np.load(tmp_path / "out.npz")["outputs"][:, 0]
    assert np.array_equal(np.isnan(found), np.array(refused))
    np.testing.assert_allclose(found, np.where(refused, np.nan, expected), rtol=0, atol=made[2])
    assert report.failed_rows == sum(refused)
    assert len(report.failed) == min(5, sum(refused))
    assert report.nonfinite is None


@settings(deadline=None, max_examples=examples(40, of=300))
@given(rows=st.lists(st.tuples(st.none() | WORDS, st.none() | WORDS), min_size=1, max_size=8))
def test_arrays_of_generated_words_have_their_codes_or_the_first_row_is_named(
    rows: list[tuple[Any, ...]], session: Session
) -> None:
    _, port = input_ports(session)
    words = np.array([list(row) for row in rows], object)
    codes = [[CARRIERS.index(a) if a in CARRIERS else 2, ORIGINS.index(b) if b in ORIGINS else -1] for a, b in rows]
    refused = [code < 0 for _, code in codes]
    if not any(refused):
        assert encode_rows(words, port).tolist() == codes
        return
    with pytest.raises(InputError, match=rf"'words', row {refused.index(True) + 1}, feature 'origin'"):
        encode_rows(words, port)


def test_the_ports_of_a_session_say_their_words(session: Session) -> None:
    numbers, words = input_ports(session)
    assert numbers.missing
    assert words.categories == (Vocabulary(CARRIERS, 2), Vocabulary(ORIGINS))


@pytest.mark.parametrize("kind", ["polars", "polars, as text", "pandas", "arrow", "parquet"])
def test_a_column_without_any_value_is_missing(
    kind: str, made: tuple[nn.Module, Path, float], session: Session, tmp_path: Path
) -> None:
    columns = {"carrier": [None], "wind": [None], "origin": ["JFK"], "distance": [500.0]}
    expected = eager(made[0], np.array([[500, np.nan]], np.float32), np.array([[2, 1]]))[:, 0]
    if kind == "parquet":
        polars.DataFrame(columns).write_parquet(tmp_path / "rows.parquet")
        score_file(session, tmp_path / "rows.parquet", tmp_path / "out.npz")
        found = np.load(tmp_path / "out.npz")["outputs"][:, 0]
    else:
        make: dict[str, Any] = {"polars": polars.DataFrame, "pandas": pandas.DataFrame, "arrow": pyarrow.table}
        make["polars, as text"] = partial(polars.DataFrame, schema_overrides={"wind": polars.String})  # read from CSV
        found = score_table(session, make[kind](columns))["delay"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=made[2])


def test_no_rows_of_words(session: Session) -> None:
    nothing = {"numbers": np.empty((0, 2), np.float32), "words": np.empty((0, 2), object)}
    assert session.predict(nothing).shape == (0, 1)
