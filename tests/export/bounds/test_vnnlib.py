"""Queries in VNN-LIB, read back, hold exactly for the rows that come within the errors of breaking a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import inf, nan, nextafter, prod
from typing import Any, cast

import numpy as np
import pytest
import vnnlib
import vnnlib.compat
from hypothesis import given, settings
from hypothesis import strategies as st

from export import ExportError
from export.bounds.vnnlib import Input, Network, Output, around, label_query, range_query
from tests.support import vnnlib_1
from tests.support.repeats import examples

SHA256 = "4b" * 32
VERSIONS = ("1.0", "2.0")
numbers = st.floats(-1e6, 1e6) | st.floats(-4, 4, width=32) | st.integers(-2, 2).map(float)
errors_of = st.floats(0, 1e3) | st.floats(0, 0.125, width=32) | st.sampled_from([0.0, 1e-30, 0.1, 0.5, 1.0])
shifts = st.sampled_from([Fraction(0), Fraction(1, 10**40), Fraction(-1, 10**40)]) | st.fractions(-2, 2)


def network(errors: Sequence[float], low: Sequence[float] = (0.0,), high: Sequence[float] = (1.0,)) -> Network:
    box = Input("pixels", (len(low),), low, high)
    return Network("digits.onnx", SHA256, [box], [Output("logits", (len(errors),), errors)])


def holds(query: str, x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
    """Whether inputs and outputs are a counterexample, by a reader of the query's version."""
    if "(vnnlib-version" not in query:
        return vnnlib_1.read(query).holds(x, y)
    return any(
        all(low <= value <= high for value, (low, high) in zip(x, case.input_box, strict=True))
        and any(_within(polytope, y) for polytope in case.output_constraints)
        for case in vnnlib.compat.transform(vnnlib.parse_query_string(query))
    )


def _within(polytope: Any, y: Sequence[Fraction]) -> bool:
    return all(
        sum(Fraction(factor) * value for factor, value in zip(row, y, strict=True)) <= Fraction(end)
        for row, end in zip(polytope.coeff_matrix, polytope.rhs, strict=True)
    )


def up(exact: Fraction) -> Fraction:
    """The lowest float64 that is not below."""
    near = float(exact)
    return Fraction(near if Fraction(near) >= exact else nextafter(near, inf))


def down(exact: Fraction) -> Fraction:
    return -up(-exact)


INSIDE = (Fraction(1, 2),)


@settings(max_examples=examples(100, of=1000), deadline=None)
@given(data=st.data(), version=st.sampled_from(VERSIONS), errors=st.lists(errors_of, min_size=2, max_size=4))
def test_a_label_query_holds_where_another_label_is_within_the_margin(
    data: st.DataObject, version: str, errors: list[float]
) -> None:
    label = data.draw(st.integers(0, len(errors) - 1))
    own, margins = Fraction(data.draw(numbers)), [Fraction(error) + Fraction(errors[label]) for error in errors]
    y = [own - margin + data.draw(shifts) for margin in margins]
    y[label] = own
    expected = any(own - y[k] <= up(margins[k]) for k in range(len(y)) if k != label)
    assert holds(label_query(network(errors), label, version=version), INSIDE, y) == expected


@settings(max_examples=examples(100, of=1000), deadline=None)
@given(data=st.data(), version=st.sampled_from(VERSIONS), errors=st.lists(errors_of, min_size=2, max_size=4))
def test_a_runtime_with_another_label_is_a_counterexample(
    data: st.DataObject, version: str, errors: list[float]
) -> None:
    y = [Fraction(data.draw(numbers)) for _ in errors]
    label = max(range(len(y)), key=y.__getitem__)
    # The runtime that is as far off as it may be, in favour of another label.
    computed = [value + Fraction(error) for value, error in zip(y, errors, strict=True)]
    computed[label] = y[label] - Fraction(errors[label])
    changed = any(value >= computed[label] for k, value in enumerate(computed) if k != label)
    found = holds(label_query(network(errors), label, version=version), INSIDE, y)
    assert found or not changed


