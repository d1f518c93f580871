"""Products, sums and reshapes: the rows of the table that move or mix features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .onnx_activations import X, call
from .onnx_context import Context
from .onnx_layout import Layout, Unfit
from .onnx_patterns import Anything, Constant, Match, Pattern
from .onnx_pieces import Piece

Read = tuple[list[Piece], Layout]


def _matmul(found: Match, layout: Layout, context: Context) -> Read:
    """x·W, with W of shape (in, out), or one column of it."""
    weight = found.constants["weight"]
    layout, weight = layout.padded(weight.ndim if weight.ndim > 2 else 0), _matrix(weight)
    column = weight.ndim == 1
    matrix = weight.reshape(-1, 1) if column else weight
    after = layout.contracted(-1, matrix.shape[1], matrix.shape[0])
    return [Piece("linear", {}, {"weight": matrix.T})], replace(after, dims=after.dims[:-1]) if column else after


def _matmul_left(found: Match, layout: Layout, context: Context) -> Read:
    """W·x for rows that are columns, with W of shape (out, in)."""
    weight = found.constants["weight"]
    layout, weight = layout.padded(weight.ndim if weight.ndim > 2 else 0), _matrix(weight)
    if weight.ndim != 2:
        raise Unfit(f"has a weight of shape {list(weight.shape)} in front; a matrix is expected")
    axis = -2 if len(layout.dims) > 1 else -1
    return [Piece("linear", {}, {"weight": weight})], layout.contracted(axis, weight.shape[0], weight.shape[1])


def _matrix(weight: np.ndarray) -> np.ndarray:
    """The weight without leading dimensions of 1."""
    while weight.ndim > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.dtype != np.float32 or weight.ndim not in (1, 2) or not weight.size:
        raise Unfit(f"has a weight of {weight.dtype} and shape {list(weight.shape)}; a float32 matrix is expected")
    return weight


def _gemm(found: Match, layout: Layout, context: Context) -> Read:
    """alpha·A·B + beta·C, with the weight as B, or as A for rows that are columns."""
    operator, weight = found.last, _matrix(found.constants["weight"])
    left = operator.inputs[0] in context.graph.constants
    turned = [bool(operator.integer(name)) for name in ("transA", "transB")]
    stored = found.constants["weight"].shape
    if len(stored) != 2 or len(layout.dims) != 2:
        raise Unfit(f"takes matrices, not a value of shape {layout} and a weight of shape {list(stored)}")
    if turned[1 if left else 0]:
        layout = replace(layout, dims=layout.dims[::-1])
    if turned[0 if left else 1] != (not left):
        weight = weight.T
    # weight is (out, in) now
    after = layout.contracted(0 if left else 1, weight.shape[0], weight.shape[1])
    bias = None
    if operator.inputs[2]:
        constant = context.graph.constants.get(operator.inputs[2])
        if constant is None:
            raise Unfit(f"adds '{operator.inputs[2]}', which is no constant")
        bias, widened = after.spread(constant, "the bias")
        if widened != after:
            raise Unfit(f"has a bias of shape {list(constant.shape)}")
    alpha, beta = operator.number("alpha"), operator.number("beta")
    if bias is not None and _product(bias, beta) is None and alpha != beta:
        context.notes.append(f"{operator}: its bias times beta = {beta} was rounded to float32, as a runtime does")
    return _scaled(weight, bias, alpha, beta), after


def _scaled(weight: np.ndarray, bias: np.ndarray | None, alpha: float, beta: float) -> list[Piece]:
    """alpha·W·x + beta·b as blocks: no weight is rounded."""
    inside, offset = _product(weight, alpha), None if bias is None else _product(bias, beta)
    factor = np.full(len(weight), alpha, np.float32)
    if bias is not None and alpha == beta and (inside is None or offset is None):
        return [Piece("linear", {}, {"weight": weight, "bias": bias}), Piece("scale", {}, {"factor": factor})]
    if bias is not None and offset is None:
        with np.errstate(all="ignore"):
            offset = bias * np.float32(beta)
    if inside is not None:
        return [Piece("linear", {}, {"weight": inside} | ({} if offset is None else {"bias": offset}))]
    rest = {} if offset is None else {"offset": offset}
    return [Piece("linear", {}, {"weight": weight}), Piece("scale", {}, {"factor": factor} | rest)]


def _product(values: np.ndarray, factor: float) -> np.ndarray | None:
    """Float32 values times a float32 number, None where float32 does not hold a product exactly."""
    if factor == 1:
        return values
    with np.errstate(all="ignore"):
        exact = values.astype(np.float64) * np.float64(np.float32(factor))
        rounded = exact.astype(np.float32)
    return rounded if np.array_equal(rounded.astype(np.float64), exact, equal_nan=True) else None


def _constant(kind: str, role: str, what: str) -> Callable[[Match, Layout, Context], Read]:
    """A block with one constant per feature."""

    def make(found: Match, layout: Layout, context: Context) -> Read:
        values, layout = layout.spread(found.constants["c"], what)
        return [Piece(kind, {}, {role: values})], layout

    return make


def _subtracted_from(found: Match, layout: Layout, context: Context) -> Read:
    values, layout = layout.spread(found.constants["c"], "what it subtracts from")
    return [Piece("scale", {}, {"factor": np.full(len(values), -1, np.float32), "offset": values})], layout


def _negative(found: Match, layout: Layout, context: Context) -> Read:
    return [Piece("scale", {}, {"factor": np.full(layout.size, -1, np.float32)})], layout


def _flatten(found: Match, layout: Layout, context: Context) -> Read:
    return [], layout.flattened(found.last.integer("axis"))


def _reshape(found: Match, layout: Layout, context: Context) -> Read:
    sizes = context.sizes(found.last.inputs[1])
    if found.last.attributes.get("allowzero") and 0 in sizes:
        raise Unfit("reshapes to no entries at all")
    return [], layout.reshaped(sizes)


def _transpose(found: Match, layout: Layout, context: Context) -> Read:
    return [], layout.transposed(found.last.integers("perm"))


def _squeeze(found: Match, layout: Layout, context: Context) -> Read:
    return [], layout.squeezed(found.last.integers("axes"))


def _unsqueeze(found: Match, layout: Layout, context: Context) -> Read:
    return [], layout.unsqueezed(found.last.integers("axes") or ())


_C, _W = Constant("c"), Constant("weight")
AFFINE: tuple[tuple[Pattern, Callable[[Match, Layout, Context], Read]], ...] = (
    (call("MatMul", X, _W), _matmul),
    (call("MatMul", _W, X), _matmul_left),
    (call("Gemm", X, _W, Anything()), _gemm),
    (call("Gemm", _W, X, Anything()), _gemm),
    (call("Add", X, _C), _constant("scale", "offset", "what it adds")),
    (call("Mul", X, _C), _constant("scale", "factor", "what it multiplies by")),
    (call("Sub", X, _C), _constant("standardize", "mean", "what it subtracts")),
    (call("Div", X, _C), _constant("standardize", "std", "what it divides by")),
    (call("Sub", _C, X), _subtracted_from),
    (call("Neg", X), _negative),
    (call("Flatten", X), _flatten),
    (call("Reshape", X, Anything()), _reshape),
    (call("Transpose", X), _transpose),
    (call("Squeeze", X), _squeeze),
    (call("Unsqueeze", X), _unsqueeze),
)
"""A pattern and what it is, in no order that matters."""
