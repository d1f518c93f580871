"""Folders of Parquet files cut into parts, and each part scored into its file, without a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import InputError, Session
from runtime.data.scoring import input_ports
from runtime.ray.partition import partition
from runtime.ray.worker import score_part
from tests.support.commands import Run
from tests.support.folders import NAMES, hidden_files, model, read_results, score_alone, write_rows


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model"))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    group=st.integers(1, 15),
    most=st.integers(1, 60),
)
def test_every_row_is_in_one_part_and_its_results_are_those_of_one_machine(
    sizes: list[int], group: int, most: int, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data")
    sources = []
    for n, size in enumerate(sizes):
        path = folder / "in" / f"{n % 2}" / f"p{n}.parquet"
        sources.append(write_rows(path, size, seed=n, group=group))
    sources.sort()
    with Session(file, "cpu", threads=1) as session:
        parts, how = partition(folder / "in", input_ports(session), keep=["id"], max_rows=most)
        scored = [score_part(session, part, folder / "out", keep=["id"]) for part in parts]
    assert how == "columns by name"
    assert [each.rows for each in scored] == [part.rows for part in parts]
    assert all(part.rows <= max(most, group) for part in parts)
    results = read_results(folder / "out", parts)
    expected = score_alone(file, sources, folder)
    assert results.equals(expected)
    assert results.schema == expected.schema
    for part in parts:
        ids = polars.read_parquet(part.source, columns=["id"])["id"][part.first_row :][: part.rows]
        assert polars.read_parquet(folder / "out" / part.target)["id"].equals(ids)


def test_a_file_that_is_one_part_keeps_its_name_and_others_are_numbered(file: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "small.parquet", 10)
    write_rows(tmp_path / "in" / "2026" / "large.parquet", 35, group=10)
    write_rows(tmp_path / "in" / "_old" / "x.parquet", 1)
    (tmp_path / "in" / "_SUCCESS").touch()
    (tmp_path / "in" / ".small.parquet.crc").touch()
    with Session(file, "cpu") as session:
        parts, _ = partition(tmp_path / "in", input_ports(session), max_rows=20)
    names = ["2026/large-00000-of-00002.parquet", "2026/large-00001-of-00002.parquet", "small.parquet"]
    assert [(part.target, part.first_row, part.rows) for part in parts] == list(
        zip(names, [0, 20, 0], [20, 15, 10], strict=True)
    )


def test_the_results_say_where_their_rows_come_from(file: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    write_rows(tmp_path / "in" / "large.parquet", 35, group=10)
    with Session(file, "cpu") as session:
        parts, _ = partition(tmp_path / "in", input_ports(session), max_rows=20)
        for part in parts:
            score_part(session, part, tmp_path / "out")
    metadata = parquet.read_schema(tmp_path / "out" / parts[1].target).metadata
    assert metadata[b"mlpx.source"] == b"large.parquet"
    assert metadata[b"mlpx.first_row"] == b"20"


def test_a_part_that_is_scored_again_replaces_its_file(file: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.parquet", 50)
    with Session(file, "cpu") as session:
        (part,), _ = partition(source, input_ports(session), keep=["id"])
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / part.target).write_bytes(b"half of a file")
        score_part(session, part, tmp_path / "out", keep=["id"])
        score_part(session, part, tmp_path / "out", keep=["id"])
    assert read_results(tmp_path / "out", [part]).equals(score_alone(file, [source], tmp_path))
    assert not hidden_files(tmp_path / "out")


def test_the_first_wrong_row_is_named_as_it_is_counted_in_the_file(file: Path, tmp_path: Path) -> None:
    gap = [None if row == 33 else 1.0 for row in range(40)]
    source = write_rows(tmp_path / "in.parquet", 40, group=10, age=polars.Series(gap, dtype=polars.Float32))
    with Session(file, "cpu") as session:
        *_, last = partition(source, input_ports(session), max_rows=10)[0]
        with pytest.raises(InputError, match=r"in\.parquet: column 'age' has empty values, the first in row 34"):
            score_part(session, last, tmp_path / "out")
        large = write_rows(tmp_path / "in.parquet", 40, group=10, age=np.array([5] * 35 + [2**24 + 1] * 5))
        *_, last = partition(large, input_ports(session), max_rows=10)[0]
        with pytest.raises(InputError, match=r"column 'age' is int64.*16777217 in row 36 would become"):
            score_part(session, last, tmp_path / "out")
        assert score_part(session, last, tmp_path / "out", dtype="float32").rows == 10


def test_rounded_numbers_are_said_of_the_part_that_has_them(file: Path, tmp_path: Path) -> None:
    tenth = write_rows(tmp_path / "in.parquet", 40, group=10, age=np.array([0.5] * 35 + [0.1] * 5))
    with Session(file, "cpu") as session:
        parts = partition(tenth, input_ports(session), max_rows=10)[0]
        assert [score_part(session, part, tmp_path / "out").rounded for part in parts] == [False, False, False, True]
        assert not score_part(session, parts[3], tmp_path / "out", dtype="float32").rounded


def test_a_damaged_row_group_is_an_error_that_names_its_file(file: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.parquet", 5000, group=1000)
    content = bytearray(source.read_bytes())
    content[60:30000] = bytes(29940)
    source.write_bytes(content)
    with Session(file, "cpu") as session:
        first = partition(source, input_ports(session), max_rows=1000)[0][0]
        with pytest.raises(InputError, match=r"in\.parquet: row group 1 of 5 cannot be read: "):
            score_part(session, first, tmp_path / "out")
    assert not (tmp_path / "out" / first.target).exists()


def test_ranges_are_counted_in_the_rows_of_the_file(tmp_path: Path) -> None:
    features = [{"name": name, "range": [-10, 10]} for name in NAMES]
    file = model(tmp_path, features=features)
    far = np.zeros(40, np.float32)
    far[[25, 31]] = 11
    source = write_rows(tmp_path / "in.parquet", 40, group=10, weight=far)
    with Session(file, "cpu") as session:
        third = partition(source, input_ports(session), max_rows=10)[0][2]
        scored = score_part(session, third, tmp_path / "out")
        assert scored.outside_rows == 1
        assert scored.outside is not None
        assert (scored.outside.feature, scored.outside.first_row, scored.outside.value) == ("weight", 26, 11)


def test_rows_that_cannot_be_read_have_empty_results_and_keep_their_key(file: Path, tmp_path: Path) -> None:
    gap = polars.Series([None if row in (33, 35) else 1.0 for row in range(40)], dtype=polars.Float32)
    source = write_rows(tmp_path / "in.parquet", 40, group=10, age=gap, weight=np.full(40, np.inf, np.float32))
    with Session(file, "cpu") as session:
        *_, last = partition(source, input_ports(session), max_rows=10)[0]
        scored = score_part(session, last, tmp_path / "out", on_error="null", keep=["id"])
        assert scored.failed_rows == 2
        assert scored.failed[0] == "row 34: column 'age' is empty"
        assert scored.nonfinite is not None
        assert (scored.nonfinite.rows, scored.nonfinite.first_row) == (8, 31)
        with pytest.raises(InputError, match=r"in\.parquet: 'weight' is inf in row 11"):
            score_part(session, replace(last, row_groups=(1,), first_row=10), tmp_path, reject_nonfinite=True)
    results = polars.read_parquet(tmp_path / "out" / last.target)
    assert results["id"].to_list() == [f"in-{row}" for row in range(30, 40)]
    assert [row for row, label in enumerate(results["y_no"]) if label is None] == [3, 5]


def test_folders_that_cannot_be_scored(file: Path, tmp_path: Path, run: Run) -> None:
    good = write_rows(tmp_path / "good" / "a.parquet", 5)
    (tmp_path / "empty").mkdir()
    write_rows(tmp_path / "other" / "a.parquet", 5)
    (tmp_path / "other" / "notes.txt").touch()
    write_rows(tmp_path / "mixed" / "a.parquet", 5)
    write_rows(tmp_path / "mixed" / "b.parquet", 5, more=[1] * 5)
    write_rows(tmp_path / "broken" / "a.parquet", 5).write_bytes(b"PAR1")
    write_rows(tmp_path / "text" / "a.parquet", 5, age=["1"] * 5)
    write_rows(tmp_path / "kinds" / "a.parquet", 5)
    write_rows(tmp_path / "kinds" / "b.parquet", 5, id=list(range(5)))
    write_rows(tmp_path / "twins" / "a.parquet", 5)
    polars.DataFrame({"age": [1.0], "height": [1.0]}).write_parquet(tmp_path / "lacking.parquet")
    table = {
        "nowhere": r"no such file or folder",
        "empty": r"the folder holds no \.parquet file",
        "other": r"not \.parquet: 'notes\.txt'",
        "mixed": r"b\.parquet: its columns are not those of .*a\.parquet: it has 'more' besides",
        "broken": r"a\.parquet: cannot be read as Parquet",
        "text": r"a\.parquet: column 'age' holds .*, not numbers",
        "kinds": r"b\.parquet: column 'id', which is to be kept, is int64 here and large_string in",
        "lacking.parquet": r"1 of the model's 3 columns are missing: 'weight'",
        "good": r"to keep, exactly one column 'key' is expected",
    }
    import re

    for name, expected in table.items():
        keep = "key" if name == "good" else "id" if name == "kinds" else None
        more = ["--keep", keep] if keep else []
        done = run("predict", file, tmp_path / name, "-o", tmp_path / "out", "--engine", "ray", *more)
        assert done.code == 2, (name, done.err)
        assert re.search(expected, done.err), (name, done.err)
    done = run("predict", file, good, "-o", tmp_path / "good", "--engine", "ray")
    assert done.code == 3
    assert "the folder exists and is not empty; nothing was changed" in done.err
    assert not (tmp_path / "out").exists()
    assert not hidden_files(tmp_path)


def test_options_that_need_ray_or_do_not_fit_it(file: Path, tmp_path: Path, run: Run) -> None:
    data = write_rows(tmp_path / "a.parquet", 5)
    assert "--workers needs --engine ray" in run("predict", file, data, "--workers", 2).err.replace("\n", " ")
    on_ray = run("predict", file, data, "-o", tmp_path / "out", "--engine", "ray", "--separator", ";")
    assert "--separator is for CSV files" in " ".join(on_ray.err.split())
    assert "-o FOLDER" in run("predict", file, data, "--engine", "ray").err
    assert "is a folder, and needs one for the results: -o FOLDER" in " ".join(
        run("predict", file, tmp_path).err.split()
    )
    assert "here or ray" in run("predict", file, data, "--engine", "spark").err
    done = run("predict", file, data, "-o", tmp_path / "out", "--engine", "ray", "--device", "cuda:1")
    assert done.code == 2
    assert "auto, cpu or cuda on Ray" in done.err
