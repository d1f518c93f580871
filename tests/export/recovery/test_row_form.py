"""ONNX files that take one row without a batch, and files that give some of the features that they compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder import RecoveryError
from export import recover
from export.errors import ProofError
from runtime import Session

Nodes = list[onnx.NodeProto]
Arrays = dict[str, np.ndarray]
_RANDOM = np.random.default_rng(0)
W1, W2 = (_RANDOM.standard_normal(shape).astype(np.float32) for shape in ((6, 16), (16, 4)))
B1, B2 = (_RANDOM.standard_normal(size).astype(np.float32) for size in (16, 4))
node = helper.make_node


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def saved(
    path: Path, nodes: Nodes, arrays: Arrays, shape: list[int | str], outputs: list[int | str], opset: int
) -> Path:
    """A file with the input ``x`` and the output ``y``, and the weights of two layers."""
    arrays = {"W1": W1, "B1": B1, "W2": W2, "B2": B2} | arrays
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def products(source: str, result: str) -> Nodes:
    """Two layers, as torch.onnx writes them for a vector."""
    return [
        node("MatMul", [source, "W1"], ["a"]),
        node("Add", ["B1", "a"], ["b"]),
        node("Elu", ["b"], ["c"]),
        node("MatMul", ["c", "W2"], ["d"]),
        node("Add", ["B2", "d"], [result]),
    ]


def gemms(source: str, result: str) -> Nodes:
    return [
        node("Gemm", [source, "W1", "B1"], ["a"]),
        node("Elu", ["a"], ["b"]),
        node("Gemm", ["b", "W2", "B2"], [result]),
    ]


def columns(source: str, result: str) -> Nodes:
    """A matrix times the row as a column."""
    first = [node("MatMul", ["V1", source], ["a"]), node("Add", ["a", "B1"], ["b"]), node("Elu", ["b"], ["c"])]
    return [*first, node("MatMul", ["V2", "c"], ["d"]), node("Add", ["d", "B2"], [result])]


ENDS: dict[str, tuple[Nodes, Arrays]] = {
    "vectors": (products("x", "y"), {}),
    "columns": (columns("x", "y"), {"V1": W1.T.copy(), "V2": W2.T.copy()}),
    "unsqueeze and squeeze": (
        [node("Unsqueeze", ["x", "zero"], ["r"]), *gemms("r", "s"), node("Squeeze", ["s", "zero"], ["y"])],
        {"zero": integers(0)},
    ),
    "reshapes": (
        [node("Reshape", ["x", "row"], ["r"]), *gemms("r", "s"), node("Reshape", ["s", "flat"], ["y"])],
        {"row": integers(1, -1), "flat": integers(-1)},
    ),
    "flatten and gather": (
        [node("Flatten", ["x"], ["r"], axis=0), *gemms("r", "s"), node("Gather", ["s", "first"], ["y"], axis=0)],
        {"first": np.array(0)},
    ),
    "softmax": ([*products("x", "s"), node("Softmax", ["s"], ["y"], axis=0)], {}),
    "dimensions of 1 in constants": (
        [node("Sub", ["x", "mean"], ["r"]), *products("r", "y")],
        {"mean": _RANDOM.standard_normal((1, 1, 6)).astype(np.float32)},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_file_of_one_row_is_proved_row_by_row_and_gets_a_batch(name: str, tmp_path: Path) -> None:
    nodes, arrays = ENDS[name]
    outputs: list[int | str] = [1, 1, 4] if "dimensions" in name else [4]
    path = saved(tmp_path / "old.onnx", nodes, arrays, [6], outputs, 17)
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved
    assert found.report is not None
    assert found.report.proved
    assert any("one row without a batch" in note for note in found.notes)
    rows = np.random.default_rng(1).standard_normal((50, 6)).astype(np.float32)
    assert found.artifact is not None
    with Session(path, "cpu") as old, Session(found.artifact.path, "cpu") as new:
        one_by_one = np.stack([old.run({"x": row})["y"].reshape(-1) for row in rows])
        np.testing.assert_allclose(new.predict(rows), one_by_one, rtol=1e-5, atol=1e-6)


def test_a_fixed_row_that_becomes_a_vector(tmp_path: Path) -> None:
    nodes = [node("Squeeze", ["x", "zero"], ["r"]), *products("r", "s"), node("Unsqueeze", ["s", "zero"], ["y"])]
    path = saved(tmp_path / "old.onnx", nodes, {"zero": integers(0)}, [1, 6], [1, 4], 17)
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved


@pytest.mark.parametrize("fault", ["W1", "B2", "an operator"])
def test_a_file_of_one_row_that_computes_something_else_is_not_proved(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file that runs row by row is what is proved: another one of the same name fails."""
    from export.recovery import row_form

    path = saved(tmp_path / "old.onnx", products("x", "y"), {}, [6], [4], 17)
    changed = products("x", "y")
    changed[2] = node("Elu", ["b"], ["c"], alpha=1.01 if fault == "an operator" else 1.0)
    arrays = {fault: {"W1": W1, "B2": B2}[fault] * np.float32(1.001)} if fault != "an operator" else {}
    other = saved(tmp_path / "other.onnx", changed, arrays, [6], [4], 17)
    opened = Session

    def wrong(source: Path | bytes, device: str) -> Session:
        return opened(other if source == path else source, device)

    monkeypatch.setattr(row_form, "Session", wrong)
    with pytest.raises(ProofError, match="nothing was written"):
        recover(path, tmp_path / "new", device="cpu", page=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("column", [False, True])
def test_an_outer_sum_of_a_vector_is_refused(column: bool, tmp_path: Path) -> None:
    """[6] as [6, 1] plus [6] is a table, which no row is."""
    nodes = [node("Reshape", ["x", "column"], ["r"]), node("Add", ["r", "six"], ["s"]), node("Relu", ["s"], ["y"])]
    arrays = {"column": integers(6, 1) if column else integers(1, 6), "six": np.ones(6, np.float32)}
    path = saved(tmp_path / "old.onnx", nodes, arrays, [6], [6, 6] if column else [1, 6], 17)
    if column:
        with pytest.raises((RecoveryError, ProofError)):
            recover(path, tmp_path / "new", device="cpu", page=False)
    else:
        assert recover(path, tmp_path / "new", device="cpu", page=False).original is not None


Selection = Callable[[], tuple[Nodes, Arrays, int]]
SELECTIONS: dict[str, tuple[Nodes, Arrays, slice, int]] = {
    "slice": (
        [*gemms("x", "s"), node("Slice", ["s", "from", "to", "along"], ["y"])],
        {"from": integers(0), "to": integers(2), "along": integers(1)},
        slice(0, 2),
        17,
    ),
    "slice from the end": (
        [*gemms("x", "s"), node("Slice", ["s", "from", "to", "along", "by"], ["y"])],
        {"from": integers(-3), "to": integers(np.iinfo(np.int64).max), "along": integers(-1), "by": integers(1)},
        slice(1, 4),
        17,
    ),
    "old slice": ([*gemms("x", "s"), node("Slice", ["s"], ["y"], starts=[1], ends=[3], axes=[1])], {}, slice(1, 3), 9),
    "split": (
        [*gemms("x", "s"), node("Split", ["s", "sizes"], ["y", "rest"], axis=1)],
        {"sizes": integers(1, 3)},
        slice(0, 1),
        17,
    ),
    "split in the middle": (
        [*gemms("x", "s"), node("Split", ["s"], ["mean", "spread"], axis=-1), node("Tanh", ["spread"], ["y"])],
        {},
        slice(2, 4),
        17,
    ),
    "gather": (
        [*gemms("x", "s"), node("Tanh", ["s"], ["t"]), node("Gather", ["t", "two"], ["y"], axis=1)],
        {"two": integers(1, 2)},
        slice(1, 3),
        17,
    ),
}


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("name", SELECTIONS)
def test_features_that_the_file_leaves_out_are_cut_off_the_last_layer(
    name: str, batch: int | str, tmp_path: Path
) -> None:
    nodes, arrays, kept, opset = SELECTIONS[name]
    path = saved(tmp_path / "old.onnx", nodes, arrays, [batch, 6], [batch, kept.stop - kept.start], opset)
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved
    assert found.report is not None
    assert found.report.proved
    linears = [block for block in found.spec.blocks if block.kind == "linear"]
    assert dict(linears[-1])["features"] == kept.stop - kept.start
    assert any("of what it computes" in note for note in found.notes)
    count = 3
    rows = np.random.default_rng(1).standard_normal((count, 6)).astype(np.float32)
    assert found.artifact is not None
    with Session(path, "cpu") as old, Session(found.artifact.path, "cpu") as new:
        expected = [
            old.run({"x": rows[i : i + 1] if batch == 1 else rows})["y"] for i in range(count if batch == 1 else 1)
        ]
        np.testing.assert_allclose(new.predict(rows), np.concatenate(expected), rtol=1e-5, atol=1e-6)


def test_one_row_with_a_split_at_the_end(tmp_path: Path) -> None:
    nodes = [*products("x", "s"), node("Split", ["s", "sizes"], ["y", "rest"], axis=0)]
    path = saved(tmp_path / "old.onnx", nodes, {"sizes": integers(2, 2)}, [6], [2], 17)
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved
    assert found.spec.output_shape == (2,)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [*gemms("x", "s"), node("Softmax", ["s"], ["t"], axis=1), node("Slice", ["t", "0", "2", "1"], ["y"])],
            "softmax",
        ),
        ([node("Slice", ["x", "0", "2", "1"], ["s"]), node("Relu", ["s"], ["y"])], "of the input"),
        ([*gemms("x", "s"), node("Slice", ["s", "0", "2", "0"], ["y"])], "choice of entries"),
        ([*gemms("x", "s"), node("Gather", ["s", "apart"], ["y"], axis=1)], "choice of entries"),
    ],
)
def test_what_cannot_be_cut_off_is_refused(nodes: Nodes, words: str, tmp_path: Path) -> None:
    arrays = {"0": integers(0), "1": integers(1), "2": integers(2), "apart": integers(0, 2)}
    path = saved(tmp_path / "old.onnx", nodes, arrays, ["batch", 6], ["batch", 2], 17)
    with pytest.raises(RecoveryError, match=words):
        recover(path, tmp_path / "new", device="cpu", page=False)


