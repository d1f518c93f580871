"""Sums, products, powers and elementary functions, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from export.graph import Node

from .language import Constant, Input, Pattern, Tensor, X, one, op, operands, option, patterns, same


def _constant(node: Node) -> tuple[str, Tensor | Constant] | None:
    """The role of a node's one constant operand, and how a file holds it; None where both operands are values."""
    role = next((r for r in ("self", "other") if r in node.tensors or r in node.attributes), None)
    if role is None:
        return None
    return role, Tensor(role) if role in node.tensors else Constant(option(role))


def _negated(constant: Tensor | Constant, node: Node) -> Input:
    if isinstance(constant, Tensor):
        return replace(constant, negated=True)
    number = constant.value
    return Constant(-number(node)) if callable(number) else constant


def _add(node: Node) -> list[Pattern]:
    found = [op("Add", *operands(node)), op("Sum", *operands(node))]
    given = _constant(node)
    if given is not None:
        found.append(op("Sub", X, _negated(given[1], node)))
    return patterns(*found)


def _sub(node: Node) -> list[Pattern]:
    found = [op("Sub", *operands(node))]
    given = _constant(node)
    if given is not None and given[0] == "other":
        found.append(op("Add", X, _negated(given[1], node)))
    if given is not None and given[0] == "self" and same(node, "self", 0):
        found.append(op("Neg", X))
    return patterns(*found)


def _mul(node: Node) -> list[Pattern]:
    found = [op("Mul", *operands(node))]
    given = _constant(node)
    if given is not None and same(node, given[0], -1):
        found.append(op("Neg", X))
    if given is None and node.inputs[0] == node.inputs[1]:
        found.append(op("Pow", X, 2.0))
    return patterns(*found)


def _div(node: Node) -> list[Pattern]:
    found = [op("Div", *operands(node))]
    given = _constant(node)
    if given is not None and given[0] == "self" and same(node, "self", 1):
        found.append(op("Reciprocal", X))
    return patterns(*found)


def _pow(node: Node) -> list[Pattern]:
    found = [op("Pow", *operands(node))]
    if node.attributes.get("exponent") == 3:
        found.append(op("Mul", op("Mul", X, X), X))
    return patterns(*found)


def _scaled_and_shifted(node: Node) -> list[Pattern]:
    """Folding's offset + factor·x."""
    offset, factor = Tensor("self"), Tensor("tensor2")
    product = op("Mul", X, factor)
    return patterns(op("Add", product, offset), op("Sub", product, replace(offset, negated=True)))


def _neg(node: Node) -> list[Pattern]:
    return patterns(op("Neg", X), op("Mul", X, -1.0), op("Sub", 0.0, X))


def _rsqrt(node: Node) -> list[Pattern]:
    root = op("Sqrt", X)
    return patterns(op("Reciprocal", root), op("Div", 1.0, root), op("Pow", X, -0.5))


def _sign(node: Node) -> list[Pattern]:
    return patterns(op("Where", op("IsNaN", X), 0.0, op("Sign", X)))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "addcmul": _scaled_and_shifted,
    "pow": _pow,
    "neg": _neg,
    "rsqrt": _rsqrt,
    "sign": _sign,
    "sqrt": lambda node: patterns(op("Sqrt", X), op("Pow", X, 0.5)),
    "reciprocal": lambda node: patterns(op("Reciprocal", X), op("Div", 1.0, X), op("Pow", X, -1.0)),
    "log1p": lambda node: patterns(op("Log", op("Add", X, 1.0))),
    "expm1": lambda node: patterns(op("Sub", op("Exp", X), 1.0)),
    **{
        name: one(written)
        for name, written in (
            *(("abs", "Abs"), ("exp", "Exp"), ("log", "Log"), ("sin", "Sin"), ("cos", "Cos"), ("erf", "Erf")),
            *(("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round"), ("atan", "Atan"), ("asinh", "Asinh")),
            *(("maximum", "Max"), ("minimum", "Min")),
        )
    },
}
