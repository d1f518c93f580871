"""Pairs that look alike and are not, which must not be proved; and pairs that look unlike and are, which must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from builder import MLPSpec, assemble
from export import ExportError, export, publish, verify

Nodes = list[onnx.NodeProto]


def saved(
    path: Path,
    nodes: Nodes,
    constants: dict[str, np.ndarray],
    *,
    inputs: dict[str, int],
    outputs: list[str],
) -> Path:
    """A file whose outputs have no declared shape."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w]) for n, w in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ports, results, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def constants_of(layer: nn.Linear, prefix: str = "") -> dict[str, np.ndarray]:
    return {f"{prefix}W": layer.weight.detach().numpy(), f"{prefix}b": layer.bias.detach().numpy()}


GEMM = helper.make_node("Gemm", ["x", "W", "b"], ["y"], transB=1)


@pytest.mark.parametrize("shape", [[-1], [1, -1], [-1, 1, 1], [2, -1]])
def test_an_output_of_another_shape_is_not_proved(shape: list[int], tmp_path: Path) -> None:
    layer = nn.Linear(4, 1)
    nodes = [GEMM, helper.make_node("Reshape", ["y", "s"], ["o"])]
    constants = {**constants_of(layer), "s": np.array(shape, np.int64)}
    report = verify(layer, saved(tmp_path / "m.onnx", nodes, constants, inputs={"x": 4}, outputs=["o"]), device="cpu")
    assert not report.proved
    assert any(part in report.why for part in ("its output 'o'", "does not run", "does not follow from the size"))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), self.b(x)


def test_one_of_two_outputs_of_another_shape_is_not_proved(tmp_path: Path) -> None:
    module = Two()
    second = helper.make_node("Gemm", ["x", "vW", "vb"], ["z"], transB=1)
    nodes = [GEMM, second, helper.make_node("Reshape", ["y", "s"], ["o"])]
    constants = {**constants_of(module.a), **constants_of(module.b, "v"), "s": np.array([-1], np.int64)}
    path = saved(tmp_path / "m.onnx", nodes, constants, inputs={"x": 4}, outputs=["o", "z"])
    report = verify(module, path, device="cpu")
    assert not report.proved
    assert "its output 'o' is of shape" in report.why


class Difference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([a, b], dim=1))


def test_data_goes_to_the_input_of_its_name_whatever_the_file_s_order(tmp_path: Path) -> None:
    module = Difference()
    path = export(module, tmp_path / "m.onnx", input_shape={"a": (2,), "b": (3,)}).path
    model = onnx.load(str(path))
    first, second = model.graph.input
    del model.graph.input[:]
    model.graph.input.extend([second, first])
    onnx.save(model, str(path))
    data = {"b": np.full((2, 3), 7, np.float32), "a": np.full((2, 2), 5, np.float32)}
    report = verify(module, path, device="cpu", data=data)
    assert report.proved, report.why
    with torch.no_grad():
        module.layer.weight[0, 0] += 1
    failure = verify(module, path, device="cpu", data=data).failure
    assert failure is None or failure.x[:5] != [7.0, 7.0, 7.0, 5.0, 5.0]


def test_names_that_are_partly_the_module_s_are_not_wired_by_order(tmp_path: Path) -> None:
    module = Difference()
    path = export(module, tmp_path / "m.onnx", input_shape={"a": (2,), "b": (3,)}).path
    model = onnx.load(str(path))
    for name, other in (("b", "c"), ("a", "b")):
        for node in model.graph.node:
            node.input[:] = [other if value == name else value for value in node.input]
        next(port for port in model.graph.input if port.name == name).name = other
    onnx.save(model, str(path))
    report = verify(module, path, device="cpu")
    assert report.verdict == "not proved"
    assert "which is which?" in report.why


def test_an_operator_of_another_domain_on_constants_is_none_of_onnx(tmp_path: Path) -> None:
    layer = nn.Linear(4, 2)
    nodes = [helper.make_node("Add", ["b", "b"], ["c"], domain="my.own"), GEMM]
    path = saved(tmp_path / "m.onnx", nodes, constants_of(layer), inputs={"x": 4}, outputs=["y"])
    assert not verify(layer, path, device="cpu").proved


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.layer = nn.Buffer(torch.tensor([0.0, 1.0, 2.0, 3.0])), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x - self.mean)


