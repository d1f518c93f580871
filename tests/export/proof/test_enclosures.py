"""What encloses an operator over a box holds every value in it, and no rule gives a larger radius there."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.evaluation import evaluate
from export.graph import Node
from export.proof.rules import ENCLOSURES, FUNCTIONS, RULES
from export.proof.rules.common import Radius
from export.proof.rules.spans import OUTWARDS, Span
from tests.support.boxes import check_box, enclosed, exact, points_in, radius_at, radius_over, scaled, spans_of
from tests.support.operator_cases import CASES, ROWS, wide
from tests.support.repeats import but, examples

WIDTHS = [0.0, 1e-6, 0.01, 1.0, 30.0]
OWN_RADIUS = [name for name, one in CASES.items() if ENCLOSURES[one.node.op].radius is not None]
_OF_NODE: dict[str, torch.dtype] = {"float32": torch.float64, "int64": torch.int64, "bool": torch.bool}


def test_every_operator_with_a_rule_has_an_enclosure() -> None:
    assert set(ENCLOSURES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=examples(8, of=100))
@given(seed=st.integers(0, 2**20), width=st.sampled_from(WIDTHS))
def test_every_value_is_within_the_ends(name: str, seed: int, width: float) -> None:
    one, rng = CASES[name], np.random.default_rng(seed)
    spans = spans_of(one, seed, width)
    y = enclosed(one.node, spans)
    for _ in range(20):
        value = exact(one.node, points_in(one, spans, rng))
        assert value.shape == y.low.shape
        within = (y.low <= value) & (value <= y.high)
        assert (within | (value.isnan() & (y.low.isinf() | y.high.isinf()))).all()


@pytest.mark.parametrize("name", OWN_RADIUS)
@settings(deadline=None, max_examples=examples(8, of=100))
@given(seed=st.integers(0, 2**20), width=st.sampled_from(WIDTHS), scale=st.sampled_from([None, 1e-7, 1e-4, 0.01, 0.3]))
def test_no_rule_gives_a_larger_radius_within_the_box(name: str, seed: int, width: float, scale: float | None) -> None:
    one, rng = CASES[name], np.random.default_rng(seed)
    spans = spans_of(one, seed, width, scale)
    worst = radius_over(one.node, spans, enclosed(one.node, spans))
    for _ in range(20):
        z = points_in(one, spans, rng)
        share = float(rng.choice([1.0, rng.random()]))
        e: list[Radius] = [None if span.radius is None else share * span.radius for span in spans]
        y = evaluate(one.node, z, precision=torch.float64, rows=ROWS)
        assert (radius_at(one.node, z, e, y, rng) <= worst * (1 + 2.0**-22)).all()


@pytest.mark.parametrize("name", CASES)
def test_one_point_has_its_value_and_its_radius(name: str) -> None:
    one = CASES[name]
    for seed, scale in ((0, None), (1, None), (2, 1e-6)):
        spans = spans_of(one, seed, 0.0, scale)
        z = points_in(one, spans, np.random.default_rng(0))
        value = evaluate(one.node, z, precision=torch.float64, rows=ROWS)
        y = enclosed(one.node, spans)
        if one.node.dtype != "float32":
            assert (y.low == value).all() or name == "to whole numbers"
        slack = 16 * OUTWARDS * (1 + value.double().abs())
        assert (y.high - y.low <= slack + (name == "to whole numbers")).all()
        if name in OWN_RADIUS:
            at_point = RULES[one.node.op](one.node, z, [span.radius for span in spans], value)
            assert (radius_over(one.node, spans, y) <= 2 * at_point + 2.0**-60).all()


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.extreme])
@settings(deadline=None, max_examples=examples(5, of=60))
@given(seed=st.integers(0, 2**20), width=st.sampled_from([0.0, 1e-9, 0.3, 2.0]), e=st.sampled_from([None, 1e-7, 0.1]))
def test_numbers_of_every_scale_are_enclosed_too(name: str, seed: int, width: float, e: float | None) -> None:
    one = CASES[name]
    check_box(one, scaled(one, seed, width, e), np.random.default_rng(seed))


@pytest.mark.parametrize("n", but(64, 1, 2, 1000))
@pytest.mark.parametrize(("offset", "scale"), [(1000, 1), (-30, 10), (1e-3, 1e-6), (5, 0)])
def test_many_numbers_that_nearly_cancel_are_enclosed(n: int, offset: float, scale: float) -> None:
    for one in wide(n):
        for seed, (width, e) in enumerate([(0.0, None), (1e-6, 1e-7), (1e-3, None), (0.1, 1e-3)]):
            spans = [
                Span(s.low * scale + offset, s.high * scale + offset, s.radius) for s in spans_of(one, seed, width, e)
            ]
            check_box(one, spans, np.random.default_rng(seed))


EXACT = ["add", "sub", "mul", "div", "add a constant", "mul by a constant", "sub from a constant", "linear", "addcmul"]
_EXACT_CORNERS = ["matmul with a constant", "sum", "mean", "cumsum", *EXACT]


def rational(node: Node, z: Sequence[np.ndarray]) -> np.ndarray:
    """The value for one row, in fractions."""
    fractions = np.vectorize(lambda x: Fraction(float(x)), otypes=[object])
    held_by = {role: fractions(tensor.values) for role, tensor in node.tensors.items()}
    remaining = iter([fractions(part) for part in z])
    if node.op == "linear":
        return next(remaining) @ held_by["weight"].T + held_by["bias"]
    if node.op == "addcmul":
        return held_by["self"] + next(remaining) * held_by["tensor2"]
    if node.op in ("sum", "mean", "cumsum"):
        x = next(remaining)
        return x.cumsum(axis=0) if node.op == "cumsum" else x.sum(axis=0) / (len(x) if node.op == "mean" else 1)
    a, b = (held_by[role] if role in held_by else next(remaining) for role in ("self", "other"))
    return {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "matmul": np.matmul}[node.op](a, b)


@pytest.mark.parametrize("name", _EXACT_CORNERS)
@pytest.mark.parametrize("width", [0.0, 1e-12, 0.5, 1e9])
def test_the_ends_hold_exact_rationals(name: str, width: float) -> None:
    """No rounding of float64 is lost: every corner in exact arithmetic is within the ends, as float64 numbers."""
    one, rng = CASES[name], np.random.default_rng(3)
    spans = spans_of(one, 5, width)
    y = enclosed(one.node, spans)
    for corner in range(40):
        sides = [torch.from_numpy(rng.random(span.low.shape)) < (corner % 3) / 2 for span in spans]
        z = [torch.where(side, span.low, span.high).numpy() for side, span in zip(sides, spans, strict=True)]
        for row in range(ROWS):
            for value, low, high in zip(
                rational(one.node, [part[row] for part in z]).reshape(-1),
                y.low[row].reshape(-1).tolist(),
                y.high[row].reshape(-1).tolist(),
                strict=True,
            ):
                assert low == -np.inf or Fraction(low) <= value
                assert high == np.inf or value <= Fraction(high)


LOOSE = {"matmul": 0.6, "var": 0.2, "layer_norm": 0.2, "eq": 0, "ne": 0}
"""How much of the interval values reach at least, in the median, where the ends are not the extremes.

