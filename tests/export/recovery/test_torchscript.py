"""TorchScript archives: refused unless trusted, then read off their graph and compared with it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from builder import RecoveryError, assemble
from export import Recovered, read_checkpoint

How = Literal["trace", "script"]


def saved(directory: Path, module: nn.Module, how: How = "script", width: int = 4) -> Path:
    path = directory / "policy.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its files remain
        script = torch.jit.trace(module, torch.ones(2, width)) if how == "trace" else torch.jit.script(module)
        torch.jit.save(script, path)
    return path


def recovered(directory: Path, module: nn.Module, how: How = "script", width: int = 4) -> Recovered:
    return read_checkpoint(saved(directory, module, how, width), trust=True)


def agree(found: Recovered, original: nn.Module, *, to_rounding: bool = False) -> None:
    module = assemble(found.spec).eval()
    module.load_state_dict(found.weights)
    rows = torch.randn(17, *found.spec.input.row_shape, generator=torch.Generator().manual_seed(2)) * 3
    with torch.no_grad():
        close = torch.allclose if to_rounding else torch.equal
        assert close(module(rows), original(rows))


class Policy(nn.Module):
    """An exported policy with everything that one has around its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1, 1, 4).reshape(1, 4))
        self.std = nn.Parameter(torch.linspace(0.5, 2, 4))
        first = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ELU(0.7), nn.Dropout(0.3), nn.Linear(8, 8, bias=False)]
        second = [nn.LayerNorm(8, eps=1e-3), nn.GELU("tanh"), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8)]
        third = [nn.SiLU(), nn.Softplus(2.0), nn.Hardtanh(-1.5, 1.5), nn.Linear(8, 3), nn.Softmax(dim=-1), nn.Sigmoid()]
        self.layers = nn.Sequential(*first, *second, *third)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.clamp((x - self.mean) / (self.std + 1e-2), -5.0, 5.0)
        return self.layers(x) * 2.0 + 0.5


@pytest.mark.parametrize("how", ["trace", "script"])
def test_a_policy_comes_back_bit_for_bit(how: How, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Policy()
    original.layers[1](torch.randn(9, 8) * 3)  # running statistics of its own
    found = recovered(tmp_path, original.eval(), how)
    expected = (
        "standardize clip linear batch_norm elu linear layer_norm gelu linear leaky_relu linear silu softplus clip"
    )
    assert [block.kind for block in found.spec.blocks] == [*expected.split(), "linear", "softmax", "sigmoid", "scale"]
    assert found.spec.name == "policy"
    agree(found, original)


def test_nothing_is_loaded_without_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, nn.Linear(4, 2))

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(torch.jit, "load", loaded)
    monkeypatch.setattr(torch, "load", loaded)
    with pytest.raises(RecoveryError, match=r"TorchScript archive.*can run code.*--trust"):
        read_checkpoint(path)


def test_options_contradict_what_the_file_says(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(4, 2))
    with pytest.raises(RecoveryError, match="leave out --prefix, --activation"):
        read_checkpoint(path, trust=True, activation="relu", prefix=["a."])


def test_a_module_that_was_saved_in_training_mode_is_read_in_evaluation_mode(tmp_path: Path) -> None:
    original = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    agree(recovered(tmp_path, original), original.eval())


class Products(nn.Module):
    """Matrix products and arithmetic without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu_(torch.addmm(self.b, x.view(x.size(0), -1), self.w))
        return 1.0 - (hidden @ self.w.t()).clamp(min=0.0) * 3.0


def test_products_and_constants(tmp_path: Path) -> None:
    original = Products()
    found = recovered(tmp_path, original)
    assert [block.kind for block in found.spec.blocks] == ["linear", "relu", "linear", "relu", "scale", "scale"]
    agree(found, original, to_rounding=True)  # a product with a transposed matrix adds up in another order


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def test_a_sum_with_the_input_is_a_residual(tmp_path: Path) -> None:
    original = nn.Sequential(Sum(), nn.Tanh())
    found = recovered(tmp_path, original)
    assert [block.kind for block in found.spec.blocks] == ["residual", "tanh"]
    agree(found, original)


class Gate(Sum):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.inner(x)


class Stacked(Sum):
    """Its mean has dimensions of its own, so that rows have too."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.rand(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x - self.mean)[0])


