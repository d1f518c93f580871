"""What ``inspect`` tells of files of ours and of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import export, inspect
from runtime import InputError, ModelError, read_header
from tests.support.cases import network, normal
from tests.support.onnx_drafts import Draft


def foreign(folder: Path, batch: int | str = "n") -> Path:
    """A file of another tool: MatMul and Add, a dropout that stayed, two linear layers in a row."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 4), "b1": (4,), "w2": (4, 5), "w3": (5, 2)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype("f4"), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Add", ["a", "b1"], ["b"]),
        helper.make_node("Dropout", ["b"], ["c"], name="drop"),
        helper.make_node("MatMul", ["c", "w2"], ["d"], name="second"),
        helper.make_node("Relu", ["d"], ["e"], name="act"),
        helper.make_node("MatMul", ["e", "w3"], ["y"], name="third"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, n]) for name, n in (("x", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "old", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, folder / "old.onnx")
    return folder / "old.onnx"


def test_an_own_file(tmp_path: Path) -> None:
    spec, module = network([{"linear": 5}, "relu", {"dropout": 0.1}, {"linear": 2}], output={"labels": ["a", "b"]})
    artifact = export(module, tmp_path / "m.onnx", spec=spec)
    found = inspect(artifact.path)
    assert found.own
    assert found.size == artifact.path.stat().st_size
    assert found.dead is None
    summary = found.summary
    assert (summary.name, summary.opset, summary.ir_version) == ("case", 17, 8)
    assert [(b.path, b.op, b.output_shape, b.parameters, b.multiply_adds) for b in summary.blocks] == [
        ("0", "linear", (5,), 40, 35),
        ("1", "relu", (5,), 0, 0),
        ("3", "linear", (2,), 12, 10),
    ]
    assert (summary.parameters, summary.multiply_adds) == (52, 45)
    assert summary.inputs[0].shape == ("batch", 7)
    assert summary.outputs[0].labels == ("a", "b")
    assert summary.outputs[0].scores == "logits"
    assert summary.remarks == ("dropout '2' is not in the file: in evaluation mode it does nothing",)


def test_a_network_without_activation_is_remarked(tmp_path: Path) -> None:
    spec, module = network(["standardize", {"linear": 5}])
    summary = export(module, tmp_path / "m.onnx", spec=spec).summary
    assert summary is not None
    assert any("no activation at all" in remark for remark in summary.remarks)


def test_a_foreign_file(tmp_path: Path) -> None:
    found = inspect(foreign(tmp_path))
    summary = found.summary
    assert not found.own
    assert (summary.name, summary.opset, summary.ir_version) == ("old", 13, 7)
    assert summary.metadata == {"author": "somebody"}
    assert (summary.parameters, summary.multiply_adds) == (12 + 4 + 20 + 10, 12 + 20 + 10)
    assert summary.inputs[0].shape == ("n", 3)
    assert summary.blocks[3].output_shape == (5,)
    remarks = "\n".join(summary.remarks)
    assert "'first' and 'second' stand in a row" in remarks
    assert "'second' and 'third'" not in remarks
    assert "the dropout 'drop' is still in the file" in remarks
    assert "batch is fixed" not in remarks


@pytest.mark.parametrize("batch", ["n", 1, 7])
def test_dead_units_of_a_foreign_file(batch: int | str, tmp_path: Path) -> None:
    path = foreign(tmp_path, batch)
    model = onnx.load(str(path))
    weight = numpy_helper.to_array(model.graph.initializer[2]).copy()
    weight[:, 3] = 0
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w2"))
    onnx.save(model, path)
    np.save(tmp_path / "rows.npy", normal(100, 3))
    found = inspect(path, data=tmp_path / "rows.npy")
    assert found.dead is not None
    assert [(d.path, d.width) for d in found.dead] == [("act", 5)]
    assert 3 in found.dead[0].units
    assert (batch == "n") == ("the batch is fixed" not in "\n".join(found.summary.remarks))


def test_a_unit_that_gives_nan_is_not_dead(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.full((3, 3), np.nan, np.float32))
    found = inspect(foreign(tmp_path), data=tmp_path / "rows.npy")
    assert found.dead is not None
    assert found.dead[0].units == ()


def test_the_types_of_inputs_and_outputs_are_told(tmp_path: Path) -> None:
    ports = [
        helper.make_tensor_value_info(n, t, ["n", 2]) for n, t in (("x", TensorProto.INT64), ("y", TensorProto.DOUBLE))
    ]
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)
    onnx.save(helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:])), tmp_path / "m.onnx")
    summary = inspect(tmp_path / "m.onnx").summary
    assert (summary.inputs[0].dtype, summary.outputs[0].dtype) == ("int64", "float64")


def test_data_without_rows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="no rows"):
        inspect(foreign(tmp_path), data=tmp_path / "rows.npy")


def test_a_newer_record_makes_the_file_foreign(tmp_path: Path) -> None:
    spec, module = network([{"linear": 2}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    model = onnx.load(str(path))
    next(p for p in model.metadata_props if p.key == "mlpx.format").value = "2"
    onnx.save(model, path)
    found = inspect(path)
    assert not found.own
    assert [block.op for block in found.summary.blocks] == ["Gemm"]


@pytest.mark.parametrize("keep", [0, 1, 10, 200, 0.5, 0.99])
def test_truncated_files(keep: float, tmp_path: Path) -> None:
    spec, module = network([{"linear": 50}, "relu", {"linear": 2}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"m\.onnx: not a whole ONNX file \(\d[\d,]* bytes\)"):
        inspect(path)


def test_the_header_agrees_with_onnx(tmp_path: Path) -> None:
    spec, module = network([{"linear": 50}, "relu", {"linear": 2}])
    for path in (export(module, tmp_path / "m.onnx", spec=spec).path, foreign(tmp_path)):
        header, model = read_header(path), onnx.load(str(path))
        assert header.metadata == {p.key: p.value for p in model.metadata_props}
        assert (header.ir_version, header.opset) == (model.ir_version, model.opset_import[0].version)
        assert header.producer == model.producer_name


def test_a_graph_that_is_no_chain(tmp_path: Path) -> None:
    """A sum of two branches is no chain of affine maps, and without an input there is nothing to feed."""
    draft = Draft()
    branches = draft("Add", draft("MatMul", "x", normal(6, 4)), draft("MatMul", "x", normal(6, 4, 1)))
    path = draft.save(tmp_path / "m.onnx", draft("MatMul", branches, normal(4, 2)))
    assert not [remark for remark in inspect(path).summary.remarks if "one affine map" in remark]
    model = Draft().model("c")
    model.graph.ClearField("input")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2), np.float32), "c"))
    (tmp_path / "c.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "rows.npy", normal(3, 6))
    with pytest.raises(ModelError, match=r"c\.onnx: it has no input to feed data to"):
        inspect(tmp_path / "c.onnx", data=tmp_path / "rows.npy")
