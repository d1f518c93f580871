"""Files that are not what the exporter wrote: proved where they compute the same, and refused elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from export import ProofError, export, publish, verify
from export.onnxfile.reading import read_model
from export.onnxfile.source import external_data
from runtime import InputError, ModelError
from tests.support.by_torch import by_torch
from tests.support.cases import network
from tests.support.onnx_drafts import Draft


def rebuilt(path: Path, change: object) -> Path:
    model = onnx.load(str(path))
    change(model.graph)  # type: ignore[operator]
    onnx.save(model, str(path))
    return path


def test_files_of_torch_onnx_are_proved_where_every_node_is_a_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    blocks = [
        nn.Linear(5, 8),
        nn.LeakyReLU(0.2),
        nn.Linear(8, 8, bias=False),
        nn.GELU(),
        nn.LayerNorm(8),
        nn.Softplus(),
    ]
    module = nn.Sequential(*blocks, nn.Linear(8, 3), nn.Softmax(dim=-1)).eval()
    onnx.save(by_torch(module, free_batch=True), str(tmp_path / "m.onnx"))
    report = verify(module, tmp_path / "m.onnx", device="cpu")
    assert report.proved, report.why
    onnx.save(by_torch(module), str(tmp_path / "fixed.onnx"))
    fixed = verify(module, tmp_path / "fixed.onnx", device="cpu")
    words = next(check.words for check in fixed.checks if check.name == "batches")
    assert fixed.proved, fixed.why
    assert "takes batches of exactly 2 rows" in words, fixed.why
    with torch.no_grad():
        blocks[0].weight[0, 0] += 1e-6  # type: ignore[operator]
    assert verify(module, tmp_path / "m.onnx", device="cpu").verdict == "failed"
    assert verify(module, tmp_path / "fixed.onnx", device="cpu").verdict == "failed"


def test_more_operators_than_the_module_has(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path

    def one_more(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "before"
        graph.node.append(onnx.helper.make_node("Clip", ["before"], [graph.output[0].name], name="extra"))

    report = verify(module, rebuilt(path, one_more), device="cpu")
    assert report.verdict == "not proved"
    assert "operator that the module lacks: Clip 'extra'" in report.why


def test_another_activation(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    changed = rebuilt(path, lambda graph: setattr(graph.node[1], "op_type", "Sigmoid"))
    report = verify(module, changed, device="cpu")
    assert report.verdict == "failed"
    assert "is off by" in report.why
    assert any("module has relu at '1', and the file has Sigmoid '1' there" in check.words for check in report.checks)


@pytest.mark.parametrize(
    ("blocks", "features", "part"),
    [
        ([{"linear": 4}], 6, "input 'input' has rows of shape [6], and the module's [7]"),
        ([{"linear": 5}], 7, "output 'output' has rows of shape [5], and the module's [4]"),
    ],
)
def test_other_shapes(blocks: list[object], features: int, part: str, tmp_path: Path) -> None:
    spec, other = network(blocks, features=features)
    path = export(other, tmp_path / "m.onnx", spec=spec).path
    report = verify(network([{"linear": 4}])[1], path, device="cpu")
    assert not report.proved
    assert any(part in check.words for check in report.checks)


def hide(graph: onnx.GraphProto, how: str) -> None:
    """The same graph for one reader, another for the next."""
    weight = next(t for t in graph.initializer if t.name == "0.weight")
    values = onnx.numpy_helper.to_array(weight)
    if how == "sparse":
        indices = onnx.numpy_helper.from_array(np.arange(values.size, dtype=np.int64))
        held = onnx.numpy_helper.from_array(values.reshape(-1), "0.weight")
        graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(held, indices, list(values.shape)))
    elif how == "malformed":
        graph.node.insert(0, onnx.helper.make_node("Identity", ["0.weight", "0.bias"], ["both"]))
    elif how == "no result":
        graph.node.append(onnx.helper.make_node("Relu", [graph.input[0].name], []))
    elif how == "twice":
        graph.node.insert(0, onnx.helper.make_node("Constant", [], ["0.weight"], value=weight))
    else:
        last = graph.node[-1].output[0]
        graph.node[-1].output[0] = "inner"
        graph.node.append(onnx.helper.make_node("Identity", ["inner"], [last], domain="elsewhere"))


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("sparse", "sparse constant"),
        ("twice", "one name for two values: '0.weight'"),
        ("malformed", "the file has a malformed Identity: '['both']'"),
        ("no result", "the file has an operator without an output: Relu ''"),
        ("domain", "operator that the module lacks: Identity"),
    ],
)
def test_files_that_readers_understand_differently_are_not_proved(how: str, part: str, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    path = rebuilt(export(module, tmp_path / "m.onnx", spec=spec).path, lambda graph: hide(graph, how))
    report = verify(module, path, device="cpu")
    assert not report.proved
    assert any(part in check.words for check in report.checks)


def test_identities_are_seen_through(tmp_path: Path) -> None:
    spec, module = network(["standardize", {"linear": 4}, "gelu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path

    def indirect(graph: onnx.GraphProto) -> None:
        identity = onnx.helper.make_node
        first, last = graph.node[2], graph.node[-1]
        graph.node.insert(0, identity("Identity", [first.input[1]], ["weight again"]))
        graph.node.insert(0, identity("Identity", [graph.input[0].name], ["input again"]))
        graph.node[2].input[0] = "input again"
        first.input[1] = "weight again"
        final = last.output[0]
        last.output[0] = "inner"
        graph.node.append(identity("Identity", ["inner"], [final]))

    assert verify(module, rebuilt(path, indirect), device="cpu").proved


def test_what_cannot_be_run_is_an_answer_and_no_crash(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    whole = path.read_bytes()

    def reshaped(graph: onnx.GraphProto) -> None:
        last = graph.node[-1].output[0]
        graph.node[-1].output[0] = "inner"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 4]), "shape"))
        graph.node.append(onnx.helper.make_node("Reshape", ["inner", "shape"], [last]))

    report = verify(module, rebuilt(path, reshaped), device="cpu")
    assert report.verdict == "not proved"
    assert any("cannot run it on" in check.words for check in report.checks)
    path.write_bytes(whole)
    nothing = verify(nn.Sequential(nn.Dropout(), nn.Identity()), path, device="cpu")
    assert not nothing.proved
    with pytest.raises(ModelError, match="has no output"):
        verify(module, rebuilt(path, lambda graph: graph.ClearField("output")), device="cpu")
    path.write_bytes(whole)
    with pytest.raises(ModelError, match=r"'0.weight' has dimensions .* and holds"):
        verify(module, rebuilt(path, lambda graph: graph.initializer[0].dims.append(9)), device="cpu")
    path.write_bytes(whole)
    with pytest.raises(InputError, match="different lengths"):
        verify(module, path, device="cpu", data=[[1.0, 2.0], [3.0]])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a seed is a whole number"):
        verify(module, path, device="cpu", seed=-1)


def test_external_data_and_rounded_weights(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "gelu"])
    artifact = export(module.double(), tmp_path / "m.onnx", spec=spec, dtype="float32", external_data=True)
    report = verify(module, artifact, device="cpu", dtype="float32")
    assert report.proved
    assert list(report.file.data) == ["m.onnx.data"]
    data = tmp_path / "m.onnx.data"
    held = bytearray(data.read_bytes())
    held[1] ^= 1
    data.write_bytes(held)
    changed = verify(module, artifact, device="cpu", dtype="float32")
    assert changed.verdict == "failed"
    assert "differs from the module's in 1 of" in changed.why


def test_publish_replaces_only_with_what_is_proved(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    artifact, report = publish(module, tmp_path / "m.onnx", spec=spec, device="cpu")
    assert artifact.proved
    assert report is not None
    assert report.proved
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"m.onnx", "m.parity.json", "m.parity.html"}
    with torch.no_grad():
        next(module.parameters())[0, 0] = float("nan")
    with pytest.raises(ProofError):
        publish(module, tmp_path / "m.onnx", spec=spec, device="cpu")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert (tmp_path / "m.failed" / "m.parity.html").exists()


def test_a_constant_node_s_external_data_belongs_to_the_file(tmp_path: Path) -> None:
    """It is read, and it is among what is hashed and packaged."""
    draft = Draft(13)
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    (tmp_path / "weights.bin").write_bytes(weight.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    draft.nodes.append(onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    path = draft.save(tmp_path / "m.onnx", draft("MatMul", "x", "w"))
    assert external_data(path) == {"weights.bin": tmp_path / "weights.bin"}
    assert np.array_equal(read_model(path).constants["w"], weight)
    module = nn.Linear(6, 4, bias=False)
    module.weight.data = torch.from_numpy(weight.T.copy())
    report = verify(module, path, device="cpu")
    assert report.proved


def test_weights_of_another_type_beside_the_file_are_not_proved(tmp_path: Path) -> None:
    draft = Draft(17)
    weight = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float16)
    product = draft("MatMul", draft("Cast", "x", to=TensorProto.FLOAT16), weight)
    model, path = draft.model(draft("Cast", product, to=TensorProto.FLOAT)), tmp_path / "half.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="half.data", size_threshold=0)
    module = nn.Linear(6, 4, bias=False)
    module.weight.data = torch.from_numpy(weight.T.astype(np.float32))
    assert verify(module, path, device="cpu").verdict == "not proved"
