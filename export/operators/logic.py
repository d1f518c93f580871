"""Comparisons, choices and changes of type."""

from __future__ import annotations

from export.emitter import Emitter, Operator, chain, single
from export.graph import ELEMENT_TYPES, Node

_COMPARED = {"gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal"}


def _cast(emit: Emitter, node: Node) -> None:
    emit.last("Cast", node, *node.inputs, to=ELEMENT_TYPES[node.dtype])


def _refuse_numbers(node: Node) -> str | None:
    return None if node.dtype == "bool" else "it takes bools only, and these are integers"


OPERATORS = {
    **{name: Operator(single(op_type), overloads=("Tensor", "Scalar")) for name, op_type in _COMPARED.items()},
    "ne": Operator(chain("Equal", "Not"), overloads=("Tensor", "Scalar")),
    "logical_and": Operator(single("And")),
    "logical_or": Operator(single("Or")),
    "logical_not": Operator(single("Not")),
    "bitwise_and": Operator(single("And"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_or": Operator(single("Or"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_not": Operator(single("Not"), refuse=_refuse_numbers),
    "isnan": Operator(single("IsNaN")),
    "where": Operator(single("Where"), overloads=()),
    "_to_copy": Operator(_cast, overloads=()),
}
