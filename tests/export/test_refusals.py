"""What cannot be exported: said with the operator, its place in the module, the user's line, and what to do."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import ExportError, ProofError, export, publish, read_report
from export.errors import UnsupportedError
from tests.support.cases import network
from tests.support.hand_written import Written

FOUR = torch.tensor([0.7, -1.2, 0.4, 2.0])
LINEAR = nn.Linear(4, 4)
Forward = Callable[[Written, Tensor], Any]


def of(function: Forward, *parts: nn.Module, **tensors: Tensor) -> nn.Module:
    return Written(function, *parts, **tensors)


def clamped_weights(m: Written, x: Tensor) -> Tensor:
    m.parts[0].weight.clamp_(min=0)
    return m.parts[0](x)


def halved_behind_the_scenes(m: Written, x: Tensor) -> Tensor:
    m.parts[0].weight.data.mul_(0.5)
    return m.parts[0](x)


def other_data(m: Written, x: Tensor) -> Tensor:
    weight: Any = m.parts[0].weight
    weight.data = weight.data * 0.5
    return m.parts[0](x)


def running_mean(m: Written, x: Tensor) -> Tensor:
    held: Any = m.b
    held.copy_((x.mean(0) * 100).long())
    return x - held


def autocast(m: Written, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.parts[0](x).float()


def put_into_training(m: Written, x: Tensor) -> Tensor:
    m.parts[0].train()
    return m.parts[0](x * 2)


class AlwaysTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> AlwaysTraining:  # noqa: ARG002
        return super().train(True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear})


def sparse_buffer() -> nn.Module:
    module = Written(lambda m, x: torch.sparse.mm(m.held, x.t()).t())
    module.register_buffer("held", torch.eye(4).to_sparse())
    return module


DATA = r"the forward depends on the data at line \d+ of test_refusals.py.*torch.where"
CHANGES = r"the forward changes '{}' in place"
RANDOM = r"{} at .*line \d+ of test_refusals.py draws random numbers, so two runs would differ"
POOL = r"{}.* at 'parts.0', line \d+ of test_refusals.py is a convolution or a pooling.*torch.onnx"
CELL = r"{}.* at 'parts.0', line \d+ of test_refusals.py is a recurrent cell.*torch.onnx"
MISSING = r"a file has no operator for {} at line \d+ of test_refusals.py"
BATCH = r"What to do: take the number of rows out of what is computed"
LEFT = r"nothing is left to compute"
RETURNS = r"forward returns {}; expected a tensor, or a tuple or dict of tensors"
SHAPE = r"the output 'output' has shape \({}\), and a file gives a result for every row"

REFUSED: dict[str, tuple[nn.Module, str]] = {
    "a branch": (of(lambda _, x: x if x.sum() > 0 else -x), DATA),
    "a number of the data": (of(lambda _, x: x * x.max().item()), DATA),
    "a branch on float()": (of(lambda _, x: x if float(x[0, 0]) > 9 else x * 2), DATA),
    "picked by a mask": (of(lambda _, x: x[x > 0]), DATA),
    "where it is not zero": (of(lambda _, x: x.nonzero()),
        r"number of its results depends on the data at line \d+ of test_refusals.py: nonzero"),
    "a Python list": (of(lambda _, x: x * x.sum(1).tolist()[0]), r"mul at 'mul'.* takes .* for 3 rows and .* for 5"),
    "numpy on the way": (of(lambda _, x: x + torch.from_numpy(x.numpy() * 2)),
        r"add at 'add'.* takes a constant that differs from row to row"),
    "active dropout": (of(lambda m, x: F.dropout(m.parts[0](x), 0.5), LINEAR),
        r"dropout at line \d+ of .*stays active in evaluation mode.*training=self.training"),
    "active alpha dropout": (of(lambda _, x: F.alpha_dropout(x, 0.5, True)),
        r"alpha_dropout at line \d+ of .*stays active in evaluation mode"),
    "dropout put into training": (of(put_into_training, nn.Dropout(0.5)),
        r"dropout at 'parts.0', line \d+ of .*stays active in evaluation mode"),
    "weights changed": (of(clamped_weights, LINEAR),
        CHANGES.format("parts.0.weight") + r" at line \d+ of test_refusals.py"),
    "weights changed by .data": (of(halved_behind_the_scenes, LINEAR), CHANGES.format("parts.0.weight")),
    "other weights": (of(other_data, LINEAR), CHANGES.format("parts.0.weight")),
    "a buffer changed": (of(running_mean, b=torch.zeros(4, dtype=torch.int64)), CHANGES.format("b")),
    "batch norm that stays in training": (AlwaysTraining(), CHANGES.format("norm.num_batches_tracked") + r" at 'norm'"),
    "batch norm without statistics": (nn.BatchNorm1d(4, track_running_stats=False),
        r"batch_norm at 'batch_norm.*': it has no running statistics"),
    "a table that is normed": (of(lambda m, x: m.parts[0](x[:, 0].long()), nn.Embedding(9, 3, max_norm=0.1)),
        r"at 'parts.0', line \d+ of .* shortens rows of 'parts.0.weight' to max_norm at every call"),
    "autocast": (of(autocast, LINEAR), r"linear at 'parts.0', line \d+ of .* computes in bfloat16.*no autocast"),
    "float16": (of(lambda _, x: x.half().float() * 2),
        r"_to_copy at line \d+ of .* computes in float16.*\.float\(\) before it"),
    "float64": (of(lambda _, x: (x.double() * 2).float()), r"mul at line \d+ of .* computes in float64"),
    "float64 constants": (of(lambda _, x: x * FOUR.double()), r"mul at line \d+ of .* computes in float64"),
    "rand": (of(lambda _, x: x + torch.rand(4)), RANDOM.format("rand")),
    "randn_like": (of(lambda _, x: x + torch.randn_like(x)), RANDOM.format("randn_like")),
    "bernoulli": (of(lambda _, x: torch.bernoulli(torch.sigmoid(x))), RANDOM.format("bernoulli")),
    "multinomial": (of(lambda _, x: torch.multinomial(torch.softmax(x, -1), 1)), RANDOM.format("multinomial")),
    "a normal sample": (of(lambda _, x: torch.normal(x, torch.ones_like(x))), RANDOM.format("normal")),
    "a distribution's sample": (of(lambda _, x: torch.distributions.Normal(x, torch.ones(4)).rsample()),
        RANDOM.format("(randn|normal_?)")),
    "noise in place": (of(lambda _, x: x + torch.empty(4).normal_()), RANDOM.format("normal_")),
    "noise of the input's shape": (of(lambda _, x: x + torch.empty_like(x).uniform_()), RANDOM.format("uniform_")),
    "a random layer": (of(lambda _, x: nn.Linear(4, 3)(x)), RANDOM.format("uniform_")),
    "gumbel": (of(lambda _, x: F.gumbel_softmax(x)), RANDOM.format("exponential_")),
    "a random order": (of(lambda _, x: x[:, torch.randperm(4)]), RANDOM.format("randperm")),
    "conv1d": (of(lambda m, x: m.parts[0](x.unsqueeze(1)).flatten(1), nn.Conv1d(1, 2, 3)), POOL.format("conv1d")),
    "conv2d": (of(lambda m, x: m.parts[0](x.view(-1, 1, 2, 2)).flatten(1), nn.Conv2d(1, 2, 2)), POOL.format("conv2d")),
    "max pooling": (of(lambda m, x: m.parts[0](x.unsqueeze(1)).flatten(1), nn.MaxPool1d(2)), POOL.format("max_pool1d")),
    "average pooling": (of(lambda m, x: m.parts[0](x.unsqueeze(1)).flatten(1), nn.AvgPool1d(2)),
        POOL.format("avg_pool1d")),
    "LSTM": (of(lambda m, x: m.parts[0](x.view(-1, 2, 2))[0], nn.LSTM(2, 3, batch_first=True)), CELL.format("lstm")),
    "GRU": (of(lambda m, x: m.parts[0](x.view(-1, 2, 2))[0], nn.GRU(2, 3, batch_first=True)), CELL.format("gru")),
    "LSTM cell": (of(lambda m, x: m.parts[0](x)[0], nn.LSTMCell(4, 3)), CELL.format("lstm_cell")),
    "GRU cell": (of(lambda m, x: m.parts[0](x), nn.GRUCell(4, 3)), CELL.format("gru_cell")),
    "a sparse input": (of(lambda m, x: torch.sparse.mm(x.to_sparse(), m.w), w=FOUR[:, None]),
        r"takes a sparse tensor, and a file holds dense ones.*to_dense"),
    "a sparse buffer": (sparse_buffer(),
        r"_sparse_mm at line \d+ of .* takes a sparse tensor, and a file holds dense ones"),
    "a quantised layer": (quantised(), r"a file has no operator for .* at '0'"),
    "an operator that no file has": (of(lambda _, x: torch.erfinv(x)), MISSING.format("erfinv")),
    "the name that was called": (of(lambda _, x: torch.lgamma(x) + 1), MISSING.format("lgamma")),
    "complex numbers": (of(lambda _, x: torch.fft.rfft(x).abs()), MISSING.format(".*fft.*")),
    "another norm": (of(lambda _, x: x.norm(3, dim=1)),
        r"linalg_vector_norm at 'linalg_vector_norm', line \d+ of .*: a norm of order 3"),
    "out=": (of(lambda _, x: torch.add(x, 1, out=torch.empty_like(x))), r"add at line \d+ of .* writes into out="),
    "an order of places": (of(lambda _, x: x.argsort(1)), r"argsort at line \d+ of test_refusals.py"),
    "a distribution": (of(lambda _, x: torch.distributions.Normal(x, torch.ones(4))), RETURNS.format("a Normal")),
    "a distribution beside": (of(lambda _, x: (x * 2, torch.distributions.Normal(x, torch.ones(4)))),
        RETURNS.format("a Normal as 'output_1'")),
    "a number": (of(lambda _, _x: 3), RETURNS.format("a int")),
    "a number in a dict": (of(lambda _, x: {"y": x * 2, "n": 3}), RETURNS.format("a int as 'n'")),
    "nothing": (of(lambda _, _x: None), RETURNS.format("nothing")),
    "an empty tuple": (of(lambda _, _x: ()), RETURNS.format("a tuple without a tensor")),
    "its input": (of(lambda _, x: x), LEFT),
    "a copy of its input": (of(lambda _, x: x.detach().clone()), LEFT),
    "another shape of its input": (of(lambda _, x: x.view(-1, 2, 2)), LEFT),
    "inactive blocks": (nn.Sequential(nn.Dropout(0.5), nn.Identity()), LEFT),
    "no block": (nn.Sequential(), LEFT),
    "a constant": (of(lambda m, x: (x * 2, m.p), p=FOUR),
        r"the output 'output_1' does not depend on the input.*it is a constant"),
    "the batch second": (of(lambda _, x: (x * 2).t()), SHAPE.format("4, batch")),
    "no batch": (of(lambda _, x: x.sum(0)), SHAPE.format("4")),
    "one number": (of(lambda _, x: x.sum()), SHAPE.format("")),
    "several results a row": (of(lambda _, x: x.reshape(-1, 2) * 2), SHAPE.format(r"2\*batch, 2")),
    "the batch twice": (of(lambda _, x: x @ x.t()), SHAPE.format("batch, batch")),
    "a dimension in front": (of(lambda _, x: x.unsqueeze(0) * 2), SHAPE.format("1, batch, 4")),
    "another way for large batches": (of(lambda _, x: x * 2 if len(x) > 4 else x + 1), r"for another number of rows"),
    "divided by the number of rows": (of(lambda _, x: x / len(x)),
        r"div at 'div'.*takes 3.0 for 3 rows and 5.0 for 5.*" + BATCH),
    "numbers of rows": (of(lambda _, x: x + torch.arange(len(x))[:, None]),
        r"add at 'add'.*differs from row to row.*" + BATCH),
    "rows counted out": (of(lambda _, x: torch.cat([x[1:], x[:1]])),
        r"has a size of 2 for 3 rows and of 4 for 5.*" + BATCH),
    "rows turned round": (of(lambda _, x: x.flip(0) * 2), r"index_select at 'index_select'.*differs from row to row"),
    "variance over the batch": (of(lambda _, x: x / x.std(0)), r"var at '.*' is taken over the rows of the batch"),
    "shapes that do not chain": (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(6, 2)),
        r"forward of Sequential does not run on rows of 'input' \[4\]: RuntimeError: mat1.*input_shape=.*example="),
    "meta device": (nn.Linear(4, 4, device="meta"), r"'weight' is on the meta device and has no values"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_named(name: str, tmp_path: Path) -> None:
    module, expected = REFUSED[name]
    with pytest.raises(ExportError, match=re.compile(expected, re.DOTALL)) as caught:
        export(module, tmp_path / "m.onnx", input_shape=(4,))
    assert not any(tmp_path.iterdir())
    assert "exporting.py" not in str(caught.value)
    assert "defect of mlpx" not in str(caught.value)


def test_the_line_is_that_of_the_user_s_file(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        export(of(running_mean, b=torch.zeros(4, dtype=torch.int64)), tmp_path / "m.onnx", input_shape=(4,))
    lines, first = inspect.getsourcelines(running_mean)
    line = first + next(i for i, text in enumerate(lines) if "copy_" in text)
    assert f"line {line} of test_refusals.py" in str(caught.value)


def several(m: Written, x: Tensor) -> Tensor:
    noisy = x + torch.rand(4)
    pooled = m.parts[0](noisy.unsqueeze(1)).squeeze(1)
    return F.dropout(torch.erfinv(pooled), 0.5) if pooled.sum() > 0 else pooled.double()


def test_all_refusals_are_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        export(of(several, nn.MaxPool1d(2)), tmp_path / "m.onnx", input_shape=(4,))
    message = str(caught.value)
    assert "(1) " in message
    assert "(3) " in message
    for part in ("depends on the data", "rand at", "max_pool1d at 'parts.0'"):
        assert message.count(part) == 1
    assert ("float64" in message) != ("erfinv" in message)  # the way that was taken


def test_floats_to_a_table_and_whole_numbers_to_a_layer(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Embedding.*argument #1 'indices'.*got torch.FloatTensor"):
        export(nn.Embedding(5, 3), tmp_path / "m.onnx", example=torch.rand(4, 2))
    with pytest.raises(ExportError, match=r"Linear.*mat1 and mat2 must have the same dtype, but got Long and Float"):
        export(nn.Linear(2, 3), tmp_path / "m.onnx", example=torch.ones(4, 2, dtype=torch.int64))


def test_an_index_that_is_computed(tmp_path: Path) -> None:
    for function in (lambda m, x: m.parts[0]((x * 2.5).long()), lambda m, x: m.parts[0](x.sum(1).long())):
        with pytest.raises(ExportError, match=r"embedding at 'parts.0'.*is indexed by a number that is computed"):
            export(of(function, nn.Embedding(4, 3)), tmp_path / "m.onnx", input_shape=(4,))


class Remembering(nn.Module):
    """What it computes depends on the calls before."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.calls, self.kind = nn.Linear(4, 3), 0, kind
        self.held: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.layer(x)
        if self.kind == "counts":
            return y * self.calls
        if self.kind == "changes late":
            return y if self.calls < 6 else y * 2
        if self.held is None or self.kind == "adds the last":
            before, self.held = self.held, y.detach().mean(0)
            return y if before is None else y + before
        return y + self.held


