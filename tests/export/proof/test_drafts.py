"""Files written by hand, held against a module: other ports, numbers as attributes, data that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from builder import MLPSpec, assemble
from export import verify
from export.graph import Rows
from export.proof.rows import format_output, in_shape
from runtime import ModelError
from tests.support.hand_written import Written, proved
from tests.support.onnx_drafts import Draft, layer

WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
BIAS = np.random.default_rng(1).normal(size=4).astype(np.float32)


def linear(bias: bool = True) -> nn.Linear:
    module = nn.Linear(6, 4, bias=bias).eval()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(WEIGHT.T.copy()))
        if bias:
            module.bias.copy_(torch.from_numpy(BIAS))
    return module


def held(module: nn.Module, draft: Draft, output: str, folder: Path) -> tuple[str, str]:
    """The verdict on a draft, and all that was said."""
    report = verify(module, draft.save(folder / "m.onnx", output), device="cpu")
    return report.verdict, "; ".join(check.words for check in report.checks)


def test_numbers_that_constant_nodes_hold(tmp_path: Path) -> None:
    draft = Draft()
    output = draft("Mul", draft("Gemm", "x", WEIGHT, BIAS), draft("Constant", value_float=0.5))
    verdict, words = held(Written(lambda m, x: m.parts[0](x) * 0.5, linear()), draft, output, tmp_path)
    assert verdict == "proved", words


def test_a_last_input_that_is_left_out(tmp_path: Path) -> None:
    draft = Draft()
    verdict, words = held(linear(bias=False), draft, draft("Gemm", "x", WEIGHT, ""), tmp_path)
    assert verdict == "proved", words


SCALED: dict[str, tuple[nn.Module, Callable[[Draft], str], str]] = {
    "a factor that is alpha and beta": (
        Written(lambda m, x: m.parts[0](x) * 2, linear()),
        lambda d: d("Gemm", "x", WEIGHT, BIAS, alpha=2.0, beta=2.0),
        "proved",
    ),
    "an offset that is the bias": (
        Written(lambda m, x: m.parts[0](x) * 2 + m.b, linear(bias=False), b=torch.from_numpy(BIAS)),
        lambda d: d("Gemm", "x", WEIGHT, BIAS, alpha=2.0),
        "proved",
    ),
    "a bias and an offset": (
        Written(lambda m, x: m.parts[0](x) * 2 + m.b, linear(), b=torch.from_numpy(BIAS)),
        lambda d: d("Gemm", "x", WEIGHT, BIAS * 3, alpha=2.0),
        "proved",
    ),
    "a number less the value": (
        Written(lambda m, x: m.parts[0](x) * -1 + 0.5, linear()),
        lambda d: d("Sub", np.float32(0.5), d("Gemm", "x", WEIGHT, BIAS)),
        "not proved",
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_a_product_and_a_sum_in_one_operator(name: str, tmp_path: Path) -> None:
    module, spelling, expected = SCALED[name]
    draft = Draft()
    verdict, words = held(module.eval(), draft, spelling(draft), tmp_path)
    assert verdict == expected, words


def test_other_ports_than_the_module_s(tmp_path: Path) -> None:
    draft = Draft()
    model = draft.model(draft("Gemm", "x", WEIGHT, BIAS))
    model.graph.output.append(onnx.helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["batch", 4]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["v0"], ["v1"]))
    model.graph.output[1].name = "v1"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    report = verify(linear(), tmp_path / "m.onnx", device="cpu")
    assert not report.proved
    assert "the file has 1 input and 2 outputs, and the module 1 input and 1 output" in report.why
    draft = Draft()
    model = draft.model(draft("Cast", draft("Gemm", "x", WEIGHT, BIAS), to=TensorProto.DOUBLE))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    report = verify(linear(), tmp_path / "m.onnx", device="cpu")
    assert not report.proved
    assert "the file's output 'v1' is not float32" in report.why


def test_data_beside_the_file_that_is_missing(tmp_path: Path) -> None:
    draft = Draft()
    model = draft.model(draft("Gemm", "x", WEIGHT, BIAS))
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    with pytest.raises(ModelError, match=r"external data is missing. What to do: put w\.data beside it"):
        verify(linear(), tmp_path / "m.onnx", device="cpu")


def test_a_spec_that_declares_nothing_is_held_to_the_names(tmp_path: Path) -> None:
    spec = MLPSpec(name="n", input={"name": "x", "features": 6}, blocks=[{"linear": 4}], output={"name": "v0"})
    module = assemble(spec, seed=0)
    module.load_state_dict({f"0.{key}": value for key, value in linear().state_dict().items()})
    report = verify(module, layer(tmp_path, WEIGHT, BIAS), spec=spec, device="cpu")
    assert report.proved, report.why
    assert "input and output have the spec's names" in [check.words for check in report.checks]


def test_a_file_that_gives_another_width_than_it_says(tmp_path: Path) -> None:
    """The draft does not declare its output's shape, so it is seen when the file runs."""
    draft = Draft()
    verdict, words = held(linear(), draft, draft("Gemm", "x", np.ones((6, 5)), np.ones(5)), tmp_path)
    assert verdict == "not proved"
    assert "its output 'v0' is of shape [1000, 5] for 1,000 rows, and the module's has rows of shape [4]" in words


def test_a_module_that_gives_its_input_back(tmp_path: Path) -> None:
    draft = Draft()
    verdict, words = held(nn.Sequential(nn.Dropout()).eval(), draft, draft("Identity", "x"), tmp_path)
    assert verdict == "not proved"
    assert "the module gives its input back: there is nothing to compute" in words


def asks_for_float32(m: Written, x: torch.Tensor) -> torch.Tensor:
    """A norm of groups, whose operators give other bits, so that it is called in float64, too."""
    y = nn.functional.group_norm(m.parts[0](x.float()).to(torch.float32), 2)
    return torch.where(y > 0, y, y * 2)


MODULES: dict[str, nn.Module] = {
    "it asks for float32": Written(asks_for_float32, linear()),
    "its first layer is behind a comparison": Written(lambda m, x: m.parts[0]((x > 0).float()) * 2, linear()),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_is_proved_as_it_is_written(name: str, tmp_path: Path) -> None:
    proved(MODULES[name].eval(), tmp_path, input_shape=(6,))


def test_places_in_a_row_of_all_outputs() -> None:
    shapes = {"first": (2,), "second": (2, 2)}
    assert format_output(1, {"only": (4,)}) == "output 1"
    assert [format_output(index, shapes) for index in (1, 2, 5)] == [
        *("output 1 of 'first'", "output 0 of 'second'", "output 3 of 'second'")
    ]
    with pytest.raises(ModelError, match=r"a value has shape \[5\], where the module's has \[2, 2\]"):
        in_shape(np.zeros(5), 2, (Rows(), 2))
