"""What a user who knows the building blocks expects to see, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, assemble
from export import export, inspect
from runtime import InputError, Session
from tests.support.cases import SLOPES, network, normal


def exported(module: nn.Module, folder: Path, **options: object) -> Session:
    export(module, folder / "model.onnx", **options)  # type: ignore[arg-type]
    return Session(folder / "model.onnx", "cpu")


def operators(session: Session) -> list[str]:
    return [node.op_type for node in onnx.load(str(session.path)).graph.node]


class TestLinear:
    def test_equals_the_product_worked_by_hand(self, tmp_path: Path) -> None:
        layer = nn.Linear(3, 2)
        layer.load_state_dict({"weight": torch.tensor([[1.0, 2, 3], [-1, 0, 5]]), "bias": torch.tensor([0.5, -2])})
        session = exported(layer, tmp_path)
        assert session.predict([[1, 1, 1], [2, 0, -1]]).tolist() == [[6.5, 2.0], [-0.5, -9.0]]

    @pytest.mark.parametrize("rows", [0, 1, 2, 50])
    def test_maps_in_features_to_out_features(self, rows: int, tmp_path: Path) -> None:
        assert exported(nn.Linear(4, 9), tmp_path).predict(normal(rows, 4)).shape == (rows, 9)

    def test_parameters_are_named_and_reproducible(self) -> None:
        spec = MLPSpec(name="one", input={"features": 4}, blocks=[{"linear": 3}])
        first, again, other = assemble(spec, seed=1), assemble(spec, seed=1), assemble(spec, seed=2)
        assert {name: tuple(p.shape) for name, p in first.named_parameters()} == {"0.weight": (3, 4), "0.bias": (3,)}
        assert torch.equal(first.get_parameter("0.weight"), again.get_parameter("0.weight"))
        assert not torch.equal(first.get_parameter("0.weight"), other.get_parameter("0.weight"))
        assert first.get_parameter("0.weight").std() > 0

    def test_assembling_leaves_the_random_state_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        assemble(MLPSpec(name="one", input={"features": 4}, blocks=[{"linear": 3}, "relu"]))
        assert torch.equal(torch.rand(3), expected)

    def test_without_bias(self, tmp_path: Path) -> None:
        spec, module = network([{"linear": {"features": 3, "bias": False}}])
        assert [name for name, _ in module.named_parameters()] == ["0.weight"]
        session = exported(module, tmp_path, spec=spec)
        assert session.predict(np.zeros((1, 7), np.float32)).tolist() == [[0, 0, 0]]

    def test_calling_and_forward_agree(self) -> None:
        layer = assemble(MLPSpec(name="one", input={"features": 4}, blocks=[{"linear": 3}]))
        x = torch.ones(2, 4)
        assert torch.equal(layer(x), layer.forward(x))

    @pytest.mark.parametrize("shape", [(7,), (2, 6), (2, 8), (2, 7, 1), ()])
    def test_a_wrong_shape_names_both(self, shape: tuple[int, ...], tmp_path: Path) -> None:
        session = exported(nn.Linear(7, 2), tmp_path)
        with pytest.raises(InputError) as caught:
            session.predict(np.zeros(shape, np.float32))
        assert "(batch, 7)" in str(caught.value)
        assert str(shape) in str(caught.value)


class TestCompositionOfAffineMaps:
    @pytest.mark.parametrize("between", [[], [{"dropout": 0.5}]])
    def test_two_linear_in_a_row_are_remarked(self, between: list, tmp_path: Path) -> None:
        spec, module = network([{"linear": 5}, *between, {"linear": 3}, "relu"])
        artifact = export(module, tmp_path / "model.onnx", spec=spec)
        second = 1 + len(between)
        expected = f"linear '0' and linear '{second}' stand in a row without an activation between"
        assert any(expected in remark for remark in inspect(artifact.path).summary.remarks)

    @pytest.mark.parametrize("between", [[], [{"dropout": 0.5}], ["identity", {"dropout": 1}]])
    def test_fold_affine_makes_one_layer(self, between: list, tmp_path: Path) -> None:
        spec, module = network([{"linear": 5}, *between, {"linear": 3}])
        session = exported(module, tmp_path, spec=spec, fold_affine=True)
        assert operators(session) == ["Gemm"]
        last = len(between) + 1
        state = {name: p.detach().double() for name, p in module.named_parameters()}
        weight = state[f"{last}.weight"] @ state["0.weight"]
        stored = onnx.numpy_helper.to_array(onnx.load(str(session.path)).graph.initializer[0])
        # Composed in float64 and rounded once: at most one ulp from the rounded exact product.
        assert np.abs(stored - weight.numpy()).max() <= weight.abs().max().item() * 2.0**-24

    def test_a_value_that_is_read_twice_is_not_folded(self, tmp_path: Path) -> None:
        spec, module = network([{"linear": 7}, {"residual": [{"linear": 7}]}])
        assert operators(exported(module, tmp_path, spec=spec, fold_affine=True)) == ["Gemm", "Gemm", "Add"]

    def test_what_float32_cannot_hold_is_left_unfolded(self, tmp_path: Path) -> None:
        blocks = [{"scale": {"factor": 1e30}}, {"scale": {"factor": 1e30}}]
        spec, module = network(blocks)
        assert operators(exported(module, tmp_path, spec=spec, fold_affine=True)) == ["Mul", "Add"] * 2


class TestActivations:
    def test_sigmoid_saturates_without_overflow(self, tmp_path: Path) -> None:
        session = exported(nn.Sigmoid(), tmp_path, input_shape=(4,))
        out = session.predict(np.array([[-1e4, 0, 1e4, 3]], np.float32))[0]
        assert out[:3].tolist() == [0, 0.5, 1]
        assert out[3] == pytest.approx(1 / (1 + np.exp(-3)), abs=2**-22)

    @settings(max_examples=100, deadline=None)
    @given(values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30))
    def test_sigmoid_maps_into_zero_to_one(self, values: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
        session = exported(nn.Sigmoid(), tmp_path_factory.mktemp("s"), input_shape=(1,))
        out = session.predict(np.array(values, np.float32)[:, None])
        assert ((out >= 0) & (out <= 1)).all()

    def test_relu_is_the_maximum_with_zero_and_keeps_nan(self, tmp_path: Path) -> None:
        session = exported(nn.ReLU(), tmp_path, input_shape=(4,))
        out = session.predict(np.array([[-2, 0, 3, np.nan]], np.float32))[0]
        assert out[:3].tolist() == [0, 0, 3]
        assert np.isnan(out[3])

    @settings(max_examples=60, deadline=None)
    @given(slope=SLOPES)
    def test_any_slope_survives_bit_for_bit(self, slope: float, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("slope")
        session = exported(nn.LeakyReLU(slope), folder, input_shape=(2,))
        (node,) = onnx.load(str(session.path)).graph.node
        assert np.float32(node.attribute[0].f).tobytes() == np.float32(slope).tobytes()
        x = np.array([[-1.0, 3.0]], np.float32)
        assert session.predict(x).tolist() == [[-np.float32(slope), 3.0]]

    def test_the_slope_is_0_01_unless_given(self, tmp_path: Path) -> None:
        spec, module = network(["leaky_relu"])
        out = exported(module, tmp_path, spec=spec).predict(np.full((1, 7), -1, np.float32))
        assert out[0, 0] == -np.float32(0.01)


class TestDeadReLU:
    def test_dead_units_are_counted_and_named_per_layer(self, tmp_path: Path) -> None:
        spec, module = network([{"linear": 5}, "relu", {"linear": 4}, "relu", {"linear": 1}])
        with torch.no_grad():
            weights, biases = ([module.get_parameter(f"{at}.{kind}") for at in (0, 2)] for kind in ("weight", "bias"))
            weights[0][[1, 3]], biases[0][[1, 3]] = 0, -1
            weights[1][0], biases[1][0] = -weights[1][0].abs(), -0.1
        artifact = export(module, tmp_path / "model.onnx", spec=spec)
        np.save(tmp_path / "rows.npy", normal(5000, 7))
        found = inspect(artifact.path, data=tmp_path / "rows.npy")
        assert found.rows == 5000
        assert found.dead is not None
        dead = {layer.path: (layer.units, layer.width) for layer in found.dead}
        with torch.inference_mode():
            hidden = module[:2](torch.from_numpy(normal(5000, 7)))
            second = module[:4](torch.from_numpy(normal(5000, 7)))
        expected = [tuple(np.flatnonzero((h.numpy() == 0).all(axis=0)).tolist()) for h in (hidden, second)]
        assert {1, 3} <= set(expected[0])
        assert 0 in expected[1]
        assert dead == {"1": (expected[0], 5), "3": (expected[1], 4)}


class TestDropout:
    def test_training_zeroes_a_proportion_and_keeps_the_mean(self) -> None:
        module = assemble(MLPSpec(name="d", input={"features": 1000}, blocks=[{"dropout": 0.3}])).train()
        torch.manual_seed(0)
        out = module(torch.ones(200, 1000))
        zeros = (out == 0).double().mean().item()
        assert abs(zeros - 0.3) < 5 * (0.3 * 0.7 / 200_000) ** 0.5
        assert torch.equal(out[out != 0].unique(), torch.tensor([1 / 0.7]))
        assert out.double().mean().item() == pytest.approx(1, abs=5 * (0.3 / 0.7 / 200_000) ** 0.5)

    def test_evaluation_gives_the_input_itself(self) -> None:
        x = torch.ones(3, 4)
        assert assemble(MLPSpec(name="d", input={"features": 4}, blocks=[{"dropout": 0.9}])).eval()(x) is x

    @pytest.mark.parametrize("p", [0, 0.5, 1])
    @pytest.mark.parametrize("place", ["first", "last", "doubled", "nested", "shared"])
    def test_nothing_of_it_is_in_the_file(self, p: float, place: str, tmp_path: Path) -> None:
        drop, layer = nn.Dropout(p), nn.Linear(4, 4)
        module = {
            "first": lambda: nn.Sequential(drop, layer),
            "last": lambda: nn.Sequential(layer, drop),
            "doubled": lambda: nn.Sequential(layer, drop, nn.Dropout(p), nn.ReLU()),
            "nested": lambda: nn.Sequential(nn.Sequential(nn.Sequential(drop), layer), nn.ReLU()),
            "shared": lambda: nn.Sequential(drop, layer, drop, nn.ReLU(), drop),
        }[place]()
        module.train()
        session = exported(module, tmp_path)
        assert set(operators(session)) <= {"Gemm", "Relu"}
        assert module.training
        assert all(part.training for part in module.modules())
        x = normal(5, 4)
        expected = module.eval()(torch.from_numpy(x)).detach().numpy()
        assert np.allclose(session.predict(x), expected, rtol=0, atol=1e-6)


class TestBatches:
    def test_any_number_of_rows_on_one_session(self, tmp_path: Path) -> None:
        spec, module = network([{"linear": 16}, "relu", {"linear": 3}])
        session = exported(module, tmp_path, spec=spec)
        assert session.inputs[0].shape == ("batch", 7)
        assert session.outputs[0].shape == ("batch", 3)
        whole = session.predict(normal(100_000, 7))
        assert whole.shape == (100_000, 3)
        for rows in (0, 1, 2, 7):
            assert session.predict(normal(100_000, 7)[:rows]).shape == (rows, 3)
        # Row i of a batch and row i alone each lie within the bound of the exact row: within twice that of each other.
        weights = [np.abs(p.detach().double().numpy()) for p in module.parameters()]
        for i in (0, 7, 99_999):
            row = normal(100_000, 7)[i : i + 1]
            hidden = np.abs(row) @ weights[0].T + weights[1]
            bound = 2 * (17 + 8) * 2.0**-24 * (hidden @ weights[2].T + weights[3])
            assert (np.abs(whole[i] - session.predict(row)[0]) <= bound[0]).all()
