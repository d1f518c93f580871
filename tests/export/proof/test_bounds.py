"""The bounds of operators hold for correct kernels in every usual spelling, and for those alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.constants import by_pytorch, grid, main, measure, measurements, node_of, runner
from export.evaluation import evaluate
from export.graph import Node, Rows, Shape
from export.graph import Tensor as Constant
from export.operators import OPERATORS
from export.proof.rules import RULES
from export.proof.rules.arithmetic import is_affine, magnitude, merged, roundings
from export.proof.rules.constants import CONSTANTS, ETA, LARGEST
from tests.support.bounds import Rounded, spelt

SLACK = 1 + 2.0**-20
ROWS = 5
RNG = np.random.default_rng(7)


def held(*shape: int, scale: float = 1.0, low: float | None = None) -> Constant:
    values = scale * RNG.standard_normal(shape)
    return Constant("c", (values if low is None else low + np.abs(values)).astype(np.float32))


def integers(values: Any) -> Constant:
    return Constant("i", np.asarray(values, np.int64))


@dataclass(frozen=True)
class Case:
    """One node, the rows of its inputs, and what they are: (positive) numbers, whole ones below ``n``, or bool."""

    node: Node
    rows: tuple[tuple[int, ...], ...]
    kinds: tuple[str | int, ...]
    twin: Callable[..., tuple[Any, ...]] | None = None
    """The arguments of the twin for the inputs."""
    row_of_twin: str = ""
    extreme: bool = True
    """Whether every scale of float32 is tried."""
    tightness: float = 12.0
    """How many times the running error the bound may be, in the median."""


def case(
    op: str,
    *rows: tuple[int, ...],
    kinds: Sequence[str | int] = (),
    overload: str = "default",
    tensors: dict[str, Constant] | None = None,
    dtype: str = "float32",
    twin: Callable[..., tuple[Any, ...]] | None = lambda *x: x,
    twin_of: str = "",
    extreme: bool = True,
    tightness: float = 12.0,
    shape: Shape = (),
    **attributes: Any,
) -> Case:
    rows = rows or ((6,),)
    inputs = tuple(f"x{i}" for i in range(len(rows)))
    attributes = {key.removesuffix("_"): value for key, value in attributes.items()}  # dtype and shape are names here
    node = Node(op, op, inputs, "y", shape, attributes, tensors or {}, overload, dtype, home=op)
    kinds = tuple(kinds) or ("number",) * len(rows)
    if not node.shape:
        z = [torch.from_numpy(numbers(kind, (ROWS, *row))) for kind, row in zip(kinds, rows, strict=True)]
        given = tuple(evaluate(node, z, precision=torch.float32, rows=ROWS).shape)
        node = replace(node, shape=(Rows(), *given[1:]))
    return Case(node, rows, kinds, twin, twin_of or op, extreme, tightness)


def numbers(kind: str | int, shape: tuple[int, ...], seed: int = 0, scale: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "bool":
        return rng.random(shape) < 0.5
    if isinstance(kind, int):
        return rng.integers(0, kind, shape)
    values = (scale * rng.standard_normal(shape)).astype(np.float32)
    if kind == "positive":
        return np.abs(values) + np.float32(2.0**-10 * scale)
    return values + np.float32(3) * np.sign(values) if kind == "away" else values


def c(values: Constant) -> Rounded:
    return Rounded(values.values)


def _cases() -> dict[str, Case]:
    two, three = ((6,), (6,)), (4, 3)
    w, b, square, vector, positive = held(5, 6), held(5), held(6, 4), held(6), held(6, low=0.3)
    mean, var, g3, b3 = held(4), held(4, low=0.2), held(4), held(4)
    table = held(9, 5)
    return {
        "linear": case("linear", tensors={"weight": w, "bias": b}, twin=lambda x: (x, c(w), c(b))),
        "linear without bias": case("linear", tensors={"weight": w}, bias=None, twin=lambda x: (x, c(w), None)),
        "linear of matrices": case("linear", (3, 6), tensors={"weight": w, "bias": b}, twin=lambda x: (x, c(w), c(b))),
        "matmul": case("matmul", (3, 6), (6, 2)),
        "matmul with a constant": case("matmul", (3, 6), tensors={"other": square}, twin=lambda x: (x, c(square))),
        "matmul after a constant": case("matmul", (6, 3), tensors={"self": held(2, 6)}, twin=None),
        "addcmul": case(
            "addcmul", tensors={"self": vector, "tensor2": positive}, twin=lambda x: (c(vector), x, c(positive))
        ),
        "add": case("add", *two, overload="Tensor"),
        "add a row to a matrix": case("add", (4, 3), (1, 3), overload="Tensor"),
        "add a constant": case("add", overload="Tensor", tensors={"other": vector}, twin=lambda x: (x, c(vector))),
        "add a number": case("add", overload="Tensor", other=0.7, twin=lambda x: (x, Rounded(float(np.float32(0.7))))),
        "add whole numbers": case("add", *two, kinds=(9, 7), overload="Tensor", dtype="int64", twin=None),
        "sub": case("sub", *two, overload="Tensor"),
        "sub from a constant": case("sub", overload="Tensor", tensors={"self": vector}, twin=lambda x: (c(vector), x)),
        "mul": case("mul", *two, overload="Tensor"),
        "mul by a constant": case("mul", overload="Tensor", tensors={"other": vector}, twin=lambda x: (x, c(vector))),
        "mul by a number": case("mul", overload="Tensor", other=-2.5, twin=lambda x: (x, Rounded(-2.5))),
        "div": case("div", *two, kinds=("number", "away"), overload="Tensor"),
        "div by a constant": case(
            "div",
            overload="Tensor",
            tensors={"other": positive},
            twin=lambda x: (x, c(positive)),
            twin_of="div by a constant",
        ),
        "div a constant": case(
            "div", kinds=("away",), overload="Tensor", tensors={"self": vector}, twin=lambda x: (c(vector), x)
        ),
        "div a number": case("div", kinds=("away",), overload="Tensor", self=2.0, twin=lambda x: (Rounded(2.0), x)),
        "maximum": case("maximum", *two),
        "minimum with a constant": case("minimum", tensors={"other": vector}, twin=lambda x: (x, c(vector))),
        **{op: case(op) for op in ("neg", "abs", "exp", "sin", "cos", "erf", "atan", "sigmoid", "tanh", "relu")},
        **{op: case(op) for op in ("asinh", "silu", "mish", "log_sigmoid", "hardsigmoid", "hardswish", "selu")},
        **{op: case(op, kinds=("positive",)) for op in ("sqrt", "rsqrt", "log")},
        "expm1": case("expm1", tightness=20),
        "log1p": case("log1p", kinds=("positive",)),
        "reciprocal": case("reciprocal", kinds=("away",)),
        **{op: case(op, twin=None) for op in ("floor", "ceil", "round", "sign")},
        "gelu": case("gelu", approximate="none", tightness=20),
        "gelu tanh": case("gelu", approximate="tanh", twin_of="gelu tanh"),
        "leaky_relu": case("leaky_relu", negative_slope=0.01, twin=lambda x: (x, float(np.float32(0.01)))),
        "leaky_relu, steep": case("leaky_relu", negative_slope=-3.5, twin=lambda x: (x, -3.5)),
        "_prelu_kernel": case("_prelu_kernel", tensors={"weight": vector}, twin=lambda x: (x, c(vector))),
        "elu": case("elu", alpha=1.25, twin=lambda x: (x, 1.25)),
        "celu": case("celu", alpha=0.75, twin=lambda x: (x, 0.75)),
        "softplus": case("softplus", beta=2.5, threshold=20.0, twin=lambda x: (x, 2.5)),
        "softplus with a threshold": case("softplus", beta=1.0, threshold=1.5, twin=None),
        "clamp": case("clamp", min=-1.5, max=2.25, twin=lambda x: (x, -1.5, 2.25)),
        "clamp below": case("clamp", min=-0.5, max=None, twin=lambda x: (x, -0.5, np.inf)),
        "pow": case(
            "pow",
            kinds=("positive",),
            overload="Tensor_Scalar",
            exponent=2.7,
            twin=lambda x: (x, Rounded(float(np.float32(2.7)))),
        ),
        "pow 3": case("pow", overload="Tensor_Scalar", exponent=3.0, twin=None),
        "pow of values": case("pow", *two, kinds=("positive", "number"), overload="Tensor_Tensor", twin=None),
        "pow of a number": case("pow", overload="Scalar", self=1.75, twin=None),
        "sum": case("sum", three, overload="dim_IntList", dim=(1,), keepdim=False, twin=lambda x: (x, 1)),
        "sum of all": case("sum", three, overload="dim_IntList", dim=(1, 2), keepdim=True, twin=None),
        "sum of whole numbers": case(
            "sum", three, kinds=(9,), overload="dim_IntList", dim=(1,), keepdim=False, dtype="int64", twin=None
        ),
        "mean": case("mean", three, overload="dim", dim=(1,), keepdim=False, twin=lambda x: (x, 1)),
        "cumsum": case("cumsum", three, dim=1, twin=lambda x: (x, 1)),
        "amax": case("amax", three, dim=(2,), keepdim=False, twin=None),
        "amin": case("amin", three, dim=(1, 2), keepdim=True, twin=None),
        "norm": case(
            "linalg_vector_norm", three, ord=2, dim=(1,), keepdim=False, twin=lambda x: (x, 1, 2), tightness=20
        ),
        "norm of order 1": case("linalg_vector_norm", three, ord=1, dim=(1,), keepdim=False, twin=lambda x: (x, 1, 1)),
        "var": case(
            "var",
            three,
            overload="correction",
            dim=(1,),
            correction=1,
            keepdim=False,
            count=4,
            twin=lambda x: (x, 1, 1.0),
            tightness=30,
        ),
        "var without a correction": case(
            "var", three, overload="correction", dim=(1,), correction=0, keepdim=True, count=4, twin=None
        ),
        "any": case("any", three, kinds=("bool",), overload="dims", dim=(1,), keepdim=False, dtype="bool", twin=None),
        "all": case("all", three, kinds=("bool",), overload="dims", dim=(1,), keepdim=True, dtype="bool", twin=None),
        "sort": case("sort", three, dim=1, descending=False, k=4, count=4, twin=None),
        "topk": case("topk", three, dim=2, descending=True, k=2, count=3, largest=True, sorted=True, twin=None),
        "argmax": case("argmax", three, dim=2, keepdim=False, dtype="int64", twin=None),
        "argmin": case("argmin", three, dim=1, keepdim=True, dtype="int64", twin=None),
        "softmax": case("softmax", overload="int", dim=1, twin=lambda x: (x, 1)),
        "softmax along another": case("softmax", three, overload="int", dim=1, twin=lambda x: (x, 1)),
        "log_softmax": case("log_softmax", three, overload="int", dim=1, twin=lambda x: (x, 1)),
        "layer_norm": case(
            "layer_norm",
            tensors={"weight": vector, "bias": positive},
            normalized_shape=(6,),
            eps=1e-5,
            cudnn_enable=False,
            twin=lambda x: (x, c(vector), c(positive), 1e-5),
            tightness=30,
        ),
        "layer_norm of matrices": case(
            "layer_norm",
            three,
            tensors={"weight": held(4, 3)},
            normalized_shape=(4, 3),
            bias=None,
            eps=1e-5,
            cudnn_enable=False,
            twin=None,
        ),
        "rms_norm": case(
            "rms_norm", tensors={"weight": vector}, normalized_shape=(6,), eps=1e-6, twin=lambda x: (x, c(vector), 1e-6)
        ),
        "batch_norm": case(
            "batch_norm",
            (4,),
            tensors={"weight": g3, "bias": b3, "running_mean": mean, "running_var": var},
            training=False,
            momentum=0.0,
            eps=1e-5,
            cudnn_enabled=False,
            twin=lambda x: (x, c(g3), c(b3), c(mean), c(var), 1e-5),
        ),
        "batch_norm of channels": case(
            "batch_norm",
            (4, 3),
            tensors={"running_mean": mean, "running_var": var},
            weight=None,
            bias=None,
            training=False,
            momentum=0.0,
            eps=1e-5,
            cudnn_enabled=False,
            twin=None,
        ),
        "reshape": case("reshape", three, shape_=(Rows(), 12), twin=None),
        "permute": case("permute", three, dims=(0, 2, 1), twin=None),
        "select": case("select", three, overload="int", dim=1, index=2, twin=None),
        "slice": case("slice", three, overload="Tensor", dim=1, start=1, end=4, step=2, twin=None),
        "expand": case("expand", (1, 3), size=(Rows(), 4, 3), twin=None),
        "cat": case("cat", (4,), (2,), tensors={"tensors.1": held(ROWS, 3)}, dim=1, twin=None),
        "index_select": case("index_select", three, tensors={"index": integers([2, 0, 2])}, dim=1, twin=None),
        "gather": case("gather", (4,), (2,), kinds=("number", 4), dim=1, twin=None),
        "embedding": case(
            "embedding",
            (3,),
            kinds=(9,),
            tensors={"weight": table},
            padding_idx=-1,
            scale_grad_by_freq=False,
            sparse=False,
            twin=None,
        ),
        **{
            op: case(op, *two, kinds=("number", "number"), overload="Tensor", dtype="bool", twin=None)
            for op in ("gt", "lt", "ge", "le", "eq", "ne")
        },
        "gt a number": case("gt", overload="Scalar", other=0.3, dtype="bool", twin=None),
        **{
            op: case(op, *two, kinds=("bool", "bool"), overload=overload, dtype="bool", twin=None)
            for op, overload in (
                *(("logical_and", "default"), ("logical_or", "default")),
                *(("bitwise_and", "Tensor"), ("bitwise_or", "Tensor")),
            )
        },
        **{op: case(op, kinds=("bool",), dtype="bool", twin=None) for op in ("logical_not", "bitwise_not")},
        "isnan": case("isnan", dtype="bool", twin=None),
        "where": case("where", (6,), *two, kinds=("bool", "number", "number"), overload="self", twin=None),
        "to whole numbers": case("_to_copy", dtype="int64", twin=None, extreme=False, dtype_=torch.int64),
        "to float": case("_to_copy", kinds=(99,), twin=None, dtype_=torch.float32),
    }


CASES = _cases()
TWINNED = [name for name, one in CASES.items() if one.twin is not None]


def exact_of(one: Case, arrays: Sequence[np.ndarray]) -> tuple[list[torch.Tensor], torch.Tensor]:
    z = [torch.from_numpy(a).double() if a.dtype == np.float32 else torch.from_numpy(a) for a in arrays]
    return z, evaluate(one.node, z, precision=torch.float64, rows=len(arrays[0]))


def radius_of(one: Case, z: Sequence[torch.Tensor], e: Sequence[Any], y: torch.Tensor) -> torch.Tensor:
    radius = RULES[one.node.op](one.node, z, e, y)
    assert radius.shape == y.shape
    assert radius.dtype == torch.float64
    assert not radius.isnan().any()
    assert (radius >= 0).all()
    return radius * SLACK


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


def drawn(one: Case, seed: int, rows: int = ROWS) -> list[np.ndarray]:
    return [
        numbers(kind, (rows, *row), seed + 17 * i)
        for i, (kind, row) in enumerate(zip(one.kinds, one.rows, strict=True))
    ]


def every_scale(one: Case, seed: int, rows: int = ROWS) -> list[np.ndarray]:
    """The same with every number times a power of two of its own, or one for each row."""
    rng, found = np.random.default_rng(seed), []
    for array in drawn(one, seed, rows):
        if array.dtype == np.float32:
            each = rng.integers(-140, 126, array.shape)
            of_row = rng.integers(-140, 126, (rows, *[1] * (array.ndim - 1)))
            with np.errstate(over="ignore"):
                array = np.ldexp(array, np.where(rng.random(of_row.shape) < 0.5, each, of_row)).astype(np.float32)
        found.append(array)
    return found


SPECIAL = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-39, 3e38, -3e38, 1.0, -1.0, 88.7, -104.0])


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
    extreme = [every_scale] if one.extreme else []
    if one.extreme and one.node.op != "gelu":  # PyTorch's gelu(inf) is NaN with AVX-512
        extreme.append(with_specials)
    for seed in range(25):
        for arrays in (make(one, seed) for make in (drawn, *extreme)):
            given = [torch.from_numpy(a) for a in arrays]
            found = evaluate(one.node, given, precision=torch.float32, rows=ROWS)
            within(one, arrays, found.numpy(), "PyTorch")


def _wide(n: int) -> list[Case]:
    """What runs over n numbers."""
    vector, positive = held(n), held(n, low=0.3)
    return [
        case("sum", (n,), overload="dim_IntList", dim=(1,), keepdim=False),
        case("mean", (n, 2), overload="dim", dim=(1,), keepdim=False),
        case("cumsum", (n,), dim=1),
        case("linalg_vector_norm", (n,), ord=2, dim=(1,), keepdim=False),
        case("softmax", (n,), overload="int", dim=1),
        case("log_softmax", (n, 2), overload="int", dim=1),
        case("var", (n,), overload="correction", dim=(1,), correction=0, keepdim=False, count=n),
        case("rms_norm", (n,), tensors={"weight": vector}, normalized_shape=(n,), eps=0.0),
        case(
            "layer_norm",
            (n,),
            tensors={"weight": vector, "bias": positive},
            normalized_shape=(n,),
            eps=1e-5,
            cudnn_enable=False,
        ),
        case("linear", (n,), tensors={"weight": held(3, n), "bias": held(3)}),
        case("matmul", (2, n), (n, 2)),
    ]


@pytest.mark.parametrize("n", [1, 2, 64, 1000])
def test_many_numbers_that_nearly_cancel_are_within_the_bound(n: int) -> None:
    for one in _wide(n):
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
    points = np.concatenate([numbers(one.kinds[0], (40,), 1), np.float32([1e-9, 3e-5, 80.0, 0.999])])
    if name in ("sin", "cos"):
        points = np.concatenate([points, np.float32([1e10, -3.5e20, 1e30])])
    elif not positive:
        points = np.concatenate([points, np.float32([-50.0, -18.5, -1e-7])])
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


def test_a_jump_is_bounded_by_its_size() -> None:
    def radius(name: str, *values: float, e: float = 0.1) -> float:
        one = CASES[name]
        z = [torch.tensor([[value]], dtype=torch.float64) for value in values]
        y = evaluate(one.node, z)
        return float(RULES[one.node.op](one.node, z, [torch.full((1, 1), e).double()] * len(z), y))

    assert radius("floor", 2.5) == 0
    assert radius("floor", 2.05) == 1
    assert radius("ceil", 2.0) == 1
    assert radius("sign", 0.5) == 0
    assert radius("sign", 0.05) == 2
    assert radius("sign", 0.0) == 1
    assert radius("round", 2.45) == 1
    assert radius("round", 2.3) == 0
    assert radius("gt a number", 0.35) == 1
    assert radius("gt a number", 0.45) == 0
    assert radius("eq", 1.0, 1.15) == 1
    assert radius("eq", 1.0, 1.25) == 0
    assert radius("to whole numbers", 2.95) == 1
    assert radius("to whole numbers", -0.95) == 1
    assert radius("to whole numbers", 0.95, e=0.01) == 0
    assert radius("sqrt", 0.05) == np.inf
    assert radius("log", 0.05) == np.inf
    assert radius("reciprocal", 0.05) == np.inf
    assert radius("isnan", 1.0) == 0


def test_a_choice_that_is_open_is_bounded_by_its_distance() -> None:
    node = CASES["where"].node
    z = [
        torch.tensor([True, True, False]),
        torch.tensor([1.0, 1.0, 1.0]).double(),
        torch.tensor([4.0, 4.0, 4.0]).double(),
    ]
    e = [
        torch.tensor([0.0, 1.0, 0.0]).double(),
        torch.tensor([0.1, 0.1, 0.1]).double(),
        torch.tensor([0.25, 0.25, 0.25]).double(),
    ]
    found = RULES["where"](node, z, e, torch.where(*z))
    np.testing.assert_allclose(found, [0.1, 3.25, 0.25], rtol=1e-6)
    taken = RULES["argmax"](
        CASES["argmax"].node,
        [torch.tensor([[[5.0, 4.95, 1.0, 4.9]]]).double()],
        [torch.full((1, 1, 4), 0.06).double()],
        torch.tensor([[0]]),
    )
    assert taken.item() == 3
    table = CASES["gather"].node
    lost = RULES["gather"](
        table,
        [torch.ones(1, 4).double(), torch.tensor([[1, 2]])],
        [None, torch.ones(1, 2).double()],
        torch.ones(1, 2).double(),
    )
    assert lost.isinf().all()


def test_whole_numbers_are_exact_until_float32_has_them() -> None:
    big = torch.tensor([[2**24, 2**24 + 1, 2**40 + 1]])
    whole = CASES["add whole numbers"].node
    assert not RULES["add"](whole, [big, big], [None, None], big + big).any()
    radius = RULES["_to_copy"](CASES["to float"].node, [big], [None], big.double())
    assert radius[0, 0] == 0
    assert (radius[0, 1:] > 0).all()
    assert ((big.float().double() - big.double()).abs() <= radius).all()
    mixed = replace(whole, dtype="float32")
    assert (RULES["add"](mixed, [big, big], [None, None], (big + big).double())[0, 1:] > 1).all()
    beyond = torch.tensor([[1e19, np.nan, 1.5]]).double()
    y = torch.zeros(1, 3, dtype=torch.int64)
    assert RULES["_to_copy"](CASES["to whole numbers"].node, [beyond], [None], y).tolist() == [[np.inf, np.inf, 0.0]]


def _chain(seed: int) -> list[Node]:
    rng = np.random.default_rng(seed)

    def constant(*shape: int) -> Constant:
        return Constant("c", rng.standard_normal(shape).astype(np.float32))

    def positive(*shape: int) -> Constant:
        return Constant("c", (0.2 + np.abs(rng.standard_normal(shape))).astype(np.float32))

    n, wide, out = 6, 9, 4
    shape = (Rows(), n)
    nodes = [
        Node("sub", "a", ("x",), "a", shape, tensors={"other": constant(n)}, overload="Tensor"),
        Node("div", "b", ("a",), "b", shape, tensors={"other": positive(n)}, overload="Tensor"),
        Node("linear", "c", ("b",), "c", (Rows(), wide), tensors={"weight": constant(wide, n), "bias": constant(wide)}),
        Node("neg", "d", ("c",), "d", (Rows(), wide)),
        Node(
            "batch_norm",
            "e",
            ("d",),
            "e",
            (Rows(), wide),
            {"training": False, "momentum": 0.0, "eps": 1e-5, "cudnn_enabled": False},
            {
                "weight": constant(wide),
                "bias": constant(wide),
                "running_mean": constant(wide),
                "running_var": positive(wide),
            },
        ),
        Node("linear", "f", ("e",), "f", (Rows(), out), {"bias": None}, {"weight": constant(out, wide)}),
        Node("mul", "g", ("f",), "g", (Rows(), out), {"other": 1.7}, overload="Tensor"),
        Node("add", "h", ("g",), "h", (Rows(), out), tensors={"other": constant(1)}, overload="Tensor"),
    ]
    assert all(is_affine(node) for node in nodes)
    return nodes


def _through(nodes: Sequence[Node], z: torch.Tensor) -> torch.Tensor:
    for node in nodes:
        z = evaluate(node, [z])
    return z


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), scale=st.floats(1e-3, 1e3), e=st.sampled_from([0.0, 1e-3]))
def test_a_chain_that_is_rounded_once_is_within_its_bound(seed: int, scale: float, e: float) -> None:
    """Composed in float64, rounded to float32, and summed forwards and backwards."""
    nodes = _chain(seed)
    start = _through(nodes, torch.zeros(1, 6, dtype=torch.float64))
    weight = (_through(nodes, torch.eye(6, dtype=torch.float64)) - start).T.numpy().astype(np.float32)
    bias = start[0].numpy().astype(np.float32)
    linear = Node(
        "linear", "m", ("x",), "h", (Rows(), 4), {}, {"weight": Constant("w", weight), "bias": Constant("b", bias)}
    )
    x = numbers("number", (12, 6), seed, scale)
    z = torch.from_numpy(x).double()
    y = _through(nodes, z)
    given = None if e == 0 else torch.full_like(z, e)
    radius = merged(nodes, linear, z, given, y)
    moved = x.astype(np.float64) + (0 if e == 0 else np.random.default_rng(seed).choice([-e, e], x.shape))
    if e:
        y_moved = _through(nodes, torch.from_numpy(moved))
        assert ((y_moved - y).abs() <= radius).all()
        return
    for order in (range(6), range(5, -1, -1)):
        total = np.zeros((12, 4), np.float32)
        for i in order:
            total = total + x[:, i, None] * weight[None, :, i]
        found = torch.from_numpy(total + bias).double()
        assert ((found - y).abs() <= radius).all()
    assert roundings(linear) == 7
    assert magnitude(linear, z.abs()).shape == y.shape


@pytest.mark.parametrize("op", ["addcmul", "mul", "add"])
def test_a_chain_of_features_is_within_its_bound(op: str) -> None:
    nodes = _chain(3)[:2]
    start = _through(nodes, torch.zeros(1, 6, dtype=torch.float64))
    factor = (_through(nodes, torch.ones(1, 6, dtype=torch.float64)) - start).float().numpy()[0]
    offset = start.float().numpy()[0]
    if op == "mul":
        nodes = [nodes[1], replace(nodes[1], op="mul")]
        factor = np.float32(1) * np.ones(6, np.float32)
        offset = 0 * offset
    if op == "add":
        nodes = [nodes[0], replace(nodes[0], op="add")]
        factor, offset = np.ones(6, np.float32), 0 * offset
    tensors = {
        "addcmul": {"self": Constant("s", offset), "tensor2": Constant("f", factor)},
        "mul": {"other": Constant("f", factor)},
        "add": {"other": Constant("s", offset)},
    }[op]
    one = Node(op, "m", ("x",), "y", (Rows(), 6), {}, tensors, "default" if op == "addcmul" else "Tensor")
    x = numbers("number", (50, 6), 5)
    z = torch.from_numpy(x).double()
    y = _through(nodes, z)
    radius = merged(nodes, one, z, None, y)
    found = torch.from_numpy(x * factor + offset).double()
    assert ((found - y).abs() <= radius).all()
    assert (radius < 1e-5 * (1 + z.abs())).all()


def test_what_is_not_affine() -> None:
    cases = ("div a constant", "div a number", "add", "tanh", "matmul", "add whole numbers", "matmul with a constant")
    assert not any(is_affine(CASES[name].node) for name in cases)
    named = ("linear", "batch_norm", "addcmul", "sub from a constant", "div by a constant", "mul by a number", "neg")
    assert all(is_affine(CASES[name].node) for name in named)


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_constants_hold_here(name: str) -> None:
    for found in measurements("cpu", 13, [name]):
        assert found.share <= 1, found


def test_another_kernel_is_beyond_the_constants() -> None:
    points = [grid(12).reshape(-1, 64)]

    def hard(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.clip(arrays[0] / 6 + 0.5, 0, 1)

    assert measure("sigmoid", "wrong", hard, points).share > 1e3
    assert measure("sigmoid", "right", by_pytorch(node_of("sigmoid")), points).share < 1


def test_the_program_prints_every_function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    names = ("sigmoid", "pow", "gelu tanh")
    only = [part for name in names for part in ("--only", name)]
    monkeypatch.setattr("sys.argv", ["constants", "--points", "10", *only, "--json", f"{tmp_path}/c.json"])
    main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
