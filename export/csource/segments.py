"""Operators on the numbers along the last dimensions of a row: softmax, layer norm and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from onnx import NodeProto

from .program import Program
from .step import Compute, Steps

_REDUCTIONS = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceMax": "max",
    "ReduceMin": "min",
}


@dataclass(frozen=True)
class _Segments:
    """The numbers of a row in segments of ``n``, ``stride`` apart; between them lie those of ``stride`` segments."""

    outer: int
    n: int
    stride: int

    def lines(self, statement: str, x: str, y: str, step: int) -> list[str]:
        """Loops over a statement with the pointers {x} to a segment and {y} to its result, of ``step`` numbers."""
        loops = [(letter, count) for letter, count in (("k", self.outer), ("j", self.stride)) if count > 1]
        block = self.n * self.stride
        terms = {"k": (f" + k * {block}", f" + k * {step * self.stride}"), "j": (" + j", " + j")}
        x, y = (pointer + "".join(terms[letter][i] for letter, _ in loops) for i, pointer in enumerate((x, y)))
        made: list[str] = []
        for depth, (letter, count) in enumerate(loops):
            made.append("    " * depth + f"for (int {letter} = 0; {letter} < {count}; {letter}++) {{")
        made.append("    " * len(loops) + statement.format(x=x, y=y, n=self.n, stride=self.stride))
        return made + ["    " * depth + "}" for depth in reversed(range(len(loops)))]


def _softmax(program: Program, node: NodeProto, kernel: str) -> Steps:
    """Along one dimension; before opset 13 along all dimensions from it on."""
    (x,) = node.input
    rank = len(program.row(x)) + 1 - program.leading(x)
    axis = program.attributes(node)["axis"] % rank
    segments = _segments(program, node, [axis] if program.model.opset >= 13 else range(axis, rank))
    statement = f"{program.kernel(kernel)}({{x}}, {{n}}, {{stride}}, {{y}});"
    size = program.size(x)
    return {node.output[0]: Compute(size, (x,), lambda y, reads: segments.lines(statement, reads[0], y, segments.n))}


def _layer_norm(program: Program, node: NodeProto) -> Steps:
    attributes, x = program.attributes(node), node.input[0]
    row, leading = program.row(x), program.leading(x)
    rank = len(row) + 1 - leading
    axis = attributes["axis"] % rank
    segments = _segments(program, node, range(axis, rank))
    constants = [program.constant(name) for name in node.input[1:] if name]
    if any(values is None for values in constants) or any(node.output[1:]):
        program.refuse(node, "its weight or bias is not constant, or its statistics are read")
    shape = row[axis - 1 + leading :]
    weight, *bias = (np.broadcast_to(np.asarray(values), shape) for values in constants)
    tables = [program.table(values) for values in (weight, bias[0] if bias else np.zeros(shape, np.float32))]
    options = ", ".join([program.scalar(attributes["epsilon"]), *tables])
    statement = f"{program.kernel('layer_norm')}({{x}}, {{n}}, {options}, {{y}});"
    size = program.size(x)
    return {node.output[0]: Compute(size, (x,), lambda y, reads: segments.lines(statement, reads[0], y, segments.n))}


def _reduce(program: Program, node: NodeProto, kernel: str) -> Steps:
    attributes, x = program.attributes(node), node.input[0]
    rank = len(program.row(x)) + 1 - program.leading(x)
    axes = attributes.get("axes")
    if len(node.input) > 1 and node.input[1]:
        constant = program.constant(node.input[1])
        if constant is None:
            program.refuse(node, "its axes are not constant")
        axes = constant.reshape(-1).tolist()
    segments = _segments(program, node, [int(axis) % rank for axis in axes or [0]])
    statement = f"*({{y}}) = {program.kernel(f'reduce_{kernel}')}({{x}}, {{n}}, {{stride}});"
    size = segments.outer * segments.stride
    return {node.output[0]: Compute(size, (x,), lambda y, reads: segments.lines(statement, reads[0], y, 1))}


def _segments(program: Program, node: NodeProto, axes: Sequence[int]) -> _Segments:
    """The segments along some dimensions of an operator's first input, which count the batch as 0."""
    row, leading = program.row(node.input[0]), program.leading(node.input[0])
    if 0 in axes:
        program.refuse(node, "it reduces the batch, and C computes each row by itself")
    chosen = sorted(axis - 1 + leading for axis in axes if row[axis - 1 + leading] != 1)
    if not chosen:
        return _Segments(prod(row), 1, 1)
    first, last = chosen[0], chosen[-1]
    if any(row[axis] != 1 and axis not in chosen for axis in range(first, last)):
        program.refuse(node, f"it works along dimensions {sorted(axes)}, which are not side by side")
    return _Segments(prod(row[:first]), prod(row[first : last + 1]), prod(row[last + 1 :]))


OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    "Softmax": partial(_softmax, kernel="softmax"),
    "LogSoftmax": partial(_softmax, kernel="log_softmax"),
    "LayerNormalization": _layer_norm,
    **{name: partial(_reduce, kernel=kernel) for name, kernel in _REDUCTIONS.items()},
}
