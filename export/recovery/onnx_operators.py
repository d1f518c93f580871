"""Operators that are a block by themselves, and those that only move the features of a row.

A row of ``BLOCKS`` gets an operator that reads the value, the value and its layout; it gives the blocks and the layout
afterwards, or raises Unfit. What a block is in several operators stands in ``spellings``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from export.graph import Rows
from export.onnxfile.model import Model, attributes_of, label

from .recovered import Step
from .row_layout import Layout, Unfit

Read = tuple[list[Step], Layout]
Make = Callable[["Place"], Read]


class Place:
    """An operator, the value of the network that it reads, and how a row lies in that value."""

    def __init__(self, model: Model, node: NodeProto, value: str, layout: Layout, notes: list[str]):
        self.model, self.node, self.value, self.layout, self.notes = model, node, value, layout, notes
        self.attributes: dict[str, Any] = attributes_of(node, model.opset)

    def number(self, name: str) -> float:
        """A number among the attributes, as the shortest decimal that is the same float32."""
        return shortest(self.attributes[name])

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Whole numbers that are an attribute in some opsets and the last input in others, if any. Raises Unfit."""
        if name in self.attributes:
            return tuple(self.attributes[name])
        if len(self.node.input) < 2 or not self.node.input[1]:
            return None
        constant = self.model.constants.get(self.node.input[1])
        if constant is None or constant.dtype.kind != "i":
            raise Unfit(f"takes its {name} from no constant of integers")
        return tuple(constant.reshape(-1).tolist())

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """A constant among the inputs, None where it is left out. Raises Unfit: it is computed."""
        name = self.node.input[index] if len(self.node.input) > index else ""
        if name and name not in self.model.constants:
            raise Unfit(f"takes {what} from '{name}', which is no constant")
        return self.model.constants[name] if name else None

    @property
    def reads_first(self) -> bool:
        """Whether the value is the first of two inputs."""
        return self.node.input[0] == self.value

    @property
    def other(self) -> np.ndarray:
        """The constant beside the value, among the first two inputs. Raises Unfit: there is none."""
        index = 1 if self.reads_first else 0
        if self.value not in self.node.input[:2]:
            raise Unfit(f"reads '{self.value}' in a place where no block does")
        constant = self.constant(index, "what it reads beside the value")
        if constant is None:
            raise Unfit("reads one value alone; two are expected")
        return constant


def shortest(value: Any) -> float:
    """A float32 number as the shortest decimal that rounds to it: 0.01 rather than 0.009999999776482582."""
    return float(str(np.float32(value)))


def single(constant: np.ndarray, what: str) -> float:
    """The one number that a constant holds, for every feature the same. Raises Unfit."""
    flat = constant.reshape(-1)
    if constant.dtype != np.float32 or not len(flat) or not bool((flat == flat[0]).all()):
        raise Unfit(f"has {what} of shape {list(constant.shape)}; one float32 number for all features is expected")
    return shortest(flat[0])


def _matmul(at: Place) -> Read:
    """x·W, with W of shape (in, out) or one column of it; or W·x for rows that are columns, with W of (out, in)."""
    weight, layout = at.other, at.layout
    layout, weight = layout.padded(weight.ndim if weight.ndim > 2 else 0), _matrix(weight)
    if not at.reads_first:
        if weight.ndim != 2:
            raise Unfit(f"has a weight of shape {list(weight.shape)} in front; a matrix is expected")
        axis = -2 if len(layout.dims) > 1 else -1
        return [Step("linear", {"weight": weight})], layout.contracted(axis, weight.shape[0], weight.shape[1])
    column = weight.ndim == 1
    matrix = weight.reshape(-1, 1) if column else weight
    after = layout.contracted(-1, matrix.shape[1], matrix.shape[0])
    return [Step("linear", {"weight": matrix.T})], replace(after, dims=after.dims[:-1]) if column else after


def _matrix(weight: np.ndarray) -> np.ndarray:
    """The weight without leading dimensions of 1."""
    while weight.ndim > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.dtype != np.float32 or weight.ndim not in (1, 2) or not weight.size:
        raise Unfit(f"has a weight of {weight.dtype} and shape {list(weight.shape)}; a float32 matrix is expected")
    return weight


