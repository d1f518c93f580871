"""Whatever a float32 evaluation does in a box, it is within the bound; and the bound is near to what is possible."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from builder import MLPSpec, assemble
from export.bounds.boxes import Box, box_of
from export.bounds.enclosing import Enclosed, Network, NoBoundError, enclose
from export.bounds.errors import output_errors
from export.bounds.lines import lines
from export.bounds.splitting import Parts, flat, split
from export.bounds.substitution import tightening
from export.evaluation import evaluate
from export.graph import Node, Rows
from export.graph import Tensor as Constant
from export.proof.layer_bounds import SLACK, walk
from export.proof.rules import ENCLOSURES, FUNCTIONS
from export.proof.rules.spans import Span
from export.proof.slopes import slopes
from export.proof.structure import Structure
from tests.support.cases import BLOCKS, network, randomised, specs
from tests.support.repeats import examples
from tests.support.rounding import MODES, Evaluation, adverse, structure_of

WORK = 1e9


def drawn_box(structure: Structure, rng: np.random.Generator, scale: float) -> Box:
    """A box whose features have widths of their own, some of them none."""
    (given_input,) = structure.wiring.inputs.values()
    (name,) = structure.wiring.inputs
    features = given_input.row[0]
    centre, half = rng.normal(0, scale, features), scale * rng.random(features) * rng.integers(0, 2, features)
    low, high = (centre - half).astype(np.float32), (centre + half).astype(np.float32)
    return box_of(structure.wiring.inputs, [], {name: np.stack([low, high], axis=1).tolist()})


def rows_of(box: Box, rng: np.random.Generator, count: int = 8) -> np.ndarray:
    """Rows in the box, half of them at its corners."""
    features = sum(len(part) for part in box.low.values())
    positions = rng.random((count, features))
    positions[::2] = rng.integers(0, 2, (count // 2, features))
    return box.rows(positions)


def lost(values: Tensor) -> Tensor:
    """What the difference of two values in float64 may lose."""
    return 2.0**-50 * values.abs()


def check_box(structure: Structure, box: Box, seed: int) -> bool:
    """Every evaluation of every value, and of the outputs by every step; whether there is a bound."""
    network, rng = Network.of(structure), np.random.default_rng(seed)
    rows = rows_of(box, rng)
    spans = box.spans()
    try:
        plain = enclose(network, spans)
    except NoBoundError:
        return False
    tight = enclose(network, spans, tightening(WORK))
    directions = adverse(structure, rows)
    (name,), (output,) = structure.wiring.inputs, structure.wiring.outputs
    inputs = {name: (torch.from_numpy(rows).double(), None)}
    everything = walk(network.layers, inputs, len(rows), Evaluation("exact", seed, directions).step)
    exact = everything[structure.values[output]][0].reshape(len(rows), -1)
    evaluations = {mode: Evaluation(mode, seed, directions) for mode in MODES}
    found = {mode: walk(network.layers, inputs, len(rows), each.step) for mode, each in evaluations.items()}
    for enclosed in (plain, tight):
        for layer in network.layers:
            span, (value, _) = enclosed.spans[layer.output], everything[layer.output]
            if not value.is_floating_point():
                continue  # what a comparison says is not rounded
            assert bool(((span.low <= value) & (value <= span.high)).all()), layer.path
            for mode, values in found.items():
                assert bool(((values[layer.output][0] - value).abs() <= span.error * SLACK + lost(value)).all()), (
                    layer.path,
                    mode,
                )
        errors = output_errors(enclosed)
        for mode, values in found.items():
            off = (values[structure.values[output]][0].reshape(len(rows), -1) - exact).abs() - lost(exact)
            for step in (errors.carried, errors.sensitivities, errors.at_once):
                assert bool((off <= step[0] * SLACK).all()), mode
    parts = Parts.of(*flat(spans), tight, output_errors(tight))
    halves = split(network, parts, WORK, deadline=6.0, clock=iter(range(100)).__next__)
    held = (torch.from_numpy(rows).double()[:, None] >= halves.low) & (
        torch.from_numpy(rows).double()[:, None] <= halves.high
    )
    inside = held.all(dim=2)
    assert bool(inside.any(dim=1).all())
    assert bool((halves.largest() <= parts.largest()).all())
    for values in found.values():
        off = (values[structure.values[output]][0].reshape(len(rows), -1) - exact).abs() - lost(exact)
        for row in range(len(rows)):
            assert bool((off[row] <= halves.bound[inside[row]] * SLACK).all())
            assert bool((halves.lowest[inside[row]] <= exact[row]).all())
            assert bool((exact[row] <= halves.highest[inside[row]]).all())
    return True


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("scale", [0.3, 20.0])
def test_every_evaluation_is_within_the_bound_of_its_box(block: str, scale: float, tmp_path: Path) -> None:
    _, module = network([{"linear": 9}, BLOCKS[block], {"linear": 9}, BLOCKS[block], {"linear": 3}])
    module = randomised(module, 1)
    structure = structure_of(module, 7, tmp_path)
    rng = np.random.default_rng(0)
    bounded = [check_box(structure, drawn_box(structure, rng, scale), seed) for seed in range(3)]
    # A narrow box may hold rows whose values are all alike, which a layer norm cannot be bounded for.
    assert all(bounded) or ("layer_norm" in block and (scale == 20 or any(bounded))), bounded


@given(specs(deepest=6, widest=16), st.integers(0, 9), st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=examples(20, of=150), deadline=None)
def test_every_evaluation_of_any_network_is_within_the_bound_of_its_box(
    tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int, scale: float
) -> None:
    module = randomised(assemble(spec), seed)
    assert isinstance(spec.input.features, int)
    structure = structure_of(module, spec.input.features, tmp_path_factory.mktemp("any"))
    check_box(structure, drawn_box(structure, np.random.default_rng(seed), scale), seed)


class Shared(nn.Module):
    """A value that goes two ways, a product of two values, a softmax, a norm, and matrices that cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8, eps=0.1)
        self.right.load_state_dict({"weight": -self.left.weight.detach(), "bias": self.left.bias.detach()})

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        both = self.left(h) + self.right(h)
        gate = torch.softmax(both, dim=1) * h
        return torch.cat([both, h - both, self.norm(gate)], dim=1)[:, 2:].sum(dim=1, keepdim=True) + h


