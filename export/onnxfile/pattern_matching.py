"""Matching a node's patterns with the operators of a file that read the same values, constant by constant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import onnx
from onnx import NodeProto

from export.graph import Node

from .model import Model
from .patterns import PATTERNS
from .patterns.language import COMMUTATIVE, Integers, NodeTensor, OneOf, Pattern, Sizes, Source, Step, input_name

_WITHOUT_EFFECT = {("BatchNormalization", "momentum")}
"""Attributes that do not matter in inference."""


@dataclass(frozen=True)
class Difference:
    """A constant or an attribute of the file that is not the module's: what differs, where, and both values."""

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
    role: str = ""
    computed: np.ndarray | None = None
    """The file's constant, where the forward computes it in float32 and the file's is at most 1 ulp from that."""

    def __str__(self) -> str:
        if not self.index:
            return f"{self.what} of '{self.path}' is {self.file}, and the module's is {self.module}"
        if self.folded:
            rounding = f"{self.count:,} of {self.size:,} values, by at most {self.ulp:,} ulp"
            first = f"first at {list(self.index)}: file {self.file!r}, folded from the module {self.module!r}"
            cause = " (another exporter's folding, which rounds more than once?)" if self.ulp <= 16 else ""
            return f"{self.what} of '{self.path}' is not what folding the module gives in {rounding}{cause}, {first}"
        count = f"{self.count:,} of {self.size:,} values" if self.size > 1 else "its value"
        distance = f", by at most {self.ulp:,} ulp" if self.ulp else ""
        first = f"first at {list(self.index)}: file {self.file!r}, module {self.module!r}"
        return f"{self.what} of '{self.path}' differs from the module's in {count}{distance}, {first}"


Match = tuple[tuple[NodeProto, ...], str, list[Difference]]
"""The operators, the value they give, and the differences."""


def matches(node: Node, inputs: Sequence[str], model: Model, used: set[int]) -> Iterator[Match]:
    """The matches of a node's patterns with operators that read ``inputs`` and are not ``used``."""
    for pattern in PATTERNS[node.op](node):
        values: dict[Source, str] = {input_name(index): name for index, name in enumerate(inputs)}
        yield from _extend(node, pattern, values, (), model, used, [])


def _extend(
    node: Node,
    pattern: Pattern,
    values: dict[Source, str],
    nodes: tuple[NodeProto, ...],
    model: Model,
    used: set[int],
    differences: list[Difference],
) -> Iterator[Match]:
    """The matches that begin with ``nodes``; a different constant does not end the search, another input does."""
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
        more = _step_differences(node, step, candidate, values, model)
        if more is not None:
            extended = {**values, len(nodes): candidate.output[0]}
            yield from _extend(node, pattern, extended, (*nodes, candidate), model, used, differences + more)


def _step_differences(
    node: Node, step: Step, candidate: NodeProto, values: dict[Source, str], model: Model
) -> list[Difference] | None:
    """What differs in the constants and attributes of one operator; None where it reads other values."""
    if "alpha" in step.free and not all(_is_free(a.f) for a in candidate.attribute if a.name in step.free):
        return None
    names = list(candidate.input)
    while names and not names[-1]:
        names.pop()
    if len(names) > len(step.inputs):
        return None
    missing = [""] * (len(step.inputs) - len(names))
    for order in (names, names[::-1]) if step.op in COMMUTATIVE else (names,):
        pairs = zip(step.inputs, order + missing, strict=True)
        by_input = [_input_differences(node, source, name, candidate, values, model) for source, name in pairs]
        if all(differences is not None for differences in by_input):
            try:
                of_inputs = [difference for differences in by_input if differences for difference in differences]
                return of_inputs + _attribute_differences(node, step, candidate, model)
            except onnx.defs.SchemaError:  # the file's opset does not have this operator
                return None
    return None