def _gemm(at: Place) -> Read:
    """alpha·A·B + beta·C, with the weight as B, or as A for rows that are columns."""
    layout, stored = at.layout, at.other
    weight, left = _matrix(stored), not at.reads_first
    turned = [bool(at.attributes[name]) for name in ("transA", "transB")]
    if stored.ndim != 2 or len(layout.dims) != 2:
        raise Unfit(f"takes matrices, not a value of shape {layout} and a weight of shape {list(stored.shape)}")
    if turned[1 if left else 0]:
        layout = replace(layout, dims=layout.dims[::-1])
    if turned[0 if left else 1] != (not left):
        weight = weight.T
    # weight is (out, in) now
    after = layout.contracted(0 if left else 1, weight.shape[0], weight.shape[1])
    bias, constant = None, at.constant(2, "its bias")
    if constant is not None:
        bias, widened = after.spread(constant, "the bias")
        if widened != after:
            raise Unfit(f"has a bias of shape {list(constant.shape)}")
    alpha, beta = at.number("alpha"), at.number("beta")
    if bias is not None and _product(bias, beta) is None and alpha != beta:
        at.notes.append(f"{label(at.node)}: its bias times beta = {beta} was rounded to float32, as a runtime does")
    return _scaled(weight, bias, alpha, beta), after


def _scaled(weight: np.ndarray, bias: np.ndarray | None, alpha: float, beta: float) -> list[Step]:
    """alpha·W·x + beta·b as blocks: no weight is rounded."""
    inside, offset = _product(weight, alpha), None if bias is None else _product(bias, beta)
    factor = np.full(len(weight), alpha, np.float32)
    if bias is not None and alpha == beta and (inside is None or offset is None):
        return [Step("linear", {"weight": weight, "bias": bias}), Step("scale", {"factor": factor})]
    if bias is not None and offset is None:
        with np.errstate(all="ignore"):
            offset = bias * np.float32(beta)
    if inside is not None:
        return [Step("linear", {"weight": inside} | ({} if offset is None else {"bias": offset}))]
    rest = {} if offset is None else {"offset": offset}
    return [Step("linear", {"weight": weight}), Step("scale", {"factor": factor} | rest)]


def _product(values: np.ndarray, factor: float) -> np.ndarray | None:
    """Float32 values times a float32 number, None where float32 does not hold a product exactly."""
    if factor == 1:
        return values
    with np.errstate(all="ignore"):
        exact = values.astype(np.float64) * np.float64(np.float32(factor))
        rounded = exact.astype(np.float32)
    return rounded if np.array_equal(rounded.astype(np.float64), exact, equal_nan=True) else None


def _constant(kind: str, role: str, what: str) -> Make:
    """A block with one constant per feature."""

    def make(at: Place) -> Read:
        values, layout = at.layout.spread(at.other, what)
        return [Step(kind, {role: values})], layout

    return make


def _sub(at: Place) -> Read:
    if at.reads_first:
        return _constant("standardize", "mean", "what it subtracts")(at)
    values, layout = at.layout.spread(at.other, "what it subtracts from")
    return [Step("scale", {"factor": np.full(len(values), -1, np.float32), "offset": values})], layout


def _div(at: Place) -> Read:
    if not at.reads_first:
        raise Unfit("divides a constant by a value, which no block does")
    return _constant("standardize", "std", "what it divides by")(at)


def _neg(at: Place) -> Read:
    return [Step("scale", {"factor": np.full(at.layout.size, -1, np.float32)})], at.layout


def _hard_sigmoid(at: Place) -> Read:
    """Of another slope or offset than the block's."""
    alpha, beta = (np.float32(at.number(name)) for name in ("alpha", "beta"))
    scale = {"factor": np.full(at.layout.size, alpha), "offset": np.full(at.layout.size, beta)}
    return [Step("scale", scale), Step("clip", options={"min": 0.0, "max": 1.0})], at.layout


def _bounded(at: Place) -> Read:
    """A Clip, Min or Max that is no spelling of a block: says why."""
    for index in (1, 2) if at.node.op_type == "Clip" else (1 if at.reads_first else 0,):
        constant = at.constant(index, "a bound")
        if constant is not None:
            single(constant, "a bound")
    raise Unfit("is bounded in a way that no block is")


