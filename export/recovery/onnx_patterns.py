"""Small graphs of operators as patterns, and finding them in a file from their last operator back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .onnx_graph import OnnxGraph, Operator


@dataclass(frozen=True)
class Input:
    """The value that the whole pattern reads: the same one wherever it stands."""


@dataclass(frozen=True)
class Number:
    """A constant of one entry that is this number in float32."""

    value: float


@dataclass(frozen=True)
class Constant:
    """Any constant, kept under this name; where the name stands twice, the constants must be equal."""

    role: str


@dataclass(frozen=True)
class Anything:
    """Whatever stands there, or nothing; who builds the block looks at it."""


@dataclass(frozen=True)
class Call:
    """An operator and what it reads. Both orders count for operators that commute."""

    kind: str
    inputs: tuple[Pattern, ...]


@dataclass(frozen=True)
class Either:
    """One of several patterns."""

    choices: tuple[Pattern, ...]


Pattern = Input | Number | Constant | Anything | Call | Either
COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})


@dataclass(frozen=True)
class Match:
    """Where a pattern was found. ``rank`` is the most dimensions that any of its numbers has."""

    input: str | None = None
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    operators: tuple[Operator, ...] = ()
    rank: int = 0

    @property
    def last(self) -> Operator:
        """The operator that gives the result."""
        return self.operators[0]


def find(pattern: Pattern, value: str, graph: OnnxGraph, stop: str) -> Match | None:
    """The pattern that gives ``value``, with no operator that ``stop`` or something before it comes from."""
    return next((m for m in _matches(pattern, value, graph, stop, Match()) if m.input is not None), None)


def roots(pattern: Pattern) -> set[str]:
    """The operators that may give the result of a pattern."""
    if isinstance(pattern, Either):
        return {kind for choice in pattern.choices for kind in roots(choice)}
    return {pattern.kind} if isinstance(pattern, Call) else set()


def kinds(pattern: Pattern) -> set[str]:
    """All operators of a pattern."""
    if isinstance(pattern, Either):
        return {kind for choice in pattern.choices for kind in kinds(choice)}
    if isinstance(pattern, Call):
        return {pattern.kind}.union(*(kinds(part) for part in pattern.inputs))
    return set()


def _matches(pattern: Pattern, value: str, graph: OnnxGraph, stop: str, found: Match) -> Iterator[Match]:
    constant = graph.constants.get(value)
    match pattern:
        case Either(choices):
            for choice in choices:
                yield from _matches(choice, value, graph, stop, found)
        case Input():
            if value and constant is None and found.input in (None, value):
                yield replace(found, input=value)
        case Number(number):
            if constant is not None and constant.size == 1 and _equal(constant, number):
                yield replace(found, rank=max(found.rank, constant.ndim))
        case Constant(role):
            if constant is not None and _same(found.constants.get(role, constant), constant):
                yield replace(found, constants={**found.constants, role: constant})
        case Anything():
            yield found
        case Call():
            yield from _calls(pattern, value, graph, stop, found)


def _calls(pattern: Call, value: str, graph: OnnxGraph, stop: str, found: Match) -> Iterator[Match]:
    operator = graph.makers.get(value)
    if operator is None or value == stop or operator.kind != pattern.kind or operator.outputs[0] != value:
        return
    if len(operator.inputs) != len(pattern.inputs):
        return
    orders = [operator.inputs]
    if pattern.kind in COMMUTATIVE and len(operator.inputs) == 2:
        orders.append(operator.inputs[::-1])
    for order in orders:
        partial = [replace(found, operators=(*found.operators, operator))]
        for part, name in zip(pattern.inputs, order, strict=True):
            partial = [later for earlier in partial for later in _matches(part, name, graph, stop, earlier)]
        yield from partial


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first is second or (first.shape == second.shape and first.tobytes() == second.tobytes())


def _equal(constant: np.ndarray, number: float) -> bool:
    return constant.dtype.kind in "if" and float(constant.reshape(-1)[0]) == float(np.float32(number))
