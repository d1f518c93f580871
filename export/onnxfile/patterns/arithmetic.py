"""Elementwise arithmetic: sums, products, powers and elementary functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from export.graph import Node

from .language import Constant, Input, NodeTensor, Pattern, X, is_filled_with, op, operands, option, patterns, single


def _constant(node: Node) -> tuple[str, NodeTensor | Constant] | None:
    """The role of a node's constant operand, and its pattern; None where both operands are values."""
    role = next((r for r in ("self", "other") if r in node.tensors or r in node.attributes), None)
    if role is None:
        return None
    return role, NodeTensor(role) if role in node.tensors else Constant(option(role))


def _negated(constant: NodeTensor | Constant, node: Node) -> Input:
    if isinstance(constant, NodeTensor):
        return replace(constant, negated=True)
    number = constant.value
    return Constant(-number(node)) if callable(number) else constant


def _add(node: Node) -> list[Pattern]:
    roots = [op("Add", *operands(node)), op("Sum", *operands(node))]
    constant = _constant(node)
    if constant is not None:
        roots.append(op("Sub", X, _negated(constant[1], node)))
    return patterns(*roots)


def _sub(node: Node) -> list[Pattern]:
    roots = [op("Sub", *operands(node))]
    constant = _constant(node)
    if constant is not None and constant[0] == "other":
        roots.append(op("Add", X, _negated(constant[1], node)))
    if constant is not None and constant[0] == "self" and is_filled_with(node, "self", 0):
        roots.append(op("Neg", X))
    return patterns(*roots)


def _mul(node: Node) -> list[Pattern]:
    roots = [op("Mul", *operands(node))]
    constant = _constant(node)
    if constant is not None and is_filled_with(node, constant[0], -1):
        roots.append(op("Neg", X))
    if constant is None and node.inputs[0] == node.inputs[1]:
        roots.append(op("Pow", X, 2.0))
    return patterns(*roots)


def _div(node: Node) -> list[Pattern]:
    roots = [op("Div", *operands(node))]
    constant = _constant(node)
    if constant is not None and constant[0] == "self" and is_filled_with(node, "self", 1):
        roots.append(op("Reciprocal", X))
    return patterns(*roots)


def _pow(node: Node) -> list[Pattern]:
    roots = [op("Pow", *operands(node))]
    if node.attributes.get("exponent") == 3:
        roots.append(op("Mul", op("Mul", X, X), X))
    return patterns(*roots)


def _scaled_and_shifted(_node: Node) -> list[Pattern]:
    """A product and a sum, offset + factor·x, which folding makes."""
    offset, factor = NodeTensor("self"), NodeTensor("tensor2")
    product = op("Mul", X, factor)
    return patterns(op("Add", product, offset), op("Sub", product, replace(offset, negated=True)))


def _neg(_node: Node) -> list[Pattern]:
    return patterns(op("Neg", X), op("Mul", X, -1.0), op("Sub", 0.0, X))


def _rsqrt(_node: Node) -> list[Pattern]:
    root = op("Sqrt", X)
    return patterns(op("Reciprocal", root), op("Div", 1.0, root), op("Pow", X, -0.5))


def _sign(_node: Node) -> list[Pattern]:
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
    "sqrt": lambda _: patterns(op("Sqrt", X), op("Pow", X, 0.5)),
    "reciprocal": lambda _: patterns(op("Reciprocal", X), op("Div", 1.0, X), op("Pow", X, -1.0)),
    "log1p": lambda _: patterns(op("Log", op("Add", X, 1.0))),
    "expm1": lambda _: patterns(op("Sub", op("Exp", X), 1.0)),
    **{
        name: single(op_type)
        for name, op_type in (
            *(("abs", "Abs"), ("exp", "Exp"), ("log", "Log"), ("sin", "Sin"), ("cos", "Cos"), ("erf", "Erf")),
            *(("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round"), ("atan", "Atan"), ("asinh", "Asinh")),
            *(("maximum", "Max"), ("minimum", "Min")),
        )
    },
}