@settings(max_examples=examples(100, of=1000), deadline=None)
@given(
    version=st.sampled_from(VERSIONS),
    label=st.integers(0, 1),
    threshold=st.sampled_from([0.0, 0.5]),
    error=errors_of,
    shift=shifts,
)
def test_a_single_output_has_its_label_by_a_threshold(
    version: str, label: int, threshold: float, error: float, shift: Fraction
) -> None:
    query = label_query(network([error]), label, threshold=threshold, version=version)
    end = Fraction(threshold) + (1 if label else -1) * Fraction(error)
    y = end + shift
    assert holds(query, INSIDE, [y]) == (y <= up(end) if label else y >= down(end))


@settings(max_examples=examples(100, of=1000), deadline=None)
@given(data=st.data(), version=st.sampled_from(VERSIONS), errors=st.lists(errors_of, min_size=1, max_size=3))
def test_a_range_query_holds_where_a_limit_is_within_the_error(
    data: st.DataObject, version: str, errors: list[float]
) -> None:
    lows = [data.draw(numbers | st.just(-inf)) for _ in errors]
    highs = [
        data.draw(st.just(inf) | st.floats(max(low, -1e6) + 2.001 * error + 0.001, 1e8))
        for low, error in zip(lows, errors, strict=True)
    ]
    lows[0] = 0.0 if lows[0] == -inf and highs[0] == inf else lows[0]
    y, expected = [], False
    for low, high, error in zip(lows, highs, errors, strict=True):
        ends = [Fraction(low) + Fraction(error)] if low > -inf else []
        ends += [Fraction(high) - Fraction(error)] if high < inf else []
        value = data.draw(st.sampled_from(ends or [Fraction(7)])) + data.draw(shifts)
        expected |= low > -inf and value <= up(Fraction(low) + Fraction(error))
        expected |= high < inf and value >= down(Fraction(high) - Fraction(error))
        y.append(value)
    assert holds(range_query(network(errors), [(lows, highs)], version=version), INSIDE, y) == expected


@settings(max_examples=examples(50, of=500), deadline=None)
@given(data=st.data(), version=st.sampled_from(VERSIONS), size=st.integers(1, 3))
def test_only_rows_in_the_box_are_counterexamples(data: st.DataObject, version: str, size: int) -> None:
    ends = [sorted((data.draw(numbers), data.draw(numbers))) for _ in range(size)]
    query = label_query(network([1.0, 1.0], *zip(*ends, strict=True)), 0, version=version)
    tiny = Fraction(1, 10**40)
    x = [data.draw(st.sampled_from([Fraction(low), Fraction(high)])) for low, high in ends]
    assert holds(query, x, [Fraction(0), Fraction(0)])
    outside = data.draw(st.integers(0, size - 1))
    low, high = map(Fraction, ends[outside])
    x[outside] = data.draw(st.sampled_from([low - tiny, high + tiny]))
    assert not holds(query, x, [Fraction(0), Fraction(0)])


@settings(max_examples=examples(100, of=1000), deadline=None)
@given(data=st.data(), row=st.lists(numbers, min_size=1, max_size=4), eps=errors_of)
def test_around_a_row_is_the_nearest_box_of_float64_outside(data: st.DataObject, row: list[float], eps: float) -> None:
    low = [value - data.draw(errors_of) for value in row]
    high = [value + data.draw(errors_of) for value in row]
    first, last = around(np.reshape(row, (1, -1)), eps, low, high)
    assert first.shape == last.shape == (1, len(row))
    for k, value in enumerate(row):
        assert first[0, k] == max(low[k], float(down(Fraction(value) - Fraction(eps))))
        assert last[0, k] == min(high[k], float(up(Fraction(value) + Fraction(eps))))


