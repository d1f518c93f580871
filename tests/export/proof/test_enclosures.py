"""What encloses an operator over a box holds every value in it, and no rule gives a larger radius there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node
from export.proof.rules import ENCLOSURES, RULES
from export.proof.rules.common import Radius
from export.proof.rules.spans import OUTWARDS, Span
from tests.support.operator_cases import CASES, ROWS, Case, drawn
from tests.support.repeats import examples

WIDTHS = [0.0, 1e-6, 0.01, 1.0, 30.0]
OWN_RADIUS = [name for name, one in CASES.items() if ENCLOSURES[one.node.op].radius is not None]
_OF_NODE: dict[str, torch.dtype] = {"float32": torch.float64, "int64": torch.int64, "bool": torch.bool}


def spans_of(one: Case, seed: int, width: float, scale: float | None = None) -> list[Span]:
    """Boxes around drawn inputs, with ends at 0 and single values among them; ``scale`` is that of numbers' radii."""
    rng = np.random.default_rng(seed)
    found: list[Span] = []
    for kind, values in zip(one.kinds, drawn(one, seed), strict=True):
        z = values.astype(np.float64)
        below, above = (width * rng.random(z.shape) * (rng.random(z.shape) < 0.8) for _ in range(2))
        low, high = z - below, z + above
        if kind == "bool":
            low, high = (low > 0.5).astype(float), (high > 0.5).astype(float) if width else z
            low, high = np.minimum(low, z) if width else z, np.maximum(high, z)
        elif isinstance(kind, int):
            low, high = np.clip(np.round(low), 0, kind - 1), np.clip(np.round(high), 0, kind - 1)
        elif kind == "positive":
            low = np.maximum(low, np.minimum(z, 1e-3))
        elif kind == "away":
            low, high = np.where(z > 0, np.maximum(low, 1.0), low), np.where(z < 0, np.minimum(high, -1.0), high)
        elif width:
            edge = rng.random(z.shape) < 0.1
            low, high = np.where(edge & (z > 0), 0.0, low), np.where(edge & (z < 0), 0.0, high)
        is_number = isinstance(kind, str) and kind != "bool"
        e = None if scale is None or not is_number else torch.from_numpy(scale * rng.random(z.shape))
        found.append(Span(torch.from_numpy(low), torch.from_numpy(high), e))
    return found


def points_in(one: Case, spans: Sequence[Span], rng: np.random.Generator) -> list[Tensor]:
    """A point of each box: ends, the middle, or anything between them, each in the type of its input."""
    found: list[Tensor] = []
    for kind, span in zip(one.kinds, spans, strict=True):
        share = rng.random(span.low.shape)
        if rng.random() < 0.5:
            share = np.where(rng.random(share.shape) < 0.8, np.round(share), share)
        z = (span.low + torch.from_numpy(share) * (span.high - span.low)).clamp(span.low, span.high)
        if kind == "bool":
            found.append(z > 0.5)
        else:
            found.append(z.round().long() if isinstance(kind, int) else z)
    return found


def exact(node: Node, z: Sequence[Tensor]) -> Tensor:
    return evaluate(node, z, precision=torch.float64, rows=ROWS).double()


def enclosed(node: Node, spans: Sequence[Span]) -> Span:
    low, high = ENCLOSURES[node.op].values(node, spans)
    assert low.dtype == high.dtype == torch.float64
    assert not (low.isnan() | high.isnan()).any()
    assert (low <= high).all()
    return Span(low, high)


def radius_over(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    of = ENCLOSURES[node.op].radius
    assert of is not None
    radius = of(node, spans, y)
    assert radius.shape == y.low.shape
    assert radius.dtype == torch.float64
    assert not radius.isnan().any()
    assert (radius >= 0).all()
    return radius


def test_every_operator_with_a_rule_has_an_enclosure() -> None:
    assert set(ENCLOSURES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=examples(15, of=100))
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
@settings(deadline=None, max_examples=examples(15, of=100))
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
        assert (RULES[one.node.op](one.node, z, e, y) <= worst * (1 + 2.0**-22)).all()


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
