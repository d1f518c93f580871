"""An ONNX file's graph as plain data: operators in their order, constants, one input and one output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

Attribute = float | int | str | tuple[float, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One node. ``attributes`` holds the defaults of the file's opset where the node has none of its own."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def __str__(self) -> str:
        return f"{self.kind} '{self.name or self.outputs[0]}'"

    def number(self, attribute: str) -> float:
        """A number among the attributes, as the shortest decimal that is the same float32. KeyError: not there."""
        return shortest(self.attributes[attribute])

    def integer(self, attribute: str) -> int:
        """An integer among the attributes. KeyError: not there."""
        value = self.attributes[attribute]
        assert isinstance(value, int)
        return value

    def integers(self, attribute: str) -> tuple[int, ...] | None:
        """A list of integers among the attributes, None where it is not there."""
        value = self.attributes.get(attribute)
        return tuple(int(entry) for entry in value) if isinstance(value, tuple) else None


@dataclass(frozen=True)
class OnnxGraph:
    """What a file computes. ``dims`` are the input's dimensions, None where a size is free.

    ``output`` is the value that comes out, and ``output_name`` what the file calls it.
    """

    path: Path
    opset: int
    input: str
    dims: tuple[int | None, ...]
    output: str
    output_name: str
    operators: tuple[Operator, ...]
    constants: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()

    @cached_property
    def makers(self) -> dict[str, Operator]:
        """The operator that gives a value."""
        return {value: operator for operator in self.operators for value in operator.outputs if value}

    @cached_property
    def places(self) -> dict[str, int]:
        """Where in the order of execution a value stands; -1 for the input."""
        made = {value: i for i, operator in enumerate(self.operators) for value in operator.outputs if value}
        return {self.input: -1} | made


def shortest(value: object) -> float:
    """A float32 number as the shortest decimal that rounds to it: 0.01 rather than 0.009999999776482582."""
    return float(str(np.float32(value)))  # type: ignore[arg-type]
