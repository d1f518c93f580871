"""Operators over boxes where something is special: no bound, kinks of their own, tables, and what stays open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.evaluation import evaluate
from export.proof.rules import ENCLOSURES
from export.proof.rules.spans import Span
from tests.support.boxes import check_box, enclosed, radius_over, span
from tests.support.operator_cases import CASES, case, held
from tests.support.repeats import examples

TABLE = CASES["embedding"]
UNBOUNDED = {
    "a divisor that may be 0": (CASES["div"], [span(1, 2), span(-1, 1)]),
    "a divisor that is 0 at its end": (CASES["div"], [span(1, 2), span(0, 1)]),
    "a constant over 0": (CASES["div a number"], [span(0, 1)]),
    "a divisor of 0": (case("div", overload="Tensor", other=0.0), [span(1, 2)]),
    "reciprocal": (CASES["reciprocal"], [span(-1, 2)]),
    "rsqrt at 0": (CASES["rsqrt"], [span(0, 1)]),
    "log at 0": (CASES["log"], [span(0, 1)]),
    "log of negative numbers": (CASES["log"], [span(-1, 1)]),
    "log1p at -1": (CASES["log1p"], [span(-1, 1)]),
    "sqrt of negative numbers": (CASES["sqrt"], [span(-1, 1)]),
    "a fractional power of negative numbers": (CASES["pow"], [span(-1, 1)]),
    "a power of values": (CASES["pow of values"], [span(-1, 1), span(1, 2)]),
    "0 to a negative power": (case("pow", overload="Tensor_Scalar", exponent=-3.0), [span(-1, 1)]),
    "0 to a power that may be 0": (CASES["pow of values"], [span(0, 1), span(0, 1)]),
    "an index beyond the table": (TABLE, [span(3, 9, shape=(1, 3))]),
    "a negative index": (TABLE, [span(-1, 2, shape=(1, 3))]),
    "an index that is no whole number": (TABLE, [span(0.25, 0.75, shape=(1, 3))]),
    "a number beyond int64": (CASES["to whole numbers"], [span(0, 1e19)]),
    "an overflow of float64": (CASES["mul"], [span(1e200, 1e300), span(1e200, 1e300)]),
    "infinite ends": (CASES["sum"], [span(-np.inf, np.inf, shape=(1, 4, 3))]),
    "an infinite constant": (case("add", overload="Tensor", other=np.inf), [span(1, 2)]),
    "a variance that may be 0": (
        case("layer_norm", normalized_shape=(6,), weight=None, bias=None, eps=0.0, cudnn_enable=False),
        [span(-1, 1)],
    ),
    "no degrees of freedom": (
        case("var", (1,), overload="correction", dim=(1,), correction=1, keepdim=False),
        [span(1, 2, shape=(1, 1))],
    ),
}


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize("name", UNBOUNDED)
def test_where_there_is_no_bound_an_end_is_infinite(name: str) -> None:
    one, spans = UNBOUNDED[name]
    y = enclosed(one.node, spans)
    assert (y.low.isinf() | y.high.isinf()).all()
    if ENCLOSURES[one.node.op].radius is not None:
        assert radius_over(one.node, spans, y).isinf().all()


NO_RADIUS = {
    "a divisor that a runtime may have as 0": (CASES["div"], [span(1, 2), span(0.5, 1, 0.6)]),
    "a base that may be negative": (CASES["pow"], [span(0.5, 1, 0.6)]),
    "a denormal base": (CASES["pow"], [span(0, 1)], 0.5),
    "a divisor to a power that may be 0": (CASES["pow"], [span(0.5, 1, 0.6)], -3.0),
    "a variance that may be lost": (CASES["layer_norm"], [span(1000, 1001, 1.0)]),
    "an inexact index": (TABLE, [span(1, 2, 0.1, shape=(1, 3))]),
    "a sum that may overflow": (CASES["sum"], [span(-3e38, 3e38, shape=(1, 4, 3))]),
    "a number near to what int64 holds": (CASES["to whole numbers"], [span(0, 2.0**62, 2.0**63)]),
    "no radius of the input": (CASES["add"], [span(0, 1, np.inf), span(0, 1)]),
}


@pytest.mark.parametrize("name", NO_RADIUS)
def test_where_a_rule_has_no_bound_in_a_box_the_radius_is_infinite(name: str) -> None:
    one, spans, *exponents = NO_RADIUS[name]
    node = one.node
    if exponents:
        node = replace(node, attributes={"exponent": exponents[0]})
    y = enclosed(node, spans)
    assert y.low.isfinite().all()
    assert radius_over(node, spans, y).isinf().all()


@pytest.mark.parametrize(
    ("op", "low", "high", "ends"),
    [("mul", -2.0, 3.0, (0.0, 9.0)), ("mul", -3.0, -2.0, (4.0, 9.0)), ("sub", -2.0, 3.0, (0.0, 0.0))],
)
def test_a_value_with_itself_is_no_two_values(op: str, low: float, high: float, ends: tuple[float, float]) -> None:
    node = replace(CASES[op].node, inputs=("x", "x"))
    y = enclosed(node, [span(low, high)] * 2)
    for end, expected in zip((y.low, y.high), ends, strict=True):
        assert (end - expected).abs().max() <= 1e-12
    assert (y.low >= 0).all()


POWERS = {
    (3.0, -2.0, 3.0): (-8.0, 27.0),
    (4.0, -2.0, 3.0): (0.0, 81.0),
    (4.0, -3.0, -2.0): (16.0, 81.0),
    (0.0, -2.0, 3.0): (1.0, 1.0),
    (-2.0, -2.0, -0.5): (0.25, 4.0),
    (-3.0, -2.0, -0.5): (-8.0, -0.125),
    (1.5, 0.0, 4.0): (0.0, 8.0),
    (-0.5, 0.25, 4.0): (0.5, 2.0),
}


@pytest.mark.parametrize(("exponent", "low", "high"), POWERS)
def test_powers_have_their_extremes(exponent: float, low: float, high: float) -> None:
    node = replace(CASES["pow 3"].node, attributes={"exponent": exponent})
    y = enclosed(node, [span(low, high)])
    for end, expected in zip((y.low, y.high), POWERS[exponent, low, high], strict=True):
        assert (end - expected).abs().max() <= 1e-11


@given(seed=st.integers(0, 2**20))
@settings(deadline=None, max_examples=examples(10, of=50))
def test_an_index_gives_the_hull_of_the_rows_that_it_may_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 9, (4, 3))
    last = np.minimum(first + rng.integers(0, 4, first.shape), 8)
    index = Span(*(torch.from_numpy(end.astype(np.float64)) for end in (first, last)))
    rows = TABLE.node.tensors["weight"].values.astype(np.float64)
    y = enclosed(TABLE.node, [index])
    for at in np.ndindex(first.shape):
        held_there = rows[first[at] : last[at] + 1]
        assert (y.low[at].numpy() == held_there.min(axis=0)).all()
        assert (y.high[at].numpy() == held_there.max(axis=0)).all()
    assert not radius_over(TABLE.node, [index], y).any()
    ends = torch.from_numpy(np.sort(rng.standard_normal((2, 4, 9)), axis=0))
    values = Span(ends[0], ends[1], torch.from_numpy(rng.random((4, 9))))
    node = CASES["gather"].node
    y = enclosed(node, [values, index])
    radius = radius_over(node, [values, index], y)
    assert values.radius is not None
    for row, column in np.ndindex(first.shape):
        among = slice(first[row, column], last[row, column] + 1)
        assert y.low[row, column] == values.low[row, among].min()
        assert y.high[row, column] == values.high[row, among].max()
        assert radius[row, column] == values.radius[row, among].max()


def test_rows_by_an_index_of_each_box() -> None:
    table = held(9, 5)
    one = case("index_select", (), kinds=(9,), tensors={"self": table}, dim=0)
    index = Span(torch.tensor([0.0, 3.0, 8.0]).double(), torch.tensor([2.0, 3.0, 8.0]).double())
    y = enclosed(one.node, [index])
    assert torch.equal(y.low[0], torch.from_numpy(table.values[:3]).double().amin(dim=0))
    assert torch.equal(y.high[1:], torch.from_numpy(table.values[[3, 8]]).double())


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_softmax_of_far_ends_loses_nothing(name: str) -> None:
    """Where one value may be far above or far below the others, what exp(z - max) loses must not count."""
    node = CASES[name].node
    low = torch.tensor([[-1000.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, -800.0, 700.0, -1.0, 5.0, 300.0]]).double()
    high = torch.tensor([[1000.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 900.0, 701.0, -1.0, 6.0, 900.0]]).double()
    y = enclosed(node, [Span(low, high)])
    for i in range(6):
        for own, others, end in ((low, high, y.low), (high, low, y.high)):
            z = others.clone()
            z[:, i] = own[:, i]
            value = evaluate(node, [z])
            assert torch.allclose(value[:, i], end[:, i], rtol=1e-9, atol=1e-9)


def test_what_a_radius_leaves_open() -> None:
    """Comparisons, conditions and winners that a runtime's error may change are open, the others are not."""
    shape = (1, 6)
    compare = CASES["gt"].node
    far, near = [span(0, 1, 0.1), span(1.3, 2, 0.1)], [span(0, 1, 0.2), span(1.3, 2, 0.2)]
    assert not radius_over(compare, far, enclosed(compare, far)).any()
    assert (radius_over(compare, near, enclosed(compare, near)) == 1).all()
    where, branches = CASES["where"].node, [span(1, 2, 0.1), span(-2, -1, 0.3)]
    for condition, expected in ((span(1, 1), 0.1), (span(0, 0), 0.3), (span(0, 1), 0.3), (span(1, 1, 1.0), 4.3)):
        found = radius_over(where, [condition, *branches], enclosed(where, [condition, *branches]))
        assert torch.allclose(found, torch.full(shape, expected, dtype=torch.float64))
    best = CASES["argmax"].node
    low = torch.tensor([0.0, 1.0, 2.0]).double().expand(1, 4, 3)
    for e, expected in ((0.1, 0), (0.6, 1), (1.1, 2)):
        spans = [Span(low, low, torch.full_like(low, e))]
        assert (radius_over(best, spans, enclosed(best, spans)) == expected).all()


