"""A file of somebody else's becomes a spec, weights and a proved file of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from builder import MLPSpec, load_spec
from builder.documents import as_yaml
from export import ProofError, inspect, publish, recover
from runtime import Session
from tests.support.cases import specs
from tests.support.commands import Run
from tests.support.onnx_drafts import Draft
from tests.support.recovering import real_network
from tests.support.repeats import but
from tests.support.spellings import SPELLINGS, S, W

UNPROVED = {
    "matmul left turned": "does not match any pattern of it",  # rows in columns
    "gemm left": "does not match any pattern of it",
    "hardsigmoid other": "does not match any pattern of it",
    "softplus log": "the file gives inf",  # where the block does not overflow
}


@pytest.mark.parametrize("opset", but(18, 9))
@pytest.mark.parametrize("name", SPELLINGS)
def test_what_is_read_is_proved_to_be_the_file(name: str, opset: int, tmp_path: Path) -> None:
    draft = Draft(opset)
    path = draft.save(tmp_path / "old.onnx", SPELLINGS[name][1](draft, "x"))
    if name in UNPROVED:
        with pytest.raises(ProofError, match=UNPROVED[name]):
            recover(path, tmp_path / "new", device="cpu", page=False)
        assert not (tmp_path / "new").exists()
    else:
        recovery = recover(path, tmp_path / "new", device="cpu", page=False)
        assert recovery.original is not None
        assert recovery.original.proved
        assert recovery.artifact is not None
        assert recovery.artifact.proved


@pytest.mark.parametrize("name", ["gemm", "matmul add", "sub div", "silu", "layer norm weights", "leaky prelu"])
def test_a_constant_that_is_off_by_one_ulp_is_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is made to be wrong, in the last bit of one constant: the proof against the old file must see it."""
    from export.recovery import recovering

    draft = Draft(13)
    value = draft("MatMul", SPELLINGS[name][1](draft, "x"), W if name == "silu" else np.eye(4, 6, dtype=S))
    if SPELLINGS[name][0] != "linear":
        value = SPELLINGS[name][1](draft := Draft(13), "x")
        value = draft("MatMul", value, W)
    path = draft.save(tmp_path / "old.onnx", value)
    read = recovering.read_onnx_network

    def wrong(*arguments: Any, **options: Any) -> Any:
        found = read(*arguments, **options)
        weights = found.recovered.weights
        key = next(key for key in weights if weights[key].is_floating_point())
        tensor = weights[key].clone()
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(9.0))
        weights[key] = tensor
        return found

    monkeypatch.setattr(recovering, "read_onnx_network", wrong)
    with pytest.raises(ProofError, match=r"the recovered network is not what .* computes"):
        recover(path, tmp_path / "new", device="cpu", page=False)


def test_an_old_file_of_torch_with_a_fixed_batch_a_view_and_a_dropout(tmp_path: Path) -> None:
    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.std = nn.Buffer(torch.rand(12)), nn.Buffer(torch.rand(12) + 0.5)
            self.a, self.b, self.drop = nn.Linear(12, 8), nn.Linear(8, 3), nn.Dropout(0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = (x.view(x.size(0), -1) - self.mean) / self.std
            return self.b(self.drop(torch.nn.functional.silu(self.a(x))))

    torch.manual_seed(0)
    module = Old().eval()
    path = tmp_path / "old.onnx"
    training: dict[str, Any] = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    example = (torch.zeros(1, 3, 4),)
    with pytest.warns(DeprecationWarning, match="legacy TorchScript-based|The feature will be removed"):
        torch.onnx.export(module, example, str(path), dynamo=False, opset_version=11, **training)
    recovery = recover(path, tmp_path / "new", device="cpu", page=False)
    assert recovery.apart is not None
    assert recovery.apart < 1e-5
    assert recovery.rows == 1000
    assert [block.kind for block in recovery.spec.blocks] == ["standardize", "linear", "silu", "linear"]
    rows = torch.randn(5, 3, 4)
    with Session(tmp_path / "new" / "old.onnx", "cpu") as session, torch.no_grad():
        np.testing.assert_allclose(session.predict(rows.flatten(1)), module(rows).numpy(), rtol=1e-4, atol=1e-6)


def eran(listed: bool) -> onnx.ModelProto:
    """Sub, Div, Transpose of one channel, Reshape, MatMul and Add, as a verification benchmark has them."""
    rng = np.random.default_rng(0)
    held = {"mean": np.array([0.13], S), "std": np.array([0.31], S), "shape": np.array([1, 12])}
    held |= {"W": rng.standard_normal((12, 5)).astype(S), "b": rng.standard_normal(5).astype(S)}
    nodes = [
        onnx.helper.make_node("Sub", ["x", "mean"], ["a"]),
        onnx.helper.make_node("Div", ["a", "std"], ["c"]),
        onnx.helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 3, 1]),
        onnx.helper.make_node("Reshape", ["t", "shape"], ["d"]),
        onnx.helper.make_node("MatMul", ["d", "W"], ["e"]),
        onnx.helper.make_node("Add", ["b", "e"], ["f"]),
        onnx.helper.make_node("Relu", ["f"], ["y"]),
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    ports = [onnx.helper.make_tensor_value_info("x", 1, [1, 1, 3, 4])]
    if listed:
        ports += [onnx.helper.make_tensor_value_info(c.name, c.data_type, list(c.dims)) for c in constants]
    result = onnx.helper.make_tensor_value_info("y", 1, [1, 5])
    graph = onnx.helper.make_graph(nodes, "g", ports, [result], constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 9)], ir_version=4)


