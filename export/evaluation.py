"""Evaluation of a graph by calling its ATen operators, in float32 or in float64.

In float64 it gives the exact values that a proof compares with: constants are the float32 ones, converted, and numbers
those that a float32 kernel computes with. Operators come from the traced module, never from the exported file.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from builder.values import is_tuple

from .graph import Graph, Node, Rows

_SMALL = 2**20
"""Elements of all weights up to which one thread is used."""
_OPERANDS = ("Tensor", "Optional[Tensor]", "number")
"""The types of arguments that an operator of a file takes as inputs."""
_CHUNK = 2**20
"""Weights are converted in parts of this many elements, so that a large layer does not need three times its memory."""


@contextmanager
def threads_for(elements: int) -> Generator[None]:
    """One torch thread for a small network: waking another one takes longer than a small product."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if elements < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def schema(op: str, overload: str) -> tuple[Any, tuple[tuple[str, str, bool, Any], ...]]:
    """An ATen operator, and the name, type, whether keyword-only, and default of each of its arguments."""
    function = getattr(getattr(torch.ops.aten, op), overload)
    arguments = [(a.name, str(a.type), a.kwarg_only, a.default_value) for a in function._schema.arguments]
    return function, tuple(arguments)


def operands(node: Node) -> list[int | str]:
    """A node's tensor arguments in the order of the schema: each an index of its inputs, or the name of a constant.

    Numbers that fill a tensor argument, or multiply one, count as constants.
    """
    remaining = iter(range(len(node.inputs)))
    listed: list[int | str] = []
    for role, kind, *_ in schema(node.op, node.overload)[1]:
        if kind == "List[Tensor]":
            listed += [key if key in node.tensors else next(remaining) for key in _list_keys(node, role)]
        elif role in node.tensors:
            listed.append(role)
        elif role in node.attributes:
            listed += [role] if kind in _OPERANDS and node.attributes[role] is not None else []
        elif kind in ("Tensor", "Optional[Tensor]"):
            listed += [index for index in (next(remaining, None),) if index is not None]
    return listed


def _list_keys(node: Node, role: str) -> list[str]:
    """The names that the tensors of a list argument have among the node's constants."""
    count = len(node.inputs) + sum(key.startswith(f"{role}.") for key in node.tensors)
    return [f"{role}.{i}" for i in range(count)]


def evaluate(
    node: Node,
    inputs: Sequence[Tensor],
    *,
    precision: torch.dtype | None = None,
    rows: int | None = None,
    rounded: bool = True,
) -> Tensor:
    """The node's value for its inputs, in ``precision`` (that of the inputs unless given, else float64).

    ``rows`` is the size of the batch where the node's own sizes depend on it; ``rounded`` takes numbers as float32.
    """
    dtype = precision or next((z.dtype for z in inputs if z.dtype in (torch.float32, torch.float64)), torch.float64)
    if node.op == "linear" and dtype == torch.float64 and "weight" in node.tensors:
        matrix = node.tensors["weight"].values
        if matrix.size > _CHUNK and matrix.ndim == 2:
            bias = constant(node, "bias", inputs[0])
            y = cast(Tensor, _Product.apply(inputs[0], matrix))  # pyright: ignore[reportUnknownMemberType] - torch gives no types
            return y if bias is None else y + bias
    remaining = iter(inputs)

    def argument(name: str, kind: str, default: Any) -> Any:
        if name in node.tensors:
            return _tensor(node.tensors[name].values, dtype)
        if name in node.attributes:
            # Folding adds a BatchNorm's eps in float64; that a kernel rounds it counts among its roundings.
            of_kernel = rounded and not (node.op == "batch_norm" and name == "eps")
            return _number(node.attributes[name], dtype, rows, of_kernel)
        if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
            constants = [node.tensors.get(key) for key in _list_keys(node, name)]
            return [next(remaining) if t is None else _tensor(t.values, dtype) for t in constants]
        return next(remaining, None) if kind in ("Tensor", "Optional[Tensor]") else default

    function, arguments = schema(node.op, node.overload)
    positional = [argument(name, kind, default) for name, kind, keyword_only, default in arguments if not keyword_only]
    keywords = {name: argument(name, kind, default) for name, kind, keyword_only, default in arguments if keyword_only}
    if node.op == "linear" and not keywords:
        return F.linear(*positional)  # as nn.Linear calls it
    result = function(*positional, **keywords)
    value: Tensor = result[0] if is_tuple(result) else result  # of sort and topk the values
    return value.to(torch.int64) if value.dtype == torch.int32 else value  # as in a file


def _tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """A constant with its own strides, so that a transposed matrix takes the kernel that PyTorch takes for it."""
    shareable = values.flags.writeable and all(step >= 0 for step in values.strides)
    tensor = torch.as_tensor(values if shareable else np.array(values), device="cpu")
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _number(value: Any, dtype: torch.dtype, rows: int | None, rounded: bool) -> Any:
    if isinstance(value, Rows):
        assert rows is not None
        return value.times * rows
    if is_tuple(value):
        return [_number(part, dtype, rows, rounded) for part in value]
    if value is torch.float32:
        return dtype
    return float(np.float32(value)) if rounded and type(value) is float else value


def constant(node: Node, role: str, like: Tensor) -> Tensor | None:
    """A constant argument in the precision of ``like``, a number rounded to float32; None where there is none."""
    if role in node.tensors:
        return _tensor(node.tensors[role].values, like.dtype)
    if node.attributes.get(role) is None:
        return None
    return torch.tensor(number(node, role), dtype=like.dtype)


def number(node: Node, role: str, *, rounded: bool = True) -> float:
    """A number among the attributes; ``rounded`` gives the float32 that a kernel computes with."""
    value = float(node.attributes[role])
    with np.errstate(over="ignore"):
        return float(np.float32(value)) if rounded else value


def times(weight: np.ndarray, z: Tensor, *, absolute: bool = False) -> Tensor:
    """The product z @ weightᵀ, or z @ abs(weight)ᵀ, for z (..., in) and weight (out, in); without a gradient.

    The weights are converted part by part into one buffer: a new one for each part would fragment the heap.
    """
    step = max(1, _CHUNK // max(1, weight.shape[1]))
    buffer = torch.empty(min(step, len(weight)), weight.shape[1], dtype=z.dtype)
    y = torch.empty(*z.shape[:-1], len(weight), dtype=z.dtype)
    with torch.no_grad():
        for start in range(0, len(weight), step):
            rows = torch.as_tensor(np.ascontiguousarray(weight[start : start + step]), device="cpu")
            part = buffer[: len(rows)].copy_(rows)
            y[..., start : start + step] = z @ (part.abs_() if absolute else part).T
    return y


class _Product(torch.autograd.Function):
    """``times`` with a gradient that converts the weights again instead of keeping them in float64."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: np.ndarray) -> Tensor:
        ctx.weight = weight
        return times(weight, z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return times(ctx.weight.T, gradients[0]), None


def follow(
    nodes: Sequence[Node], values: Mapping[str, Tensor], *, precision: torch.dtype, rows: int, rounded: bool = True
) -> dict[str, Tensor]:
    """The values of the nodes, evaluated in order for ``rows`` rows, together with the ``values`` they start from."""
    known = dict(values)
    for node in nodes:
        inputs = [known[name] for name in node.inputs]
        known[node.output] = evaluate(node, inputs, precision=precision, rows=rows, rounded=rounded)
    return known


def outputs_of(
    graph: Graph, inputs: Mapping[str, Tensor], *, precision: torch.dtype, rounded: bool = True
) -> list[Tensor]:
    """The outputs of the network, in order, for inputs (batch, *row)."""
    rows = len(next(iter(inputs.values())))
    values = follow(graph.nodes, inputs, precision=precision, rows=rows, rounded=rounded)
    return [values[value] for value in graph.outputs.values()]
