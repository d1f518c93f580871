"""The chain of blocks between two values of a graph: found from its end back, then read from its start on."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from builder.blocks import BLOCKS
from builder.errors import RecoveryError

from .onnx_blocks import ENDING, TABLE, Row
from .onnx_context import Context
from .onnx_graph import OnnxGraph, Operator
from .onnx_layout import Layout, Unfit
from .onnx_patterns import Match, find, kinds
from .onnx_pieces import Piece, joined
from .onnx_words import IN_WORDS

_DEEPEST = 32
"""Residuals in residuals, more than any network has."""


@dataclass(frozen=True)
class _Step:
    """One row of the table where it was found."""

    row: Row
    found: Match


@dataclass(frozen=True)
class _Branch:
    """A sum of a value and what a chain makes of it."""

    sum: Operator
    steps: tuple[_Step | _Branch, ...]


def read_chain(graph: OnnxGraph, layout: Layout, notes: list[str]) -> tuple[list[Piece], Layout]:
    """The blocks from the graph's input to its output, and the layout of the output.

    Raises RecoveryError naming the first operator that is none of a dense network's.
    """
    context = Context(graph)
    steps = _found(graph, graph.output, graph.input, ())
    pieces, after = _read(steps, layout, graph.input, context)
    notes += context.notes
    return pieces, after


def _found(graph: OnnxGraph, end: str, start: str, sums: tuple[Operator, ...]) -> tuple[_Step | _Branch, ...]:
    """The steps from ``start`` to ``end``, which lie within these residual sums."""
    steps: list[_Step | _Branch] = []
    value = end
    while value != start:
        operator = graph.makers.get(value)
        if operator is None or graph.places[value] < graph.places[start]:
            raise _no_chain(graph, value, start, sums)
        step = _step(graph, value, operator, start)
        if step is not None:
            steps.append(step)
            assert step.found.input is not None
            value = step.found.input
            continue
        ends = sorted(operator.inputs, key=lambda name: graph.places.get(name, -2))
        if operator.kind != "Add" or len(ends) != 2 or any(name not in graph.places for name in ends):
            raise _first_unknown(graph, operator)
        if len(sums) == _DEEPEST:
            raise RecoveryError(f"{graph.path}: {operator} is in more than {_DEEPEST} residual sums in each other")
        steps.append(_Branch(operator, _found(graph, ends[1], ends[0], (*sums, operator))))
        value = ends[0]
    return tuple(reversed(steps))


def _step(graph: OnnxGraph, value: str, operator: Operator, stop: str) -> _Step | None:
    for row in ENDING.get(operator.kind, ()):
        found = find(row.pattern, value, graph, stop)
        if found is not None:
            return _Step(row, found)
    return None


def _read(
    steps: tuple[_Step | _Branch, ...], layout: Layout, start: str, context: Context
) -> tuple[list[Piece], Layout]:
    pieces: list[Piece] = []
    context.layouts[start] = layout
    value = start
    for step in steps:
        operator = step.sum if isinstance(step, _Branch) else step.found.last
        try:
            if isinstance(step, _Branch):
                read, layout = _residual(step, layout, value, context)
            else:
                read, layout = step.row.make(step.found, layout, context)
            for piece in read:
                _check(piece)
        except Unfit as reason:
            raise RecoveryError(f"{context.graph.path}: not a dense network: {operator} {reason}") from None
        pieces += read
        value = operator.outputs[0]
        context.layouts[value] = layout
    return joined(pieces), layout


def _residual(step: _Branch, layout: Layout, value: str, context: Context) -> tuple[list[Piece], Layout]:
    inner, after = _read(step.steps, layout, value, context)
    rank = max(len(layout.dims), len(after.dims))
    if layout.padded(rank) != after.padded(rank):
        raise Unfit(f"adds values of shapes {layout} and {after}; they must be equal")
    return [Piece("residual", blocks=tuple(inner) or (Piece("identity"),))], after.padded(rank)


def _check(piece: Piece) -> None:
    """Whether a block takes the options. Raises Unfit."""
    if piece.options:
        try:
            BLOCKS[piece.kind](**piece.options)
        except ValidationError as error:
            (first, *_) = error.errors(include_url=False)
            option = ".".join(map(str, first["loc"]))
            raise Unfit(f"has an option that {piece.kind} does not take: {option} {first['msg']}") from None


def _no_chain(graph: OnnxGraph, value: str, start: str, sums: tuple[Operator, ...]) -> RecoveryError:
    if not sums:
        return RecoveryError(f"{graph.path}: the output does not depend on the input, it is '{value}'")
    reason = f"adds two branches, and neither ends where the other starts ('{start}'; the other passes by '{value}')"
    return RecoveryError(f"{graph.path}: not a dense network: {sums[-1]} {reason}")


def _first_unknown(graph: OnnxGraph, here: Operator) -> RecoveryError:
    """The first operator that is part of no spelling; ``here`` where all are, each for itself."""
    explained = Context(graph).within()
    for operator in graph.operators:
        for row in ENDING.get(operator.kind, ()):
            found = find(row.pattern, operator.outputs[0], graph, "")
            if found is not None:
                explained |= {name for part in found.operators for name in part.outputs}
    sums = {o.outputs[0] for o in graph.operators if o.kind == "Add" and not graph.constants.keys() & set(o.inputs)}
    unknown = [o for o in graph.operators if o.outputs[0] not in explained | sums]
    operator = unknown[0] if unknown else here
    dependent = sum(bool(name) and name not in graph.constants for name in operator.inputs)
    if not dependent:
        words = "a computation on constants alone"
    elif dependent > 1 and operator.kind in ("MatMul", "Gemm", "Mul", "Div"):
        words = "a product or quotient of two values that both depend on the input"
    else:
        known = any(operator.kind in kinds(row.pattern) for row in TABLE)
        place = "in a place where no block has it" if known else "no operator of a block"
        words = IN_WORDS.get(operator.kind, place)
    read = ", ".join(f"'{name}'" for name in operator.inputs if name) or "nothing"
    return RecoveryError(f"{graph.path}: not a dense network: {operator} is {words} (it reads {read})")
