"""Every operator as a node with the kinds of its inputs: what the tests of its bounds are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from export.evaluation import evaluate
from export.graph import Node, Rows, Shape
from export.graph import Tensor as Constant
from export.proof.rules import RULES
from tests.support.rounded import Rounded

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


def wide(n: int) -> list[Case]:
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
