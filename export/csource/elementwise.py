"""Operators that compute each number of a row from the numbers at its place: activations and arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np
from onnx import NodeProto

from .program import Program
from .step import Alias, Compute, Steps

EXPRESSIONS: dict[str, str] = {
    "Relu": "a < 0.0f ? 0.0f : a",
    "LeakyRelu": "a < 0.0f ? {alpha} * a : a",
    "PRelu": "a < 0.0f ? b * a : a",
    "Elu": "a > 0.0f ? a : {alpha} * expm1f(a)",
    "Celu": "a > 0.0f ? a : {alpha} * expm1f(a / {alpha})",
    "Selu": "{gamma} * (a > 0.0f ? a : {alpha} * expm1f(a))",
    "Sigmoid": "1.0f / (1.0f + expf(-a))",
    "Tanh": "tanhf(a)",
    "Softplus": "@softplus(a)",
    "Softsign": "a / (1.0f + fabsf(a))",
    "HardSigmoid": "@clip({alpha} * a + {beta}, 0.0f, 1.0f)",
    "HardSwish": "a * @clip(a / 6.0f + 0.5f, 0.0f, 1.0f)",
    "Mish": "a * tanhf(@softplus(a))",
    "Gelu": "a * (1.0f + erff(a / sqrtf(2.0f))) * 0.5f",
    "Abs": "fabsf(a)",
    "Neg": "-a",
    "Exp": "expf(a)",
    "Log": "logf(a)",
    "Sqrt": "sqrtf(a)",
    "Reciprocal": "1.0f / a",
    "Erf": "erff(a)",
    "Sin": "sinf(a)",
    "Cos": "cosf(a)",
    "Atan": "atanf(a)",
    "Asinh": "asinhf(a)",
    "Floor": "floorf(a)",
    "Ceil": "ceilf(a)",
    "Round": "rintf(a)",
    "Sign": "a > 0.0f ? 1.0f : (a < 0.0f ? -1.0f : a)",
    "IsNaN": "a != a ? 1.0f : 0.0f",
    "Not": "a != 0.0f ? 0.0f : 1.0f",
    "Add": "a + b",
    "Sub": "a - b",
    "Mul": "a * b",
    "Div": "a / b",
    "Pow": "powf(a, b)",
    "Max": "@max({}, {})",
    "Min": "@min({}, {})",
    "Greater": "a > b ? 1.0f : 0.0f",
    "GreaterOrEqual": "a >= b ? 1.0f : 0.0f",
    "Less": "a < b ? 1.0f : 0.0f",
    "LessOrEqual": "a <= b ? 1.0f : 0.0f",
    "Equal": "a == b ? 1.0f : 0.0f",
    "And": "(a != 0.0f && b != 0.0f) ? 1.0f : 0.0f",
    "Or": "(a != 0.0f || b != 0.0f) ? 1.0f : 0.0f",
    "Where": "a != 0.0f ? b : c",
    "Sum": "({} + {})",
}
"""By operator: its result for the operands a, b and c.

