"""Where the values of a row lie: in the caller's arrays, and in a scratch array whose parts are used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx import NodeProto

from .program import Program
from .step import Alias, Compute
from .text import in_comment

_ALIGNMENT = 4
"""Numbers; parts of the scratch array begin at multiples of it."""
_Named = Sequence[tuple[str, Alias | Compute, NodeProto]]
"""Steps with the names of their values and their operators."""


@dataclass
class Layout:
    """The statements that compute one row, and the scratch array that they need, in numbers."""

    lines: list[str] = field(default_factory=list[str])
    scratch: int = 0


@dataclass
class _Scratch:
    """Free parts of the scratch array."""

    size: int = 0
    taken: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def take(self, name: str, size: int) -> int:
        """The first place where a value fits."""
        size, place = -(-size // _ALIGNMENT) * _ALIGNMENT, 0
        for start, end in sorted(self.taken.values()):
            if start - place >= size:
                break
            place = max(place, end)
        self.taken[name] = place, place + size
        self.size = max(self.size, place + size)
        return place


def layout(program: Program, inputs: Sequence[str], outputs: Sequence[str]) -> Layout:
    """The statements of a program, for C variables of its inputs and outputs."""
    steps = [(name, step, node) for node, made in program.steps for name, step in made.items()]
    roots, places = _roots(program, steps)
    targets = _targets(program, steps, roots, places, outputs)
    last = {roots[name]: len(steps) for name in program.outputs}
    for index, (_, step, _node) in enumerate(steps):
        if isinstance(step, Compute):
            for name in step.reads:
                last[roots[name]] = max(index, last.get(roots[name], 0))
    made, scratch = Layout(), _Scratch()
    variables = dict(zip(program.inputs, inputs, strict=True))

    def pointer(name: str) -> str:
        variable, place = variables[roots[name]], places[name]
        return f"{variable} + {place}" if place else variable

    for index, (name, step, node) in enumerate(steps):
        if not isinstance(step, Compute):
            continue
        made.lines += ["", f"/* {in_comment(f'{node.op_type} {node.name}'.strip())} */"]
        reads = [pointer(read) for read in step.reads]
        read = [roots[read] for read in step.reads]
        first = read[0] if read else ""
        if name in targets:
            variables[name] = targets[name]
        elif (
            step.in_place
            and first in scratch.taken
            and last[first] == index
            and not places[step.reads[0]]
            and read.count(first) == 1  # another part of it is read at other places
        ):
            variables[name], scratch.taken[name] = variables[first], scratch.taken.pop(first)
        else:
            variables[name] = f"v{index}"
            made.lines.append(f"float *const v{index} = scratch + {scratch.take(name, step.size)};")
        made.lines += step.lines(variables[name], reads)
        for root in [root for root in scratch.taken if last.get(root, -1) <= index]:
            del scratch.taken[root]
    for name, variable in zip(program.outputs, outputs, strict=True):
        if variables.get(roots[name]) != variable or places[name]:
            size = program.size(name)
            made.lines += ["", f"memcpy({variable}, {pointer(name)}, {size} * sizeof(float));"]
    made.scratch = scratch.size
    return made


def _roots(program: Program, steps: _Named) -> tuple[dict[str, str], dict[str, int]]:
    """The value that each value is a part of, and from which number on."""
    roots, places = {name: name for name in program.inputs}, dict.fromkeys(program.inputs, 0)
    for name, step, _node in steps:
        roots[name] = roots[step.of] if isinstance(step, Alias) else name
        places[name] = places[step.of] + step.offset if isinstance(step, Alias) else 0
    return roots, places


def _targets(
    program: Program,
    steps: _Named,
    roots: Mapping[str, str],
    places: Mapping[str, int],
    outputs: Sequence[str],
) -> dict[str, str]:
    """The values that are computed in the caller's arrays, and in which."""
    sizes = {name: step.size for name, step, _node in steps if isinstance(step, Compute)}
    targets: dict[str, str] = {}
    for name, variable in zip(program.outputs, outputs, strict=True):
        root = roots[name]
        if not places[name] and sizes.get(root) == program.size(name):
            targets.setdefault(root, variable)
    return targets
