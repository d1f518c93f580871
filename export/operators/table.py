"""What an operator becomes in a file: one row each, gathered from the families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.emitter import Emitter
from export.graph import Node, Shape

Lower = Callable[[Emitter, Node], object]


@dataclass(frozen=True)
class Operator:
    """How an ATen operator is written; ``overloads`` are those that the trace takes as they are."""

    lower: Lower
    overloads: tuple[str, ...] = ("default",)
    refuse: Callable[[Node], str | None] = lambda node: None
    """Why this one cannot be written, if it cannot."""
    multiply_adds: Callable[[Node], int] = lambda node: 0
    """Of a row."""


def open_sizes(shape: Shape) -> list[int]:
    """A shape as a Reshape takes it: the size that grows with the batch is what is left over."""
    return [size if isinstance(size, int) else -1 for size in shape]


def one(op_type: str, **attributes: str) -> Lower:
    """One ONNX node on all operands; ``alpha="negative_slope"`` fills an attribute from an option, as float32."""

    def lower(emit: Emitter, node: Node) -> None:
        values: dict[str, Any] = {name: emit.float32(node.attributes[option]) for name, option in attributes.items()}
        emit.last(op_type, node, *emit.operands(node, numbers=not attributes), **values)

    return lower


def chain(*steps: str) -> Lower:
    """Nodes of one input, one after the other."""

    def lower(emit: Emitter, node: Node) -> None:
        (value,) = emit.operands(node)
        for step in steps[:-1]:
            value = emit.step(step, node, value)
        emit.last(steps[-1], node, value)

    return lower
