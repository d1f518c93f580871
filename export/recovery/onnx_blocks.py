"""The table of what is read: a pattern of operators, and the blocks that it is.

Adding a spelling here is adding a row. A row's function gets what was found, the layout of the value that it reads and
the shapes known so far; it gives the blocks and the layout afterwards, or raises Unfit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from builder.block import LARGEST

from . import onnx_activations as activations
from .onnx_activations import X, call
from .onnx_affine import AFFINE
from .onnx_context import SHAPE_OPERATORS, Context
from .onnx_graph import shortest
from .onnx_layout import Layout, Unfit
from .onnx_patterns import Anything, Constant, Match, Pattern, kinds, roots
from .onnx_pieces import Piece
from .onnx_simplify import SEEN_THROUGH

Read = tuple[list[Piece], Layout]
Make = Callable[[Match, Layout, Context], Read]
_UNBOUNDED = 3.402823e38
"""What ONNX writes for a Clip without a bound."""


@dataclass(frozen=True)
class Row:
    """One pattern and what to make of it."""

    pattern: Pattern
    make: Make


def _plain(kind: str, **options: Any) -> Make:
    return lambda found, layout, context: ([Piece(kind, options)], layout.padded(found.rank))


def _option(kind: str, option: str, attribute: str) -> Make:
    def make(found: Match, layout: Layout, context: Context) -> Read:
        return [Piece(kind, {option: found.last.number(attribute)})], layout

    return make


def _refused(words: str) -> Make:
    def make(found: Match, layout: Layout, context: Context) -> Read:
        raise Unfit(f"is {words}, an activation that no block has")

    return make


def _single(constant: np.ndarray, what: str) -> float:
    """The one number that a constant holds, for every feature the same."""
    flat = constant.reshape(-1)
    if constant.dtype != np.float32 or not len(flat) or not bool((flat == flat[0]).all()):
        raise Unfit(f"has {what} of shape {list(constant.shape)}; one float32 number for all features is expected")
    return shortest(flat[0])


def _leaky(found: Match, layout: Layout, context: Context) -> Read:
    slope = _single(found.constants["slope"], "a slope")
    if found.last.kind == "Max" and not 0 <= slope <= 1:
        raise Unfit(f"is the larger of x and {slope}·x, a leaky ReLU only for slopes from 0 to 1")
    _, layout = layout.spread(found.constants["slope"], "the slope")
    return [Piece("leaky_relu", {"negative_slope": slope})], layout


def _softplus(found: Match, layout: Layout, context: Context) -> Read:
    options = {name: _single(constant, name) for name, constant in found.constants.items()}
    for constant in found.constants.values():
        _, layout = layout.spread(constant, "an option of Softplus")
    return [Piece("softplus", options)], layout.padded(found.rank)


def _clip(found: Match, layout: Layout, context: Context) -> Read:
    bounds = dict(found.constants)
    if found.last.kind == "Clip":
        for role, name in zip(("low", "high"), found.last.inputs[1:], strict=True):
            if name and name not in context.graph.constants:
                raise Unfit(f"is bounded by '{name}', which is no constant")
            bounds |= {role: context.graph.constants[name]} if name else {}
    for constant in bounds.values():
        _, layout = layout.spread(constant, "a bound")
    low = _single(bounds["low"], "a bound") if "low" in bounds else -np.inf
    high = _single(bounds["high"], "a bound") if "high" in bounds else np.inf
    # A Clip without an upper bound takes infinity to the largest float32, which a ReLU does not.
    return _between(low, high, ramp=found.last.kind != "Clip"), layout


def _between(low: float, high: float, *, ramp: bool) -> list[Piece]:
    low = max(low, -LARGEST) if low > -_UNBOUNDED else -LARGEST
    high = min(high, LARGEST) if high < _UNBOUNDED else LARGEST
    if not low < high:
        raise Unfit(f"is bounded by {low} below and {high} above; the first must be the smaller")
    if (low, high) == (-LARGEST, LARGEST):
        return []
    if low == 0 and (high == 6 or (ramp and high == LARGEST)):
        return [Piece("relu6" if high == 6 else "relu")]
    return [Piece("clip", {"min": low, "max": high})]


def _hard_sigmoid(found: Match, layout: Layout, context: Context) -> Read:
    alpha, beta = (np.float32(found.last.number(name)) for name in ("alpha", "beta"))
    if (alpha, beta) == (np.float32(1 / 6), np.float32(0.5)):
        return [Piece("hardsigmoid")], layout
    scale = {"factor": np.full(layout.size, alpha), "offset": np.full(layout.size, beta)}
    return [Piece("scale", {}, scale), Piece("clip", {"min": 0.0, "max": 1.0})], layout


def _gelu(found: Match, layout: Layout, context: Context) -> Read:
    return [Piece("gelu", {"approximate": str(found.last.attributes["approximate"])})], layout


def _swish(found: Match, layout: Layout, context: Context) -> Read:
    if found.last.number("alpha") != 1:
        raise Unfit(f"is a Swish with alpha {found.last.number('alpha')}; with 1 it is the block silu")
    return [Piece("silu")], layout


def _softmax(found: Match, layout: Layout, context: Context) -> Read:
    axis = layout.axis(found.last.integer("axis"))
    # Before opset 13 all that follows the axis is one dimension.
    axes = tuple(range(axis, len(layout.dims))) if context.graph.opset < 13 else (axis,)
    if not layout.covers(axes):
        raise Unfit(f"takes the axis {axis} of {layout}, which is not the features of a row")
    return [Piece("softmax")], layout


def _check_reductions(found: Match, layout: Layout) -> None:
    for operator in found.operators:
        if operator.kind.startswith("Reduce"):
            axes = operator.integers("axes") or None
            none = axes is None and operator.attributes.get("noop_with_empty_axes")
            if none or not operator.attributes["keepdims"] or not layout.covers(axes):
                raise Unfit(f"reduces {layout} in {operator} over something else than the features of a row")


def _softmax_in_steps(found: Match, layout: Layout, context: Context) -> Read:
    _check_reductions(found, layout)
    return [Piece("softmax")], layout


def _layer_norm_in_steps(found: Match, layout: Layout, context: Context) -> Read:
    _check_reductions(found, layout)
    eps = found.constants["eps"]
    if eps.ndim > len(layout.dims):
        raise Unfit(f"has an epsilon of shape {list(eps.shape)}")
    return [Piece("layer_norm", {"eps": _single(eps, "an epsilon")})], layout.padded(found.rank)


def _layer_norm(found: Match, layout: Layout, context: Context) -> Read:
    operator = found.last
    axis = layout.axis(operator.integer("axis"))
    if not layout.covers(tuple(range(axis, len(layout.dims)))) or operator.attributes.get("stash_type") != 1:
        raise Unfit(f"normalises {layout} from the axis {axis} on, which is not the features of a row, in float32")
    tensors = {}
    for role, name in zip(("weight", "bias"), operator.inputs[1:], strict=False):
        if name or role == "weight":
            tensors[role] = _vector(context.graph.constants.get(name), layout, role)
    return [Piece("layer_norm", {"eps": operator.number("epsilon")}, tensors)], layout


def _vector(constant: np.ndarray | None, layout: Layout, what: str) -> np.ndarray:
    if constant is None or constant.ndim > len(layout.dims):
        raise Unfit(f"has no constant {what} of at most {len(layout.dims)} dimensions")
    return layout.spread(constant, what)[0]


def _batch_norm(found: Match, layout: Layout, context: Context) -> Read:
    operator, rank = found.last, len(layout.dims)
    if operator.attributes.get("training_mode") or any(operator.outputs[1:]):
        raise Unfit("is in training mode. What to do: export the network in evaluation mode")
    if rank < 2 or layout.dims[1] is None or (operator.attributes.get("spatial") == 0 and rank > 2):
        raise Unfit(f"normalises {layout} along its axis 1, which is not the features of a row")
    tensors = {}
    for role in ("weight", "bias", "running_mean", "running_var"):
        constant = found.constants[role]
        if constant.shape != (layout.dims[1],):
            raise Unfit(f"has a {role} of shape {list(constant.shape)} for {layout.dims[1]} features")
        tensors[role] = layout.spread(constant.reshape(-1, *(1,) * (rank - 2)), role)[0]
    return [Piece("batch_norm", {"eps": operator.number("epsilon")}, tensors)], layout


_NORM = ("weight", "bias", "running_mean", "running_var")
TABLE: tuple[Row, ...] = (
    *(Row(pattern, _plain("gelu", approximate=name)) for name, pattern in activations.GELU.items()),
    *(Row(pattern, _plain(kind)) for kind, pattern in activations.PLAIN.items()),
    *(Row(pattern, _softplus) for pattern in activations.SOFTPLUS),
    Row(activations.SOFTMAX, _softmax_in_steps),
    Row(activations.LAYER_NORM, _layer_norm_in_steps),
    Row(activations.LEAKY, _leaky),
    *(Row(pattern, _refused(words)) for words, pattern in activations.OTHERS.items()),
    *(Row(pattern, _clip) for pattern in activations.CLIPS),
    Row(call("LeakyRelu", X), _option("leaky_relu", "negative_slope", "alpha")),
    Row(call("PRelu", X, Constant("slope")), _leaky),
    Row(call("Elu", X), _option("elu", "alpha", "alpha")),
    Row(call("HardSigmoid", X), _hard_sigmoid),
    Row(call("Gelu", X), _gelu),
    Row(call("Swish", X), _swish),
    Row(call("Softmax", X), _softmax),
    Row(call("LayerNormalization", X, Anything()), _layer_norm),
    Row(call("LayerNormalization", X, Anything(), Anything()), _layer_norm),
    Row(call("BatchNormalization", X, *(Constant(role) for role in _NORM)), _batch_norm),
    *(Row(pattern, make) for pattern, make in AFFINE),
)
"""Every spelling that is read. The first row that fits counts: several operators come before one."""

OPERATORS = SHAPE_OPERATORS | SEEN_THROUGH | frozenset().union(*(kinds(row.pattern) for row in TABLE))
"""The operators that may stand in a file."""

ENDING: dict[str, tuple[Row, ...]] = {
    kind: tuple(row for row in TABLE if kind in roots(row.pattern)) for kind in sorted(OPERATORS)
}
"""The rows whose result an operator may give."""
