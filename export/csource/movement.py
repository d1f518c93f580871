"""Operators that put numbers at other places.

What they do is found by running them, by ONNX's reference, on two rows of the places themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, cast

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator

from export.graph import Rows

from .program import Program
from .step import Alias, Compute, Steps

_RUNS = 8
"""Up to so many parts a row is copied part by part, else number by number."""
_NAMES = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Gather")
_OTHER_ROW = 2**40


def _moved(program: Program, node: NodeProto) -> Steps:
    feed: dict[str, np.ndarray] = {}
    sources: list[str | np.ndarray] = []
    starts = [0]
    for name in dict.fromkeys(filter(None, node.input)):
        constant, sizes = program.constant(name), program.model.sizes(name)
        if constant is not None and constant.dtype == np.float32:
            places = starts[-1] + np.arange(constant.size).reshape(constant.shape)
            sources.append(constant)
        elif constant is not None:
            feed[name] = constant
            continue
        elif sizes is not None:  # two rows are run
            feed[name] = np.array([2 * size.times if isinstance(size, Rows) else size for size in sizes], np.int64)
            continue
        else:
            row = program.row(name)
            first = starts[-1] + np.arange(prod(row)).reshape(row)
            places = np.stack([first, first + _OTHER_ROW])
            for _ in range(program.leading(name)):
                places = places.reshape(-1, *places.shape[2:])
            sources.append(name)
        feed[name] = places
        starts.append(starts[-1] + places.size // (2 if isinstance(sources[-1], str) else 1))
    outputs = _run(program, node, feed)
    return {
        name: _from(program, node, sources, starts, np.asarray(values))
        for name, values in zip(node.output, outputs, strict=True)
    }


def _run(program: Program, node: NodeProto, feed: dict[str, np.ndarray]) -> Sequence[Any]:
    inputs = [onnx.ValueInfoProto(name=name) for name in feed]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    proto = program.model.proto
    graph = GraphProto(name="movement", node=[node], input=inputs, output=outputs)
    model = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, graph=graph)
    try:
        return cast("Any", ReferenceEvaluator(model)).run(None, feed)
    except Exception as error:  # in whatever words of ONNX's
        program.refuse(node, f"ONNX's reference does not run it on two rows: {error}")


def _from(
    program: Program, node: NodeProto, sources: Sequence[str | np.ndarray], starts: Sequence[int], values: np.ndarray
) -> Alias | Compute:
    """What gives an output, from the places (2, ...) that are at its places."""
    if values.ndim == 0 or values.shape[0] % 2:
        program.refuse(node, "it moves the batch, and C computes each row by itself")
    first, second = values.reshape(2, -1)
    if first.max(initial=0) >= starts[-1]:
        program.refuse(node, "it moves numbers from one row to another, and C computes each row by itself")
    which = np.searchsorted(np.array(starts), first, side="right") - 1
    of_row = np.array([isinstance(source, str) for source in sources])[which]
    if not np.array_equal(second, first + np.where(of_row, _OTHER_ROW, 0)):
        program.refuse(node, "it moves numbers from one row to another, and C computes each row by itself")
    places = first - np.array(starts)[which]
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(which) != 0)) + 1
    runs = [(int(a), int(b)) for a, b in zip([0, *breaks], [*breaks, len(places)], strict=True)]
    only = sources[int(which[0])]
    if len(runs) == 1 and isinstance(only, str):
        return Alias(only, int(places[0]))
    read = [source for source in sources if isinstance(source, str)]
    parts: list[tuple[int, int, int, int | str]] = [(a, b, int(which[a]), int(places[a])) for a, b in runs]
    if len(runs) > _RUNS:
        changes = np.flatnonzero(np.diff(which)) + 1
        parts = [
            (int(a), int(b), int(which[a]), program.indices(places[a:b]))
            for a, b in zip([0, *changes], [*changes, len(places)], strict=True)
        ]
    tables = ["" if isinstance(source, str) else program.table(source) for source in sources]

    def lines(y: str, reads: Sequence[str]) -> list[str]:
        made: list[str] = []
        for a, b, index, place in parts:
            source = sources[index]
            pointer = reads[read.index(source)] if isinstance(source, str) else tables[index]
            target = f"{y} + {a}" if a else y
            if isinstance(place, int):
                origin = f"{pointer} + {place}" if place else pointer
                made.append(f"memcpy({target}, {origin}, {b - a} * sizeof(float));")
            else:
                made += [
                    f"for (int i = 0; i < {b - a}; i++) {{",
                    f"    ({target})[i] = ({pointer})[{place}[i]];",
                    "}",
                ]
        return made

    return Compute(len(places), tuple(read), lines)


def _cast(program: Program, node: NodeProto) -> Steps:
    """From float32 or bool to float32, which changes nothing here, and to bool."""
    (x,), output = node.input, node.output[0]
    program.row(output)
    if not program.is_bool(output) or program.is_bool(x):
        return {output: Alias(x)}
    size = program.size(x)
    line = "for (int i = 0; i < {n}; i++) {{ {y}[i] = ({x})[i] != 0.0f ? 1.0f : 0.0f; }}"
    return {output: Compute(size, (x,), lambda y, reads: [line.format(n=size, y=y, x=reads[0])])}


OPERATORS: dict[str, Callable[[Program, NodeProto], Steps]] = {
    **dict.fromkeys((*_NAMES, "Expand", "Tile"), _moved),
    "Cast": _cast,
}
