"""ONNX operators that are blocks by themselves, and those that only change the shape of a row.

An entry of ``ONNX_BLOCKS`` takes an operation and returns the blocks and the layout after them, or raises NotABlock.
Blocks of several operators are in ``onnx_patterns``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from export.graph import Node, Rows, Tensor
from export.onnxfile.model import Model, attributes_of, label

from .graph_blocks import operator_blocks, shortest
from .recovered import NotABlock, Step
from .row_layout import Layout

Read = tuple[list[Step], Layout]
Make = Callable[["Operation"], Read]


@dataclass(eq=False)
class Operation:
    """An operator, the value of the network that it reads, and the layout of that value."""

    model: Model
    node: NodeProto
    value: str
    layout: Layout
    notes: list[str]

    def __post_init__(self) -> None:
        self.attributes: dict[str, Any] = attributes_of(self.node, self.model.opset)

    def number(self, name: str) -> float:
        """An attribute, as the shortest decimal that is the same float32."""
        return shortest(self.attributes[name])

    def integers(self, name: str, index: int = 1) -> tuple[int, ...] | None:
        """Integers that are an attribute in some opsets and an input in others, if any. Raises NotABlock."""
        if name in self.attributes:
            return tuple(self.attributes[name])
        if len(self.node.input) <= index or not self.node.input[index]:
            return None
        constant = self.model.constants.get(self.node.input[index])
        if constant is None or constant.dtype.kind != "i":
            raise NotABlock(f"takes its {name} from '{self.node.input[index]}', which is not a constant of integers")
        return tuple(constant.reshape(-1).tolist())

    def constant(self, index: int, what: str) -> np.ndarray | None:
        """An input that is a constant, None if it is left out. Raises NotABlock: it is computed."""
        name = self.node.input[index] if len(self.node.input) > index else ""
        if name and name not in self.model.constants:
            raise NotABlock(f"takes {what} from '{name}', which is not a constant")
        return self.model.constants[name] if name else None

    @property
    def reads_first(self) -> bool:
        """Whether the value is the first of two inputs."""
        return self.node.input[0] == self.value

    @property
    def other(self) -> np.ndarray:
        """The other of the first two inputs, a constant. Raises NotABlock."""
        if self.value not in self.node.input[:2]:
            raise NotABlock(f"reads '{self.value}' as another input than the first two")
        constant = self.constant(1 if self.reads_first else 0, "its other operand")
        if constant is None:
            raise NotABlock("has one operand; two are expected")
        return constant

    def steps(self, op: str, features: int, tensors: Mapping[str, Tensor] | None = None) -> list[Step]:
        """The blocks of PyTorch's operator that does the same to flat rows. Raises NotABlock."""
        return operator_blocks(Node(op, "", (self.value,), "", (Rows(), features), tensors=tensors or {}))


def single(constant: np.ndarray, what: str) -> float:
    """The number that all entries of a constant are. Raises NotABlock."""
    flat = constant.reshape(-1)
    if constant.dtype != np.float32 or not len(flat) or not bool((flat == flat[0]).all()):
        raise NotABlock(f"has {what} of shape {list(constant.shape)}; one float32 number for all features is expected")
    return shortest(flat[0])


def _matmul(operation: Operation) -> Read:
    """x·W, with W of shape (in, out) or one column of it; or W·x for rows that are columns, with W of (out, in)."""
    weight, layout = operation.other, operation.layout
    vector = len(layout.dims) == 1  # which gets a dimension of 1 for the product alone
    layout, weight = layout.padded(weight.ndim - vector if weight.ndim > 2 else 0), _matrix(weight)
    if not operation.reads_first:
        if weight.ndim != 2:
            raise NotABlock(f"has a weight of shape {list(weight.shape)} as its first operand; a matrix is expected")
        axis = -1 if vector else -2
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
        raise NotABlock(f"has a weight of {weight.dtype} and shape {list(weight.shape)}; a float32 matrix is expected")
    return weight


