"""Files, tables and options that few have: lines without an end, empty buffers, columns of one name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow
import pytest

from runtime import InputError, Port, read_rows
from runtime.data import csv_lines, format_arrow
from runtime.data.checks import check_on_error
from runtime.data.dataframes import arrow_column
from runtime.data.scoring import Scores, columns_of
from runtime.data.unusual_values import find_nonfinite
from runtime.extras import missing_package
from runtime.model.port import read_port

PORT = Port("x", ("batch", 1), features=("v",))


def csv(folder: Path, text: str) -> Path:
    (folder / "rows.csv").write_text(text)
    return folder / "rows.csv"


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may have 256 KiB; blocks are shorter than that."""
    monkeypatch.setattr(csv_lines, "_BLOCK", 1 << 16)
    monkeypatch.setattr(csv_lines, "_LONGEST", 1 << 18)


@pytest.mark.usefixtures("short_lines")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v" * (1 << 19), "its first line does not end within 262,144 bytes"),
        ('v,"' + "\n" * (1 << 19), "its first line does not end within 262,144 bytes"),
        ("v\n1\n" + '"\n' + "1\n" * (1 << 19), "a line does not end within 262,144 bytes; look for a quotation mark"),
    ],
)
def test_a_line_without_an_end_is_not_read_to_the_end(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"rows\.csv: cannot be read as CSV: {words}"):
        read_rows(csv(tmp_path, text), PORT)


@pytest.mark.usefixtures("short_lines")
def test_a_long_first_line_and_many_empty_ones_at_the_end(tmp_path: Path) -> None:
    names = ",".join(f"n{i}" for i in range(20_000))
    path = csv(tmp_path, f"v,{names}\n" + "7" + "," * 20_000 + "\n" * (1 << 18))
    assert read_rows(path, PORT)[0].tolist() == [[7]]


def test_a_file_of_empty_lines_has_no_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.csv: "):
        read_rows(csv(tmp_path, "\n" * 70_000), PORT)


def test_an_archive_is_not_an_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((1, 1)))
    (tmp_path / "rows.npz").rename(tmp_path / "rows.npy")
    with pytest.raises(InputError, match=r"rows\.npy: it is an archive of arrays; name it \.npz"):
        read_rows(tmp_path / "rows.npy", PORT)


def test_an_arrow_column_without_memory_has_no_rows() -> None:
    array: Any = pyarrow.Array
    empty = array.from_buffers(pyarrow.float32(), 0, [None, None])
    column = arrow_column(pyarrow.table({"v": empty}), 0, "v")
    assert column.values.shape == (0,)
    assert column.values.dtype == np.float32


def test_options_that_there_are_not() -> None:
    with pytest.raises(InputError, match="on_error is 'fail' or 'null', not 'skip'"):
        check_on_error("skip")


def scores(values: list[list[float]], **port: Any) -> Scores:
    array = np.array(values, np.float32)
    return Scores(array, Port("y", ("batch", array.shape[1]), **port))


def test_probabilities_of_several_labels_are_the_outputs_themselves() -> None:
    both = scores([[0.25, 0.75]], labels=("no", "yes"), scores="probabilities")
    columns = both.columns()
    assert list(columns) == ["label", "probability_no", "probability_yes"]
    assert [column[0] for column in columns.values()] == ["yes", 0.25, 0.75]


def test_two_outputs_with_a_column_of_one_name() -> None:
    with pytest.raises(InputError, match=r"two outputs would both give a column 'y'\. What to do: write a \.npz file"):
        columns_of([scores([[1.0]]), scores([[2.0]])])


def test_labels_are_as_many_as_the_outputs() -> None:
    with pytest.raises(ValueError, match=r"2 labels for rows of shape \(3,\)"):
        read_port({"name": "y", "shape": ["batch", 3], "labels": ["no", "yes"]})
    assert read_port({"name": "y", "shape": ["batch", 1], "labels": ["no", "yes"]}).labels == ("no", "yes")


def test_a_value_that_is_no_number_is_named_by_its_input() -> None:
    ports = Port("a", ("batch", 2)), Port("b", ("batch", 2), features=("left", "right"))
    rows = {"a": np.zeros((3, 2), np.float32), "b": np.zeros((3, 2), np.float32)}
    rows["b"][1, 1] = np.inf
    found = find_nonfinite(rows, ports)
    assert found is not None
    assert (found[0].rows, found[0].first_row, found[0].feature) == (1, 2, "right")


class Ended(Exception):
    """A run that ends while it writes."""


def ended_while_writing(file: BytesIO, table: polars.DataFrame | None) -> None:
    with format_arrow.write_parquet(file) as write:
        if table is not None:
            write(table)
        raise Ended


def test_parquet_groups_are_written_when_they_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_arrow, "_GROUP_ROWS", 2)
    table, file = polars.DataFrame({"y": [1.0, 2.0]}), BytesIO()
    with format_arrow.write_parquet(file) as write:
        write(table)
        write(table)
    assert polars.read_parquet(file.getvalue())["y"].to_list() == [1.0, 2.0, 1.0, 2.0]
    for written in (table, None):
        with pytest.raises(Ended):
            ended_while_writing(BytesIO(), written)


def test_a_package_that_no_extra_has_is_the_error_of_the_import() -> None:
    error = ModuleNotFoundError("No module named 'other'", name="other.part")
    assert missing_package(error) is error