def test_several_inputs_and_outputs_are_declared_in_the_files_order() -> None:
    inputs = [Input("image", (2, 2), np.zeros((2, 2)), np.ones((2, 2))), Input("scale", (), 1.0, 2.0)]
    outputs = [Output("boxes", (3,), [0.1] * 3), Output("score", (), 0.2)]
    several = Network("m.onnx", SHA256, inputs, outputs)
    limits = [(None, 4.0), (0.0, None)]
    query = vnnlib.parse_query_string(range_query(several, limits))
    (found,) = query.networks
    assert [(port.name, port.shape, str(port.dtype)) for port in found.inputs] == [
        ("X1", [1, 2, 2], "DType.Real"),
        ("X2", [1], "DType.Real"),
    ]
    assert [(port.name, port.shape) for port in found.outputs] == [("Y1", [1, 3]), ("Y2", [1])]
    *box, breaking = (cast(Any, assertion.expr) for assertion in query.assertions)
    assert [(str(type(end).__name__), end.lhs.name, end.lhs.indices, end.rhs.value) for end in box[4:]] == [
        ("GreaterEqual", "X1", [0, 1, 0], 0.0),
        ("LessEqual", "X1", [0, 1, 0], 1.0),
        ("GreaterEqual", "X1", [0, 1, 1], 0.0),
        ("LessEqual", "X1", [0, 1, 1], 1.0),
        ("GreaterEqual", "X2", [0], 1.0),
        ("LessEqual", "X2", [0], 2.0),
    ]
    assert [(end.lhs.name, end.lhs.indices) for end in breaking.args] == [
        ("Y1", [0, 0]),
        ("Y1", [0, 1]),
        ("Y1", [0, 2]),
        ("Y2", [0]),
    ]
    old = vnnlib_1.read(range_query(several, limits, version="1.0"))
    assert old.names == [f"X_{k}" for k in range(5)] + [f"Y_{k}" for k in range(4)]
    half, two, one = Fraction(1, 2), Fraction(2), Fraction(1)
    assert old.holds([half] * 4 + [two], [one] * 3 + [Fraction(1, 5)])
    assert not old.holds([half] * 4 + [half], [one] * 3 + [Fraction(1, 5)])
    assert not old.holds([half] * 4 + [two], [one] * 3 + [Fraction(1, 4)])


def test_limits_in_1_0_are_comparisons_with_a_number_which_every_reader_takes() -> None:
    query = range_query(network([0.1, 0.2]), [(-1.0, 1.0)], version="1.0")
    single = label_query(network([0.1]), 1, version="1.0")
    assert "(- " not in query
    assert "(- " not in single
    assert query.count("(and (<= Y_") == query.count("(and (>= Y_") == 2
    assert single.splitlines()[-1].startswith("(assert (<= Y_0 0.1000")