def test_a_sum_with_minus_the_mean_is_the_difference(tmp_path: Path) -> None:
    module = Shifted()
    gemm = helper.make_node("Gemm", ["u", "W", "b"], ["y"], transB=1)
    constants = {**constants_of(module.layer), "c": np.array([0, -1, -2, -3], np.float32)}
    nodes = [helper.make_node("Add", ["x", "c"], ["u"]), gemm]
    path = saved(tmp_path / "m.onnx", nodes, constants, inputs={"x": 4}, outputs=["y"])
    report = verify(module, path, device="cpu")
    assert report.proved, report.why
    constants["c"] = constants["c"] * np.float32(1 + 2e-7)
    path = saved(tmp_path / "m.onnx", nodes, constants, inputs={"x": 4}, outputs=["y"])
    assert verify(module, path, device="cpu").verdict == "failed"


def test_a_change_of_shape_between_two_operators_of_a_layer(tmp_path: Path) -> None:
    layer = nn.Linear(4, 2)
    nodes = [
        helper.make_node("MatMul", ["x", "T"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["q"]),
        helper.make_node("Add", ["q", "b"], ["y"]),
    ]
    constants = constants_of(layer)
    constants = {"T": constants["W"].T.copy(), "b": constants["b"], "s": np.array([-1, 2], np.int64)}
    report = verify(layer, saved(tmp_path / "m.onnx", nodes, constants, inputs={"x": 4}, outputs=["y"]), device="cpu")
    assert report.proved, report.why


@pytest.mark.parametrize(("alpha", "beta", "proved"), [(0.5, 2.0, True), (2.0, 0.25, True), (0.3, 1.0, False)])
def test_a_gemm_s_alpha_and_beta(alpha: float, beta: float, proved: bool, tmp_path: Path) -> None:
    layer = nn.Linear(4, 2)
    constants = {key: value.copy() for key, value in constants_of(layer).items()}
    constants = {"W": constants["W"] / np.float32(alpha), "b": constants["b"] / np.float32(beta)}
    node = helper.make_node("Gemm", ["x", "W", "b"], ["y"], transB=1, alpha=alpha, beta=beta)
    path = saved(tmp_path / "m.onnx", [node], constants, inputs={"x": 4}, outputs=["y"])
    report = verify(layer, path, device="cpu")
    assert report.proved == proved, report.why
    assert report.verdict != "failed", report.why
    constants["b"] = constants["b"] + 1
    path = saved(tmp_path / "m.onnx", [node], constants, inputs={"x": 4}, outputs=["y"])
    assert not verify(layer, path, device="cpu").proved


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.matrix)


class Converted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.to(torch.float32)).float().relu()


class Gained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gain = nn.Linear(3, 2), nn.Parameter(torch.tensor([1.7]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.gain


def scaled() -> nn.Module:
    blocks = ["standardize", {"linear": 3}, {"scale": {"factor": 2.0, "offset": 0.0}}]
    return assemble(MLPSpec(name="s", input={"features": 4}, blocks=blocks))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [Product, Converted, Gained, scaled])
@pytest.mark.parametrize("fold", [False, True])
def test_what_is_right_is_proved(make: Callable[[], nn.Module], seed: int, fold: bool, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    _, report = publish(make(), tmp_path / "m.onnx", device="cpu", page=False, fold_affine=fold)
    assert report is not None
    assert report.proved


def test_a_layer_that_another_exporter_computes_once(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.layer(x)) + torch.relu(self.layer(x))

    module = Twice()
    nodes = [
        GEMM,
        helper.make_node("Tanh", ["y"], ["t"]),
        helper.make_node("Relu", ["y"], ["r"]),
        helper.make_node("Add", ["t", "r"], ["o"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, constants_of(module.layer), inputs={"x": 4}, outputs=["o"])
    report = verify(module, path, device="cpu")
    assert report.proved, report.why


def test_a_batch_that_decides_the_result_is_not_proved(tmp_path: Path) -> None:
    class Batch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * (2.0 if len(x) > 500 else 1.0)

    path = export(Batch(), tmp_path / "m.onnx").path
    report = verify(Batch(), path, device="cpu")
    assert not report.proved


def test_a_parametrisation_that_gives_another_weight_at_every_call_is_refused(tmp_path: Path) -> None:
    class Noise(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + torch.randn_like(weight)

    layer = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Noise())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with pytest.raises(ExportError, match=r"randn_like at .* draws random numbers"):
        export(layer, tmp_path / "m.onnx")
    assert torch.equal(before, torch.get_rng_state())
