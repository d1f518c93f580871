"""The bound of affine operators that a file has as one, rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.evaluation import evaluate
from export.graph import Node, Rows
from export.graph import Tensor as Constant
from export.proof.rules.arithmetic import is_affine, magnitude, merged, roundings
from tests.support.operator_cases import CASES, numbers


def _chain(seed: int) -> list[Node]:
    rng = np.random.default_rng(seed)

    def constant(*shape: int) -> Constant:
        return Constant("c", rng.standard_normal(shape).astype(np.float32))

    def positive(*shape: int) -> Constant:
        return Constant("c", (0.2 + np.abs(rng.standard_normal(shape))).astype(np.float32))

    n, wide, out = 6, 9, 4
    shape = (Rows(), n)
    nodes = [
        Node("sub", "a", ("x",), "a", shape, tensors={"other": constant(n)}, overload="Tensor"),
        Node("div", "b", ("a",), "b", shape, tensors={"other": positive(n)}, overload="Tensor"),
        Node("linear", "c", ("b",), "c", (Rows(), wide), tensors={"weight": constant(wide, n), "bias": constant(wide)}),
        Node("neg", "d", ("c",), "d", (Rows(), wide)),
        Node(
            "batch_norm",
            "e",
            ("d",),
            "e",
            (Rows(), wide),
            {"training": False, "momentum": 0.0, "eps": 1e-5, "cudnn_enabled": False},
            {
                "weight": constant(wide),
                "bias": constant(wide),
                "running_mean": constant(wide),
                "running_var": positive(wide),
            },
        ),
        Node("linear", "f", ("e",), "f", (Rows(), out), {"bias": None}, {"weight": constant(out, wide)}),
        Node("mul", "g", ("f",), "g", (Rows(), out), {"other": 1.7}, overload="Tensor"),
        Node("add", "h", ("g",), "h", (Rows(), out), tensors={"other": constant(1)}, overload="Tensor"),
    ]
    assert all(is_affine(node) for node in nodes)
    return nodes


def _through(nodes: Sequence[Node], z: torch.Tensor) -> torch.Tensor:
    for node in nodes:
        z = evaluate(node, [z])
    return z


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), scale=st.floats(1e-3, 1e3), e=st.sampled_from([0.0, 1e-3]))
def test_a_chain_that_is_rounded_once_is_within_its_bound(seed: int, scale: float, e: float) -> None:
    """Composed in float64, rounded to float32, and summed forwards and backwards."""
    nodes = _chain(seed)
    start = _through(nodes, torch.zeros(1, 6, dtype=torch.float64))
    weight = (_through(nodes, torch.eye(6, dtype=torch.float64)) - start).T.numpy().astype(np.float32)
    bias = start[0].numpy().astype(np.float32)
    linear = Node(
        "linear", "m", ("x",), "h", (Rows(), 4), {}, {"weight": Constant("w", weight), "bias": Constant("b", bias)}
    )
    x = numbers("number", (12, 6), seed, scale)
    z = torch.from_numpy(x).double()
    y = _through(nodes, z)
    given = None if e == 0 else torch.full_like(z, e)
    radius = merged(nodes, linear, z, given, y)
    moved = x.astype(np.float64) + (0 if e == 0 else np.random.default_rng(seed).choice([-e, e], x.shape))
    if e:
        y_moved = _through(nodes, torch.from_numpy(moved))
        assert ((y_moved - y).abs() <= radius).all()
        return
    for order in (range(6), range(5, -1, -1)):
        total = np.zeros((12, 4), np.float32)
        for i in order:
            total = total + x[:, i, None] * weight[None, :, i]
        found = torch.from_numpy(total + bias).double()
        assert ((found - y).abs() <= radius).all()
    assert roundings(linear) == 7
    assert magnitude(linear, z.abs()).shape == y.shape


@pytest.mark.parametrize("op", ["addcmul", "mul", "add"])
def test_a_chain_of_features_is_within_its_bound(op: str) -> None:
    nodes = _chain(3)[:2]
    start = _through(nodes, torch.zeros(1, 6, dtype=torch.float64))
    factor = (_through(nodes, torch.ones(1, 6, dtype=torch.float64)) - start).float().numpy()[0]
    offset = start.float().numpy()[0]
    if op == "mul":
        nodes = [nodes[1], replace(nodes[1], op="mul")]
        factor = np.float32(1) * np.ones(6, np.float32)
        offset = 0 * offset
    if op == "add":
        nodes = [nodes[0], replace(nodes[0], op="add")]
        factor, offset = np.ones(6, np.float32), 0 * offset
    tensors = {
        "addcmul": {"self": Constant("s", offset), "tensor2": Constant("f", factor)},
        "mul": {"other": Constant("f", factor)},
        "add": {"other": Constant("s", offset)},
    }[op]
    one = Node(op, "m", ("x",), "y", (Rows(), 6), {}, tensors, "default" if op == "addcmul" else "Tensor")
    x = numbers("number", (50, 6), 5)
    z = torch.from_numpy(x).double()
    y = _through(nodes, z)
    radius = merged(nodes, one, z, None, y)
    found = torch.from_numpy(x * factor + offset).double()
    assert ((found - y).abs() <= radius).all()
    assert (radius < 1e-5 * (1 + z.abs())).all()


def test_what_is_not_affine() -> None:
    cases = ("div a constant", "div a number", "add", "tanh", "matmul", "add whole numbers", "matmul with a constant")
    assert not any(is_affine(CASES[name].node) for name in cases)
    named = ("linear", "batch_norm", "addcmul", "sub from a constant", "div by a constant", "mul by a number", "neg")
    assert all(is_affine(CASES[name].node) for name in named)