def _input_differences(
    node: Node, source: Source, name: str, candidate: NodeProto, values: dict[Source, str], model: Model
) -> list[Difference] | None:
    """What differs in one input, ``name`` in the file; None where it is another value."""
    constant = model.constants.get(name)
    if source is None:
        return None if name else []
    if isinstance(source, int | str):
        return [] if model.value(name) == values[source] else None
    if isinstance(source, Sizes):
        return [] if model.sizes(name) == source.shape else None
    if isinstance(source, Integers):
        if constant is None or constant.dtype != np.int64:
            return None
        return [] if source.fits(constant.reshape(-1).tolist()) else None
    if not isinstance(source, NodeTensor):
        if constant is None:
            return None
        with np.errstate(invalid="ignore"):  # infinity as an integer equals none of the file's
            number = np.asarray(source.value(node) if callable(source.value) else source.value)
            expected = number.astype(np.int64 if constant.dtype == np.int64 else np.float32)
        if constant.dtype == np.int64 and bool((expected != number).any()):  # no integer is this number
            return [Difference(node.path, "a constant", 1, 1, (), "an integer", float(number.flat[0]))]
        return _constant_differences(*_broadcast(constant, expected), node.path, "a constant", exact=False)
    tensor = node.tensors.get(source.role)
    if tensor is None and source.default is None:
        return [] if not name or (constant is not None and not constant.any()) else None
    expected = tensor.values if tensor is not None else _default(node, source.default or 0.0)
    what = source.role if tensor is None else f"{source.role} ({tensor.name})"
    if not name:
        if source.role == "bias" and not expected.any():
            return []
        return [Difference(node.path, what, expected.size, expected.size, (), "missing", "there")]
    if constant is None:
        return None
    constant, expected = _broadcast(_as_module_holds(source, constant, candidate), expected)
    differences = _constant_differences(constant, expected, node.path, what)
    if differences and tensor is not None and tensor.computed and _is_as_near(constant, expected):
        return [replace(difference, role=source.role, computed=np.array(constant)) for difference in differences]
    return differences


def _is_as_near(constant: np.ndarray, expected: np.ndarray) -> bool:
    """Whether another library may have computed a constant: a root, for one, is not rounded alike by all of them."""
    if constant.dtype != np.float32 or not (np.isfinite(constant) == np.isfinite(expected)).all():
        return False
    lower, upper = np.nextafter(expected, np.float32(-np.inf)), np.nextafter(expected, np.float32(np.inf))
    near = ((constant == lower) | (constant == upper)) & (constant * expected != 0)
    return bool(((constant == expected) | near).all())


def _default(node: Node, number: float) -> np.ndarray:
    """A constant that the node leaves out, in the shape of its other constants, else of what it normalises."""
    shape = next((t.values.shape for t in node.tensors.values()), tuple(node.attributes.get("normalized_shape", (1,))))
    return np.full(shape, number, np.float32)


