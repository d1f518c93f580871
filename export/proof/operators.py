"""One block's spellings, compared with the operators of a file that read the same values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import NodeProto

from export.graph import Node

from .differences import Difference, compared
from .reading import Model
from .spelling import Integers, Source, Spelling, Step, Tensor
from .spellings import COMMUTATIVE, SPELLINGS, WITHOUT_EFFECT

Match = tuple[tuple[NodeProto, ...], str, list[Difference]]


def matches(node: Node, inputs: Sequence[str], model: Model, used: set[int]) -> Iterator[Match]:
    """Where a block's spellings fit: the operators, the value they give, and the constants that differ."""
    for spelling in SPELLINGS[node.op](node):
        given: dict[Source, str] = {"x" if i == 0 else f"x{i}": name for i, name in enumerate(inputs)}
        yield from _extend(node, spelling, given, (), model, used, [])


def _extend(
    node: Node,
    spelling: Spelling,
    values: dict[Source, str],
    nodes: tuple[NodeProto, ...],
    model: Model,
    used: set[int],
    differences: list[Difference],
) -> Iterator[Match]:
    """The rest of a spelling after its first ``nodes``; constants that differ do not end the search, wiring does."""
    if len(nodes) == len(spelling):
        yield nodes, nodes[-1].output[0], differences
        return
    step = spelling[len(nodes)]
    known = next(values[source] for source in step.inputs if source in values)
    for candidate in model.consumers(known):
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
            yield from _extend(node, spelling, held, (*nodes, candidate), model, used, differences + found)


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
    if isinstance(source, Integers):
        held = model.constants.get(name)
        fits = held is not None and held.dtype == np.int64 and held.reshape(-1).tolist() == list(source.values)
        return [] if fits else None
    if isinstance(source, Tensor):
        tensor = node.tensors.get(source.role)
        if tensor is None and source.default is None:
            return [] if not name or not _nonzero(name, model) else None
        expected = tensor.values if tensor is not None else np.full(node.shape[-1:], source.default, np.float32)
        what = source.role if tensor is None else f"{source.role} ({tensor.name})"
    else:
        value = source.value(node) if callable(source.value) else source.value
        expected, what = np.asarray(value, dtype=np.float32), "a constant"
    if isinstance(source, Tensor) and not name:
        return [Difference(node.path, what, expected.size, expected.size, (), "missing", "there")]
    held = model.constants.get(name)
    if held is None:
        return None
    if isinstance(source, Tensor):
        held = _as_block_holds(source, held, candidate)
    if expected.ndim == 1 and held.size in (1, expected.size):
        held = np.broadcast_to(held.reshape(-1), expected.shape)
    elif expected.ndim == 0 and held.size and bool((held == held.flat[0]).all()):  # one number for every feature
        held = held.reshape(-1)[:1]
    return compared(held, expected, node.path, what, exact=isinstance(source, Tensor))


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
        if _plain(have) != _plain(wanted):
            found.append(Difference(node.path, name, 1, 1, (), _plain(have), _plain(wanted)))
    found += [Difference(node.path, name, 1, 1, (), _plain(value), "not there") for name, value in given.items()]
    # A spelling of another opset: without the attribute the operator means something else.
    return found + [
        Difference(node.path, name, 1, 1, (), "not there", _plain(value(node) if callable(value) else value))
        for name, value in step.attributes.items()
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