@pytest.mark.parametrize("seed", range(4))
def test_a_value_that_goes_two_ways_is_bounded_over_a_box(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    structure = structure_of(Shared().eval(), 5, tmp_path)
    assert check_box(structure, drawn_box(structure, np.random.default_rng(seed), 1.0), seed)


def exactly(module: nn.Sequential, row: np.ndarray) -> list[Fraction]:
    """The network of linear layers and ReLUs in rationals."""
    values = [Fraction(float(x)) for x in row]
    for part in module:
        if isinstance(part, nn.Linear):
            weight, bias = part.weight.tolist(), part.bias.tolist()
            values = [
                sum((Fraction(w) * x for w, x in zip(line, values, strict=True)), Fraction(b))
                for line, b in zip(weight, bias, strict=True)
            ]
        else:
            values = [max(x, Fraction(0)) for x in values]
    return values


@pytest.mark.parametrize("seed", range(4))
def test_rationals_and_float32_are_where_the_bound_says(seed: int, tmp_path: Path) -> None:
    """Nothing of this comparison is rounded."""
    _, module = network([{"linear": 6}, "relu", {"linear": 5}, "relu", {"linear": 3}], features=4)
    module = randomised(module, seed)
    assert isinstance(module, nn.Sequential)
    structure, rng = structure_of(module, 4, tmp_path), np.random.default_rng(seed)
    box = drawn_box(structure, rng, 2.0)
    enclosed = enclose(Network.of(structure), box.spans(), tightening(WORK))
    bound = output_errors(enclosed).bound[0].tolist()
    (span,) = [enclosed.spans[name] for name in structure.values.values()]
    for row in rows_of(box, rng, 40):
        exact = exactly(module, row)
        with torch.no_grad():
            single = module(torch.from_numpy(row)[None])[0].tolist()
        for index, value in enumerate(exact):
            assert Fraction(span.low[0, index].item()) <= value <= Fraction(span.high[0, index].item())
            assert abs(Fraction(single[index]) - value) <= Fraction(bound[index])


def function(op: str) -> Node:
    attributes = {"gelu": {"approximate": "none"}, "gelu tanh": {"approximate": "tanh"}}.get(op, {})
    options = {
        "leaky_relu": {"negative_slope": 0.1},
        "elu": {"alpha": 1.5},
        "celu": {"alpha": 2.0},
        "softplus": {"beta": 1.5, "threshold": 6.0},
        "clamp": {"min": -1.0, "max": 2.5},
    }
    slope = Constant("w", np.full(1, -0.25, np.float32))
    tensors = {"weight": slope} if "prelu" in op else {}
    return Node(op.split()[0], "f", ("x",), "y", (Rows(), 1), attributes | options.get(op, {}), tensors)


@pytest.mark.parametrize("op", [*FUNCTIONS, "gelu tanh"])
def test_a_function_stays_between_its_lines(op: str) -> None:
    node, rng = function(op), np.random.default_rng(0)
    middle = np.concatenate([rng.uniform(-6, 6, 400), rng.choice([-3, -1, 0, 2.5, 3, 4], 200)])
    half = 10.0 ** rng.uniform(-6, 1, middle.size) * rng.integers(0, 2, middle.size)
    x = Span(torch.from_numpy(middle - half)[:, None], torch.from_numpy(middle + half)[:, None])
    above = FUNCTIONS[node.op].above
    inside = (x.low > above).flatten()
    x = Span(x.low[inside], x.high[inside])
    y = Span(*ENCLOSURES[node.op].values(node, [x]))
    found = lines(node, x, y)
    for place in [0.0, 1.0, *rng.random(60)]:
        point = x.low + (x.high - x.low) * place
        value = evaluate(node, [point], precision=torch.float64)
        assert bool((value <= found.upper * point + found.upper_offset).all())
        assert bool((value >= found.lower * point + found.lower_offset).all())
        assert bool(((y.low <= value) & (value <= y.high)).all())
    known = slopes(node, x.low, x.high)[0].isfinite()  # a softplus that may jump has no lines of its own
    narrow = ((x.high - x.low) < 1e-4) & (x.smallest > 1e-3) & known
    gap = (found.upper - found.lower) * x.middle + found.upper_offset - found.lower_offset
    assert float((gap / (1 + y.largest))[narrow].max()) < 1e-4


def test_a_box_of_one_row_has_the_bound_of_that_row(tmp_path: Path) -> None:
    """Nothing is lost where nothing varies: enclosures are as narrow as float64 is."""
    _, module = network([{"linear": 16}, "tanh", {"linear": 3}])
    structure = structure_of(randomised(module, 0), 7, tmp_path)
    (name,) = structure.wiring.inputs
    row = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    box = box_of(structure.wiring.inputs, [], {name: np.stack([row, row], axis=1).tolist()})
    enclosed: Enclosed = enclose(Network.of(structure), box.spans(), tightening(WORK))
    span = enclosed.spans[next(iter(structure.values.values()))]
    assert float((span.high - span.low).max()) < 1e-9
