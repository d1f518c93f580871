"""What exporting leaves alone: the caller's module, tensors, random state and other threads."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import ExportError, export, publish


def test_the_callers_module_comes_back_as_it_was(tmp_path: Path) -> None:
    seen = []
    module = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4)), nn.ReLU(inplace=True))
    module[1].register_forward_hook(lambda *_: seen.append(1))
    module.train()
    module.get_submodule("1.1").eval()
    before = {name: (value.clone(), value.data_ptr()) for name, value in module.state_dict().items()}
    modes = {name: part.training for name, part in module.named_modules()}
    gradients = {name: p.requires_grad for name, p in module.named_parameters()}
    hooks = dict(module[1]._forward_hooks)
    export(module, tmp_path / "m.onnx")
    export(module, tmp_path / "m.onnx", dtype="float32", fold_affine=True)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name][0])
        assert value.data_ptr() == before[name][1]
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert {name: p.requires_grad for name, p in module.named_parameters()} == gradients
    assert module[1]._forward_hooks == hooks


class MergesInEval(nn.Linear):
    """Adds its low-rank part to its weight when it leaves training, as LoRA layers do."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.low_rank, self.merged = nn.Parameter(torch.ones(4, 4)), False

    def train(self, mode: bool = True) -> MergesInEval:
        if not mode and not self.merged:
            self.weight.data += self.low_rank.data
            self.merged = True
        return super().train(mode)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name nn.Linear uses
        return F.linear(input, self.weight, self.bias)


def test_code_of_the_callers_never_reaches_the_callers_tensors(tmp_path: Path) -> None:
    module = nn.Sequential(MergesInEval())
    before = module.get_parameter("0.weight").clone()
    artifact = export(module, tmp_path / "m.onnx")
    assert torch.equal(module.get_parameter("0.weight"), before)
    assert not module[0].merged
    stored = onnx.numpy_helper.to_array(onnx.load(str(artifact.path)).graph.initializer[0])
    assert np.array_equal(stored, (before + 1).detach().numpy())


def test_a_hook_of_the_callers_never_reaches_the_callers_tensors(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def double(part: nn.Module, _inputs: object) -> None:
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.mul_(2)

    module.register_forward_pre_hook(double)
    before = module.get_parameter("0.weight").clone()
    with pytest.raises(ExportError, match=r"changes '0.weight' in place"):
        export(module, tmp_path / "m.onnx")
    assert torch.equal(module.get_parameter("0.weight"), before)


def test_a_trace_leaves_the_random_state_alone(tmp_path: Path) -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.rand(3)
            return torch.relu(x)

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    export(Noise(), tmp_path / "m.onnx", input_shape=(3,))
    assert torch.equal(torch.rand(2), expected)


def settings_of_the_process() -> tuple[object, ...]:
    """What an export switches off while it runs, or might leave another."""
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch.distributions.Distribution._validate_args,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
    )


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand_like(x)
        raise ValueError("no such rows")


def test_the_process_is_as_it_was(tmp_path: Path) -> None:
    module = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    before = settings_of_the_process()
    publish(module, tmp_path / "m.onnx", input_shape=(3, 4), page=False)
    assert settings_of_the_process() == before
    with pytest.raises(ExportError, match="no such rows"):
        export(Raising(), tmp_path / "m.onnx", input_shape=(3,))
    assert settings_of_the_process() == before


def test_another_default_type_of_the_process_changes_nothing(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    expected = export(module, tmp_path / "m.onnx").path.read_bytes()
    torch.set_default_dtype(torch.float64)
    try:
        assert publish(module, tmp_path / "m.onnx", device="cpu", page=False)[0].path.read_bytes() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_and_inference_around_an_export_change_nothing(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    expected = export(module, tmp_path / "m.onnx").path.read_bytes()
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            assert export(module, tmp_path / "m.onnx").path.read_bytes() == expected


def test_what_a_run_keeps_in_python_stays_in_it(tmp_path: Path) -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(4, 3), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(x)
            self.last = self.layer(x)
            return self.last

    module = Keeps()
    artifact, report = publish(module, tmp_path / "m.onnx", device="cpu", page=False)
    assert artifact.proved
    assert report.proved
    assert module.seen == []
    assert not hasattr(module, "last")


def test_other_threads_go_on_while_a_module_is_traced(tmp_path: Path) -> None:
    """The same module serves meanwhile, and another export of it runs."""
    module, stop = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30))), threading.Event()
    before = settings_of_the_process()
    failures: list[object] = []

    def serve() -> None:
        with torch.inference_mode():
            while not stop.is_set():
                try:
                    out = module(torch.zeros(1, 4))
                    failures.extend([] if type(out) is torch.Tensor else [type(out)])
                except Exception as error:
                    failures.append(error)

    def export_too() -> None:
        while not stop.is_set():
            export(module, tmp_path / "other.onnx", name="net")

    threads = [threading.Thread(target=serve), threading.Thread(target=export_too)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(15):
            export(module, tmp_path / "m.onnx", name="net")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert settings_of_the_process() == before
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()