def test_whole_numbers_are_exact_as_far_as_int64_goes() -> None:
    one = CASES["add whole numbers"]
    y = enclosed(one.node, [span(-3, 5), span(7, 2**40)])
    assert (y.low == 4).all()
    assert (y.high == 5 + 2**40).all()
    y = enclosed(one.node, [span(0, 2.0**62), span(0, 2.0**62)])
    assert (y.low == 0).all()
    assert y.high.isinf().all()


MEETING = {"gt": [(0, 0), (0, 1)], "ge": [(1, 1), (1, 1)], "lt": [(0, 0), (0, 0)], "le": [(1, 1), (0, 1)]}


@pytest.mark.parametrize("op", MEETING)
def test_intervals_that_meet_at_one_number_are_compared_at_it(op: str) -> None:
    """A number and itself, and one interval above another, whose end it shares."""
    for spans, ends in zip(([span(2, 2)] * 2, [span(2, 3), span(1, 2)]), MEETING[op], strict=True):
        y = enclosed(CASES[op].node, spans)
        assert (y.low == ends[0]).all()
        assert (y.high == ends[1]).all()


FALSE, TRUE, EITHER = span(0, 0), span(1, 1), span(0, 1)
OPEN = [span(0, 0, 1.0), span(1, 1, 1.0), span(0, 1, 1.0)]


