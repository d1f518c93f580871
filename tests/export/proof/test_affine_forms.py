"""The bound of a whole network: every float32 evaluation is within it, and it is near to what float32 really does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from builder import MLPSpec, assemble
from export import publish
from export.evaluation import evaluate
from export.graph import Node, Rows
from export.graph import Tensor as Constant
from export.proof.affine_forms import AffineForms, stretch
from export.proof.layer_bounds import SLACK
from export.proof.own_roundings import own_roundings
from export.proof.rules import FUNCTIONS, RULES
from export.proof.slopes import slopes
from export.proof.structure import Layer
from runtime import Session, read_certificate
from tests.support.cases import BLOCKS, network, randomised, specs
from tests.support.repeats import examples
from tests.support.rounding import MODES, Evaluation, adverse, outputs_by, structure_of


def check_every_evaluation(module: nn.Module, rows: np.ndarray, folder: Path, seed: int) -> None:
    structure = structure_of(module, rows.shape[1], folder)
    assert structure.problem is None
    exact, bound = outputs_by(structure, rows, AffineForms(len(rows)).step)
    assert bound is not None
    directions = adverse(structure, rows)
    for mode in MODES:
        found, _ = outputs_by(structure, rows, Evaluation(mode, seed, directions).step)
        within = ((found - exact).abs() <= bound * SLACK) | bound.isinf()  # where float64 overflows nothing is bounded
        assert bool(within.all()), mode


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("scale", [1, 40])
def test_every_evaluation_is_within_the_bound(block: str, scale: float, tmp_path: Path) -> None:
    """With whole numbers as rows and quarters as weights many values are at a kink; large weights widen errors."""
    _, module = network([{"linear": 9}, BLOCKS[block], {"linear": 9}, BLOCKS[block], {"linear": 3}])
    module = randomised(module, 1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear):
                part.weight.copy_((part.weight * 8).round() / 4 * scale)
                if part.bias is not None:
                    part.bias.copy_((part.bias * 8).round() / 4)
    rows = np.random.default_rng(0).integers(-2, 3, (6, 7)).astype(np.float32)
    rows[0], rows[1, 1:] = 0, 0
    check_every_evaluation(module, rows, tmp_path, seed=0)


@given(specs(deepest=8, widest=20), st.integers(0, 9), st.sampled_from([0.01, 1.0, 30.0]))
@settings(max_examples=examples(25, of=150), deadline=None)
def test_every_evaluation_of_any_network_is_within_the_bound(
    tmp_path_factory: pytest.TempPathFactory, spec: MLPSpec, seed: int, scale: float
) -> None:
    module = randomised(assemble(spec), seed)
    assert isinstance(spec.input.features, int)
    rows = np.random.default_rng(seed).standard_normal((4, spec.input.features)) * scale
    rows[0] = np.round(rows[0])
    check_every_evaluation(module, rows.astype(np.float32), tmp_path_factory.mktemp("any"), seed)


@pytest.mark.parametrize("block", ["relu", "relu6", "leaky_relu", {"leaky_relu": -1.0}, "elu", {"clip": [0, 1]}])
def test_at_a_kink_the_steeper_side_counts(block: object, tmp_path: Path) -> None:
    """Two products that cancel: what one rounding of each makes of 0 is most of what any rounding may."""
    _, module = network([{"linear": {"features": 1, "bias": False}}, block, {"linear": 1}], features=2)
    first, last = (part for part in module if isinstance(part, nn.Linear))
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.7, -0.7]]))
        last.weight.fill_(1.0)
        last.bias.zero_()
    check_every_evaluation(module, np.ones((1, 2), np.float32), tmp_path, seed=0)


class Shared(nn.Module):
    """A value that goes two ways, and matrices of which one cancels the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.right.load_state_dict({"weight": -self.left.weight.detach(), "bias": self.left.bias.detach()})

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        both = self.left(h) + self.right(h)
        return torch.cat([both, h - both], dim=1)[:, 2:].sum(dim=1, keepdim=True) + h


@pytest.mark.parametrize("seed", range(3))
def test_a_value_that_goes_two_ways_is_bounded(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    rows = np.random.default_rng(seed).standard_normal((6, 5)).astype(np.float32)
    check_every_evaluation(Shared().eval(), rows, tmp_path, seed)


def test_beyond_its_budget_a_wide_layer_is_bounded_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, module = network([{"residual": [{"linear": 7}, "relu", {"linear": 7}]}, {"linear": 8}, "tanh", {"linear": 3}])
    rows = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    bounds: list[Tensor] = []
    for name, limit in (("_PRODUCTS", 2**28), ("_PRODUCTS", 0), ("_ELEMENTS", 0)):
        monkeypatch.setattr(f"export.proof.affine_forms.{name}", limit)
        check_every_evaluation(module, rows, tmp_path, 0)
        bound = outputs_by(structure_of(module, 7, tmp_path), rows, AffineForms(len(rows)).step)[1]
        assert bound is not None
        bounds.append(bound)
    assert bool((bounds[0] < bounds[1]).all())


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 20), (200, 256)])
@pytest.mark.parametrize("rank", [1, 3, 1000])
def test_no_vector_is_stretched_by_more_than_is_said(shape: tuple[int, int], rank: int) -> None:
    rng = np.random.default_rng(0)
    inner = min(*shape, rank)
    for scale in (1e-18, 1.0, 1e15):
        weight = rng.standard_normal((shape[0], inner)) @ rng.standard_normal((inner, shape[1])) * scale
        largest = np.linalg.svd(weight.astype(np.float32).astype(np.float64), compute_uv=False)[0]
        assert largest <= stretch(weight.astype(np.float32)) <= 1.3 * largest
    assert stretch(np.zeros(shape, np.float32)) == 0