@pytest.mark.parametrize("kind", ["counts", "changes late", "adds the last", "keeps the first"])
def test_python_state_never_becomes_a_proved_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises((ExportError, ProofError)):
        publish(Remembering(kind), tmp_path / "m.onnx", device="cpu", page=False)
    assert not (tmp_path / "m.onnx").exists()


class OtherForOneRow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if len(x) < 100 else self.layer(x) * 2


def test_a_module_that_is_not_its_trace_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"m.onnx is not proved: the module") as caught:
        publish(OtherForOneRow(), tmp_path / "m.onnx", device="cpu", page=False)
    assert [path.name for path in tmp_path.iterdir()] == ["m.failed"]
    assert str(tmp_path / "m.failed") in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "m.failed").iterdir()) == ["m.onnx", "m.parity.json"]
    kept = read_report(tmp_path / "m.failed" / "m.parity.json")
    assert kept.verdict == "not proved"
    assert kept.kept == str(tmp_path / "m.failed" / "m.onnx")


def test_a_module_without_a_result_for_one_row(tmp_path: Path) -> None:
    module = of(lambda _, x: (x[:, :1] * 2).squeeze())
    with pytest.raises(ProofError, match=r"m.onnx is not proved: the module"):
        publish(module, tmp_path / "m.onnx", input_shape=(4,), device="cpu", page=False)


def test_what_is_not_a_module(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"expected an nn\.Module, not a NoneType"):
        export(None, tmp_path / "m.onnx")  # type: ignore[arg-type]


ANOTHER: dict[str, tuple[list[Any], str]] = {
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
def test_a_spec_with_other_options(block: dict[str, Any], part: nn.Module, expected: str, tmp_path: Path) -> None:
    spec, _ = network([{"linear": 7}, block])
    with pytest.raises(ExportError, match=expected):
        export(nn.Sequential(nn.Linear(7, 7), part), tmp_path / "m.onnx", spec=spec)
