"""Files as exporters write them, mlpx's own among them, give their networks back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from builder import MLPSpec, assemble
from export import export, read_onnx
from tests.support.cases import BLOCKS
from tests.support.onnx_drafts import Draft, agree, kinds
from tests.support.recovering import real_network

W = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
B = np.random.default_rng(4).normal(size=4).astype(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
def test_what_mlpx_exports_comes_back(block: str, tmp_path: Path) -> None:
    blocks = [{"linear": 6}, BLOCKS[block], {"linear": 3}]
    spec = MLPSpec(name="net", input={"features": 5, "name": "obs"}, blocks=blocks, output={"name": "act"})
    module = assemble(spec, seed=3).eval()
    path = tmp_path / "net.onnx"
    export(module, path, spec=spec)
    recovered = read_onnx(path)
    assert (recovered.spec.input.name, recovered.spec.output.name, recovered.spec.name) == ("obs", "act", "net")
    agree(path, recovered, (5, 5))


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_torch_files_give_their_weights_back_bit_for_bit(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    norms = nn.BatchNorm1d(8), nn.LayerNorm(8)
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8), nn.GELU(), norms[1], nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 2), nn.Softmax(-1)
    ).eval()
    path = tmp_path / "net.onnx"
    with pytest.warns(DeprecationWarning, match="legacy TorchScript-based|The feature will be removed"):
        torch.onnx.export(
            module, (torch.zeros(1, 2, 3),), str(path), opset_version=opset, dynamo=False,
            dynamic_axes={"input": {0: "n"}}, input_names=["input"], output_names=["output"],
        )  # fmt: skip
    recovered = read_onnx(path)
    assert kinds(recovered) == ["linear", "gelu", "layer_norm", "linear", "silu", "linear", "softmax"]
    assert recovered.flattened == (2, 3)
    for old, new in zip((1, 3, 4, 6), (0, 2, 3, 5), strict=True):
        for role, value in module[old].named_parameters():
            assert torch.equal(value, recovered.weights[f"{new}.{role}"])
    agree(path, recovered, (5, 2, 3))


def test_the_spec_in_a_file_is_not_believed(tmp_path: Path) -> None:
    draft = Draft(13)
    model = draft.model(draft("Tanh", "x"))
    model.metadata_props.add(key="mlpx.spec", value="{}")
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    recovered = read_onnx(tmp_path / "x.onnx")
    assert kinds(recovered) == ["tanh"]
    assert any("spec" in note for note in recovered.notes)


def test_external_data_is_read_where_it_lies(tmp_path: Path) -> None:
    draft = Draft(13)
    model = draft.model(draft("Gemm", "x", W.T.copy(), B, transB=1))
    path = tmp_path / "big.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="big.data", size_threshold=0)
    recovered = read_onnx(path)
    assert np.array_equal(recovered.weights["0.weight"].numpy(), W.T)
    recovered.weights["0.weight"].zero_()
    assert np.array_equal(read_onnx(path).weights["0.weight"].numpy(), W.T)


@pytest.mark.parametrize(
    ("name", "widths", "flattened"),
    [
        ("acasxu_1_1.onnx", [50] * 6 + [5], (1, 1, 5)),
        ("mnist_256x2.onnx", [256, 256, 10], (784, 1)),
        ("g1_policy.onnx", [512, 256, 128, 29], None),
    ],
)
def test_real_networks(name: str, widths: list[int], flattened: Any) -> None:
    path = real_network(name)
    recovered = read_onnx(path)
    weights = [value for value in recovered.weights.values() if value.ndim == 2]
    assert [len(weight) for weight in weights] == widths
    assert recovered.flattened == flattened
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    held = [value.numpy() for value in recovered.weights.values()]
    for array in stored.values():
        assert any(np.array_equal(array.reshape(-1), h.reshape(-1)) or np.array_equal(array.T, h) for h in held)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dims = cast("tuple[int, ...]", tuple(session.get_inputs()[0].shape))
    for seed in range(20):
        agree(path, recovered, dims, seed)
