"""Comparisons, choices and changes of type."""

from __future__ import annotations

from collections.abc import Callable

from export.graph import ELEMENT_TYPES, Node

from .language import Pattern, X, op, operands, patterns, single

_COMPARED = {"gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual"}
_OPPOSITE = {"gt": "Less", "lt": "Greater", "ge": "LessOrEqual", "le": "GreaterOrEqual"}


def _compared(name: str) -> Callable[[Node], list[Pattern]]:
    return lambda node: patterns(op(_COMPARED[name], *operands(node)), op(_OPPOSITE[name], *operands(node)[::-1]))


PATTERNS: dict[str, Callable[[Node], list[Pattern]]] = {
    **{name: _compared(name) for name in _COMPARED},
    "eq": single("Equal"),
    "ne": lambda node: patterns(op("Not", op("Equal", *operands(node)))),
    **{name: single("And") for name in ("logical_and", "bitwise_and")},
    **{name: single("Or") for name in ("logical_or", "bitwise_or")},
    **{name: single("Not") for name in ("logical_not", "bitwise_not")},
    "isnan": single("IsNaN"),
    "where": single("Where"),
    "_to_copy": lambda node: patterns(op("Cast", X, to=ELEMENT_TYPES[node.dtype])),
}