def _slopes(at: Place) -> Read:
    """A PRelu that is no leaky ReLU: says why."""
    single(at.other, "a slope")
    raise Unfit("has a slope that no block has")


def _softmax(at: Place) -> Read:
    axis = at.layout.axis(at.attributes["axis"])
    # Before opset 13 all that follows the axis is one dimension.
    axes = tuple(range(axis, len(at.layout.dims))) if at.model.opset < 13 else (axis,)
    if not at.layout.covers(axes):
        raise Unfit(f"takes the axis {axis} of {at.layout}, which is not the features of a row")
    return [Step("softmax")], at.layout


def _layer_norm(at: Place) -> Read:
    layout, axis = at.layout, at.layout.axis(at.attributes["axis"])
    if not layout.covers(tuple(range(axis, len(layout.dims)))) or at.attributes.get("stash_type") != 1:
        raise Unfit(f"normalises {layout} from the axis {axis} on, which is not the features of a row, in float32")
    tensors = {}
    for index, role in enumerate(("weight", "bias"), start=1):
        constant = at.constant(index, f"its {role}")
        if constant is not None and constant.ndim > len(layout.dims):
            raise Unfit(f"has no constant {role} of at most {len(layout.dims)} dimensions")
        if constant is not None:
            tensors[role] = layout.spread(constant, role)[0]
    return [Step("layer_norm", tensors, {"eps": at.number("epsilon")})], layout


def _batch_norm(at: Place) -> Read:
    layout, rank = at.layout, len(at.layout.dims)
    if at.attributes.get("training_mode") or any(at.node.output[1:]):
        raise Unfit("is in training mode. What to do: export the network in evaluation mode")
    if rank < 2 or layout.dims[1] is None or (at.attributes.get("spatial") == 0 and rank > 2):
        raise Unfit(f"normalises {layout} along its axis 1, which is not the features of a row")
    tensors = {}
    for index, role in enumerate(("weight", "bias", "running_mean", "running_var"), start=1):
        constant = at.constant(index, f"its {role}")
        if constant is None or constant.shape != (layout.dims[1],):
            shape = None if constant is None else list(constant.shape)
            raise Unfit(f"has a {role} of shape {shape} for {layout.dims[1]} features")
        tensors[role] = layout.spread(constant.reshape(-1, *(1,) * (rank - 2)), role)[0]
    return [Step("batch_norm", tensors, {"eps": at.number("epsilon")})], layout


BLOCKS: dict[str, Make] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _constant("scale", "offset", "what it adds"),
    "Sum": _constant("scale", "offset", "what it adds"),
    "Mul": _constant("scale", "factor", "what it multiplies by"),
    "Sub": _sub,
    "Div": _div,
    "Neg": _neg,
    "HardSigmoid": _hard_sigmoid,
    "Clip": _bounded,
    "Min": _bounded,
    "Max": _bounded,
    "PRelu": _slopes,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
"""What an operator is that is no part of a spelling in several, or has options that a spelling cannot guess."""


def _reshape(at: Place) -> Layout:
    sizes = at.model.sizes(at.node.input[1])
    if sizes is None:
        raise Unfit(f"takes a shape that cannot be seen in the file: '{at.node.input[1]}'")
    if at.attributes.get("allowzero") and 0 in sizes:
        raise Unfit("reshapes to no entries at all")
    return at.layout.reshaped(tuple(None if isinstance(size, Rows) else size for size in sizes))


def _cast(at: Place) -> Layout:
    # What is not constant is float32 here: the input is, and no other type is let in.
    if at.attributes["to"] != TensorProto.FLOAT:
        raise Unfit("is a conversion to another type of number")
    return at.layout


MOVES: dict[str, Callable[[Place], Layout]] = {
    "Identity": lambda at: at.layout,
    "Dropout": lambda at: at.layout,
    "Cast": _cast,
    "Flatten": lambda at: at.layout.flattened(at.attributes["axis"]),
    "Reshape": _reshape,
    "Transpose": lambda at: at.layout.transposed(at.integers("perm")),
    "Squeeze": lambda at: at.layout.squeezed(at.integers("axes")),
    "Unsqueeze": lambda at: at.layout.unsqueezed(at.integers("axes") or ()),
}
"""What gives the same features in another shape."""
