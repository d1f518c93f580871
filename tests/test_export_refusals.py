"""What cannot be exported, said with its place in the module; and the fallback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import ExportError, ProofError, export, publish, read_report
from runtime import Session
from tests.cases import network, normal


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Sine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Softshrink())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.body(x))


class Cosine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cos()


class ActiveDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.layer(x), 0.5)


class HiddenView(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = torch.flatten(x, 1)
        return torch.relu_(flat) + torch.flatten(x, 1)


class ChangesItsWeights(ActiveDropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.weight.clamp_(min=0)
        return F.linear(x, self.layer.weight)


class TwoViews(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.flatten(x, 1), torch.flatten(x, 1)
        torch.relu_(first)
        return first + second


class Autocast(ActiveDropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layer(x)


class AlwaysTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class MonteCarlo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.drop.train()
        return self.drop(x)


class MadeInForward(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.ReLU()(x)


class ComputedSlope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, self.slope)


class ChangesAllInPlace(ActiveDropout):
    """Past the tracer's sight: the parameters themselves, between two calls."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        with torch.no_grad():
            for parameter in self.layer.parameters():
                parameter.mul_(0.5)
        return torch.relu(self.layer(y))


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.relu(x), None


def with_another_forward() -> nn.Module:
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer)
    vars(module)["forward"] = lambda x: layer(x) + x  # holds the caller's layer, which the copy does not have
    return module


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "data-dependent control flow": (Branch(), r"forward of Branch depends on the data.*at line \d+ of Branch.forward"),
    "unsupported module": (nn.Sequential(nn.Tanh(), nn.Softshrink()), r"no block for Softshrink at '1'.*--fallback"),
    "unsupported function": (nn.Sequential(nn.Linear(3, 3), Cosine()), r"no block for cos\(\) at '1.cos'"),
    "active dropout": (ActiveDropout(), r"dropout at 'dropout': this dropout stays active in evaluation mode"),
    "view overwritten": (HiddenView(), r"another view of it is still read.*inplace=False"),
    "weights changed in forward": (ChangesItsWeights(), r"the forward changes 'layer.weight' in place"),
    "two views, one overwritten": (TwoViews(), r"another view of it is still read"),
    "forward replaced": (with_another_forward(), r"cannot be traced: NameError"),
    "autocast": (Autocast(), r"runs under autocast"),
    "batch norm that stays in training": (AlwaysTraining(), r"batch_norm at 'norm': it stays in training mode"),
    "dropout put into training by forward": (MonteCarlo(), r"dropout at 'drop': this dropout stays active"),
    "a layer made in forward": (MadeInForward(), r"cannot be traced: NameError"),
    "an option that is a tensor": (ComputedSlope(), r"leaky_relu at 'leaky_relu': negative_slope is a tensor"),
    "an option beyond float32": (nn.LeakyReLU(1e300), r"1e\+300 is beyond float32"),
    "weights changed between calls": (ChangesAllInPlace(), r"the forward changes 'layer.weight' in place"),
    "one shape for two inputs": (TwoInputs(), r"one shape is given, and the module takes 2 inputs: x, y"),
    "an output that is no tensor": (Pair(), r"forward returns nothing as 'output_1'"),
    "nothing left": (nn.Sequential(nn.Dropout(0.5), nn.Identity()), r"nothing is left to compute"),
    "empty": (nn.Sequential(), r"nothing is left to compute"),
    "softmax over the batch": (nn.Softmax(dim=0), r"over the features \(dim=-1\), not over dim=0"),
    "batch statistics": (nn.BatchNorm1d(3, track_running_stats=False), r"no running statistics"),
    "shapes that do not chain": (
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2)),
        r"linear at '2': expects 5 features, but '1.output' has rows of shape \[4\]",
    ),
    "meta device": (nn.Linear(3, 3, device="meta"), r"meta device"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_named(name: str, tmp_path: Path) -> None:
    module, expected = REFUSED[name]
    with pytest.raises(ExportError, match=expected):
        export(module, tmp_path / "m.onnx", input_shape=(3,))
    assert not any(tmp_path.iterdir())


def test_an_input_whose_width_cannot_be_seen_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"number of input features.*input_shape"):
        export(nn.ReLU(), tmp_path / "m.onnx")


@pytest.mark.parametrize("shape", [5, (0,), (-1,), ("a",), (), (2.5,)])
def test_an_input_shape_that_is_none(shape: object, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"input_shape is the shape of a row, such as \(64,\)"):
        export(nn.ReLU(), tmp_path / "m.onnx", input_shape=shape)  # type: ignore[arg-type]