def test_the_package_for_2_0_rejects_1_0() -> None:
    with pytest.raises(vnnlib.VNNLibException):
        vnnlib.parse_query_string(label_query(network([0.1, 0.2]), 0, version="1.0"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_comments_say_what_the_query_is_about(version: str) -> None:
    query = label_query(network([0.25, 0.125], [0.0, -1.0], [16.0, 2.0]), 1, version=version)
    comments = [line for line in query.splitlines() if line.startswith(";")]
    for part in (
        "'digits.onnx'",
        SHA256,
        f"VNN-LIB {version}",
        "label 1",
        "unsat: the claim holds",
        "sat: the claim is",
    ):
        assert any(part in comment for comment in comments), part
    assert "; E of 'logits': 0.25, 0.125" in comments
    assert any(comment.startswith("; Box: 'pixels' -1 to 16 (each of its 2 features") for comment in comments)
    assert "observed in float32 must be twice as large" in " ".join(comment[2:] for comment in comments)


@pytest.mark.parametrize("version", VERSIONS)
def test_names_cannot_leave_their_comment(version: str) -> None:
    plain, name = network([0.1, 0.2]), "a\n(assert (<= Y_0 0.0))\r\u2028é;"
    (box,), (output,) = plain.inputs, plain.outputs
    odd = Network(name, SHA256, [replace(box, name=name)], [replace(output, name=name)])
    for about in (partial(label_query, label=0), partial(range_query, within=[(-1, 1)])):
        query = about(odd, version=version)
        assert query.isascii()
        assert _statements(query) == _statements(about(plain, version=version))
        assert holds(query, INSIDE, [Fraction(1), Fraction(1)])


def _statements(query: str) -> list[str]:
    return [line for line in query.splitlines() if not line.startswith(";")]


PLAIN = network([0.1, 0.2])
BOX, OUTPUT = PLAIN.inputs[0], PLAIN.outputs[0]


def boxed(low: Any, high: Any) -> Network:
    return replace(PLAIN, inputs=[replace(BOX, low=low, high=high)])


def erring(errors: Any, shape: tuple[int, ...] = (2,)) -> Network:
    return replace(PLAIN, outputs=[replace(OUTPUT, shape=shape, errors=errors)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: label_query(boxed([0, 0], [1]), 0),
            "expected as many numbers for the lower ends of 'pixels' as there are values, 1, received 2",
        ),
        (
            lambda: label_query(boxed([0], [1, 1]), 0),
            "expected as many numbers for the upper ends of 'pixels' as there are values, 1, received 2",
        ),
        (lambda: label_query(boxed([2], [1]), 0), "'pixels', value 1: the lower end 2 is above the upper, 1"),
        (
            lambda: label_query(boxed([nan], [1]), 0),
            "finite float32 numbers for the lower ends of 'pixels', received nan",
        ),
        (
            lambda: label_query(boxed([0], [inf]), 0),
            "finite float32 numbers for the upper ends of 'pixels', received inf",
        ),
        (lambda: label_query(boxed([0], [1e39]), 0), "received 1e[+]39 as number 1"),
        (lambda: label_query(erring([0.1, inf]), 0), "for the errors of 'logits', received inf as number 2"),
        (
            lambda: label_query(erring([0.1, -0.5]), 0),
            "'logits', value 2: expected an error of at least 0, received -0.5",
        ),
        (
            lambda: label_query(erring([0.1]), 0),
            "expected as many numbers for the errors of 'logits' as there are values, 2, received 1",
        ),
        (
            lambda: label_query(erring([], (0,)), 0),
            r"expected rows with values, received rows of the shapes \[\(0,\)\]",
        ),
        (lambda: label_query(PLAIN, 2), "'logits' has the labels 0 to 1, and label 2 was asked for"),
        (lambda: label_query(PLAIN, -1), "'logits' has the labels 0 to 1, and label -1 was asked for"),
        (lambda: label_query(network([0.1]), 2), "'logits' has the labels 0 to 1, and label 2 was asked for"),
        (lambda: label_query(network([0.1]), 1, threshold=nan), "for the threshold, received nan"),
        (lambda: label_query(replace(PLAIN, outputs=[OUTPUT] * 2), 0), "the file has 2: 'logits', 'logits'"),
        (lambda: label_query(PLAIN, 0, version="3.0"), "expected the VNN-LIB version 2.0 or 1.0, received '3.0'"),
        (lambda: range_query(PLAIN, []), "expected a pair of limits for every output of the file, 1, received 0"),
        (lambda: range_query(PLAIN, [(None, None)]), "a query about limits has none"),
        (lambda: range_query(PLAIN, [(-inf, [inf, inf])]), "a query about limits has none"),
        (lambda: range_query(PLAIN, [(nan, 1)]), "for the limits of 'logits', received nan"),
        (lambda: range_query(PLAIN, [(inf, None)]), "for the limits of 'logits', received inf"),
        (
            lambda: range_query(PLAIN, [([0, 0, 0], None)]),
            "expected as many numbers for the limits of 'logits' as there are values, 2, received 3",
        ),
        (
            lambda: range_query(PLAIN, [(0, [1, 0.4])]),
            "'logits', value 2: errors of up to 0.2 leave nothing between the ",
        ),
        (lambda: range_query(PLAIN, [(1, 0)]), "leave nothing between the limits 1 to 0"),
        (lambda: around([0.5], -1, [0], [1]), "expected a distance from the row of at least 0, received -1"),
        (lambda: around([0.5], nan, [0], [1]), "for the distance from the row, received nan"),
        (lambda: around([0.5, 2], 0.1, [0, 0], [1, 1]), "value 2 of the row is 2, and the bound holds for 0 to 1"),
        (lambda: around([nan], 0.1, [0], [1]), "for the row, received nan"),
        (
            lambda: around([0.5], 0.1, [0, 0], [1]),
            "expected as many numbers for the lower ends of the box as there are values, 1, received 2",
        ),
    ],
)
def test_what_no_query_can_be_about(wrong: Any, message: str) -> None:
    with pytest.raises(ExportError, match=f"{message}.*What to do: "):
        wrong()


def test_a_large_box_is_written_with_a_line_for_each_end() -> None:
    shape = (8, 8)
    low, high = around(np.full(shape, 8.0), 0.1, np.zeros(shape), np.full(shape, 16.0))
    digits = Network("digits.onnx", SHA256, [Input("pixels", shape, low, high)], [Output("y", (10,), [0.01] * 10)])
    query = vnnlib.parse_query_string(label_query(digits, 7))
    assert len(query.assertions) == 2 * prod(shape) + 1
    assert len(cast(Any, query.assertions[-1].expr).args) == 9