class Branch(Sum):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if bool(x.sum() > 0) else x


class Again(Sum):
    """A branch is read once more after its sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        return (x + y) + y


class HalfNorm(Sum):
    """A batch norm with a weight and no bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.inner.bias
        return nn.functional.batch_norm(self.inner(x), w, w * w + 1.0, w, None)


class Centred(nn.Module):
    """A mean that is a matrix of one row, and no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.rand(1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x - self.mean)


class Wrapped(nn.Module):
    """Its output is in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.inner(x),)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.inner(x + y)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Mish()), "the operator aten::mish is not a block"),
        (nn.Sequential(nn.Conv1d(4, 4, 1)), "no linear layer in it"),
        (nn.LSTM(4, 4), "TorchScript cannot read it|lstm"),
        (Gate(), r"aten::\w+ joins or branches"),
        (Stacked(), r"aten::sub has rows of shape \[1, 4\]"),
        (Branch(), "the forward depends on the data"),
        (Again(), "forward does not return the last value of one chain of blocks"),
        (HalfNorm(), "aten::batch_norm has either a weight or a bias; both or none are expected"),
        (Centred(), "no linear layer in it"),
        (Wrapped(), "the file's module gives an output of shape .*tuple"),
        (Two(), "forward takes 2 inputs"),
        (nn.Sequential(nn.ReLU(), nn.Tanh()), "no linear layer"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=0)), r"aten::softmax runs along dimension 0"),
        (nn.Linear(4, 4).double(), r"constant of torch.float64"),
    ],
)
def test_what_is_no_chain_of_blocks_is_refused_by_its_first_operator(
    module: nn.Module, words: str, tmp_path: Path
) -> None:
    with pytest.raises(RecoveryError, match=words) as caught:
        recovered(tmp_path, module.eval())
    assert str(caught.value).startswith(str(tmp_path))


def test_bounds_at_the_ends_of_float32_are_no_block(tmp_path: Path) -> None:
    original = nn.Sequential(nn.Linear(4, 2), nn.Hardtanh(-3.4028234e38, 3.4028234e38))
    found = recovered(tmp_path, original)
    assert [block.kind for block in found.spec.blocks] == ["linear"]
    agree(found, original)


class Narrow(nn.Module):
    """It runs on an even number of rows alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.view(-1, 8).view(-1, 4)).view(-1, 8)


def test_a_module_that_does_not_run_on_any_number_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match="does not run on rows of"):
        recovered(tmp_path, Narrow())


def test_damaged_archives(tmp_path: Path) -> None:
    path = saved(tmp_path, nn.Linear(4, 2))
    content = path.read_bytes()
    for keep in (0.3, 0.9):
        path.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(RecoveryError):
            read_checkpoint(path, trust=True)


def test_numbers_in_the_code_are_compared_in_float64(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.layer(x * 0.1)) * 0.3

    found = recovered(tmp_path, Scaled())
    assert [block.kind for block in found.spec.blocks] == ["scale", "linear", "tanh", "scale"]
    assert any("in float64 to within 1e-06" in note for note in found.notes)


def test_a_graph_that_is_read_wrongly_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of operators is made to read an ELU of 1.0001 for one of 1."""
    from export.recovery import graph_blocks
    from export.recovery.recovered import Step

    monkeypatch.setitem(graph_blocks.ATEN_BLOCKS, "elu", lambda _: [Step("elu", options={"alpha": 1.0001})])
    with pytest.raises(RecoveryError, match="differs from the file's own module"):
        recovered(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.ELU(), nn.Linear(8, 2)))
