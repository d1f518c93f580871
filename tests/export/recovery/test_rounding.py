"""ONNX files of float64, which are rounded where the user allows it, and files that name an opset twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder import RecoveryError, assemble, load_spec, load_weights
from export import recover, verify
from runtime import Session
from tests.support.onnx_drafts import Draft

_RANDOM = np.random.default_rng(0)
W, B = _RANDOM.standard_normal((6, 3)), _RANDOM.standard_normal(3)


def saved(path: Path, *, kind: int = TensorProto.DOUBLE, shape: list[int | str], factor: float = 1.0) -> Path:
    """Elu(x·W + B), whose input and output have the type ``kind``."""
    double = kind == TensorProto.DOUBLE
    x = "x" if double else "wide"
    nodes = [] if double else [helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE)]
    nodes += [helper.make_node("MatMul", [x, "W"], ["a"]), helper.make_node("Add", ["a", "B"], ["b"])]
    nodes += [helper.make_node("Elu", ["b"], ["y" if double else "c"])]
    nodes += [] if double else [helper.make_node("Cast", ["c"], ["y"], to=kind)]
    ports = [helper.make_tensor_value_info(name, kind, [*shape[:-1], size]) for name, size in (("x", 6), ("y", 3))]
    weights = [numpy_helper.from_array(W * factor, "W"), numpy_helper.from_array(B, "B")]
    graph = helper.make_graph(nodes, "policy", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def exact(rows: np.ndarray) -> np.ndarray:
    y = rows.astype(np.float64) @ W + B
    return np.where(y > 0, y, np.expm1(np.minimum(y, 0)))


@pytest.mark.parametrize("shape", [["batch", 6], [1, 6], [3, 6], [6]])
@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT])
def test_a_file_of_float64_is_rounded_and_compared_and_not_called_proved(
    kind: int, shape: list[int | str], tmp_path: Path
) -> None:
    path = saved(tmp_path / "old.onnx", kind=kind, shape=shape)
    with pytest.raises(RecoveryError, match=r"--dtype float32|a weight of float64"):
        recover(path, tmp_path / "new", device="cpu", page=False)
    found = recover(path, tmp_path / "new", device="cpu", page=False, dtype="float32")
    assert found.original is None
    assert not (tmp_path / "new" / "old.original.parity.json").exists()
    assert any("compared, not proved" in note for note in found.notes)
    assert found.report is not None
    assert found.report.proved
    assert found.artifact is not None
    rows = np.random.default_rng(0).standard_normal((1000, 6), dtype=np.float32)
    with Session(found.artifact.path, "cpu") as session:
        apart = np.abs(session.predict(rows) - exact(rows)).max()
    assert found.apart == pytest.approx(apart, abs=0 if kind == TensorProto.DOUBLE else 1e-6)
    assert 0 < apart < 1e-5


def test_float32_is_not_rounded_and_numbers_beyond_it_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "large.onnx", shape=["batch", 6], factor=1e39)
    with pytest.raises(RecoveryError, match="'W' has values that float32 cannot hold"):
        recover(path, tmp_path / "new", device="cpu", page=False, dtype="float32")
    found = recover(saved(tmp_path / "old.onnx", shape=["batch", 6]), tmp_path / "new", device="cpu", dtype="float32")
    assert found.artifact is not None
    with pytest.raises(RecoveryError, match=r"--dtype float32 is for files of float64.*leave it out"):
        recover(found.artifact.path, tmp_path / "other", device="cpu", page=False, dtype="float32")


@pytest.mark.parametrize("second", ["", "ai.onnx"])
def test_an_opset_that_is_named_twice_alike_is_one(second: str, tmp_path: Path) -> None:
    draft = saved(tmp_path / "a.onnx", shape=["batch", 6])
    made = recover(draft, tmp_path / "new", device="cpu", page=False, dtype="float32")
    assert made.artifact is not None
    proto = onnx.load(made.artifact.path)
    proto.opset_import.append(helper.make_opsetid(second, proto.opset_import[0].version))
    onnx.save(proto, tmp_path / "twice.onnx")
    found = recover(tmp_path / "twice.onnx", tmp_path / "again", device="cpu", page=False)
    assert found.original is not None
    assert found.original.proved
    proto.opset_import[-1].version += 1
    onnx.save(proto, tmp_path / "different.onnx")
    with pytest.raises(RecoveryError, match="its opset is 17, 18"):
        recover(tmp_path / "different.onnx", tmp_path / "more", device="cpu", page=False)
    module = assemble(load_spec(found.spec_path))
    load_weights(module, found.weights_path)
    assert not verify(module, tmp_path / "different.onnx", device="cpu").proved


def test_a_softsign_is_recovered_and_compared(tmp_path: Path) -> None:
    """Its kernels round in other places than Abs, Add and Div, which the network is written with."""
    draft = Draft(17)
    path = draft.save(tmp_path / "old.onnx", draft("Softsign", draft("Gemm", "x", W, B)))
    found = recover(path, tmp_path / "new", device="cpu", page=False)
    assert [block.kind for block in found.spec.blocks] == ["linear", "softsign"]
    assert found.original is None
    assert any("Softsign" in note and "compared, not proved" in note for note in found.notes)
    assert found.report is not None
    assert found.report.proved
    assert found.apart is not None
    assert found.apart < 1e-6
