"""How a block may be spelt in ONNX operators: small graphs, written as nested operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from export.graph import Node

Value = float | int | str | tuple[int, ...] | Callable[[Node], float]


@dataclass(frozen=True)
class Tensor:
    """A constant that must have the bits of the block's tensor ``role``; ``transposed`` for a matrix stored (in, out).

    ``default`` stands for every entry where the block has no such tensor; None means that the input is then left out.
    The file's constant is negated, or multiplied by the operator's attribute ``times``, before it is compared.
    """

    role: str
    transposed: bool = False
    default: float | None = None
    negated: bool = False
    times: str | None = None


@dataclass(frozen=True)
class Constant:
    """A float32 number that is no tensor of the module."""

    value: Value


@dataclass(frozen=True)
class Integers:
    """Whole numbers, such as the axes of a reduction."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """An operator on inputs. Attributes that are not named have their default in ONNX; those that are belong to the
    operator in the opset of the file, so that a spelling of another opset does not fit. ``free`` ones are any number.
    """

    name: str
    inputs: tuple[Input, ...]
    attributes: tuple[tuple[str, Value], ...] = ()
    free: tuple[str, ...] = ()


X = "x"
"""The block's input; further ones are "x1", "x2" and so on."""
ABSENT = None
"""An optional input that is left out before others."""
Input = str | None | Tensor | Constant | Integers | Op
Source = int | str | None | Tensor | Constant | Integers
"""What a step reads: the block's input, the value of an earlier step, or a constant."""


@dataclass(frozen=True)
class Step:
    """One operator of a spelling, and where its inputs come from."""

    op: str
    inputs: tuple[Source, ...]
    attributes: dict[str, Value]
    free: tuple[str, ...] = ()


Spelling = tuple[Step, ...]


def op(name: str, *inputs: Input | float, **attributes: Value) -> Op:
    """An operator; a number among the inputs stands for a constant."""
    given = tuple(Constant(part) if isinstance(part, float | int) else part for part in inputs)
    return Op(name, given, tuple(attributes.items()))


def spelt(*roots: Op) -> list[Spelling]:
    """The spellings as steps in an order in which each reads what is there; the same operator stands once."""
    return [tuple(_steps(root)) for root in roots]


def each(make: Callable[..., Op | Iterable[Op]], *parts: Iterable[Op]) -> list[Op]:
    """What ``make`` gives for every choice of its parts."""
    made = (make(*chosen) for chosen in product(*parts))
    return [one for given in made for one in ([given] if isinstance(given, Op) else given)]


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
