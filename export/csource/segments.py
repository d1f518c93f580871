"""Operators on the numbers along the last dimensions of a row: softmax, layer norm and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np
from onnx import NodeProto

from .program import Program
from .step import Compute, Steps

_REDUCTIONS = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceSumSquare": "sum_square",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceMax": "max",
    "ReduceMin": "min",
}


def _softmax(program: Program, node: NodeProto, kernel: str) -> Steps:
    """Along one dimension; before opset 13 along all dimensions from it on."""
    (x,), row = node.input, program.row(node.input[0])
    axis = program.attributes(node)["axis"] % (len(row) + 1)
    axes = [axis] if program.model.opset >= 13 else list(range(axis, len(row) + 1))
    repeats, n = _split(program, node, row, axes)
    return {node.output[0]: _of_segments(program, kernel, x, repeats, n, n)}


def _layer_norm(program: Program, node: NodeProto) -> Steps:
    attributes, x, row = program.attributes(node), node.input[0], program.row(node.input[0])
    axis = attributes["axis"] % (len(row) + 1)
    repeats, n = _split(program, node, row, list(range(axis, len(row) + 1)))
    weight, *bias = (program.constant(name) for name in node.input[1:] if name)
    if weight is None or None in [None if b is None else 0 for b in bias] or len(node.output) > 1:
        program.refuse(node, "its weight or bias is not constant, or its statistics are read")
    offset = bias[0] if bias else None
    shifts = np.zeros(n, np.float32) if offset is None else np.broadcast_to(offset, row[axis - 1 :])
    tables = [program.table(values) for values in (np.broadcast_to(weight, row[axis - 1 :]), shifts)]
    options = ", ".join([program.scalar(attributes["epsilon"]), *tables])
    return {node.output[0]: _of_segments(program, "layer_norm", x, repeats, n, n, f"{options}, ")}


def _of_segments(
    program: Program, kernel: str, x: str, repeats: int, n: int, out: int, options: str = ""
) -> Compute:
    """A function of each of ``repeats`` segments of n numbers."""
    function = program.kernel(kernel)

    def lines(y: str, reads: Sequence[str]) -> list[str]:
        if repeats == 1:
            return [f"{function}({reads[0]}, {n}, {options}{y});"]
        call = f"{function}({reads[0]} + k * {n}, {n}, {options}{y} + k * {out});"
        return [f"for (int k = 0; k < {repeats}; k++) {{", f"    {call}", "}"]

    return Compute(repeats * out, (x,), lines)


def _reduce(program: Program, node: NodeProto, kernel: str) -> Steps:
    attributes, x, row = program.attributes(node), node.input[0], program.row(node.input[0])
    axes = attributes.get("axes")
    if len(node.input) > 1 and node.input[1]:
        constant = program.constant(node.input[1])
        if constant is None:
            program.refuse(node, "its axes are not constant")
        axes = constant.reshape(-1).tolist()
    if not axes:
        program.refuse(node, "it reduces the batch")
    repeats, n = _split(program, node, row, [int(axis) % (len(row) + 1) for axis in axes])
    function = program.kernel(f"reduce_{kernel}")

    def lines(y: str, reads: Sequence[str]) -> list[str]:
        if repeats == 1:
            return [f"{y}[0] = {function}({reads[0]}, {n});"]
        call = f"{y}[k] = {function}({reads[0]} + k * {n}, {n});"
        return [f"for (int k = 0; k < {repeats}; k++) {{", f"    {call}", "}"]

    return {node.output[0]: Compute(repeats, (x,), lines)}


def _split(program: Program, node: NodeProto, row: tuple[int, ...], axes: Sequence[int]) -> tuple[int, int]:
    """How many segments a row has, and their length, for axes that count the batch as 0."""
    ordered = sorted(axes)
    if 0 in ordered:
        program.refuse(node, "it reduces the batch, and C computes each row by itself")
    significant = [axis for axis in ordered if row[axis - 1] != 1]
    first = significant[0] if significant else len(row) + 1
    missing = [axis for axis in range(first, len(row) + 1) if axis not in ordered and row[axis - 1] != 1]
    if missing:
        program.refuse(node, f"it works along dimension {first}, and not along the last ones")
    n = prod(row[first - 1 :])
    return prod(row) // n, n


OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    "Softmax": partial(_softmax, kernel="softmax"),
    "LogSoftmax": partial(_softmax, kernel="log_softmax"),
    "LayerNormalization": _layer_norm,
    **{name: partial(_reduce, kernel=kernel) for name, kernel in _REDUCTIONS.items()},
}