def _broadcast(constant: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in one shape where they broadcast alike: leading dimensions of 1, or one number for every feature."""
    trimmed = [
        part.shape[next((i for i, n in enumerate(part.shape) if n != 1), part.ndim) :] for part in (constant, expected)
    ]
    if trimmed[0] == trimmed[1] and constant.shape != expected.shape:
        return constant.reshape(expected.shape), expected
    if expected.ndim == 1 and constant.size in (1, expected.size):
        return np.broadcast_to(constant.reshape(-1), expected.shape), expected
    if constant.size == expected.size and [n for n in constant.shape if n > 1] == [n for n in expected.shape if n > 1]:
        return constant.reshape(expected.shape), expected
    if expected.size == 1 and constant.size and bool((constant == constant.flat[0]).all()):
        return constant.reshape(-1)[:1], expected.reshape(-1)
    return constant, expected


def _as_module_holds(source: NodeTensor, constant: np.ndarray, candidate: NodeProto) -> np.ndarray:
    """A constant of the file as the module holds it: transposed, negated, multiplied by an attribute."""
    if constant.dtype != np.float32:
        return constant
    factor = next((a.f for a in candidate.attribute if a.name == source.times), 1.0)
    constant = constant.T if source.transposed else constant
    # A sum with -0 is a sum with 0, and 0 - 0 is 0.
    return 0 - constant if source.negated else constant if factor == 1 else constant * np.float32(factor) + 0


def _is_free(factor: float) -> bool:
    """Whether a Gemm's alpha or beta may be part of its constants: its products are then rounded no more often.

    Nor do they overflow, or vanish, much earlier: activations that exporters write take up to six times the result too.
    """
    mantissa, exponent = np.frexp(factor)
    return abs(float(mantissa)) == 0.5 and abs(int(exponent) - 1) <= 3


def _attribute_differences(node: Node, step: Step, candidate: NodeProto, model: Model) -> list[Difference]:
    """What differs in an operator's attributes; one that is not there has its default in the file's opset."""
    schema = onnx.defs.get_schema(candidate.op_type, max(1, model.opset), "")
    values = {a.name: _attribute_value(a) for a in candidate.attribute if (step.op, a.name) not in _WITHOUT_EFFECT}
    differences: list[tuple[str, float | str, float | str]] = []
    for name, description in schema.attributes.items():
        if (step.op, name) in _WITHOUT_EFFECT or name in step.free:
            values.pop(name, None)
            continue
        default = onnx.helper.get_attribute_value(description.default_value) if description.default_value.name else None
        expected = step.attributes.get(name, default)
        expected = expected(node) if callable(expected) else expected
        value = _comparable(values.pop(name, default))
        if isinstance(expected, OneOf):
            expected = next((each for each in expected.values if _comparable(each) == value), expected.values[0])
        if value != _comparable(expected):
            differences.append((name, value, _comparable(expected)))
    differences += [(name, _comparable(value), "not there") for name, value in values.items()]
    # In an opset without the attribute the operator means something else.
    differences += [(name, "not there", "another opset's") for name in step.attributes if name not in schema.attributes]
    return [Difference(node.path, name, 1, 1, (), in_file, in_module) for name, in_file, in_module in differences]


def _attribute_value(attribute: onnx.AttributeProto) -> object:
    return "a reference" if attribute.ref_attr_name else onnx.helper.get_attribute_value(attribute)


def _comparable(value: object) -> float | str:
    """An attribute's value as text, or as the float32 number that it is."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return str([*cast("Sequence[object]", value)])
    return float(np.float32(value)) if isinstance(value, int | float) else str(value)


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A number among the attributes of an operator."""
    return next((a.f if a.type == a.FLOAT else a.i for a in node.attribute if a.name == name), default)


def _constant_differences(
    constant: np.ndarray, expected: np.ndarray, path: str, what: str, *, exact: bool = True
) -> list[Difference] | None:
    """What differs between two constants, floats by their bits; None for another type or shape.

    Without ``exact`` a single number may have any shape.
    """
    if constant.dtype != expected.dtype or (constant.shape != expected.shape and (exact or constant.size != 1)):
        return None
    shape = constant.shape
    constant, expected = (np.ascontiguousarray(part).reshape(shape) for part in (constant, expected))
    is_float32 = constant.dtype == np.float32
    bits, expected_bits = (part.view(np.int32) if is_float32 else part for part in (constant, expected))
    differs = np.asarray(bits != expected_bits)
    if not differs.any():
        return []
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(differs)), shape))
    values = constant[index].item(), expected[index].item()
    rows = zip(np.atleast_2d(bits), np.atleast_2d(expected_bits), strict=True) if is_float32 else ()
    ulp = max((_distance_in_ulp(a, b) for a, b in rows), default=0)
    return [Difference(path, what, int(differs.sum()), constant.size, index, *values, ulp)]


def _distance_in_ulp(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance, in float32 numbers, between two rows of them given as bits; NaN and infinity aside."""
    finite = np.isfinite(a.view(np.float32)) & np.isfinite(b.view(np.float32))
    first, second = (np.where(wide >= 0, wide, -(2**31) - wide) for wide in (a.astype(np.int64), b.astype(np.int64)))
    return int(np.abs(first - second)[finite].max(initial=0))