Two random numbers are never equal."""


@pytest.mark.parametrize("name", CASES)
def test_values_come_near_to_both_ends(name: str) -> None:
    one, rng = CASES[name], np.random.default_rng(0)
    spans = spans_of(one, 1, 0.5)
    y = enclosed(one.node, spans)
    values = torch.stack([exact(one.node, points_in(one, spans, rng)) for _ in range(3000)])
    if one.extreme and not one.node.op.startswith("arg"):
        assert (y.low.isfinite() & y.high.isfinite()).double().mean() > 0.9
    known = y.low.isfinite() & y.high.isfinite() & (y.high - y.low > 2.0**-30)
    share = ((values.amax(dim=0) - values.amin(dim=0)) / (y.high - y.low))[known]
    if len(share):
        assert share.median() >= LOOSE.get(one.node.op, 0.9)


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.node.op in FUNCTIONS])
def test_near_its_turns_a_function_is_enclosed(name: str) -> None:
    one, rng = CASES[name], np.random.default_rng(0)
    function = FUNCTIONS[one.node.op]
    threshold = one.node.attributes.get("threshold", 0.0) / one.node.attributes.get("beta", 1.0)
    for place in {*function.turns(one.node), *function.breaks(one.node), threshold}:
        for width in (1e-16, 1e-12, 1e-10, 1e-6, 0.1):
            middle, reach = place + width * torch.from_numpy(rng.uniform(-1, 1, (ROWS, *one.rows[0]))), width
            low = (middle - reach).clamp(min=max(function.above, -1e9) + 1e-9)
            check_box(one, [Span(low, torch.maximum(low, middle + reach), torch.full_like(low, reach / 2))], rng)