def test_what_is_not_a_module(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected an nn\.Module, not a NoneType"):
        export(None, tmp_path / "m.onnx")  # type: ignore[arg-type]


ANOTHER: dict[str, tuple[list, str]] = {
    "a width": ([{"linear": 3}, "relu"], r"linear to rows of shape \[3\], where the module is linear '0'"),
    "a block": ([{"linear": 4}, "tanh"], r"tanh to rows of shape \[4\], where the module is relu '1'"),
    "one more": ([{"linear": 4}, "relu", "softmax"], r"softmax, where the module is at its end"),
    "one less": ([{"linear": 4}], r"nothing more, where the module is relu '1'"),
    "a bias": ([{"linear": {"features": 4, "bias": False}}, "relu"], r"linear with bias False.*with True"),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_a_spec_of_another_network(name: str, tmp_path: Path) -> None:
    _, module = network([{"linear": 4}, "relu"])
    blocks, expected = ANOTHER[name]
    spec, _ = network(blocks)
    with pytest.raises(ExportError, match=rf"the spec 'case' is not of this module: it says {expected}"):
        export(module, tmp_path / "m.onnx", spec=spec)


OPTIONS = [
    ({"leaky_relu": 0.3}, nn.LeakyReLU(), "negative_slope 0.3"),
    ({"gelu": "tanh"}, nn.GELU(), "approximate tanh"),
    ({"clip": [-1, 2]}, nn.Hardtanh(-1, 3), "max 2.0"),
    ({"batch_norm": 1e-3}, nn.BatchNorm1d(7), "eps 0.001"),
    ({"residual": ["tanh"]}, nn.Sequential(nn.Tanh()), "add"),
]


@pytest.mark.parametrize(("block", "part", "expected"), OPTIONS)
def test_a_spec_with_other_options(block: dict, part: nn.Module, expected: str, tmp_path: Path) -> None:
    spec, _ = network([{"linear": 7}, block])
    with pytest.raises(ExportError, match=expected):
        export(nn.Sequential(nn.Linear(7, 7), part), tmp_path / "m.onnx", spec=spec)


class AsksForTheType(nn.Module):
    """A tracer cannot see this: the branch is taken by Python."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (
            -self.layer.weight.sum() if isinstance(x, int) else self.layer(torch.relu(x) if torch.is_tensor(x) else x)
        )


def test_a_module_that_is_not_its_trace_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"not the chain of its traced blocks: on row \d+ of 'normal'") as caught:
        publish(AsksForTheType(), tmp_path / "m.onnx", device="cpu", page=False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.failed"] and str(tmp_path / "m.failed") in str(
        caught.value
    )
    assert sorted(path.name for path in (tmp_path / "m.failed").iterdir()) == ["m.onnx", "m.parity.json"]
    kept = read_report(tmp_path / "m.failed" / "m.parity.json")
    assert kept.verdict == "not proved" and kept.kept == str(tmp_path / "m.failed" / "m.onnx")


def a_hook(*arguments: object) -> None:
    """Does nothing; that it is there is enough."""


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("place", ["inside", "the module itself"])
def test_hooks_that_tracing_would_lose_are_errors(kind: str, place: str, tmp_path: Path) -> None:
    block = nn.Linear(3, 3)
    getattr(block, kind)(a_hook)
    with pytest.raises(ExportError) as caught:
        export(nn.Sequential(block) if place == "inside" else block, tmp_path / "m.onnx")
    named = "'0' (Linear)" if place == "inside" else "the module itself (Linear)"
    assert "a_hook" in str(caught.value) and named in str(caught.value)


def test_global_hooks_and_replaced_forwards_are_errors(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    handle = nn.modules.module.register_module_forward_hook(a_hook)
    try:
        with pytest.raises(ExportError, match=r"a_hook on every module"):
            export(module, tmp_path / "m.onnx")
    finally:
        handle.remove()
    module[0].forward = lambda x: x * 2  # type: ignore[method-assign]
    with pytest.raises(ExportError, match=r"forward is replaced by .* on '0' \(Linear\)"):
        export(module, tmp_path / "m.onnx")


def test_hooks_of_containers_and_of_the_root_are_traced(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Tanh())
    module[0].register_forward_hook(lambda part, inputs, output: torch.relu(output))
    module.register_forward_hook(lambda part, inputs, output: torch.sigmoid(output))
    artifact = export(module, tmp_path / "m.onnx")
    assert artifact.summary is not None
    assert [block.op for block in artifact.summary.blocks] == ["linear", "relu", "tanh", "sigmoid"]


class TestFallback:
    def test_torch_writes_an_unproved_file_without_paths(self, tmp_path: Path, root: Path) -> None:
        artifact = export(Sine(), tmp_path / "m.onnx", input_shape=(3,), fallback=True)
        assert artifact.path == tmp_path / "m.unproved.onnx" and not artifact.proved
        assert list(tmp_path.iterdir()) == [artifact.path]
        content = artifact.path.read_bytes()
        assert str(root).encode() not in content and b"site-packages" not in content and b".py" not in content
        x = normal(7, 3)
        with Session(artifact.path, "cpu") as session:
            assert session.inputs[0].shape == ("batch", 3)
            module = Sine()
            assert session.predict(x).shape == module(torch.from_numpy(x)).shape

    def test_it_is_not_a_way_around_a_refusal(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="stays active"):
            export(ActiveDropout(), tmp_path / "m.onnx", input_shape=(3,), fallback=True)

    def test_it_is_not_taken_where_the_blocks_suffice(self, tmp_path: Path) -> None:
        assert export(nn.Linear(3, 3), tmp_path / "m.onnx", fallback=True).path == tmp_path / "m.onnx"