def _gemm(operation: Operation) -> Read:
    """alpha·A·B + beta·C, with the weight as B, or as A for rows that are columns."""
    layout, stored = operation.layout, operation.other
    weight, left = _matrix(stored), not operation.reads_first
    transposed = [bool(operation.attributes[name]) for name in ("transA", "transB")]
    if stored.ndim != 2 or len(layout.dims) != 2:
        shapes = f"a value of shape {layout} and a weight of shape {list(stored.shape)}"
        raise NotABlock(f"multiplies {shapes}; two matrices are expected")
    if transposed[1 if left else 0]:
        layout = replace(layout, dims=layout.dims[::-1])
    if transposed[0 if left else 1] != (not left):
        weight = weight.T
    # weight is (out, in) now
    after = layout.contracted(0 if left else 1, weight.shape[0], weight.shape[1])
    bias, constant = None, operation.constant(2, "its bias")
    if constant is not None:
        bias, widened = after.per_feature(constant, "a bias")
        if widened != after:
            raise NotABlock(f"has a bias of shape {list(constant.shape)}, of more dimensions than its result")
    alpha, beta = operation.number("alpha"), operation.number("beta")
    if bias is not None and _product(bias, beta) is None and alpha != beta:
        operation.notes.append(
            f"{label(operation.node)}: its bias times beta = {beta} was rounded to float32, as a runtime rounds it"
        )
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
    """Float32 values times a float32 number; None if a product is not exact in float32."""
    if factor == 1:
        return values
    with np.errstate(all="ignore"):
        exact = values.astype(np.float64) * np.float64(np.float32(factor))
        rounded = exact.astype(np.float32)
    return rounded if np.array_equal(rounded.astype(np.float64), exact, equal_nan=True) else None


_ARITHMETIC = {"Add": "add", "Sum": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}


def _arithmetic(operation: Operation) -> Read:
    """A sum, difference, product or quotient with one constant per feature."""
    values, layout = operation.layout.per_feature(operation.other, "a constant")
    role = "other" if operation.reads_first else "self"
    return operation.steps(_ARITHMETIC[operation.node.op_type], len(values), {role: Tensor("", values)}), layout


def _neg(operation: Operation) -> Read:
    return operation.steps("neg", operation.layout.size), operation.layout


def _hard_sigmoid(operation: Operation) -> Read:
    """With another slope or offset than the block."""
    alpha, beta = (np.float32(operation.number(name)) for name in ("alpha", "beta"))
    scale = {"factor": np.full(operation.layout.size, alpha), "offset": np.full(operation.layout.size, beta)}
    return [Step("scale", scale), Step("clip", options={"min": 0.0, "max": 1.0})], operation.layout


_LIMITS = {"Max": "maximum", "Min": "minimum"}


def _limit(operation: Operation) -> Read:
    """A Min or Max with a limit for each feature; one limit of all is a pattern."""
    if operation.other.size == 1:
        raise NotABlock("has a bound that no block has")
    values, layout = operation.layout.per_feature(operation.other, "a bound")
    role = "other" if operation.reads_first else "self"
    return operation.steps(_LIMITS[operation.node.op_type], len(values), {role: Tensor("", values)}), layout


def _bounded(operation: Operation) -> Read:
    """A Clip that matched no pattern: says why."""
    for index in (1, 2):
        constant = operation.constant(index, "a bound")
        if constant is not None:
            single(constant, "a bound")
    raise NotABlock("has bounds that no block has")


def _slopes(operation: Operation) -> Read:
    """A PRelu that is not a leaky ReLU: says why."""
    single(operation.other, "a slope")
    raise NotABlock("has a slope that no block has")


def _softmax(operation: Operation) -> Read:
    axis = operation.layout.axis(operation.attributes["axis"])
    # Before opset 13 the dimensions from the axis on are one.
    axes = tuple(range(axis, len(operation.layout.dims))) if operation.model.opset < 13 else (axis,)
    if not operation.layout.covers(axes):
        raise NotABlock(f"runs along axis {axis} of {operation.layout}, which is not the features of a row")
    return [Step("softmax")], operation.layout


