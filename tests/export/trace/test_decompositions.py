"""Calls that become other operators, views, or nothing: the file computes what the module does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import ExportError, ProofError, export, publish
from export.evaluation import outputs_of
from export.trace import signature_of, trace
from tests.support.hand_written import Written, differences, proved

FOUR = torch.tensor([0.7, -1.2, 0.4, 2.0])
Forward = Callable[[Written, Tensor], Any]


def grid(x: Tensor) -> Tensor:
    return x.view(-1, 2, 2)


def with_statistics() -> nn.Module:
    norm = nn.InstanceNorm1d(2, track_running_stats=True)
    norm.running_mean, norm.running_var = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])
    return norm


def detached(_: Written, x: Tensor) -> Tensor:
    y = x * 2
    y.detach_()
    return y + 1


def filled(_: Written, x: Tensor) -> tuple[Tensor, Tensor]:
    y, z = x * 2, x + 1
    y[:, 1].fill_(3.0)
    z[:, 2:].zero_()
    return y, z


def asserted(m: Written, x: Tensor) -> Tensor:
    torch.ops.aten._assert_async.default(m.p.sum() > 0)
    return x * m.p


FLOATS: dict[str, tuple[Forward, dict[str, Any]]] = {
    "copies": (lambda _, x: (x.repeat(1, 2), x[:, :1].repeat(1, 3), grid(x).repeat(1, 1, 2)), {}),
    "rolled": (lambda _, x: (x.roll(1, 1), x.roll(4, 1), grid(x).roll((1, 1), (1, 2))), {}),
    "padded": (lambda _, x: (F.pad(x, (1, 2)), F.pad(x, (-1, 1), value=0.5), F.pad(x, (0, 0, 0, 0)) * 2), {}),
    "padded by its own": (lambda _, x: (F.pad(grid(x), (1, 1), "reflect"), F.pad(grid(x), (2, 1), "replicate")), {}),
    "a vector times a matrix": (lambda m, x: (m.p[:2] @ grid(x), grid(x) @ m.p[:2]), {"p": FOUR}),
    "instance norm": (lambda m, x: (F.instance_norm(grid(x)), m.parts[0](grid(x))), {"parts": with_statistics}),
    "detached in place": (detached, {}),
    "filled in place": (filled, {}),
    "asserted": (asserted, {"p": FOUR}),
    "a row of one number": (lambda _, x: (x[:, 0].transpose(0, 0) * 2, x**1 + 1), {}),
    "a size that grows with the batch twice": (
        lambda _, x: x.view(-1, 2).unsqueeze(1).expand(-1, 3, 2).reshape(-1, 12) * 2, {}
    ),
    "a constant for every row": (
        lambda m, x: (x[:, None] @ m.p.expand(len(x), 4)[:, :, None], x.gather(1, torch.ones(len(x), 2).long())),
        {"p": FOUR},
    ),
    "numbers of the whole batch": (
        lambda _, x: (x * x.sum(), x - x.mean(0).expand(2, 4)[0]), {}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOATS)
def test_a_call_on_floats(name: str, tmp_path: Path) -> None:
    function, held = FLOATS[name]
    parts = [make() for key, make in held.items() if key == "parts"]
    module = Written(function, *parts, **{key: value for key, value in held.items() if key != "parts"})
    artifact = export(module.eval(), tmp_path / "m.onnx", input_shape=(4,))
    for count in (1, 7):
        differences(module, artifact, {"input": torch.randn(count, 4, generator=torch.Generator().manual_seed(count))})


WHOLE: dict[str, Forward] = {
    "no float to replace": lambda _, x: x.nan_to_num() + 1,
    "truth of a number": lambda _, x: (x.bool(), (x * 2.5).bool()),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_call_on_whole_numbers(name: str, tmp_path: Path) -> None:
    proved(Written(WHOLE[name]), tmp_path, input_shape=(4,), input_dtype="int64")


def other_keys(_: Written, x: Tensor) -> dict[str, Tensor]:
    return {"few" if len(x) == 3 else "many": x * 2}


def fails_late(_: Written, x: Tensor) -> Tensor:
    if len(x) == 5:
        raise ValueError("never five")
    return x * 2


def transposed_in_place(_: Written, x: Tensor) -> Tensor:
    y = x * 2
    y.t_()
    return y.t()


def diagonal_in_place(_: Written, x: Tensor) -> Tensor:
    y = x * 2
    return y.fill_diagonal_(0)


def widened_in_place(_: Written, x: Tensor) -> Tensor:
    y = x * 2
    y.expand(1, *y.shape).add_(1)
    return y


def in_training(m: Written, x: Tensor) -> Tensor:
    return F.batch_norm(x, m.p.clone(), m.p.abs(), training=True, momentum=0.0)


def by_rank(_: Written, x: Tensor) -> Tensor:
    return x + (torch.ones(4) if len(x) == 3 else torch.ones(1, 4))


REFUSED: dict[str, tuple[Forward, str]] = {
    "rows rolled": (lambda _, x: x.roll(1), "a size of 11 for 3 rows and of 19 for 5"),
    "numpy's random numbers": (
        lambda _, x: x + torch.from_numpy(np.random.default_rng().random(4, np.float32)),
        "'add.other' at 'add' differs from call to call: is it random",
    ),
    "a constant of another rank": (by_rank, "add at 'add' takes a constant that differs from row to row"),
    "a square of the batch": (lambda _, x: torch.eye(len(x)) @ x, "takes a constant that differs from row to row"),
    "compared with complex numbers": (lambda _, x: x == torch.full((4,), 1j), "complex"),
    "no values": (lambda _, x: x[:, :0] * 2, r"the output 'output' has no values: its rows have shape \[0\]"),
    "other outputs": (other_keys, "the forward returns other outputs for another number of rows"),
    "a failure of its own": (
        fails_late,
        r"cannot be traced on rows of \[4\]: ValueError: never five, at line \d+ of fails_late",
    ),
    "transposed in place": (transposed_in_place, "t_ at line"),
    "a diagonal in place": (diagonal_in_place, "fill_diagonal_ at"),
    "in place through a new dimension": (widened_in_place, "writes in place through expand; a file cannot do that"),
    "batch norm in training": (in_training, "batch_norm at 'batch_norm.*stays in training mode after eval"),
    "an option beyond float32": (lambda _, x: F.layer_norm(x, (4,), eps=1e39), r"the option 1e\+39 is beyond float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_no_file_has(name: str, tmp_path: Path) -> None:
    function, words = REFUSED[name]
    with pytest.raises(ExportError, match=re.compile(words, re.DOTALL)):
        export(Written(function, p=FOUR).eval(), tmp_path / "m.onnx", input_shape=(4,))


FOLDED: dict[str, Forward] = {
    "from zero and one": lambda m, x: (m.p * 0 - x, m.p**0 / x),
    "turned round": lambda m, x: -(x * m.p + 0.5),
    "factors alone": lambda m, x: x * m.p * 2,
    "a quotient after a product": lambda m, x: 2 / (x * m.p + 9),
}


@pytest.mark.parametrize("name", FOLDED)
def test_affine_maps_are_one(name: str, tmp_path: Path) -> None:
    proved(Written(FOLDED[name], p=FOUR).eval(), tmp_path, input_shape=(4,), fold_affine=True)


def test_a_quotient_by_zero_has_no_bound(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="of the values of 'softplus' have no bound"):
        publish(
            Written(lambda _, x: F.softplus(x, beta=0)), tmp_path / "m.onnx", input_shape=(4,), device="cpu", page=False
        )


INDEXED: dict[str, tuple[Callable[[Written, Tensor], Any], tuple[Any, ...]]] = {
    "beside a constant index": (
        lambda m, x: m.parts[0](torch.cat([x[:, :1], torch.ones_like(x[:, :1])], 1)),
        ((0, 8), None),
    ),
    "through a table of indices": (lambda m, x: m.parts[0](m.p[x]), ((0, 2), (0, 2))),
    "beside a column turned round": (lambda m, x: (m.parts[0](x[:, 0]), (x.T * 2).T), ((0, 8), None)),
}


@pytest.mark.parametrize("name", INDEXED)
def test_only_what_is_an_index_has_limits(name: str, tmp_path: Path) -> None:
    function, limits = INDEXED[name]
    module = Written(function, nn.Embedding(9, 3), p=torch.tensor([3, 8, 0])).eval()
    artifact = export(module, tmp_path / "m.onnx", input_shape=(2,), input_dtype="int64")
    assert artifact.summary is not None
    assert artifact.summary.inputs[0].indices == limits
    rows = torch.tensor([[0, 1], [2, 2], [1, 0]])
    differences(module, artifact, {"input": rows})


def test_two_inputs_of_one_number_each(tmp_path: Path) -> None:
    """Neither can be narrower, so their widths are the only ones."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.layer(torch.cat([a, b], 1))

    artifact = export(Pair().eval(), tmp_path / "m.onnx")
    assert artifact.summary is not None
    assert [(port.name, port.shape) for port in artifact.summary.inputs] == [("a", ("batch", 1)), ("b", ("batch", 1))]


def test_a_large_matrix_is_multiplied_as_any() -> None:
    module = nn.Linear(1025, 1024).eval()
    graph = trace(module, signature_of(module))
    rows = torch.randn(2, 1025, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found,) = outputs_of(graph, {"input": rows.double()}, precision=torch.float64)
        torch.testing.assert_close(found, module.double()(rows.double()))


def test_a_large_tensor_is_held_to_its_place(tmp_path: Path) -> None:
    """Large ones are not copied to be compared; small ones beside them are."""
    large = torch.zeros(2**22 + 1)
    export(Written(lambda m, x: x * m.p, p=FOUR, large=large).eval(), tmp_path / "m.onnx", input_shape=(4,))

    def halves(m: Written, x: Tensor) -> Tensor:
        m.p.numpy()[:] *= 0.5
        return x * m.p

    with pytest.raises(ExportError, match="the forward changes 'p' in place"):
        export(Written(halves, p=FOUR.clone(), large=large).eval(), tmp_path / "m.onnx", input_shape=(4,))
