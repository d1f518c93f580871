"""Comparisons, choices and changes of type."""

from __future__ import annotations

from export.emitter import Emitter
from export.graph import ELEMENT_TYPES, Node

from .table import Lower, Operator, one

_COMPARED = {"gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal"}


def _not_equal(emit: Emitter, node: Node) -> None:
    emit.last("Not", node, emit.step("Equal", node, *emit.operands(node)))


def _cast(emit: Emitter, node: Node) -> None:
    emit.last("Cast", node, *node.inputs, to=ELEMENT_TYPES[node.dtype])


def _truth(op_type: str) -> Lower:
    """On values that are true or false."""

    def lower(emit: Emitter, node: Node) -> None:
        emit.last(op_type, node, *emit.operands(node))

    return lower


def _refuse_numbers(node: Node) -> str | None:
    return None if node.dtype == "bool" else "it is for values that are true or false, and these are whole numbers"


OPERATORS = {
    **{name: Operator(one(op_type), overloads=("Tensor", "Scalar")) for name, op_type in _COMPARED.items()},
    "ne": Operator(_not_equal, overloads=("Tensor", "Scalar")),
    "logical_and": Operator(_truth("And")),
    "logical_or": Operator(_truth("Or")),
    "logical_not": Operator(_truth("Not")),
    "bitwise_and": Operator(_truth("And"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_or": Operator(_truth("Or"), overloads=("Tensor",), refuse=_refuse_numbers),
    "bitwise_not": Operator(_truth("Not"), refuse=_refuse_numbers),
    "isnan": Operator(one("IsNaN")),
    "where": Operator(one("Where"), overloads=()),
    "_to_copy": Operator(_cast, overloads=()),
}
