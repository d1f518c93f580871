"""Every operator in C: proved like any runtime, and spellings of other tools compared with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.nn import functional as F

from builder import MLPSpec, assemble
from export import TargetError, export
from export.csource.compilers import Compiler, c_compiler, load
from export.csource.operators import OPERATORS
from export.csource.writing import c_source
from export.proof.verify import prove
from runtime import Session
from tests.support.cases import BLOCKS, EXTREMES, network, normal, randomised, specs
from tests.support.hand_written import Written
from tests.support.onnx_drafts import Draft
from tests.support.policy import SHAPES, Policy
from tests.support.repeats import but, examples
from tests.support.spellings import SPELLINGS

LEVEL = ("-O1",)


def proved(module: nn.Module, path: Path, compiler: Compiler, **options: Any) -> None:
    report = prove(module, path, device="cpu", opener=c_compiler(compiler, LEVEL), **options)
    assert report.proved, report.why


@pytest.mark.parametrize("opset", but(17, 9, 20))
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_of_a_spec_is_proved(name: str, opset: int, gcc: Compiler, tmp_path: Path) -> None:
    spec, module = network([{"linear": 7}, BLOCKS[name], {"linear": 3}])
    path = export(module, tmp_path / "m.onnx", spec=spec, opset=opset).path
    proved(module, path, gcc, spec=spec)


MODULES: dict[str, nn.Module] = {
    "concatenation, slices and a split": Written(
        lambda m, x: torch.cat([m.parts[0](x[:, :3]), x[:, 1::2] * 2, *(p.exp() for p in x.split(2, 1))], 1),
        nn.Linear(3, 5),
    ),
    "a computed value and its own first number": Written(lambda _, x: torch.tanh((y := x.exp()) - y[:, :1])),
    "permuted features": Written(lambda _, x: torch.tanh(x[:, [5, 0, 3, 1]]) + x.flip(1)[:, :4]),
    "softmax and sums along other dimensions": Written(
        lambda _, x: (torch.softmax(y := x.view(-1, 2, 3), 1).reshape(-1, 6), y.sum(1), x.view(-1, 3, 2).amax(1))
    ),
    "an attention over features": Written(
        lambda m, x: (torch.softmax(m.parts[0](x), 1) * x).sum(1, keepdim=True), nn.Linear(6, 6)
    ),
    "rows in two dimensions": Written(lambda m, x: m.parts[0](x.view(-1, 3, 2)).flatten(1), nn.Linear(2, 40)),
    "least, largest and powers": Written(
        lambda m, x: torch.minimum(torch.maximum(x, m.p), x * x) + (x.abs() + 1) ** 0.5 + x**3,
        p=torch.linspace(-1, 1, 6),
    ),
    "other activations": Written(
        lambda _, x: (F.selu(x), F.celu(x, 1.3), F.mish(x), F.hardswish(x), F.logsigmoid(x), F.softsign(x), F.relu6(x))
    ),
    "a choice by comparison": Written(lambda _, x: torch.where((x > 0.5) | (x < -0.5), x, 0.25 * x.sign())),
    "norms": Written(lambda m, x: (m.parts[0](x), F.normalize(x, dim=1), F.layer_norm(x.view(-1, 2, 3), (3,))),
        nn.RMSNorm(6)),
    "two outputs of which one is a part of the other": Written(lambda _, x: ((y := x.exp()), y[:, 2:4])),
    "the input itself": Written(lambda _, x: (x.view(-1, 2, 3), x.tanh())),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_hand_written_network_is_proved(name: str, gcc: Compiler, tmp_path: Path) -> None:
    module = MODULES[name].eval()
    path = export(module, tmp_path / "m.onnx", input_shape=(6,)).path
    proved(module, path, gcc)


def test_several_inputs_and_outputs(gcc: Compiler, tmp_path: Path) -> None:
    module = Policy().eval()
    path = export(module, tmp_path / "m.onnx", input_shape=SHAPES).path
    proved(module, path, gcc)
    header = c_source(path, "m").header
    assert "void m_infer(const float *x_obs, const float *x_goal, float *y_action, float *y_value);" in header
    assert "#define M_GOAL_SIZE 2\n" in header


@settings(max_examples=examples(6, of=60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=specs(deepest=8, widest=70))
def test_a_random_network_is_proved(spec: MLPSpec, gcc: Compiler, tmp_path: Path) -> None:
    module = randomised(assemble(spec, seed=0), 1)
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    proved(module, path, gcc, spec=spec)


def refused(name: str) -> bool:
    """Whether a spelling multiplies from the left: a product with columns, not with rows."""
    return "left" in name


@pytest.mark.parametrize("name", [name for name in SPELLINGS if not refused(name) and name != "dropout"])
def test_a_spelling_of_another_tool_computes_what_onnx_runtime_does(name: str, gcc: Compiler, tmp_path: Path) -> None:
    """On usual rows and on extreme ones, NaN and infinity among them."""
    draft = Draft(13)
    path = draft.save(tmp_path / "m.onnx", SPELLINGS[name][1](draft, "x"))
    rows = np.concatenate([normal(20, 6), np.repeat(EXTREMES[:, None], 6, axis=1)])
    with Session(path, "cpu") as session:
        (expected,) = session.run(rows).values()
    running = load(c_source(path, "m"), gcc, LEVEL)
    (found,) = running.run({"x": rows}).values()
    running.close()
    usual = np.abs(rows).max(axis=1) < 1e4
    np.testing.assert_allclose(found[usual], expected[usual], rtol=1e-5, atol=1e-6)
    if name not in ("softplus log", "silu div"):  # these overflow on the way, and lose an infinity or not
        assert np.array_equal(np.isnan(found), np.isnan(expected))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


NORM = [random(3) * factor for factor in (1, 2, 3, 4)]
SEVERAL: dict[str, Callable[[Draft, str], str]] = {
    "gemm": lambda d, x: d("Gemm", x, random(3, 5), random(5)),
    "gemm, scaled": lambda d, x: d("Gemm", x, random(3, 5), random(5), alpha=2.0, beta=0.5),
    "gemm, scaled, without a bias": lambda d, x: d("Gemm", x, random(5, 3), alpha=2.0, transB=1),
    "gemm, scaled, one bias": lambda d, x: d("Gemm", x, random(3, 5), random(1), alpha=2.0),
    "matmul": lambda d, x: d("MatMul", x, random(3, 5)),
    "batch norm": lambda d, x: d("BatchNormalization", x, *NORM),
    "a constant for each": lambda d, x: d("Mul", d("Add", x, random(3)), random(1, 3)),
    "softmax": lambda d, x: d("Softmax", x, axis=1),
    "log softmax": lambda d, x: d("LogSoftmax", x, axis=-1),
    "layer norm": lambda d, x: d("LayerNormalization", x, random(3), random(3) * 2),
    "a mean": lambda d, x: d("Sub", x, d("ReduceMean", x, axes=[1])),
    "a largest, without its dimension": lambda d, x: d("ReduceMax", x, axes=[-1], keepdims=0),
    "parts": lambda d, x: d("Concat", part(d, x, 1, 3), x, part(d, x, 0, 1), axis=1),
    "flattened": lambda d, x: d("Flatten", d("Neg", x), axis=1),
    "turned": lambda d, x: d("Transpose", d("Reshape", x, np.array([-1, 3, 1])), perm=[0, 2, 1]),
}
"""Operators on values whose first dimension is a multiple of the batch, of three columns."""


def part(draft: Draft, x: str, start: int, end: int) -> str:
    return draft("Slice", x, *(np.array([number]) for number in (start, end, 1)))


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("name", SEVERAL)
def test_rows_that_are_several_rows_of_an_operator(name: str, times: int, gcc: Compiler, tmp_path: Path) -> None:
    """As many as they have columns, and fewer."""
    draft = Draft(17, ("batch", 3 * times))
    path = draft.save(tmp_path / "m.onnx", SEVERAL[name](draft, draft("Reshape", "x", np.array([-1, 3]))))
    rows = normal(4, 3 * times)
    with Session(path, "cpu") as session:
        (expected,) = session.run(rows).values()
    running = load(c_source(path, "m"), gcc, LEVEL)
    (found,) = running.run({"x": rows}).values()
    running.close()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


JOINED: dict[str, Callable[[Draft, str], str]] = {
    "concat": lambda d, x: d("Concat", x, x, axis=0),
    "concat, counted from the end": lambda d, x: d("Concat", x, x, axis=-2),
    "sum": lambda d, x: d("ReduceSum", x, np.array([-2])),
    "softmax": lambda d, x: d("Softmax", x, axis=0),
}


@pytest.mark.parametrize("name", JOINED)
def test_what_joins_rows_is_refused_where_an_operator_has_several(name: str, tmp_path: Path) -> None:
    draft = Draft(17)
    path = draft.save(tmp_path / "m.onnx", JOINED[name](draft, draft("Reshape", "x", np.array([-1, 3]))))
    with pytest.raises(TargetError, match="C computes"):
        c_source(path, "m")


@pytest.mark.parametrize("name", [name for name in SPELLINGS if refused(name)])
def test_a_product_from_the_left_is_refused(name: str, tmp_path: Path) -> None:
    draft = Draft(13)
    path = draft.save(tmp_path / "m.onnx", SPELLINGS[name][1](draft, "x"))
    with pytest.raises(TargetError, match=r"m.onnx: .*What to do: mlpx recover writes a file of another tool"):
        c_source(path, "m")


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "sort": (Written(lambda _, x: x.sort(1)[0]), "C cannot hold TopK 'sort/TopK' of the module 'sort' yet"),
    "product of values": (
        Written(lambda _, x: x.view(-1, 2, 3) @ x.view(-1, 3, 2)),
        "C cannot hold MatMul 'matmul' of the module 'matmul' yet: only a product of rows with a constant matrix",
    ),
    "whole numbers": (Written(lambda _, x: x.argmax(1)), r"'output' is of shape \[batch\] and type INT64"),
    "sums over the batch": (Written(lambda _, x: x - x.mean(0)), ".*: it reduces the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_c_cannot_hold_is_named(name: str, tmp_path: Path) -> None:
    module, words = REFUSED[name]
    path = export(module.eval(), tmp_path / "m.onnx", input_shape=(6,)).path
    with pytest.raises(TargetError, match=f"m.onnx: {words}.*What to do: "):
        c_source(path, "m")


def test_every_operator_of_the_table_is_one_of_onnx() -> None:
    import onnx

    assert all(onnx.defs.has(name) for name in OPERATORS)