@pytest.mark.parametrize("listed", [False, True])
def test_a_verification_benchmark_s_file(listed: bool, tmp_path: Path) -> None:
    """``listed``: with the constants among its inputs, where ONNX Runtime infers no shapes from them."""
    onnx.save(eran(listed), str(tmp_path / "old.onnx"))
    recovery = recover(tmp_path / "old.onnx", tmp_path / "new", device="cpu", page=False)
    assert [block.kind for block in recovery.spec.blocks] == ["standardize", "linear", "relu"]
    assert recovery.artifact is not None
    assert recovery.artifact.proved


def test_the_shape_of_the_input_can_be_kept(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).eval()
    publish(module, tmp_path / "old.onnx", input_shape=(2, 3), device="cpu", page=False)
    flat = recover(tmp_path / "old.onnx", tmp_path / "flat", device="cpu", page=False)
    kept = recover(tmp_path / "old.onnx", tmp_path / "kept", device="cpu", page=False, keep_shape=True)
    assert flat.spec.input.row_shape == (6,)
    assert kept.spec.input.row_shape == (2, 3)
    assert [block.kind for block in kept.spec.blocks] == ["flatten", "linear"]
    assert kept.artifact is not None
    assert kept.artifact.proved


@settings(max_examples=80, deadline=None)
@given(specs(deepest=8, widest=16))
def test_a_written_spec_reads_back(tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec) -> None:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(as_yaml(spec), encoding="utf-8")
    assert load_spec(path) == spec


def test_words_that_yaml_might_take_for_something_else(tmp_path: Path) -> None:
    features = [{"name": "no", "unit": "m/s", "range": [-1e-9, 3e38]}, "1e5", "ünit", "a: b", "~"]
    spec = MLPSpec(name="on", input={"name": "0", "features": features}, blocks=[{"elu": 1e-7}, {"linear": 2}])
    (tmp_path / "spec.yaml").write_text(as_yaml(spec), encoding="utf-8")
    assert load_spec(tmp_path / "spec.yaml") == spec


@pytest.mark.parametrize("name", ["acasxu_1_1.onnx", "g1_policy.onnx", "mnist_256x2.onnx"])
def test_real_onnx_files(name: str, device: str, tmp_path: Path) -> None:
    old = real_network(name)
    recovery = recover(old, tmp_path, device=device, page=False)
    assert recovery.original is not None
    assert recovery.original.proved
    assert recovery.artifact is not None
    assert recovery.artifact.proved
    assert recovery.apart is not None
    summary = inspect(recovery.artifact.path).summary
    assert summary.inputs[0].shape[0] == "batch"
    assert summary.opset == 17
    before = onnxruntime.InferenceSession(str(old), providers=["CPUExecutionProvider"])
    (port,) = before.get_inputs()
    features = recovery.spec.input.row_shape[0]
    rows = np.random.default_rng(0).standard_normal((1000, features), dtype=np.float32)
    expected = np.concatenate([np.asarray(before.run(None, {port.name: row.reshape(port.shape)})[0]) for row in rows])
    with Session(recovery.artifact.path, device) as session:
        for batch in (rows[:1], rows):
            found = session.predict(batch)
            # each file is within its proven bound of one network; these are what both are off by together
            ends = [report.end_to_end for report in (recovery.original, recovery.report) if report is not None]
            slack = sum(end.from_float64 for end in ends if end is not None)
            np.testing.assert_allclose(found, expected[: len(batch)].reshape(found.shape), rtol=1e-6, atol=2 * slack)


@pytest.mark.parametrize(("name", "widths"), [("mnist_2_20.pth", [784, 20, 10]), ("three_layer.pth", [2, 32, 32, 1])])
def test_real_checkpoints(name: str, widths: list[int], device: str, run: Run, tmp_path: Path) -> None:
    done = run("recover", real_network(name), "-o", tmp_path)
    assert done.code == 2
    assert "--activation" in done.err
    assert f"{widths[0]} -> {widths[1]}" in done.err
    done = run("recover", real_network(name), "-o", tmp_path, "--activation", "relu")
    assert done.code == 0
    assert f"next      mlpx build {tmp_path / 'spec.yaml'}" in done.out
    assert "no activation after the output" in done.err
    assert run("build", tmp_path / "spec.yaml", "-o", tmp_path, "--device", device, "--no-html").code == 0
    state = torch.load(real_network(name), weights_only=True, map_location="cpu")
    layers = [value for value in state.values() if value.ndim == 2]
    biases = [value for value in state.values() if value.ndim == 1]
    rows = np.random.default_rng(0).standard_normal((1000, widths[0]), dtype=np.float32)
    x = torch.from_numpy(rows)
    for index, (weight, bias) in enumerate(zip(layers, biases, strict=True)):
        x = torch.nn.functional.linear(x, weight, bias)
        x = torch.relu(x) if index < len(layers) - 1 else x
    with Session(next(tmp_path.glob("*.onnx")), device) as session:
        for count in (1, 1000):
            np.testing.assert_allclose(session.predict(rows[:count]), x[:count].numpy(), rtol=1e-4, atol=1e-5)
