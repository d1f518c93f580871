"""The bounds of a proof hold for correct kernels, and for those alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.blocks import TABLE
from export.proof.bounds import RULES
from export.proof.constants import CONSTANTS, grid, main, measure, measurements
from export.proof.layerwise import SLACK, LayerCheck, expected
from export.proof.reference import BLOCKS, evaluate
from export.proof.refolding import as_node, refolded
from export.proof.rounding import LARGEST
from export.proof.spellings import SPELLINGS
from export.proof.structure import Layer, acting
from export.trace import trace
from tests.cases import BLOCKS as CASES
from tests.cases import network, normal

ACTING = [name for name in CASES if name not in ("dropout", "identity", "flatten")]
FEATURES = 7


def layers(name: str) -> list[Layer]:
    """The layers of a network of one block, as a file would hold them."""
    _, module = network([CASES[name]])
    graph = acting(trace(module, (FEATURES,)))
    rows = ((FEATURES,), (FEATURES,))
    return [Layer((node,), node, (), node.inputs, node.output, rows=rows[: len(node.inputs)]) for node in graph.nodes]


def inputs(layer: Layer, rows: int = 200) -> dict[str, np.ndarray]:
    return {name: 3 * normal(rows, FEATURES, seed) for seed, name in enumerate(layer.inputs)}


def test_every_block_that_acts_has_a_reference_and_a_bound() -> None:
    assert set(BLOCKS) == set(TABLE)
    computing = {name for name, row in TABLE.items() if not row.inactive} - {"flatten"}
    assert set(RULES) == computing == set(SPELLINGS) - {"scaled linear"}


@pytest.mark.parametrize("name", ACTING)
def test_pytorch_in_float32_is_within_the_bound(name: str) -> None:
    for layer in layers(name):
        values = inputs(layer)
        y = evaluate(layer.held, [torch.from_numpy(values[key]) for key in layer.inputs])
        check = LayerCheck((layer,))
        check.compare("normal", {**values, layer.output: y.numpy()}, values[layer.inputs[0]])
        assert check.failure is None and check.ratio <= 1 and check.compared == y.numel()


@pytest.mark.parametrize("name", ACTING)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_just_beyond_its_bound_is_named(name: str, sign: int) -> None:
    for layer in layers(name):
        values = inputs(layer)
        z = [torch.from_numpy(values[key]).double() for key in layer.inputs]
        y, radius = (part.numpy() for part in expected(layer, z, [None] * len(z)))
        found = y.astype(np.float32)
        beyond = y[5, 2] + sign * max(1.001 * SLACK * radius[5, 2], 0.0)
        found[5, 2] = np.nextafter(np.float32(beyond), np.float32(sign * np.inf))
        check = LayerCheck((layer,))
        check.compare("normal", {**values, layer.output: found}, values[layer.inputs[0]])
        e = check.failure
        assert e is not None and (e.row, e.index, e.layer) == (5, 2, layer.path) and e.ratio > 1
        assert e.exact == pytest.approx(y[5, 2]) and e.found == found[5, 2]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["relu", "linear", "softmax"])
def test_nan_and_infinity_on_one_side_only_are_failures(name: str, wrong: float) -> None:
    for layer in layers(name):
        values = inputs(layer)
        y = evaluate(layer.held, [torch.from_numpy(values[key]).double() for key in layer.inputs]).numpy()
        found = y.astype(np.float32)
        found[3, 1] = wrong
        check = LayerCheck((layer,))
        check.compare("normal", {**values, layer.output: found}, values[layer.inputs[0]])
        assert check.failure is not None and check.failure.ratio == np.inf and check.failure.row == 3
        values[layer.inputs[0]][3, :] = np.nan  # now NaN is right, and a number is not
        missed = LayerCheck((layer,))
        missed.compare("normal", {**values, layer.output: y.astype(np.float32)}, values[layer.inputs[0]])
        assert missed.failure is not None and missed.failure.row == 3


def test_what_may_overflow_is_exempt_and_counted() -> None:
    (layer,) = layers("linear")
    values = {layer.inputs[0]: np.full((1, FEATURES), LARGEST, np.float32)}
    out = layer.held.shape[0]
    check = LayerCheck((layer,))
    check.compare("large", {**values, layer.output: np.full((1, out), np.inf, np.float32)}, values[layer.inputs[0]])
    assert check.exempt > 0 and check.exempt + check.compared == out


@settings(deadline=None, max_examples=60)
@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**16),
)
def test_any_order_of_summation_is_within_the_bound(widths: list[int], scale: float, seed: int) -> None:
    """A composed map, summed forwards, backwards and in pairs, in float32."""
    blocks = ["standardize", *({"linear": width} for width in widths[1:]), "scale"]
    _, module = network(blocks, features=widths[0], seed=seed)
    nodes = list(acting(trace(module, (widths[0],))).nodes)
    held = as_node(nodes, refolded(nodes))
    layer = Layer(tuple(nodes), held, (), nodes[0].inputs, nodes[-1].output, rows=((widths[0],),))
    x = (scale * normal(20, widths[0], seed)).astype(np.float32)
    weight, bias = held.tensors["weight"].values, held.tensors["bias"].values
    for order in (slice(None), slice(None, None, -1)):
        total = np.zeros((len(x), len(weight)), np.float32)
        for column in range(widths[0])[order]:
            total = total + x[:, column, None] * weight[None, :, column]
        check = LayerCheck((layer,))
        check.compare("x", {layer.inputs[0]: x, layer.output: total + bias}, x)
        assert check.failure is None


@pytest.mark.parametrize("seed", range(3))
def test_the_radius_of_an_input_is_carried_through(seed: int) -> None:
    """Anything within the radius of the input gives a result within the radius of the output."""
    rng = np.random.default_rng(seed)
    for name in ACTING:
        for layer in layers(name):
            z = [torch.from_numpy(2 * rng.standard_normal((64, FEATURES))) for _ in layer.inputs]
            e = [1e-3 * torch.from_numpy(rng.random((64, FEATURES))) for _ in z]
            y, radius = expected(layer, z, e)
            for _ in range(8):
                moved = [a + b * torch.from_numpy(rng.choice([-1.0, 1.0], b.shape)) for a, b in zip(z, e, strict=True)]
                assert ((evaluate(layer.held, moved) - y).abs() <= radius * SLACK).all(), name


def test_the_constants_hold_here(device: str) -> None:
    for found in measurements(device, 14):
        assert found.share <= 1, found


def test_another_kernel_is_beyond_the_constants() -> None:
    points = grid(12)

    def hard(x: np.ndarray) -> np.ndarray:
        return np.clip(x / 6 + 0.5, 0, 1)

    assert measure("sigmoid", "wrong", hard, points).share > 1e3


def test_the_program_prints_every_activation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setattr("sys.argv", ["constants", "--points", "10", "--device", "cpu", "--json", f"{tmp_path}/c.json"])
    main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in CONSTANTS)


def test_refolding_sees_what_a_member_says() -> None:
    _, module = network([{"linear": 5}, "batch_norm"])
    nodes = list(acting(trace(module, (FEATURES,))).nodes)
    right = refolded(nodes)
    other = replace(nodes[1], attributes={**nodes[1].attributes, "eps": 1e-3})
    assert not np.array_equal(refolded([nodes[0], other])["weight"], right["weight"])
    exact = module.double()(torch.eye(FEATURES).double()) - module(torch.zeros(1, FEATURES).double())
    np.testing.assert_allclose(right["weight"].T, exact.detach().numpy(), rtol=1e-6)