{alpha} is an attribute, {} an operand of several, "@" a function of ``kernels``. NaN is passed on where PyTorch does
so: no comparison with NaN holds.
"""
_GELU_TANH = "0.5f * a * (1.0f + tanhf({scale} * (a + {cubic} * a * a * a)))"
_GELU = {"scale": 0.7978845608028654, "cubic": 0.044715}
_BATCH_NORM = "(a - b) / c * d + e"
_MANY = ("Max", "Min", "Sum")
"""Operators of any number of operands, which are taken two by two."""
_LETTERS = "abcde"


def _elementwise(program: Program, node: NodeProto) -> Steps:
    attributes = program.attributes(node)
    if node.op_type == "Gelu" and attributes["approximate"] == b"tanh":
        return _computed(program, node, _GELU_TANH, node.input, _GELU)
    numbers = {name: value for name, value in attributes.items() if isinstance(value, float)}
    expression, operands = EXPRESSIONS[node.op_type], list(node.input)
    if node.op_type in _MANY:
        if len(operands) > len(_LETTERS):
            program.refuse(node, f"it has more than {len(_LETTERS)} operands")
        pair = EXPRESSIONS[node.op_type]
        expression = reduce(lambda done, letter: pair.format(done, letter), _LETTERS[1 : len(operands)], "a")
    return _computed(program, node, expression, operands, numbers)


def _clip(program: Program, node: NodeProto) -> Steps:
    """The bounds are inputs or attributes; one that is left out bounds nothing."""
    attributes, (x, *others) = program.attributes(node), node.input
    names = [*others, "", ""][:2]
    bounds = [_bound(program, node, name) for name in names]
    given = attributes.get("min", bounds[0]), attributes.get("max", bounds[1])
    values = [program.scalar(float(v)) if v is not None else None for v in given]
    if values == [None, None]:
        return {node.output[0]: Alias(x)}
    low, high = values
    if low is None:
        text = f"a > {high} ? {high} : a"
    else:
        text = f"a < {low} ? {low} : a" if high is None else f"@clip(a, {low}, {high})"
    return _computed(program, node, text, [x], {})


def _bound(program: Program, node: NodeProto, name: str) -> float | None:
    if not name:
        return None
    value = program.constant(name)
    if value is None or value.size != 1:
        program.refuse(node, "its bounds are not constant")
    return float(value.reshape(-1)[0])


def _batch_norm(program: Program, node: NodeProto) -> Steps:
    """(x - mean) / √(variance + epsilon)·scale + shift for each channel, the second dimension of the value."""
    attributes, x = program.attributes(node), node.input[0]
    constants = [program.constant(name) for name in node.input[1:]]
    if attributes.get("training_mode") or any(values is None for values in constants):
        program.refuse(node, "its statistics are not constant")
    scale, shift, mean, variance = (np.asarray(values) for values in constants)
    others = program.row(x)[program.leading(x) + 1 :]
    deviation = np.sqrt(variance + np.float32(attributes["epsilon"]))
    shape = (-1, *(1 for _ in others))
    operands = [values.reshape(shape) for values in (mean, deviation, scale, shift)]
    return _computed(program, node, _BATCH_NORM, [x, *operands], {})


def _computed(
    program: Program,
    node: NodeProto,
    expression: str,
    operands: Sequence[str | np.ndarray],
    attributes: dict[str, float],
) -> Steps:
    """A loop over the numbers of a row. Operands are values and constants by name, or constants."""
    row = program.row(node.output[0])
    size = int(np.prod(row))
    text = expression.format(**{name: program.scalar(value) for name, value in attributes.items()})
    for kernel in re.findall(r"@(\w+)", text):
        program.kernel(kernel)
    text = text.replace("@", f"{program.prefix}_")
    reads: list[str] = []
    taken: list[Callable[[Sequence[str]], str]] = []
    same = False
    for operand in operands:
        constant = program.constant(operand) if isinstance(operand, str) else operand
        if constant is not None:
            taken.append(partial(_given, _constant(program, node, constant)))
            continue
        assert isinstance(operand, str)
        place = _place(program, node, operand, row)
        same |= not reads and place == "[i]"
        taken.append(partial(_read, len(reads), place))
        reads.append(operand)

    def lines(y: str, pointers: Sequence[str]) -> list[str]:
        letters = zip(_LETTERS, taken, strict=False)
        values = [f"    const float {letter} = {take(pointers)};" for letter, take in letters]
        return [f"for (int i = 0; i < {size}; i++) {{", *values, f"    {y}[i] = {text};", "}"]

    return {node.output[0]: Compute(size, tuple(reads), lines, in_place=same)}


def _given(expression: str, _pointers: Sequence[str]) -> str:
    return expression


def _read(index: int, place: str, pointers: Sequence[str]) -> str:
    pointer = pointers[index]
    return f"({pointer}){place}" if " " in pointer else f"{pointer}{place}"


def _constant(program: Program, node: NodeProto, values: np.ndarray) -> str:
    """An expression for the number of a constant at place i."""
    row = program.row(node.output[0])
    rank = len(row) + 1 - program.leading(node.output[0])
    if values.size == 1:
        return program.scalar(float(values.reshape(-1)[0]))
    if values.ndim > rank or (values.ndim == rank and values.shape[0] != 1):
        program.refuse(node, f"a constant of shape {list(values.shape)} differs between rows")
    spread = np.broadcast_to(values, (1, *row)).reshape(-1)
    return f"{program.table(spread)}[i]"


def _place(program: Program, node: NodeProto, name: str, row: tuple[int, ...]) -> str:
    """The index of a value's number for place i."""
    own = program.row(name)
    if len(own) != len(row) or program.leading(name) != program.leading(node.output[0]):
        program.refuse(node, f"rows of shapes {list(own)} and {list(row)} are combined")
    if own == row:
        return "[i]"
    if int(np.prod(own)) == 1:
        return "[0]"
    places = np.broadcast_to(np.arange(int(np.prod(own))).reshape(own), row).reshape(-1)
    return f"[{program.indices(places)}[i]]"


OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    **dict.fromkeys(EXPRESSIONS, _elementwise),
    "Clip": _clip,
    "BatchNormalization": _batch_norm,
}
