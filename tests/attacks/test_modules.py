"""No module is proved that is another network than the file: not by its copy, the batch, the mode or the call."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import ExportError, export, verify
from tests.attacks.modules import ENDING, WRONG, Asks, Right


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTACK_SEEN", raising=False)


@pytest.mark.parametrize("name", WRONG)
def test_another_network_is_never_proved(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = WRONG[name]().eval() if name != "train as a switch" else WRONG[name]()
    try:
        report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    except ExportError:
        return  # it cannot even be traced
    assert not report.proved
    assert "module" in report.why


class Changes(Right):
    """Changes whatever it can reach of itself, and the random states, and raises at the third call."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(2))
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Identity())
        self.seen: list[Any] = [{"rows": {1, 2}}, np.zeros(2), torch.zeros(2)]
        self.calls, self.quiet = 0, True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(self.inner(x))
        if self.quiet:  # while it is exported
            return y
        with torch.no_grad():
            self.count.add_(1)
            self.layer.weight.data = 2 * self.layer.weight.data
            self.layer.bias.data.mul_(3)
        self.layer.weight.requires_grad_(False)
        self.inner.append(nn.ReLU())
        self.inner.training = True
        self.register_forward_hook(lambda *_: None)
        self.seen[0]["rows"].add(len(x))
        self.seen[0]["more"] = self.last = y
        self.seen[1] += 1
        self.seen[2] += 1
        self.seen.append(y)
        torch.rand(1)
        np.random.random()
        random.random()
        self.calls += 1
        if self.calls == 3:
            raise ValueError("as it likes")
        return y


def state_of(module: nn.Module) -> str:
    """Everything of a module, by value and by identity, and the random states."""
    parts = [(name, id(part), part.training, list(vars(part))) for name, part in module.named_modules()]
    tensors = [
        (n, id(t), t.data_ptr(), t.tolist(), t.requires_grad) for n, t in module.state_dict(keep_vars=True).items()
    ]
    hooks = [(id(part._forward_hooks), dict(part._forward_hooks)) for part in module.modules()]
    states = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
    return str((parts, tensors, hooks, module.seen, states))


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_module_comes_back_as_it_was(fails: bool, tmp_path: Path) -> None:
    """Modes, tensors, hooks, attributes and random states, also of one whose code changes all of them and raises."""
    module = Changes()
    module.inner[1].eval()
    artifact = export(module, tmp_path / "m.onnx")
    module.quiet = not fails
    before = state_of(module)
    assert verify(module, artifact, device="cpu").proved is not fails
    assert state_of(module) == before


class Attends(nn.Module):
    """Attention, whose kernels are others without gradients, and a gelu of values far below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(8, 8), nn.Linear(8, 5)
        nn.init.constant_(self.out.bias, -6.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.query(x).unsqueeze(1)
        return nn.functional.gelu(self.out(nn.functional.scaled_dot_product_attention(query, query, query))).flatten(1)


class NoEmpty(Right):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not len(x):
            raise ValueError("no rows")
        return super().forward(x)


class InPlace(Right):
    """Runs without gradients alone, since it writes to a view of a parameter that wants one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.bias.view(2).mul_(1.0) if torch.is_grad_enabled() else None
        return super().forward(x)


class OverRows(Right):
    """Its rows depend on each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) - self.layer(x).mean(dim=0, keepdim=True)


RIGHT: dict[str, tuple[type[nn.Module], tuple[int, ...], str | None]] = {
    "gelu far below zero": (Attends, (4, 8), None),
    "no empty batch": (NoEmpty, (3,), "the module takes no empty batch (ValueError: no rows), and its operators do"),
    "only without gradients": (InPlace, (3,), "the module was not held with gradients, where it raises RuntimeError: "),
    "rows that depend on each other": (OverRows, (3,), None),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_module_is_proved(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind, shape, warning = RIGHT[name]
    module = kind().eval()
    report = verify(module, export(module, tmp_path / "m.onnx", input_shape=shape), device="cpu")
    assert report.proved, report.why
    assert len(report.warnings) == (warning is not None)
    assert warning is None or report.warnings[0].startswith(warning)


@pytest.mark.parametrize(("dtype", "proved"), [(torch.float64, False), (torch.bfloat16, True), (torch.float16, True)])
def test_a_module_of_another_precision(dtype: torch.dtype, proved: bool, tmp_path: Path) -> None:
    """In float64 it is held to what rounding its weights changes; with less precision it is said that it is not."""
    right, wrong = Right().to(dtype), Asks(lambda _module, x: len(x) == 13).to(dtype)
    artifact = export(right, tmp_path / "m.onnx", dtype="float32")
    assert verify(right, artifact, device="cpu", dtype="float32").proved
    artifact = export(wrong, tmp_path / "w.onnx", dtype="float32")
    report = verify(wrong, artifact, device="cpu", dtype="float32")
    assert report.proved is proved
    unheld = f"the module is in {str(dtype).removeprefix('torch.')}: a copy in float32 was compared with the file"
    assert [warning.startswith(unheld) for warning in report.warnings] == [True] * proved


def test_a_file_of_one_batch_size_needs_the_module_in_no_other(tmp_path: Path) -> None:
    module = Asks(lambda _module, x: len(x) == 13)
    path = export(module, tmp_path / "m.onnx").path
    for size, proved in ((7, True), (13, False)):
        model = onnx.load(str(path))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = size
        onnx.save(model, str(tmp_path / "fixed.onnx"))
        assert verify(module, tmp_path / "fixed.onnx", device="cpu").proved is proved


def test_the_end_of_the_process_is_an_error(tmp_path: Path) -> None:
    module = ENDING["sys.exit"]()
    report = verify(module, export(module, tmp_path / "m.onnx"), device="cpu")
    assert not report.proved
    assert "called with gradients on 13 rows it raises RuntimeError: it calls sys.exit(0)" in report.why
    with pytest.raises(ExportError, match=r"it calls sys\.exit\(0\)"):
        export(ENDING["sys.exit while it is traced"](), tmp_path / "m.onnx")