def test_a_reshape_that_cannot_hold_the_row_is_refused(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Reshape", ["r", "seven"], ["y"])]
    path = saved(tmp_path / "old.onnx", nodes, {"seven": integers(7)}, [1, 6], [7], 17)
    with pytest.raises(RecoveryError, match=r"makes \[7\] of a value of \[1, 6\], which it cannot hold"):
        recover(path, tmp_path / "new", device="cpu", page=False)


def test_a_reduction_of_a_row_along_another_axis_is_refused(tmp_path: Path) -> None:
    nodes = [node("Unsqueeze", ["x", "axis"], ["r"]), node("Exp", ["r"], ["e"])]
    nodes += [node("ReduceSum", ["e", "other"], ["s"]), node("Div", ["e", "s"], ["y"])]
    path = saved(tmp_path / "old.onnx", nodes, {"axis": integers(0), "other": integers(1)}, [1, 6], [1, 1, 6], 17)
    with pytest.raises(RecoveryError, match=r"along axes \[1\] of \[1, 1, 6\], which are not the features of a row"):
        recover(path, tmp_path / "new", device="cpu", page=False)


def test_a_matrix_of_three_dimensions_before_a_vector(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["M", "x"], ["a"]), node("Tanh", ["a"], ["y"])]
    path = saved(tmp_path / "old.onnx", nodes, {"M": W1.T[None, :5]}, [6], [1, 5], 17)
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved
