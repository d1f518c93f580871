"""A graph computed by calling its ATen operators, in float32 or in float64.

In float64 it is the exact value that a proof compares with: constants are the float32 ones, widened, and numbers are
those that a float32 kernel works with. Operators come from the traced module, never from the exported file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .graph import Graph, Node, Rows

_SMALL = 2**20
"""Elements of all weights below which a network is small."""
_CHUNK = 2**20
"""Weights are widened in parts of this many elements, so that a large layer does not need three times its memory."""


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread of torch for a small network: waking another for each small product takes longer than the product."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if elements < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def schema(op: str, overload: str) -> tuple[Any, tuple[tuple[str, str, bool, Any], ...]]:
    """An ATen operator, and of its arguments the name, the type, whether by keyword only, and the default."""
    function = getattr(getattr(torch.ops.aten, op), overload)
    arguments = [(a.name, str(a.type), a.kwarg_only, a.default_value) for a in function._schema.arguments]
    return function, tuple(arguments)


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
            y, bias = _Product.apply(inputs[0], matrix), constant(node, "bias", inputs[0])
            return y if bias is None else y + bias
    left = iter(inputs)

    def argument(name: str, kind: str, default: Any) -> Any:
        if name in node.tensors:
            return _tensor(node.tensors[name].values, dtype)
        if name in node.attributes:
            return _number(node.attributes[name], dtype, rows, rounded)
        if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
            count = len(node.inputs) + sum(key.startswith(f"{name}.") for key in node.tensors)
            keys = [f"{name}.{i}" for i in range(count)]
            return [_tensor(node.tensors[k].values, dtype) if k in node.tensors else next(left) for k in keys]
        return next(left, None) if kind in ("Tensor", "Optional[Tensor]") else default

    function, arguments = schema(node.op, node.overload)
    positional = [argument(name, kind, default) for name, kind, by_keyword, default in arguments if not by_keyword]
    keywords = {name: argument(name, kind, default) for name, kind, by_keyword, default in arguments if by_keyword}
    if node.op == "linear" and not keywords:
        return F.linear(*positional)  # as nn.Linear calls it
    found = function(*positional, **keywords)
    found = found[0] if isinstance(found, tuple) else found  # of sort and topk the values
    return found.to(torch.int64) if found.dtype == torch.int32 else found  # as a file has it


def _tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """A constant in memory as it lies: a transposed matrix takes the kernel that PyTorch takes for it."""
    plain = values.flags.writeable and all(step >= 0 for step in values.strides)
    held = torch.from_numpy(values if plain else np.array(values))
    return held.to(dtype) if held.is_floating_point() else held


def _number(value: Any, dtype: torch.dtype, rows: int | None, rounded: bool) -> Any:
    if isinstance(value, Rows):
        assert rows is not None
        return value.times * rows
    if isinstance(value, tuple):
        return [_number(part, dtype, rows, rounded) for part in value]
    if value is torch.float32:
        return dtype
    return float(np.float32(value)) if rounded and type(value) is float else value


def constant(node: Node, role: str, like: Tensor) -> Tensor | None:
    """A constant argument in the precision of ``like``, a number as float32 has it; None where there is none."""
    if role in node.tensors:
        return _tensor(node.tensors[role].values, like.dtype)
    if node.attributes.get(role) is None:
        return None
    return torch.tensor(number(node, role), dtype=like.dtype)


def number(node: Node, role: str, *, rounded: bool = True) -> float:
    """A number among the attributes; ``rounded`` gives the float32 that a kernel works with."""
    value = float(node.attributes[role])
    with np.errstate(over="ignore"):
        return float(np.float32(value)) if rounded else value


def times(weight: np.ndarray, z: Tensor, *, absolute: bool = False) -> Tensor:
    """z @ weightᵀ, or z @ abs(weight)ᵀ, for z (..., in) and weight (out, in); without a gradient.

    The weights are widened part by part into one buffer: a new one each time would leave the heap in pieces.
    """
    step = max(1, _CHUNK // max(1, weight.shape[1]))
    buffer = torch.empty(min(step, len(weight)), weight.shape[1], dtype=z.dtype)
    y = torch.empty(*z.shape[:-1], len(weight), dtype=z.dtype)
    with torch.no_grad():
        for start in range(0, len(weight), step):
            held = torch.from_numpy(np.ascontiguousarray(weight[start : start + step]))
            part = buffer[: len(held)].copy_(held)
            y[..., start : start + step] = z @ (part.abs_() if absolute else part).T
    return y


class _Product(torch.autograd.Function):
    """``times`` with a gradient that widens the weights again instead of keeping them wide."""

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
    """The values of the nodes for ``rows`` rows, one after the other, besides the ``values`` they start from."""
    held = dict(values)
    for node in nodes:
        given = [held[name] for name in node.inputs]
        held[node.output] = evaluate(node, given, precision=precision, rows=rows, rounded=rounded)
    return held


def outputs_of(
    graph: Graph, inputs: Mapping[str, Tensor], *, precision: torch.dtype, rounded: bool = True
) -> list[Tensor]:
    """The network's outputs for its inputs (batch, *row), in order."""
    rows = len(next(iter(inputs.values())))
    values = follow(graph.nodes, inputs, precision=precision, rows=rows, rounded=rounded)
    return [values[value] for value in graph.outputs.values()]
