"""Products with constant matrices.

The weights of 32 outputs lie side by side for each input, so that a compiler adds them to 32 sums at once; the outputs
that are left over are computed so too where there are at least 16, with zeros beside them, else one by one.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from .kernels import BLOCK
from .program import Program
from .step import Compute, Steps

_FILLED = 16
"""Outputs left over from which a block is filled with zeros."""


def _gemm(program: Program, node: NodeProto) -> Steps:
    attributes = program.attributes(node)
    x, (weight, *others) = node.input[0], map(program.constant, node.input[1:])
    if program.constant(x) is not None or weight is None or attributes["transA"]:
        program.refuse(node, "only a product of rows with a constant matrix can be computed")
    bias = others[0] if others else None
    if others and bias is None:
        program.refuse(node, "what it adds is not constant")
    matrix = weight.T if attributes["transB"] else weight
    scaled = attributes["alpha"] != 1 or attributes["beta"] != 1
    out = matrix.shape[1]
    if bias is not None and prod(bias.shape[:-1]) != 1:
        program.refuse(node, "what it adds differs between rows")
    added = None if bias is None else np.broadcast_to(bias.reshape(-1), (out,))
    step = _linear(program, node, x, matrix, None if scaled else added)
    if not scaled:
        return {node.output[0]: step}
    place = "i" if step.size == out else f"i % {out}"
    alpha, beta = program.scalar(attributes["alpha"]), program.scalar(attributes["beta"])
    plus = "" if added is None else f" + {beta} * {program.table(added, node.input[2])}[{place}]"

    def lines(y: str, reads: list[str]) -> list[str]:
        after = [f"for (int i = 0; i < {step.size}; i++) {{", f"    {y}[i] = {alpha} * {y}[i]{plus};", "}"]
        return [*step.lines(y, reads), *after]

    return {node.output[0]: Compute(step.size, (x,), lambda y, reads: lines(y, list(reads)))}


def _matmul(program: Program, node: NodeProto) -> Steps:
    x, weight = node.input[0], program.constant(node.input[1])
    if program.constant(x) is not None or weight is None or weight.ndim != 2 or not program.row(x):
        program.refuse(node, "only a product of rows with a constant matrix can be computed")
    return {node.output[0]: _linear(program, node, x, weight, None)}


def _linear(program: Program, node: NodeProto, x: str, matrix: np.ndarray, bias: np.ndarray | None) -> Compute:
    """The product of rows with a ``matrix`` (in, out), plus a bias (out,)."""
    n, out = matrix.shape
    repeats = program.size(x) // n
    left = out % BLOCK
    padded = -(-out // BLOCK) * BLOCK if left >= _FILLED else out - left
    filled = np.zeros((n, padded), np.float32)
    filled[:, : min(out, padded)] = matrix[:, :padded]
    parts = [filled[:, start : start + BLOCK].reshape(-1) for start in range(0, padded, BLOCK)]
    parts.append(matrix[:, padded:].T.reshape(-1))
    weights = program.table(np.concatenate(parts), f"{node.input[1]}, {n} x {out}")
    offsets = None
    if bias is not None:
        offsets = program.table(np.concatenate([bias, np.zeros(max(0, padded - out), np.float32)]), node.input[2])
    zeros = program.zeros() if bias is None else ""
    whole = min(out, padded) // BLOCK

    def call(kernel: str, x: str, y: str, place: str = "", start: str = "", *count: str) -> str:
        added = zeros if offsets is None else f"{offsets}{start}"
        return f"{program.kernel(kernel)}({', '.join([x, str(n), f'{weights}{place}', added, y, *count])});"

    def product(x: str, y: str) -> list[str]:
        lines: list[str] = []
        if whole == 1:
            lines.append(call("linear_block", x, y))
        elif whole:
            inner = call("linear_block", x, f"{y} + j", f" + j * {n}", " + j")
            lines += [f"for (int j = 0; j < {whole * BLOCK}; j += {BLOCK}) {{", f"    {inner}", "}"]
        start = whole * BLOCK
        place = (f" + {start * n}", f" + {start}") if start else ("", "")
        target = f"{y}{place[1]}"
        if left >= _FILLED:
            inner = call("linear_block", x, "block", *place)
            copied = f"memcpy({target}, block, {left} * sizeof(float));"
            lines += ["{", f"    float block[{BLOCK}];", f"    {inner}", f"    {copied}", "}"]
        elif left:
            lines.append(call("linear_rows", x, target, *place, str(left)))
        return lines

    def lines(y: str, x: str) -> list[str]:
        if repeats == 1:
            return product(x, y)
        inner = product(f"{x} + k * {n}", f"{y} + k * {out}")
        return [f"for (int k = 0; k < {repeats}; k++) {{", *(f"    {line}" for line in inner), "}"]

    if left and left < _FILLED:
        program.kernel("linear_rows")
    if whole or left >= _FILLED:
        program.kernel("linear_block")
    return Compute(repeats * out, (x,), lambda y, reads: lines(y, reads[0]))


OPERATORS = {"Gemm": _gemm, "MatMul": _matmul}
