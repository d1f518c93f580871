"""One node's patterns, compared with the operators of a file that read the same values: what fits, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from export.graph import Node

from .model import Model
from .patterns import PATTERNS
from .patterns.language import COMMUTATIVE, Integers, OneOf, Pattern, Sizes, Source, Step, Tensor

WITHOUT_EFFECT = {("BatchNormalization", "momentum")}
"""Attributes that inference does not read."""


@dataclass(frozen=True)
class Difference:
    """A constant or an attribute that is not the module's: what, where in it, and both values."""

    path: str
    what: str
    count: int
    size: int
    index: tuple[int, ...]
    file: float | str
    module: float | str
    ulp: int = 0
    """The largest distance, in float32 numbers."""
    folded: bool = False

    def __str__(self) -> str:
        if not self.index:
            return f"{self.what} of '{self.path}' is {self.file}, and the module's is {self.module}"
        if self.folded:
            rounding = f"{self.count:,} of {self.size:,} values, by at most {self.ulp:,} ulp"
            found = f"first at {list(self.index)}: file {self.file!r}, folded from the module {self.module!r}"
            cause = " (another exporter's folding, which rounds more than once?)" if self.ulp <= 16 else ""
            return f"{self.what} of '{self.path}' is not what folding the module gives in {rounding}{cause}, {found}"
        many = f"{self.count:,} of {self.size:,} values" if self.size > 1 else "its value"
        where = f"first at {list(self.index)}: file {self.file!r}, module {self.module!r}"
        far = f", by at most {self.ulp:,} ulp" if self.ulp else ""
        return f"{self.what} of '{self.path}' differs from the module's in {many}{far}, {where}"


Match = tuple[tuple[NodeProto, ...], str, list[Difference]]


def matches(node: Node, inputs: Sequence[str], model: Model, used: set[int]) -> Iterator[Match]:
    """Where a node's patterns fit: the operators, the value they give, and the constants that differ."""
    for pattern in PATTERNS[node.op](node):
        given: dict[Source, str] = {"x" if i == 0 else f"x{i}": name for i, name in enumerate(inputs)}
        yield from _extend(node, pattern, given, (), model, used, [])


def _extend(
    node: Node,
    pattern: Pattern,
    values: dict[Source, str],
    nodes: tuple[NodeProto, ...],
    model: Model,
    used: set[int],
    differences: list[Difference],
) -> Iterator[Match]:
    """The rest of a pattern after its first ``nodes``; constants that differ do not end the search, wiring does."""
    if len(nodes) == len(pattern):
        yield nodes, nodes[-1].output[0], differences
        return
    step = pattern[len(nodes)]
    known = next((values[source] for source in step.inputs if source in values), None)
    for candidate in model.nodes if known is None else model.consumers(known):
        if (
            candidate.op_type != step.op
            or id(candidate) in used
            or candidate in nodes
            or candidate.domain not in ("", "ai.onnx")
        ):
            continue
        found = _compare(node, step, candidate, values, model)
        if found is not None:
            held = {**values, len(nodes): candidate.output[0]}
            yield from _extend(node, pattern, held, (*nodes, candidate), model, used, differences + found)


def _compare(
    node: Node, step: Step, candidate: NodeProto, values: dict[Source, str], model: Model
) -> list[Difference] | None:
    """What differs in the constants and attributes of one operator; None where it is wired differently."""
    if "alpha" in step.free and not all(_is_power_of_two(a.f) for a in candidate.attribute if a.name in step.free):
        return None  # its products are rounded once more
    names = list(candidate.input)
    while names and not names[-1]:
        names.pop()
    orders = [names, names[::-1]] if step.op in COMMUTATIVE else [names]
    for order in orders:
        found = [
            _read(node, source, order[i] if i < len(order) else "", candidate, values, model)
            for i, source in enumerate(step.inputs)
        ]
        if len(order) <= len(step.inputs) and all(part is not None for part in found):
            try:
                return [d for part in found if part for d in part] + _attributes(node, step, candidate, model)
            except onnx.defs.SchemaError:  # the file's opset has no such operator
                return None
    return None


def _read(
    node: Node, source: Source, name: str, candidate: NodeProto, values: dict[Source, str], model: Model
) -> list[Difference] | None:
    if source is None:
        return None if name else []
    if isinstance(source, int | str):
        return [] if model.value(name) == values[source] else None
    if isinstance(source, Sizes):
        return [] if model.sizes(name) == source.shape else None
    if isinstance(source, Integers):
        held = model.constants.get(name)
        fits = held is not None and held.dtype == np.int64 and source.fit(held.reshape(-1).tolist())
        return [] if fits else None
    if isinstance(source, Tensor):
        tensor = node.tensors.get(source.role)
        if tensor is None and source.default is None:
            return [] if not name or not _nonzero(name, model) else None
        expected = tensor.values if tensor is not None else _filled(node, source.default or 0.0)
        what = source.role if tensor is None else f"{source.role} ({tensor.name})"
    else:
        expected, what = _number(node, source.value, model, name), "a constant"
    if isinstance(source, Tensor) and not name:
        return [Difference(node.path, what, expected.size, expected.size, (), "missing", "there")]
    held = model.constants.get(name)
    if held is None:
        return None
    if isinstance(source, Tensor):
        held = _as_block_holds(source, held, candidate)
    return compared(*_broadcast(held, expected), node.path, what, exact=isinstance(source, Tensor))


def _filled(node: Node, number: float) -> np.ndarray:
    """A constant that the node leaves out: as large as those beside it, else as what is normalised."""
    shape = next((t.values.shape for t in node.tensors.values()), tuple(node.attributes.get("normalized_shape", (1,))))
    return np.full(shape, number, np.float32)


