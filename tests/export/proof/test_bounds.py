"""The bounds of operators hold for correct kernels in every usual spelling, and for those alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.constants import runner
from export.evaluation import evaluate
from export.operators import OPERATORS
from export.proof.rules import RULES
from export.proof.rules.constants import ETA, LARGEST
from tests.support.operator_cases import CASES, ROWS, Case, drawn, every_scale, exact_of, numbers, radius_of, wide
from tests.support.rounded import Rounded, spelt

TWINNED = [name for name, one in CASES.items() if one.twin is not None]


def within(one: Case, arrays: Sequence[np.ndarray], found: np.ndarray, where: str) -> float:
    """Assert that what a kernel gave is right, as a proof does; the share of bounded values."""
    z, y = exact_of(one, arrays)
    radius = radius_of(one, z, [None] * len(z), y)
    y, value = y.double(), torch.from_numpy(np.array(found)).double()
    assert value.shape == y.shape, where
    bounded = radius.isfinite() & ~(y.isfinite() & ~(y.abs() + radius <= LARGEST))
    kinds = [torch.where(v.isnan(), 2.0, torch.where(v.isinf(), v.sign(), 0.0)) for v in (value, y)]
    assert ((kinds[0] == kinds[1]) | ~bounded).all(), f"{where}: kinds"
    apart = torch.where(bounded & y.isfinite(), (value - y).abs(), 0.0)
    assert (apart <= radius).all(), f"{where}: {(apart / radius).nan_to_num(0).max()} of the bound"
    return float(bounded.double().mean())


SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-39, 3e38, -3e38, 1.0, -1.0, 88.7, -104.0], np.float32
)


def with_specials(one: Case, seed: int) -> list[np.ndarray]:
    """The same with a quarter of the numbers at the edges of float32."""
    rng, found = np.random.default_rng(seed), []
    for array in drawn(one, seed):
        if array.dtype == np.float32:
            array = np.where(rng.random(array.shape) < 0.25, rng.choice(SPECIAL, array.shape), array)
        found.append(array)
    return found


def test_every_operator_has_a_rule_and_a_case() -> None:
    assert set(RULES) == set(OPERATORS) == {one.node.op for one in CASES.values()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fused", [True, False])
def test_onnx_runtime_is_within_the_bound(name: str, fused: bool) -> None:
    one = CASES[name]
    run = runner(one.node, drawn(one, 0), fused=fused, opset=18)
    bounded = [within(one, arrays, run(arrays), "onnxruntime") for arrays in (drawn(one, seed) for seed in range(20))]
    assert min(bounded) > 0.9
    for seed in range(30 if one.extreme else 0):
        arrays = every_scale(one, seed)
        within(one, arrays, run(arrays), "onnxruntime")
        if not one.node.op.startswith("arg"):  # ONNX Runtime passes over NaN there, PyTorch stops at it
            arrays = with_specials(one, seed)
            within(one, arrays, run(arrays), "onnxruntime")


@pytest.mark.parametrize("name", CASES)
def test_pytorch_is_within_the_bound(name: str) -> None:
    one = CASES[name]
    extreme: list[Callable[[Case, int], list[np.ndarray]]] = [every_scale] if one.extreme else []
    if one.extreme and one.node.op != "gelu":  # PyTorch's gelu(inf) is NaN with AVX-512
        extreme.append(with_specials)
    for seed in range(25):
        for arrays in (make(one, seed) for make in (drawn, *extreme)):
            given = [torch.from_numpy(a) for a in arrays]
            found = evaluate(one.node, given, precision=torch.float32, rows=ROWS)
            within(one, arrays, found.numpy(), "PyTorch")


@pytest.mark.parametrize("n", [1, 2, 64, 1000])
def test_many_numbers_that_nearly_cancel_are_within_the_bound(n: int) -> None:
    for one in wide(n):
        run = runner(one.node, drawn(one, 0))
        for seed, (offset, scale) in enumerate([(1000, 1), (-30, 10), (1e-3, 1e-6), (5, 0)]):
            arrays = [np.float32(offset) + np.float32(scale) * array for array in drawn(one, seed)]
            within(one, arrays, run(arrays), f"onnxruntime, {one.node.op}")
            given = [torch.from_numpy(a) for a in arrays]
            within(one, arrays, evaluate(one.node, given).numpy(), f"PyTorch, {one.node.op}")


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([1e-6, 1e-3, 0.3]))
def test_an_inexact_input_stays_within_the_carried_radius(name: str, seed: int, scale: float) -> None:
    """Anything within the radii of the inputs gives a value within the radius of the output."""
    one, rng = CASES[name], np.random.default_rng(seed)
    z, y = exact_of(one, drawn(one, seed))
    e = [scale * torch.from_numpy(rng.random(v.shape)) if v.dtype == torch.float64 else None for v in z]
    radius = radius_of(one, z, e, y)
    for _ in range(6):
        moved = [
            v if r is None else v + r * torch.from_numpy(rng.choice([-1.0, 1.0, 0.5, 0.0], v.shape))
            for v, r in zip(z, e, strict=True)
        ]
        found = evaluate(one.node, moved, precision=torch.float64, rows=ROWS).double()
        rounding = torch.finfo(torch.float64).eps * y.double().abs()  # of v + r, where r is tiny and the rule exact
        assert ((found - y.double()).abs() <= radius + rounding).all() or bool(found.isnan().any())
        missing = found.isnan() & radius.isfinite()
        assert not missing.any()


@pytest.mark.parametrize("name", TWINNED)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.0, 1e-7, 1e-3]))
def test_no_spelling_errs_beyond_the_bound(name: str, seed: int, scale: float) -> None:
    """The running error of every spelling is within the bound, and the bound is not many times as wide."""
    one, rng = CASES[name], np.random.default_rng(seed)
    z, y = exact_of(one, drawn(one, seed))
    e = [scale * torch.from_numpy(rng.random(v.shape)) for v in z]
    radius = radius_of(one, z, [None if scale == 0 else r for r in e], y).numpy()
    assert one.twin is not None
    inputs = [Rounded(v.numpy(), r.numpy()) for v, r in zip(z, e, strict=True)]
    spellings = spelt(one.row_of_twin, *one.twin(*inputs))
    for spelling in spellings:
        np.testing.assert_allclose(spelling.value, y.numpy(), rtol=1e-9, atol=1e-9)
        if scale == 0:  # carried errors of a spelling may count one error twice
            assert (spelling.error <= radius * (1 + 1e-6) + 1e-300).all(), (spelling.error / radius).max()
    least = np.minimum.reduce([spelling.error for spelling in spellings])
    finite = np.isfinite(radius) & (least > 8 * ETA)
    if finite.any():
        assert np.median(radius[finite] / least[finite]) <= one.tightness


@pytest.mark.parametrize("name", TWINNED)
def test_a_value_beyond_the_bound_is_seen(name: str) -> None:
    one = CASES[name]
    arrays = drawn(one, 3)
    z, y = exact_of(one, arrays)
    radius = radius_of(one, z, [None] * len(z), y)
    near = (y - 1.001 * radius - ETA).float().double()
    wrong = torch.nextafter(near.float(), torch.tensor(-torch.inf)).numpy()
    with pytest.raises(AssertionError):
        within(one, arrays, wrong, name)


def test_a_sum_in_any_order_of_exact_rationals() -> None:
    one = CASES["linear"]
    weight, bias = (one.node.tensors[role].values for role in ("weight", "bias"))
    (x,) = drawn(one, 11)
    z, y = exact_of(one, [x])
    radius = radius_of(one, z, [None], y)
    for order in (range(6), range(5, -1, -1), (0, 3, 1, 4, 2, 5)):
        for row in range(ROWS):
            for out in range(len(weight)):
                exact, total = Fraction(float(bias[out])), np.float32(0)
                for i in order:
                    exact += Fraction(float(weight[out, i])) * Fraction(float(x[row, i]))
                    total = np.float32(total + weight[out, i] * x[row, i])
                found = Fraction(float(np.float32(total + bias[out])))
                assert abs(float(exact) - float(y[row, out])) <= 2.0**-45 * (1 + abs(float(exact)))
                assert abs(found - exact) <= Fraction(float(radius[row, out]))


_MP: dict[str, Callable[[Any], Any]] = {
    "exp": mpmath.exp,
    "log": lambda x: mpmath.log(x),
    "log1p": lambda x: mpmath.log(1 + x),
    "expm1": mpmath.expm1,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "atan": mpmath.atan,
    "asinh": mpmath.asinh,
    "erf": mpmath.erf,
    "sqrt": mpmath.sqrt,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "log_sigmoid": lambda x: -mpmath.log(1 + mpmath.exp(-x)),
    "mish": lambda x: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))),
    "gelu": lambda x: x / 2 * mpmath.erfc(-x / mpmath.sqrt(2)),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * mpmath.expm1(x)),
}


@pytest.mark.parametrize("name", _MP)
def test_float64_is_exact_enough_to_be_the_reference(name: str) -> None:
    one = CASES[name]
    positive = one.kinds[0] == "positive"
    points = np.concatenate([numbers(one.kinds[0], (40,), 1), np.array([1e-9, 3e-5, 80.0, 0.999], np.float32)])
    if name in ("sin", "cos"):
        points = np.concatenate([points, np.array([1e10, -3.5e20, 1e30], np.float32)])
    elif not positive:
        points = np.concatenate([points, np.array([-50.0, -18.5, -1e-7], np.float32)])
    with mpmath.workdps(60):
        for x in points.astype(np.float64):
            z = torch.tensor([[x]], dtype=torch.float64)
            y = evaluate(one.node, [z])
            radius = RULES[one.node.op](one.node, [z], [None], y)
            apart = abs(_MP[name](mpmath.mpf(float(x))) - mpmath.mpf(float(y)))
            assert apart <= 2.0**-20 * float(radius), x


def test_what_may_overflow_is_exempt() -> None:
    for name in ("linear", "sum", "mean", "matmul", "norm", "var", "layer_norm", "rms_norm", "cumsum"):
        one = CASES[name]
        arrays = [np.full((ROWS, *row), LARGEST, np.float32) for row in one.rows]
        z, y = exact_of(one, arrays)
        assert radius_of(one, z, [None] * len(z), y).isinf().any(), name


@pytest.mark.parametrize(
    "name", ["linear", "softmax", "log_softmax", "layer_norm", "rms_norm", "sum", "var", "div", "log"]
)
def test_missing_and_infinite_results_are_compared(name: str) -> None:
    """Of a result that is no number the kind is compared, so its radius is no exemption."""
    one = CASES[name]
    for wrong in (np.nan, np.inf):
        arrays = drawn(one, 0)
        arrays[0].reshape(-1)[0] = wrong
        z, y = exact_of(one, arrays)
        radius = radius_of(one, z, [None] * len(z), y)
        assert radius[~y.isfinite()].isfinite().all()
