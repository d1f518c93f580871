"""Comparisons, choices and changes of type."""

from __future__ import annotations

from export.emitter import Emitter, Operator, chain, one
from export.graph import ELEMENT_TYPES, Node

_COMPARED = {"gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal"}


def _cast(emit: Emitter, node: Node) -> None:
    emit.last("Cast", node, *node.inputs, to=ELEMENT_TYPES[node.dtype])


def _refuse_numbers(node: Node) -> str | None:
    return None if node.dtype == "bool" else "it is for values that are true or false, and these are whole numbers"


OPERATORS = {
    **{name: Operator(one(op_type), overloads=("Tensor", "Scalar")) for name, op_type in _COMPARED.items()},
    "ne": Operator(chain("Equal", "Not"), overloads=("Tensor", "Scalar")),
    "logical_and": Operator(one("And")),
    "logical_or": Operator(one("Or")),
    "logical_not": Operator(one("Not")),
    "bitwise_and": Operator(one("And"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_or": Operator(one("Or"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_not": Operator(one("Not"), refuse=_refuse_numbers),
    "isnan": Operator(one("IsNaN")),
    "where": Operator(one("Where"), overloads=()),
    "_to_copy": Operator(_cast, overloads=()),
}