def _number(node: Node, value: Any, model: Model, name: str) -> np.ndarray:
    held = model.constants.get(name)
    kind = held.dtype if held is not None and held.dtype == np.int64 else np.float32
    with np.errstate(invalid="ignore"):  # infinity as a whole number equals none of the file's
        return np.asarray(value(node) if callable(value) else value).astype(kind)


def _broadcast(held: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in one shape where they broadcast alike: leading dimensions of 1, or one number for every feature."""
    plain = [
        part.shape[next((i for i, n in enumerate(part.shape) if n != 1), part.ndim) :] for part in (held, expected)
    ]
    if plain[0] == plain[1] and held.shape != expected.shape:
        return held.reshape(expected.shape), expected
    if expected.ndim == 1 and held.size in (1, expected.size):
        return np.broadcast_to(held.reshape(-1), expected.shape), expected
    if held.size == expected.size and [n for n in held.shape if n > 1] == [n for n in expected.shape if n > 1]:
        return held.reshape(expected.shape), expected
    if expected.size == 1 and held.size and bool((held == held.flat[0]).all()):
        return held.reshape(-1)[:1], expected.reshape(-1)
    return held, expected


def _as_block_holds(source: Tensor, held: np.ndarray, candidate: NodeProto) -> np.ndarray:
    """A constant of the file as the block would hold it: turned, negated, multiplied by an attribute."""
    if held.dtype != np.float32:
        return held
    factor = next((a.f for a in candidate.attribute if a.name == source.times), 1.0)
    held = held.T if source.transposed else held
    # A sum with -0 is a sum with 0, and 0 - 0 is 0.
    return 0 - held if source.negated else held if factor == 1 else held * np.float32(factor) + 0


def _is_power_of_two(number: float) -> bool:
    return abs(float(np.frexp(number)[0])) == 0.5


def _nonzero(name: str, model: Model) -> bool:
    held = model.constants.get(name)
    return held is None or bool(held.any())


def _attributes(node: Node, step: Step, candidate: NodeProto, model: Model) -> list[Difference]:
    schema = onnx.defs.get_schema(candidate.op_type, max(1, model.opset), "")
    given = {a.name: _value(a) for a in candidate.attribute if (step.op, a.name) not in WITHOUT_EFFECT}
    found = []
    for name, description in schema.attributes.items():
        if (step.op, name) in WITHOUT_EFFECT or name in step.free:
            given.pop(name, None)
            continue
        default = onnx.helper.get_attribute_value(description.default_value) if description.default_value.name else None
        wanted = step.attributes.get(name, default)
        wanted = wanted(node) if callable(wanted) else wanted
        have = given.pop(name, default)
        if isinstance(wanted, OneOf):
            wanted = next((each for each in wanted.values if _plain(each) == _plain(have)), wanted.values[0])
        if _plain(have) != _plain(wanted):
            found.append(Difference(node.path, name, 1, 1, (), _plain(have), _plain(wanted)))
    found += [Difference(node.path, name, 1, 1, (), _plain(value), "not there") for name, value in given.items()]
    # A pattern of another opset: without the attribute the operator means something else.
    return found + [
        Difference(node.path, name, 1, 1, (), "not there", "another opset's")
        for name in step.attributes
        if name not in schema.attributes
    ]


def _value(attribute: onnx.AttributeProto) -> object:
    return "a reference" if attribute.ref_attr_name else onnx.helper.get_attribute_value(attribute)


def _plain(value: object) -> float | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return str(list(value))
    return float(np.float32(value)) if isinstance(value, int | float) else str(value)


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A number among the attributes of an operator."""
    return next((a.f if a.type == a.FLOAT else a.i for a in node.attribute if a.name == name), default)


def compared(
    held: np.ndarray, expected: np.ndarray, path: str, what: str, *, exact: bool = True
) -> list[Difference] | None:
    """The difference between two constants, bit for bit; None for other shapes. A single number fits every shape."""
    if held.shape != expected.shape and (exact or held.size != 1):
        return None
    if held.dtype != np.float32 or expected.dtype != np.float32:
        return _whole(held, expected, path, what) if held.dtype == expected.dtype else None
    wanted = np.ascontiguousarray(expected, dtype=np.float32).reshape(held.shape)
    bits, right = np.ascontiguousarray(held).view(np.int32), wanted.view(np.int32)
    apart = bits != right
    if not apart.any():
        return []
    first = np.unravel_index(int(np.argmax(apart)), held.shape)
    index = tuple(int(i) for i in first)
    ulp = max(_distance_in_ulp(a, b) for a, b in zip(np.atleast_2d(bits), np.atleast_2d(right), strict=True))
    return [Difference(path, what, int(apart.sum()), held.size, index, float(held[first]), float(wanted[first]), ulp)]


def _whole(held: np.ndarray, expected: np.ndarray, path: str, what: str) -> list[Difference]:
    """The difference between whole numbers, or between truths."""
    wrong = held != expected.reshape(held.shape)
    if not wrong.any():
        return []
    first = np.unravel_index(int(np.argmax(wrong)), held.shape)
    index = tuple(int(i) for i in first)
    values = held[first].item(), expected.reshape(held.shape)[first].item()
    return [Difference(path, what, int(wrong.sum()), held.size, index, *values)]


def _distance_in_ulp(a: np.ndarray, b: np.ndarray) -> int:
    """How many float32 numbers lie between two rows of them, given as bits, at most; NaN and infinity aside."""
    finite = np.isfinite(a.view(np.float32)) & np.isfinite(b.view(np.float32))
    first, second = (np.where(wide >= 0, wide, -(2**31) - wide) for wide in (a.astype(np.int64), b.astype(np.int64)))
    return int(np.abs(first - second)[finite].max(initial=0))
