"""Text columns that the model does not take, and files that change under a run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, Session, read_rows, score_file
from tests.support.cases import normal
from tests.support.commands import Run
from tests.support.outcomes import outcome


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = MLPSpec(name="two", input={"features": ["a", "z"]}, blocks=[{"linear": 1}])
    return export(assemble(spec, seed=0).eval(), tmp_path_factory.mktemp("m") / "m.onnx", spec=spec).path


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_an_unescaped_quote_in_a_column_that_is_not_used_loses_no_row(rows: int, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "q.csv"
    data.write_text("a,z,size\n" + '1,2,5"\n' * rows)
    with Session(model, "cpu") as session:
        report = outcome(InputError, score_file, session, data, tmp_path / "o.npy")
        if isinstance(report, InputError):
            assert "q.csv" in str(report)
        else:
            assert report.rows == rows
            assert len(np.load(tmp_path / "o.npy")) == rows


def test_a_line_with_too_many_values_beside_an_unused_column(model: Path, tmp_path: Path, run: Run) -> None:
    data = tmp_path / "s.csv"
    data.write_text("name,a,z\nAda,1,2\nSmith, 5,3,4\nBo,3,4\n")
    done = run("predict", model, data, "-o", tmp_path / "o.csv")
    assert done.code == 2
    assert "line 3" in done.err
    assert "4 values" in done.err
    done = run("predict", model, data, "-o", tmp_path / "o.csv", "--on-error", "null")
    assert done.code == 0
    assert "line 3" in done.err
    with Session(model, "cpu") as session:
        expected = session.predict(np.array([[1, 2], [3, 4]], np.float32))[:, 0]
    found = [(row or [""])[0] for row in csv.reader(io.StringIO((tmp_path / "o.csv").read_text()))][1:]
    assert found[1] == ""
    assert np.array_equal(np.array([found[0], found[2]], np.float32), expected)


TEXTS = st.text(st.sampled_from('ab",\n 5'), max_size=6)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=12), unused=st.sampled_from([0, 1, 2]))
def test_texts_of_unused_columns_do_not_move_the_others(
    texts: list[str], unused: int, model: Path, tmp_path: Path
) -> None:
    """Python's own writer makes the file."""
    rows = [[float(2 * i), float(2 * i + 1)] for i in range(len(texts))]
    header: list[object] = ["a", "z"]
    header.insert(unused, "text")
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    for values, text in zip(rows, texts, strict=True):
        cells: list[object] = list(values)
        cells.insert(unused, text)
        writer.writerow(cells)
    (tmp_path / "t.csv").write_text(buffer.getvalue(), newline="")
    with Session(model, "cpu") as session:
        assert session.summary is not None
        found, _ = read_rows(tmp_path / "t.csv", session.summary.inputs[0])
    np.testing.assert_array_equal(found, np.array(rows, np.float32))


def test_an_array_that_is_replaced_while_it_is_read(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "r.npy"
    np.save(data, np.zeros((3_000_000, 2), np.float32))
    np.save(tmp_path / "new.npy", np.ones((1_000_000, 2), np.float32))

    def replace(_rows: int, _share: float) -> None:
        if (tmp_path / "new.npy").exists():
            (tmp_path / "new.npy").replace(data)

    with (
        Session(model, "cpu") as session,
        pytest.raises(InputError, match="replaced by another file while it was read"),
    ):
        score_file(session, data, tmp_path / "o.npy", progress=replace)
    assert not (tmp_path / "o.npy").exists()


def test_results_do_not_replace_the_data(model: Path, tmp_path: Path, run: Run) -> None:
    data = tmp_path / "x.npy"
    np.save(data, normal(3, 2))
    (tmp_path / "link.npy").symlink_to(data)
    for target in (data, tmp_path / "link.npy"):
        done = run("predict", model, data, "-o", target)
        assert done.code == 2
        assert "would replace the data" in done.err
    assert np.load(data).shape == (3, 2)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_arrow_files_are_told(seed: int, model: Path, tmp_path: Path, run: Run) -> None:
    import polars

    data, rng = tmp_path / "x.arrow", np.random.default_rng(seed)
    polars.DataFrame({"a": normal(50, 1)[:, 0], "z": normal(50, 1)[:, 0], "é": ["t"] * 50}).write_ipc(data)
    content = bytearray(data.read_bytes())
    for place in rng.integers(0, len(content), 3):
        content[place] ^= int(rng.integers(1, 256))
    data.write_bytes(content)
    done = run("predict", model, data, "-o", tmp_path / "o.csv")
    assert done.code in (0, 2), done.err
