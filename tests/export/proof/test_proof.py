"""A file is proved when it computes what its module computes, and never otherwise."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from builder import MLPSpec, Scale, assemble, load_spec, load_weights
from export import ExportError, ProofError, export, publish, verify
from export.proof.rules import RULES
from export.trace.decompositions import DECOMPOSED
from runtime import InputError, ModelError
from tests.support.cases import BLOCKS, network, normal, randomised, specs
from tests.support.hand_written import HAND_WRITTEN
from tests.support.repeats import examples

GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "between linear layers"])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_proved(name: str, alone: bool, device: str, tmp_path: Path) -> None:
    if alone and name in ("dropout", "identity", "flatten"):
        return
    spec, module = network([BLOCKS[name]] if alone else [{"linear": 9}, BLOCKS[name], {"linear": 3}])
    report = verify(module, export(module, tmp_path / "m.onnx", spec=spec), device=device)
    assert report.proved, report.why
    assert report.verdict == "proved", report.why
    assert report.device.startswith(device)
    assert all(layer.ratio <= 1 for layer in report.layers)
    assert not [check for check in report.checks if check.outcome != "passed"]


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_modules_are_proved(name: str, device: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, _ = HAND_WRITTEN[name]()
    report = verify(module.train(), export(module, tmp_path / "m.onnx"), device=device)
    assert report.proved, report.why
    assert module.training


@settings(GENERATED, max_examples=examples(15, of=40))
@given(spec=specs(), seed=st.integers(0, 2**16), fold=st.booleans())
def test_generated_networks_are_proved(spec: MLPSpec, seed: int, fold: bool, device: str, tmp_path: Path) -> None:
    module = randomised(assemble(spec, seed=seed), seed)
    report = verify(module, export(module, tmp_path / "m.onnx", spec=spec, fold_affine=fold), device=device)
    assert report.proved, report.why


def test_a_block_without_a_bound_is_never_passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "tanh", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    monkeypatch.delitem(RULES, "tanh")
    report = verify(module, path, device="cpu")
    assert report.verdict == "not proved"
    assert report.why == "no rule bounds tanh at '1'"


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    spec, module = network([{"linear": 16}, "elu", {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    first, second, other = (verify(module, path, device="cpu", seed=seed) for seed in (3, 3, 4))
    dropped = {"seconds"}
    assert first.model_dump(exclude=dropped) == second.model_dump(exclude=dropped)
    assert first.model_dump(exclude=dropped) != other.model_dump(exclude=dropped | {"seed"})


def test_what_was_tried_is_said(root: Path, tmp_path: Path) -> None:
    folder = root / "models" / "digits"
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    artifact = export(module, tmp_path / "digits.onnx", spec=spec)
    report = verify(module, artifact, device="cpu", data=folder / "heldout.parquet")
    assert [given.kind for given in report.inputs] == ["data", "range", "normal", "kinks", "extremes", "search"]
    assert report.inputs[0].rows == 450
    assert "0 to 16" in report.inputs[1].words
    shares = report.layers[1].shares
    assert {*(f"batch of {size}" for size in (1, 2, 7, 64)), "row alone", "search"} <= set(shares)
    assert report.end_to_end is not None
    assert 0 < report.end_to_end.from_float64 < 1e-4
    assert [layer.path for layer in report.layers[:3]] == ["0/sub", "0/div", "1"]
    assert report.layers[1].inputs == ["0/sub"]
    assert report.layers[0].inputs == ["input"]
    many = np.resize(normal(500, 64), (12_000, 64))
    sampled = verify(module, artifact, device="cpu", data=many)
    assert sampled.inputs[0].rows == 10_000
    assert "10,000 rows sampled from the 12,000 rows" in sampled.inputs[0].words


class Dice(nn.Module):
    """Random in evaluation mode, in Python, for more rows than a trace has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.layer(x)
        return y + y if len(x) > 20 and random.random() < 0.5 else y


