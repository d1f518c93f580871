"""Values that lie in parts of each other, are written over each other, and are outputs: random graphs in C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from export.csource.compilers import Compiler, load
from export.csource.writing import c_source
from runtime import Session
from tests.support.onnx_drafts import Draft
from tests.support.repeats import examples

FEATURES = 4
PLACES = st.one_of(st.integers(-2, 0), st.integers(0, 12))
"""Values by their place, modulo how many there are; below zero the latest ones."""
_ONE = ("Neg", "Abs", "Relu")
_TWO = ("Add", "Sub", "Max", "Min")
Steps = list[tuple[str, int, int, int]]
"""Operators, the values that they read, and a number that says which part or shape; each as it fits."""


def graph(steps: Steps, outputs: list[int]) -> onnx.ModelProto:
    """The graph of the steps, of small whole numbers, which float32 computes without rounding."""
    draft = Draft(17, ("batch", FEATURES))
    values: list[tuple[str, int]] = [("x", FEATURES)]
    for kind, first, second, part in steps:
        (a, n), (b, m) = values[first % len(values)], values[second % len(values)]
        start = part % n
        if kind in _ONE:
            values.append((draft(kind, a), n))
        elif kind in _TWO and m not in (1, n) and n != 1:  # the first so many of the longer
            common = min(n, m)
            a, b = (part_of(draft, each, 0, common) if size > common else each for each, size in ((a, n), (b, m)))
            values.append((draft(kind, a, b), common))
        elif kind in _TWO:
            values.append((draft(kind, a, b), max(n, m)))
        elif kind == "Own":
            values.append((draft(_TWO[second % 4], a, part_of(draft, a, start, start + 1)), n))
        elif kind == "Matrix" and n % 2 == 0:
            rows = draft("Reshape", a, np.array([-1, 2, n // 2]))
            rows = draft(_TWO[second % 4], rows, part_of(draft, rows, start % 2, start % 2 + 1))
            values.append((draft("Reshape", rows, np.array([-1, n])), n))
        elif kind == "Slice":
            end = start + second % (n - start) + 1
            values.append((part_of(draft, a, start, end), end - start))
        elif kind == "Reverse":
            values.append((draft("Slice", a, *(np.array([k]) for k in (-1, -(2**31), 1, -1))), n))
        elif kind == "Concat" and n + m <= 12:
            values.append((draft("Concat", a, b, axis=1), n + m))
        elif kind == "Split" and n > 1:
            left = part % (n - 1) + 1
            names = [f"v{len(draft.nodes)}_{side}" for side in ("left", "right")]
            sizes = draft.constant(np.array([left, n - left]))
            draft.nodes.append(helper.make_node("Split", [a, sizes], names, axis=1))
            values += [(names[0], left), (names[1], n - left)]
        elif kind == "Reshape" and n % 2 == 0:
            rows = draft(_ONE[part % 3], draft("Reshape", a, np.array([-1, n // 2])))
            values.append((draft("Reshape", rows, np.array([-1, n])), n))
    chosen = [values[each % len(values)] for each in outputs]
    made = [(f"y{i}", size) for i, (_, size) in enumerate(chosen)]
    draft.nodes += [helper.make_node("Identity", [name], [y]) for (name, _), (y, _) in zip(chosen, made, strict=True)]
    results = [helper.make_tensor_value_info(y, TensorProto.FLOAT, ("batch", size)) for y, size in made]
    whole = helper.make_graph(draft.nodes, "graph", [draft.input], results, draft.initializers)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def part_of(draft: Draft, name: str, start: int, end: int) -> str:
    return draft("Slice", name, *(np.array([k]) for k in (start, end, 1)))


KINDS = (*_ONE, *_TWO, "Own", "Own", "Matrix", "Matrix", "Slice", "Reverse", "Concat", "Split", "Reshape")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), PLACES, PLACES, PLACES), min_size=3, max_size=12)


@settings(max_examples=examples(30, of=300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, outputs=st.lists(PLACES, min_size=1, max_size=4))
def test_a_random_graph_computes_what_onnx_runtime_does(
    steps: Steps, outputs: list[int], gcc: Compiler, tmp_path: Path
) -> None:
    compare(graph(steps, outputs), gcc, tmp_path)


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ([("Relu", 0, 0, 0), ("Slice", 1, 0, 0), ("Sub", 1, 2, 0), ("Neg", 3, 0, 0)], [4]),
        ([("Relu", 0, 0, 0), ("Split", 1, 0, 0), ("Sub", 1, 2, 0), ("Add", 4, 3, 0), ("Neg", 5, 0, 0)], [6]),
        ([("Relu", 0, 0, 0), ("Sub", 1, 1, 0), ("Neg", 2, 0, 0)], [3]),
        ([("Relu", 0, 0, 0), ("Slice", 1, 1, 1), ("Neg", 2, 0, 0)], [1, 2, 1, 0]),
    ],
    ids=["less a number of itself", "parts of a split", "less itself", "outputs that are parts of each other"],
)
def test_parts_of_a_value_that_is_written_over(steps: Steps, outputs: list[int], gcc: Compiler, tmp_path: Path) -> None:
    compare(graph(steps, outputs), gcc, tmp_path)


def compare(model: onnx.ModelProto, compiler: Compiler, folder: Path) -> None:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    rows = np.random.default_rng(0).integers(-9, 10, (3, FEATURES)).astype(np.float32)
    with Session(path, "cpu") as session:
        expected = session.run({"x": rows})
    running = load(c_source(path, "m"), compiler, ("-O1",))
    found = running.run({"x": rows})
    running.close()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