def _layer_norm(operation: Operation) -> Read:
    layout, axis = operation.layout, operation.layout.axis(operation.attributes["axis"])
    if not layout.covers(tuple(range(axis, len(layout.dims)))) or operation.attributes.get("stash_type") != 1:
        raise NotABlock(f"normalises {layout} from axis {axis} on; the features of a row, in float32, are expected")
    tensors: dict[str, Any] = {}
    for index, role in enumerate(("weight", "bias"), start=1):
        constant = operation.constant(index, f"its {role}")
        if constant is not None and constant.ndim > len(layout.dims):
            raise NotABlock(f"has a {role} of {constant.ndim} dimensions; at most {len(layout.dims)} are expected")
        if constant is not None:
            tensors[role] = layout.per_feature(constant, f"a {role}")[0]
    return [Step("layer_norm", tensors, {"eps": operation.number("epsilon")})], layout


def _batch_norm(operation: Operation) -> Read:
    layout, rank = operation.layout, len(operation.layout.dims)
    if operation.attributes.get("training_mode") or any(operation.node.output[1:]):
        raise NotABlock("is in training mode. What to do: export the network in evaluation mode")
    if rank < 2 or layout.dims[1] is None or (operation.attributes.get("spatial") == 0 and rank > 2):
        raise NotABlock(f"normalises {layout} along axis 1, which is not the features of a row")
    tensors: dict[str, Any] = {}
    for index, role in enumerate(("weight", "bias", "running_mean", "running_var"), start=1):
        constant = operation.constant(index, f"its {role}")
        if constant is None or constant.shape != (layout.dims[1],):
            shape = None if constant is None else list(constant.shape)
            raise NotABlock(f"has a {role} of shape {shape} for {layout.dims[1]} features")
        tensors[role] = layout.per_feature(constant.reshape(-1, *(1,) * (rank - 2)), f"a {role}")[0]
    return [Step("batch_norm", tensors, {"eps": operation.number("epsilon")})], layout


ONNX_BLOCKS: dict[str, Make] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    "Neg": _neg,
    "HardSigmoid": _hard_sigmoid,
    "Clip": _bounded,
    **dict.fromkeys(_LIMITS, _limit),
    "PRelu": _slopes,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
}
"""Operators that are not part of a pattern, or have options that are not numbers near the value."""


def _reshape(operation: Operation) -> Layout:
    sizes = operation.model.sizes(operation.node.input[1])
    if sizes is None:
        raise NotABlock(f"takes a shape that cannot be seen in the file: '{operation.node.input[1]}'")
    if operation.attributes.get("allowzero") and 0 in sizes:
        raise NotABlock("reshapes to a shape without entries")
    return operation.layout.reshaped(tuple(None if isinstance(size, Rows) else size for size in sizes))


def _cast(operation: Operation) -> Layout:
    # Values that are not constants are float32: the input is, and no operator gives another type.
    if operation.attributes["to"] != TensorProto.FLOAT:
        hint = ". What to do: round the weights with --dtype float32"
        wide = operation.attributes["to"] == TensorProto.DOUBLE
        raise NotABlock(f"converts to another type of number; float32 is expected{hint if wide else ''}")
    return operation.layout


SHAPE_CHANGES: dict[str, Callable[[Operation], Layout]] = {
    "Identity": lambda operation: operation.layout,
    "Dropout": lambda operation: operation.layout,
    "Cast": _cast,
    "Flatten": lambda operation: operation.layout.flattened(operation.attributes["axis"]),
    "Reshape": _reshape,
    "Transpose": lambda operation: operation.layout.transposed(operation.integers("perm")),
    "Squeeze": lambda operation: operation.layout.squeezed(operation.integers("axes")),
    "Unsqueeze": lambda operation: operation.layout.unsqueezed(operation.integers("axes") or ()),
}
"""Operators whose result is the same features in another shape."""