class Counter(nn.Module):
    """Another function at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.layer(x) if self.calls < 9 else torch.relu(self.layer(x))


@pytest.mark.parametrize("kind", [Dice, Counter])
def test_a_module_that_is_not_one_function_is_not_proved(kind: type[nn.Module], tmp_path: Path) -> None:
    module = kind()
    report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "random in evaluation mode" in report.why or "not what its traced operators compute" in report.why


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "relu"])
    with torch.no_grad():
        next(module.parameters())[1, 2] = value
    with pytest.raises(ProofError, match=r"'0.weight' is NaN or infinite in 1 of 28 values"):
        publish(module, tmp_path / "m.onnx", spec=spec, device="cpu", page=False)
    assert not (tmp_path / "m.onnx").exists()


def test_a_module_that_no_block_expresses_is_not_proved(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tan(self.layer(x))

    report = verify(Odd(), export(nn.Linear(3, 3), tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "a file has no operator for tan at line" in report.why


def test_data_that_does_not_fit(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    with pytest.raises(InputError, match=r"rows of shape \[6\], and the module takes \[7\]"):
        verify(module, path, device="cpu", data=normal(3, 6))
    empty = verify(module, path, device="cpu", data=normal(0, 7))
    assert empty.proved
    assert empty.warnings == ["the given array has no rows, so it shows nothing"]
    odd = normal(9, 7)
    odd[3, 1] = np.nan
    odd.setflags(write=False)
    assert verify(module, path, device="cpu", data=odd).warnings == [
        "1 of the 9 rows of the given array hold NaN or infinity"
    ]
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        verify(module, tmp_path / "cut.onnx", device="cpu")
    with pytest.raises(ExportError, match=r"expected an nn\.Module"):
        verify(cast("Any", "not a module"), path, device="cpu")


class ByRows(nn.Module):
    """Another function for more rows than a trace has; and a small output beside a very large one."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.kind = nn.Linear(3, 2), kind
        with torch.no_grad():
            self.layer.bias[0] = 1e9 if kind == "beside" else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(torch.tanh(x))
        if len(x) < 100:
            return y
        return y + torch.tensor([0.0, 0.9]) if self.kind == "beside" else torch.sin(y)


@pytest.mark.parametrize("kind", ["beside", "another"])
def test_a_forward_that_the_trace_does_not_see(kind: str, tmp_path: Path) -> None:
    module = ByRows(kind)
    report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    assert report.verdict == "not proved"
    assert "not what its traced operators compute" in report.why


def test_values_without_a_bound_are_not_passed(tmp_path: Path) -> None:
    """A variance that cancels away in float32 on the user's own rows, and a layer whose products overflow."""
    spec, module = network(["layer_norm"], features=64)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    far = (1e4 + 0.1 * normal(50, 64)).astype(np.float32)
    report = verify(module, path, device="cpu", data=far)
    assert report.verdict == "not proved"
    assert "values of '0' have no bound on usual rows" in report.why
    assert verify(module, path, device="cpu").proved
    spec, large = network([{"linear": 8}])
    with torch.no_grad():
        large[0].weight.mul_(3e38).mul_(2.5)  # type: ignore[operator]
    assert not verify(large, export(large, tmp_path / "l.onnx", spec=spec), device="cpu").proved


UNUSUAL = {
    "scale on rows that are not flat": (["flatten", {"linear": 3}], (3, 4)),
    "a decayed norm": ([{"linear": 5}, "relu", "batch_norm", {"linear": 3}], None),
    "layer norm without epsilon": ([{"layer_norm": {"eps": 1e-38}}, {"linear": 3}], None),
    "tiny weights": ([{"linear": 5}, "tanh", {"linear": 3}], None),
    "width 1": ([{"linear": 1}, "layer_norm", {"linear": 1}], None),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_networks_are_proved(name: str, tmp_path: Path) -> None:
    blocks, shape = UNUSUAL[name]
    spec, module = network(blocks, features=7 if shape is None else 12)
    if shape is not None:
        module = nn.Sequential(Scale(4, 2.0, 1.0), Scale(4, 3.0), *module).eval()
    with torch.no_grad():
        if name == "a decayed norm":
            module[2].weight[2] = 1.7e-41  # type: ignore[index]
        if name == "tiny weights":
            module[0].weight.mul_(1e-41)  # type: ignore[operator]
    for fold in (False, True):
        options = {"input_shape": shape} if shape is not None else {"spec": spec}
        artifact = export(module, tmp_path / "m.onnx", fold_affine=fold, **options)  # type: ignore[arg-type]
        report = verify(module, artifact, device="cpu")
        assert report.proved, report.why


def test_a_caller_in_inference_mode_and_other_defaults(tmp_path: Path) -> None:
    spec, module = network([{"linear": 4}, "gelu"])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    kind = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode():
            assert verify(module, path, device="cpu").proved
    finally:
        torch.set_default_dtype(kind)


class Truths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.square(self.inner(x) > 0)  # whole numbers


def test_a_result_of_another_type_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"input_shape": (3,), "device": "cpu", "page": False}
    artifact, report = publish(Truths(), tmp_path / "whole.onnx", **options)
    assert report.proved
    assert artifact.summary.outputs[0].dtype == "int64"
    monkeypatch.setitem(DECOMPOSED, "square.default", lambda x: x * x)  # as truths have it in a file
    with pytest.raises(ProofError, match="gives int64, and its traced operators bool"):
        publish(Truths(), tmp_path / "truths.onnx", **options)
