"""A pattern: a small graph of ONNX operators, written as nested operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from export.evaluation import schema
from export.graph import Node, Shape

Value = float | int | str | tuple[float, ...] | Callable[[Node], float]
COMMUTATIVE = ("Add", "Mul", "Sum", "Min", "Max", "And", "Or", "Equal")


@dataclass(frozen=True)
class Tensor:
    """A constant that must have the bits of the node's tensor ``role``; ``transposed`` for a matrix stored (in, out).

    ``default`` stands for every entry where the node has no such tensor; None means that the input is then left out.
    The file's constant is negated, or multiplied by the operator's attribute ``times``, before it is compared.
    """

    role: str
    transposed: bool = False
    default: float | None = None
    negated: bool = False
    times: str | None = None


@dataclass(frozen=True)
class Constant:
    """A number that is no tensor of the module."""

    value: Value


@dataclass(frozen=True)
class Integers:
    """Whole numbers, such as the axes of a reduction: those given, or what ``accepts`` takes."""

    values: tuple[int, ...] = ()
    accepts: Callable[[list[int]], bool] | None = field(default=None, compare=False)

    def fit(self, values: list[int]) -> bool:
        return values == list(self.values) if self.accepts is None else self.accepts(values)


@dataclass(frozen=True)
class Sizes:
    """A shape that the file gives, or computes of the batch's size."""

    shape: Shape


@dataclass(frozen=True)
class OneOf:
    """Values of an attribute that mean the same, such as an axis counted from either end."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Op:
    """An operator on inputs. Attributes that are not named have their default in ONNX; those that are belong to the
    operator in the opset of the file, so that a pattern of another opset does not fit. ``free`` ones are any number.
    """

    name: str
    inputs: tuple[Input, ...]
    attributes: tuple[tuple[str, Value | OneOf], ...] = ()
    free: tuple[str, ...] = ()


X = "x"
"""The node's input; further ones are "x1", "x2" and so on."""
ABSENT = None
"""An optional input that is left out before others."""
Input = str | None | Tensor | Constant | Integers | Sizes | Op
Source = int | str | None | Tensor | Constant | Integers | Sizes
"""What a step reads: the node's input, the value of an earlier step, or a constant."""


@dataclass(frozen=True)
class Step:
    """One operator of a pattern, and where its inputs come from."""

    op: str
    inputs: tuple[Source, ...]
    attributes: dict[str, Value | OneOf]
    free: tuple[str, ...] = ()


Pattern = tuple[Step, ...]


def op(name: str, *inputs: Input | float, **attributes: Value | OneOf) -> Op:
    """An operator; a number among the inputs stands for a constant."""
    given = tuple(Constant(part) if isinstance(part, float | int) else part for part in inputs)
    return Op(name, given, tuple(attributes.items()))


def patterns(*roots: Op) -> list[Pattern]:
    """The patterns as steps in an order in which each reads what is there; the same operator stands once."""
    return [tuple(_steps(root)) for root in roots]


def each(make: Callable[..., Op | Iterable[Op]], *parts: Iterable[Op]) -> list[Op]:
    """What ``make`` gives for every choice of its parts."""
    made = (make(*chosen) for chosen in product(*parts))
    return [one for given in made for one in ([given] if isinstance(given, Op) else given)]


def option(name: str) -> Callable[[Node], float]:
    """A number among the node's attributes."""
    return lambda node: float(node.attributes[name])


def operands(node: Node) -> list[Input]:
    """The node's tensor arguments in the order of its schema: values, constants, and numbers as constants."""
    places = iter(range(len(node.inputs)))
    found: list[Input] = []
    for role, kind, *_ in schema(node.op, node.overload)[1]:
        if kind == "List[Tensor]":
            count = len(node.inputs) + sum(key.startswith(f"{role}.") for key in node.tensors)
            keys = [f"{role}.{i}" for i in range(count)]
            found += [Tensor(key) if key in node.tensors else value(next(places)) for key in keys]
        elif role in node.tensors:
            found.append(Tensor(role))
        elif role in node.attributes:
            found += [Constant(option(role))] if kind in ("Tensor", "number") else []
        elif kind == "Tensor" and (place := next(places, None)) is not None:
            found.append(value(place))
    return found


def value(place: int) -> str:
    """The name of the node's input at a place."""
    return X if place == 0 else f"x{place}"


def one(name: str) -> Callable[[Node], list[Pattern]]:
    """One operator on all operands."""
    return lambda node: patterns(op(name, *operands(node)))


def axis(node: Node, role: str = "dim", rank: int | None = None) -> OneOf:
    """An axis counted from either end."""
    dim, rank = node.attributes[role], len(node.shape) if rank is None else rank
    return OneOf((dim, dim - rank))


def same(node: Node, role: str, number: float) -> bool:
    """Whether a constant of the node is one number everywhere, so that another operator does the same."""
    held = node.tensors[role].values if role in node.tensors else node.attributes.get(role)
    return held is not None and bool(np.all(np.asarray(held) == number))


def free(made: Op, *names: str) -> Op:
    """The operator with attributes that may be any number."""
    return replace(made, free=names)


def _steps(root: Op) -> Iterator[Step]:
    places: dict[Op, int] = {}

    def walk(node: Op) -> Iterator[Step]:
        for part in node.inputs:
            if isinstance(part, Op) and part not in places:
                yield from walk(part)
        sources = tuple(places[part] if isinstance(part, Op) else part for part in node.inputs)
        places[node] = len(places)
        yield Step(node.name, sources, dict(node.attributes), node.free)

    return walk(root)