def test_deep_and_beyond_its_budget_errors_are_carried_by_norms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("export.proof.affine_forms._PRODUCTS", 0)
    hidden = [block for _ in range(10) for block in ({"linear": 96}, "relu")]
    _, module = network([*hidden, {"linear": 2}], features=7)
    rows = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    check_every_evaluation(module, rows, tmp_path, 0)
    structure = structure_of(module, 7, tmp_path)
    _, bound = outputs_by(structure, rows, AffineForms(len(rows)).step)
    monkeypatch.setattr("export.proof.affine_forms._STRETCHED", 0)
    _, wider = outputs_by(structure, rows, AffineForms(len(rows)).step)
    assert bound is not None
    assert wider is not None
    assert bool((bound * 5 < wider).all())


OPTIONS = {
    "leaky_relu": {"negative_slope": 0.1},
    "elu": {"alpha": 1.3, "scale": 1, "input_scale": 1},
    "celu": {"alpha": 0.7},
    "softplus": {"beta": 2.5, "threshold": 1.5},
    "clamp": {"min": -0.4, "max": 0.9},
    "gelu": {"approximate": "none"},
}


def function(op: str) -> Node:
    attributes = {"approximate": "tanh"} if op == "gelu tanh" else OPTIONS.get(op, {})
    slope = Constant("w", np.full(1, 0.25, np.float32))
    return Node(op.split()[0], "f", ("x",), "y", (Rows(), 1), attributes, {"weight": slope} if "prelu" in op else {})


@pytest.mark.parametrize("op", [*FUNCTIONS, "gelu tanh", "linear"])
def test_roundings_are_taken_at_their_worst_over_an_interval(op: str) -> None:
    rng = np.random.default_rng(0)
    node, width = function(op), 1
    if op == "linear":
        width = 5
        tensors = {"weight": Constant("w", rng.standard_normal((1, width)).astype(np.float32))}
        node = Node(op, "f", ("x",), "y", (Rows(), 1), {"bias": None}, tensors)
    layer = Layer((node,), node, (), ("x",), "y")
    middle, e = (torch.from_numpy(values) for values in (rng.uniform(-4, 4, (3000, width)), rng.random((3000, width))))
    points = [middle + torch.from_numpy(rng.uniform(-1, 1, middle.shape)) * e for _ in range(20)]
    results = [evaluate(node, [z], precision=torch.float64) for z in points]
    largest = torch.stack(results).abs().amax(dim=0)
    worst = own_roundings(layer, [middle], [e], largest)
    for z, y in zip(points, results, strict=True):
        own = own_roundings(layer, [z], [None], y.abs())
        if op != "linear":
            jumps = slopes(node, middle - e, middle + e)[0].isnan()
            own = torch.where(jumps, 0.0, RULES[node.op](node, [z], [None], y))
        assert bool((own <= worst * (1 + 1e-12)).all())


@pytest.mark.parametrize("op", [*FUNCTIONS, "gelu tanh"])
def test_every_secant_has_a_slope_within_the_limits(op: str) -> None:
    node = function(op)
    rng = np.random.default_rng(0)
    middle = np.concatenate([rng.uniform(-6, 6, 3000), np.tile(rng.choice([-3, 0, 3, 0.6], 500), 2)])
    half = 10.0 ** rng.uniform(-7, 1, middle.size)
    low, high = torch.from_numpy(middle - half)[:, None], torch.from_numpy(middle + half)[:, None]
    least, most = slopes(node, low, high)
    for _ in range(20):
        a, b = (low + torch.from_numpy(rng.random(middle.size))[:, None] * (high - low) for _ in range(2))
        rise = evaluate(node, [b], precision=torch.float64) - evaluate(node, [a], precision=torch.float64)
        slack = 1e-9 * (b - a).abs() + 1e-14 * (1 + evaluate(node, [high], precision=torch.float64).abs())
        within = (rise >= torch.minimum(least * (b - a), most * (b - a)) - slack) & (
            rise <= torch.maximum(least * (b - a), most * (b - a)) + slack
        )
        assert bool((within | least.isnan()).all())
    jumps = op == "softplus" or FUNCTIONS[node.op].above > -np.inf
    assert jumps or not bool(least.isnan().any())
    narrow = torch.from_numpy(half)[:, None] < 1e-5
    assert bool((((most - least) < 1e-4) | ~narrow | least.isnan()).double().mean() > 0.8)


def test_the_bound_of_a_deep_network_is_near_to_its_errors(tmp_path: Path) -> None:
    hidden = [block for _ in range(12) for block in ({"linear": 128}, "relu")]
    spec, module = network([*hidden, {"linear": 10}], features=128)
    artifact, _ = publish(module, tmp_path / "m.onnx", spec=spec, page=False)
    answers = read_certificate(tmp_path / "m.parity.json").answers
    assert answers is not None
    ((name, exact),) = answers.exact.items()
    with Session(artifact.path, "cpu") as session:
        found = session.run(dict(answers.inputs))[name]
    assert answers.bound[name].max() < 1000 * np.abs(found - exact).max()
    assert answers.bound[name].max() < 1e-3 * np.abs(exact).max()
