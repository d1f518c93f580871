"""Files whose rows depend on each other are run on all rows at once, whatever runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import tune
from runtime import InputError, ModelError, Session, score_file, score_folder
from tests.support.cases import normal
from tests.support.commands import Run


@pytest.fixture(scope="module")
def dependent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hand-made file: a matrix product less its mean over the batch."""
    weight = numpy_helper.from_array(normal(64, 8), "w")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", size]) for n, size in (("x", 64), ("y", 8))]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["m", "mean"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    path = tmp_path_factory.mktemp("dependent") / "d.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_tuning_file_does_not_cut_them(dependent: Path) -> None:
    x = normal(40_000, 64)
    with Session(dependent, "cpu", tuning=None) as session:
        expected = session.predict(x)
    found = tune(dependent, batch=40_000, seconds=0.1, plot=False)
    assert all(one.settings.workers in (None, 1) for one in found.file("float32").measured)
    with Session(dependent, "cpu") as session:
        assert not session.divisible
        np.testing.assert_array_equal(session.predict(x), expected)
    dependent.with_suffix(".tuning.json").unlink()


@pytest.mark.parametrize("kind", ["npy", "parquet", "csv"])
def test_files_are_run_at_once(dependent: Path, tmp_path: Path, kind: str) -> None:
    import polars

    x = normal(40_000, 64)
    data = tmp_path / f"x.{kind}"
    frame = polars.DataFrame({f"f{i}": x[:, i] for i in range(64)})
    {
        "npy": lambda: np.save(data, x),
        "parquet": lambda: frame.write_parquet(data),
        "csv": lambda: frame.write_csv(data),
    }[kind]()
    with Session(dependent, "cpu") as session:
        score_file(session, data, tmp_path / "y.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), session.predict(x))


def test_a_cluster_does_not_get_them(dependent: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows may depend on each other, so they cannot be divided among workers"):
        score_folder(dependent, tmp_path, tmp_path / "out")


def test_who_knows_better_may_cut_them(dependent: Path) -> None:
    with Session(dependent, "cpu", chunk_rows=100) as session:
        assert session.divisible


def test_the_command_can_be_told_that_rows_stand_alone(dependent: Path, tmp_path: Path, run: Run) -> None:
    x = normal(20_000, 64)
    np.save(tmp_path / "x.npy", x)
    found = {}
    for name, options in {"whole": [], "cut": ["--chunk-rows", 500]}.items():
        assert run("predict", dependent, tmp_path / "x.npy", "-o", tmp_path / "y.npy", *options).code == 0
        found[name] = np.load(tmp_path / "y.npy")
    with Session(dependent, "cpu") as session:
        np.testing.assert_array_equal(found["whole"], session.predict(x))
        np.testing.assert_array_equal(found["cut"][:500], session.predict(x[:500]))
    assert not np.array_equal(found["whole"], found["cut"])


def test_outputs_of_another_number_of_rows_are_no_results(tmp_path: Path, run: Run) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)], "g", ends[:1], ends[1:]
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.save(tmp_path / "x.npy", normal(9000, 4))
    with Session(path, "cpu") as session, pytest.raises(ModelError, match="has 1 rows for 9,000 rows of data"):
        score_file(session, tmp_path / "x.npy", tmp_path / "y.npy")
    done = run("predict", path, tmp_path / "x.npy", "-o", tmp_path / "y.csv")
    assert done.code == 2
    assert not (tmp_path / "y.csv").exists()