@pytest.mark.parametrize(
    ("op", "decisive"), [("logical_and", FALSE), ("bitwise_and", FALSE), ("logical_or", TRUE), ("bitwise_or", TRUE)]
)
def test_a_truth_is_open_unless_the_other_decides(op: str, decisive: Span) -> None:
    node = CASES[op].node
    for other in (FALSE, TRUE, EITHER):
        for first in OPEN:
            for spans in ([first, other], [other, first]):
                radius = radius_over(node, spans, enclosed(node, spans))
                assert (radius == (0 if other is decisive else 1)).all()


@pytest.mark.parametrize(("op", "decisive"), [("any", 1.0), ("all", 0.0)])
def test_a_truth_of_many_is_open_unless_one_decides(op: str, decisive: float) -> None:
    node = CASES[op].node
    e = torch.tensor([0.0, 0.0, 0.0, 1.0])[None, :, None].expand(1, 4, 3).double()
    for other in (0.0, 1.0):
        for high in (other, 1.0):
            low = torch.full((1, 4, 3), other, dtype=torch.float64)
            spans = [Span(low, torch.full_like(low, high), e)]
            decided = other == decisive and high == decisive
            assert (radius_over(node, spans, enclosed(node, spans)) == (0 if decided else 1)).all()


def test_a_layer_norm_of_numbers_that_lie_as_near_as_their_radius() -> None:
    one = CASES["layer_norm"]
    spread = torch.tensor([0.0, 1e-3, 3.16e-3, 0.01, 0.1]).double()[:, None]
    x = 0.1 + torch.tensor([1.0, -1.0] * 3).double() * spread
    for e in (1e-5, 1e-4, 1e-3):
        spans = [Span(x, x, torch.full_like(x, e))]
        check_box(one, spans, np.random.default_rng(0))
        assert radius_over(one.node, spans, enclosed(one.node, spans)).isfinite().all() or e > 1e-4
