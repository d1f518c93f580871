"""The language of patterns: a pattern is a small graph of ONNX operators, written as nested operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from export import evaluation
from export.graph import Node, Shape

Value = float | int | str | tuple[float, ...] | Callable[[Node], float]
COMMUTATIVE = ("Add", "Mul", "Sum", "Min", "Max", "And", "Or", "Equal")


@dataclass(frozen=True)
class NodeTensor:
    """A constant that must have the bits of the node's tensor ``role``; ``transposed`` for a matrix stored (in, out).

    Where the node has no such tensor, every element must be ``default``, or with None the input must be left out. The
    file's constant is negated, or multiplied by the operator's attribute ``times``, before it is compared.
    """

    role: str
    transposed: bool = False
    default: float | None = None
    negated: bool = False
    times: str | None = None


@dataclass(frozen=True)
class Constant:
    """A number that is not a tensor of the module."""

    value: Value


@dataclass(frozen=True)
class Integers:
    """Integers, such as the axes of a reduction: ``values``, or those that ``accepts`` takes."""

    values: tuple[int, ...] = ()
    accepts: Callable[[list[int]], bool] | None = field(default=None, compare=False)

    def fits(self, values: list[int]) -> bool:
        """Whether the file may have these integers here."""
        return values == list(self.values) if self.accepts is None else self.accepts(values)


@dataclass(frozen=True)
class Sizes:
    """A shape that the file holds, or computes from the size of the batch."""

    shape: Shape


@dataclass(frozen=True)
class OneOf:
    """Equivalent values of an attribute, such as an axis counted from either end."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Op:
    """An operator on inputs; its ``free`` attributes may be any number.

    Attributes that are not listed have their default in ONNX; those that are must exist in the opset of the file, so
    that a pattern for another opset does not match.
    """

    name: str
    inputs: tuple[Input, ...]
    attributes: tuple[tuple[str, Value | OneOf], ...] = ()
    free: tuple[str, ...] = ()


X = "x"
"""The node's input; further ones are "x1", "x2" and so on."""
ABSENT = None
"""An optional input that is left out before others."""
Input = str | None | NodeTensor | Constant | Integers | Sizes | Op
Source = int | str | None | NodeTensor | Constant | Integers | Sizes
"""What a step reads: an input of the node, the value of an earlier step by its index, or a constant."""


@dataclass(frozen=True)
class Step:
    """One operator of a pattern, and the sources of its inputs."""

    op: str
    inputs: tuple[Source, ...]
    attributes: dict[str, Value | OneOf]
    free: tuple[str, ...] = ()


Pattern = tuple[Step, ...]


def op(name: str, *inputs: Input | float, **attributes: Value | OneOf) -> Op:
    """An operator; a number among the inputs is a constant."""
    sources = tuple(Constant(part) if isinstance(part, float | int) else part for part in inputs)
    return Op(name, sources, tuple(attributes.items()))


def patterns(*roots: Op) -> list[Pattern]:
    """The patterns as steps, each after those that it reads; an operator that occurs twice is one step."""
    return [tuple(_steps(root)) for root in roots]


def each(make: Callable[[Op], Op | Iterable[Op]], parts: Iterable[Op]) -> list[Op]:
    """What ``make`` returns for every part."""
    return [op for ops in map(make, parts) for op in ([ops] if isinstance(ops, Op) else ops)]


def option(name: str) -> Callable[[Node], float]:
    """A number among the node's attributes."""
    return lambda node: float(node.attributes[name])


def operands(node: Node) -> list[Input]:
    """The node's tensor arguments in the order of its schema: values, tensors, and numbers as constants."""
    return [_operand(node, operand) for operand in evaluation.operands(node)]


def _operand(node: Node, operand: int | str) -> Input:
    if isinstance(operand, int):
        return input_name(operand)
    return NodeTensor(operand) if operand in node.tensors else Constant(option(operand))


def input_name(index: int) -> str:
    """The name in a pattern of the node's input at an index."""
    return X if index == 0 else f"x{index}"


def single(name: str) -> Callable[[Node], list[Pattern]]:
    """One operator on all operands."""
    return lambda node: patterns(op(name, *operands(node)))


def axis(node: Node, role: str = "dim", rank: int | None = None) -> OneOf:
    """An axis counted from either end."""
    dim, rank = node.attributes[role], len(node.shape) if rank is None else rank
    return OneOf((dim, dim - rank))


def is_filled_with(node: Node, role: str, number: float) -> bool:
    """Whether every element of a constant of the node is one number, so that another operator computes the same."""
    constant = node.tensors[role].values if role in node.tensors else node.attributes.get(role)
    return constant is not None and bool(np.all(np.asarray(constant) == number))


def free(operator: Op, *names: str) -> Op:
    """The operator with attributes that may be any number."""
    return replace(operator, free=names)


def _steps(root: Op) -> Iterator[Step]:
    indices: dict[Op, int] = {}

    def walk(operator: Op) -> Iterator[Step]:
        for part in operator.inputs:
            if isinstance(part, Op) and part not in indices:
                yield from walk(part)
        sources = tuple(indices[part] if isinstance(part, Op) else part for part in operator.inputs)
        indices[operator] = len(indices)
        yield Step(operator.name, sources, dict(operator.attributes), operator.free)

    return walk(root)
