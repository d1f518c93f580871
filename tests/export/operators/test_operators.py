"""Every operator that a file can hold: written, proved, and as in eager PyTorch, on rows usual and extreme."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import ExportError, export, publish
from export.folding import fold
from export.onnxfile.patterns import PATTERNS
from export.operators import OPERATORS
from export.proof.rules import RULES
from export.trace import signature_of, trace
from runtime import Session
from tests.support.cases import EXTREMES, normal
from tests.support.hand_written import Written, tensors_of

_GENERATOR = torch.Generator().manual_seed(0)
SLOPES = torch.tensor([0.3, -0.2, 1.0, 0.0])
MATRIX = torch.randn(3, 4, generator=_GENERATOR)
TABLE = torch.randn(5, 3, generator=_GENERATOR)
MASK = torch.tensor([True, False, True, False])


@dataclass(frozen=True)
class Case:
    """A module, the lowest opset that holds it, and the options of its export; rows have four features."""

    module: nn.Module
    since: int = 7
    options: dict[str, Any] = field(default_factory=dict)
    whole: int | None = None
    """Rows are whole numbers below it."""
    beyond: float = np.inf
    """Sizes above which eager PyTorch itself gives other values: it overflows on the way, or loses an infinity."""

    @property
    def rows(self) -> list[np.ndarray]:
        if self.whole is not None:
            return [np.random.default_rng(0).integers(0, self.whole, (7, 4))]
        extremes = np.concatenate([np.repeat(EXTREMES[:, None], 4, axis=1), np.resize(EXTREMES, (5, 4))])
        within = ~(np.abs(extremes) > self.beyond).any(axis=1)
        return [normal(7, 4), extremes[within], normal(1, 4, seed=1)]


def of(function: Any, *parts: nn.Module, since: int = 7, beyond: float = np.inf, **tensors: torch.Tensor) -> Case:
    return Case(Written(function, *parts, **tensors), since, beyond=beyond)


def whole(function: Any, *parts: nn.Module, since: int = 7, below: int = 9, **tensors: torch.Tensor) -> Case:
    return Case(Written(function, *parts, **tensors), since, {"input_dtype": "int64"}, below)


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(2)
    norm.running_mean, norm.running_var = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])
    nn.init.normal_(norm.weight, generator=_GENERATOR)
    return norm


def grid(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 2, 2)


CASES: dict[str, Case] = {
    "linear": of(lambda m, x: (m.parts[0](x), m.parts[1](grid(x)), x @ m.w.t()), nn.Linear(4, 3),
        nn.Linear(2, 3, bias=False), w=MATRIX),
    "matmul": of(lambda m, x: (grid(x) @ grid(x).mT, m.w @ x.unsqueeze(-1), x[:, None] @ x[:, :, None]), w=MATRIX),
    "batch_norm": of(lambda m, x: (m.parts[0](grid(x)), m.parts[1](x[:, :2])), batch_norm(),
        nn.BatchNorm1d(2, affine=False)),
    "sigmoid": of(lambda _, x: torch.sigmoid(x)),
    "relu": of(lambda _, x: F.relu(x)),
    "leaky_relu": of(lambda _, x: (F.leaky_relu(x, 0.3), F.leaky_relu(x, -0.3), F.leaky_relu(x, 2.0))),
    "_prelu_kernel": of(lambda m, x: (F.prelu(x, m.p), F.prelu(x, m.p[:1]), F.prelu(grid(x), m.p[:2])), p=SLOPES),
    "elu": of(lambda _, x: (F.elu(x), F.elu(x, 0.7))),
    "selu": of(lambda _, x: F.selu(x)),
    "celu": of(lambda _, x: F.celu(x, 1.3), since=12),
    "tanh": of(lambda _, x: torch.tanh(x)),
    "gelu": of(lambda _, x: (F.gelu(x), F.gelu(x, approximate="tanh")), since=9, beyond=1e38),
    "silu": of(lambda _, x: F.silu(x)),
    "mish": of(lambda _, x: F.mish(x)),
    "softplus": of(lambda _, x: (F.softplus(x), F.softplus(x, 2.5, 1.5)), since=9),
    "log_sigmoid": of(lambda _, x: F.logsigmoid(x)),
    "hardsigmoid": of(lambda _, x: F.hardsigmoid(x)),
    "hardswish": of(lambda _, x: F.hardswish(x)),
    "clamp": of(lambda _, x: (x.clamp(-1, 2), x.clamp(min=0.5), x.clamp(max=-0.5), F.relu6(x))),
    "softmax": of(lambda _, x: (torch.softmax(x, -1), torch.softmax(grid(x), 1)), since=13),
    "log_softmax": of(lambda _, x: (torch.log_softmax(x, 1), torch.log_softmax(grid(x), 1)), since=13),
    "add": of(lambda m, x: (x + x.abs(), x + m.p, 1.5 + x, torch.add(x, m.p, alpha=2)), p=SLOPES),
    "sub": of(lambda m, x: (x - x.abs(), x - m.p, m.p - x, 1.5 - x), p=SLOPES),
    "mul": of(lambda m, x: (x * x.abs(), x * m.p, -1 * x, x * x), p=SLOPES),
    "div": of(lambda m, x: (x / (x.abs() + 1), x / (m.p + 2), x / 3, 1 / (x.abs() + 2)), p=SLOPES),
    "addcmul": Case(Written(lambda m, x: (x * m.p + 0.5) * 2, p=SLOPES), options={"fold_affine": True}),
    "pow": of(lambda m, x: (x**3, (x.abs() + 1) ** -1.5, 2**x, (x.abs() + 1) ** m.p, m.p.abs() ** x, x**4),
        p=SLOPES + 1.5),
    "neg": of(lambda _, x: -x),
    "abs": of(lambda _, x: x.abs()),
    "exp": of(lambda _, x: torch.exp(x)),
    "log": of(lambda _, x: (torch.log(x), torch.log(x.abs() + 1))),
    "sqrt": of(lambda _, x: (torch.sqrt(x), x.abs() ** 0.5)),
    "sin": of(lambda _, x: torch.sin(x)),
    "cos": of(lambda _, x: torch.cos(x)),
    "erf": of(lambda _, x: torch.erf(x), since=9),
    "floor": of(lambda _, x: torch.floor(x)),
    "ceil": of(lambda _, x: torch.ceil(x)),
    "round": of(lambda _, x: (torch.round(x), torch.round(x * 2 + 0.5)), since=11),
    "asinh": of(lambda _, x: torch.asinh(x), since=9),
    "reciprocal": of(lambda _, x: torch.reciprocal(x)),
    "atan": of(lambda _, x: torch.atan(x)),
    "maximum": of(lambda m, x: (torch.maximum(x, -x), torch.maximum(x, m.p), torch.max(x, torch.tensor(0.5))),
        p=SLOPES, since=8),
    "minimum": of(lambda m, x: (torch.minimum(x, -x), torch.minimum(m.p, x), torch.min(x, torch.tensor(0.5))),
        p=SLOPES, since=8),
    "rsqrt": of(lambda _, x: (torch.rsqrt(x), x**-0.5)),
    "log1p": of(lambda _, x: torch.log1p(x)),
    "expm1": of(lambda _, x: torch.expm1(x)),
    "sign": of(lambda _, x: torch.sign(x), since=9),
    "sum": of(lambda _, x: (x.sum(1), x.sum(-1, keepdim=True), grid(x).sum((1, 2)), grid(x).sum(1))),
    "mean": of(lambda _, x: (x.mean(1), x.mean(-1, keepdim=True), grid(x).mean((1, 2)), grid(x).mean(2))),
    "amax": of(lambda _, x: (x.amax(1), x.max(1, keepdim=True)[0], grid(x).amax((1, 2))), since=9),
    "amin": of(lambda _, x: (x.amin(1), x.min(1, keepdim=True)[0], grid(x).amin((1, 2))), since=9),
    "linalg_vector_norm": of(lambda _, x: (x.norm(dim=1), x.norm(1, 1, keepdim=True), F.normalize(x, dim=1)), since=8),
    "var": of(lambda _, x: (x.var(1), x.var(1, unbiased=False, keepdim=True), x.std(1), grid(x).var((1, 2)))),
    "argmax": of(lambda _, x: (x.argmax(1), x.max(1, keepdim=True)[1], grid(x).argmax(-1, keepdim=True)), since=9),
    "argmin": of(lambda _, x: (x.argmin(1), x.min(1)[1], grid(x).argmin(1)), since=9),
    "any": of(lambda _, x: ((x > 1).any(1), (grid(x) > 1).any((1, 2)), (x > 1).any(1, keepdim=True))),
    "all": of(lambda _, x: ((x > 0).all(1), (grid(x) < 1).all(2), (x < 1).all(1, keepdim=True))),
    "cumsum": of(lambda _, x: (x.cumsum(1), grid(x).cumsum(-1)), since=11),
    "sort": of(lambda _, x: (x.sort(1)[0], x.sort(-1, descending=True)[0]), since=11),
    "topk": of(lambda _, x: (x.topk(2)[0], x.topk(3, largest=False)[0]), since=11),
    "reshape": of(lambda _, x: (x.view(-1, 2, 2) * 2, (x * 3).unsqueeze(1), (grid(x) * 4).flatten(1))),
    "permute": of(lambda _, x: (grid(x).permute(0, 2, 1), grid(x).mT.reshape(-1, 4), x[:, None].swapaxes(1, 2))),
    "select": of(lambda _, x: (x[:, 1], grid(x)[:, -1], grid(x)[..., 0])),
    "slice": of(lambda _, x: (x[:, 1:3], x[:, ::2], grid(x)[..., -1:], x.narrow(1, 1, 2)), since=10),
    "expand": of(lambda _, x: (x[:, None].expand(-1, 3, 4), x[:, :1].expand_as(x), grid(x)[:, :1].expand(-1, 3, -1)),
        since=8),
    "cat": of(lambda m, x: (torch.cat([x, x * 2], 1), torch.stack([x, x], -1),
        torch.cat([m.p.expand(len(x), 4), x], 1)), p=SLOPES, since=8),
    "embedding": whole(lambda m, x: (m.parts[0](x), F.one_hot(x, 5), F.embedding(x, m.t * 2)), nn.Embedding(5, 2),
        t=TABLE, below=5),
    "index_select": of(lambda _, x: (x[:, [2, 0, 1]], x.flip(1), grid(x)[:, [0, 1, 1], [1, 0, 1]], x[:, MASK])),
    "gather": of(lambda _, x: (x.gather(1, x.argmax(1, keepdim=True)),
        grid(x).gather(1, grid(x).argmin(1, keepdim=True))), since=11),
    "layer_norm": of(lambda m, x: (m.parts[0](x), m.parts[1](grid(x)), F.layer_norm(x, (4,))), nn.LayerNorm(4, 1e-3),
        nn.LayerNorm([2, 2]), beyond=1e18),
    "rms_norm": of(lambda m, x: (m.parts[0](x), F.rms_norm(grid(x), (2,), eps=1e-3), F.rms_norm(grid(x), (2, 2))),
        nn.RMSNorm(4)),
    "gt": of(lambda m, x: (x > 0.5, x > m.p, x > x.flip(1)), p=SLOPES),
    "lt": of(lambda m, x: (x < 0.5, x < m.p, m.p < x), p=SLOPES),
    "ge": of(lambda m, x: (x >= 0.5, x >= m.p), p=SLOPES, since=12),
    "le": of(lambda m, x: (x <= 0.5, x <= m.p), p=SLOPES, since=12),
    "eq": of(lambda m, x: (x == 0, x == m.p, x == x.abs()), p=SLOPES, since=11),
    "ne": of(lambda _, x: (x != 0, x != x), since=11),
    "logical_and": of(lambda _, x: torch.logical_and(x > 0, x < 1)),
    "logical_or": of(lambda m, x: torch.logical_or(x > 1, m.mask), mask=MASK),
    "logical_not": of(lambda _, x: torch.logical_not(x > 0)),
    "bitwise_and": of(lambda m, x: (x > 0) & (x < 1) & m.mask, mask=MASK),
    "bitwise_or": of(lambda _, x: (x > 1) | (x < 0)),
    "bitwise_not": of(lambda _, x: ~(x > 0)),
    "isnan": of(lambda _, x: (torch.isnan(x), torch.nan_to_num(x, 0.5, 2.0, -2.0)), since=11),
    "where": of(lambda m, x: (torch.where(x > 0, x, 0.1), torch.where(m.mask, x, m.p), x.masked_fill(x < 0, -1)),
        p=SLOPES, mask=MASK, since=9),
    "_to_copy": of(lambda _, x: ((x > 0).float(), (x > 0).long(),
        torch.where(torch.isnan(x), 0, x).clamp(-9, 9).long()), since=9),
}  # fmt: skip
"""By the operator that the case is of."""
MORE: dict[str, Case] = {
    "arithmetic of whole numbers": whole(lambda m, x: (x + 1, 2 * x, x - m.o, -x, x * x, x.abs(), x**2),
        o=torch.arange(4)),
    "whole numbers and floats": whole(lambda m, x: (x * 0.5, x / 2, x + m.p, x.sqrt(), x.float().exp()), p=SLOPES),
    "comparisons of whole numbers": whole(lambda m, x: (x > 3, x == 2, x < m.o, x != 4, (x >= 3) & (x <= 5)),
        o=torch.arange(4), since=12),
    "choices of whole numbers": whole(lambda _,
        x: (torch.where(x > 3, x, 0), x.clamp(2, 5), x.clamp(min=1), x.masked_fill(x < 4, 7)), since=12),
    "reductions of whole numbers": whole(lambda _, x: (x.sum(1), x.argmax(1), (x > 3).sum(1), x.amax(1)), since=9),
    "whole numbers that are results and read again": whole(lambda _,
        x: (y := x * 2, y.amax(1), y.argmax(1), y.clamp(min=3), y + 1, y > 4), since=12),
    "moved whole numbers": whole(lambda _, x: (x[:, [1, 0]], torch.cat([x, x[:, :1]], 1), x.view(-1, 2, 2).mT)),
    "products of truths": of(lambda _, x: ((x > 0) * (x < 1) * x, torch.isfinite(x), (x > 0) ^ (x < 1)), since=11),
    "a batch that is transposed": Case(Written(lambda _, x: ((x.T * 2 + 1) * 3).T), options={"fold_affine": True}),
}  # fmt: skip
EVERY = CASES | MORE


def compared(module: nn.Module, path: Path, rows: np.ndarray) -> None:
    with torch.no_grad():
        expected = [value.numpy() for value in tensors_of(module(torch.from_numpy(rows)))]
    with Session(path, "cpu") as session:
        found = list(session.run(rows).values())
    for given, wanted in zip(found, expected, strict=True):
        assert given.dtype == wanted.dtype
        assert given.shape == wanted.shape
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_every_operator_has_its_rows_and_a_case() -> None:
    assert set(OPERATORS) == set(CASES)
    assert set(OPERATORS) <= set(RULES)
    assert set(OPERATORS) - {"reshape"} <= set(PATTERNS)  # a reshape is seen through


@pytest.mark.parametrize("name", EVERY)
def test_operator(name: str, tmp_path: Path) -> None:
    case = EVERY[name]
    module, options = case.module.eval(), {"input_shape": (4,), **case.options}
    fold_affine = options.pop("fold_affine", False)
    graph = fold(trace(module, signature_of(module, **options)), affine=fold_affine)
    assert name in MORE or name in {node.op for node in graph.nodes}
    path = tmp_path / "m.onnx"
    artifact, _ = publish(module, path, device="cpu", page=False, fold_affine=fold_affine, **options)
    assert artifact.proved
    for rows in case.rows:
        compared(module, path, rows)


@pytest.mark.parametrize("name", EVERY)
def test_operator_in_other_opsets(name: str, tmp_path: Path) -> None:
    case = EVERY[name]
    for opset in (case.since, 13, 21):
        path = export(case.module.eval(), tmp_path / "m.onnx", input_shape=(4,), opset=opset, **case.options).path
        compared(case.module, path, case.rows[0])
    if case.since > 7:
        path.unlink()
        lacking = rf"needs opset {case.since}.*--opset {case.since}"
        older = rf"takes less in opset {case.since - 1} than is needed here(.|\n)*give opset 13 or more"
        with pytest.raises(ExportError, match=f"{lacking}|{older}"):
            export(case.module, path, input_shape=(4,), opset=case.since - 1, **case.options)
        assert not path.exists()
