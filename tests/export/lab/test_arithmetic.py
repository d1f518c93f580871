"""The arithmetic of the page of ``mlpx lab``, beside NumPy's and PyTorch's, and its bounds beside those of a proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.planted.edits import tf32
from export.graph import Node, Rows, Tensor
from export.lab.page import write_lab
from export.proof.layer_bounds import SLACK
from export.proof.rules import RULES
from tests.support.browser import CHROMIUM
from tests.support.devtools import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
RNG = np.random.default_rng(0)
N = 5
CONSTANT = RNG.standard_normal(N).astype(np.float32)
FUNCTIONS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "relu": ({}, {}),
    "leaky_relu": ({"slope": 0.01}, {"negative_slope": 0.01}),
    "sigmoid": ({}, {}),
    "tanh": ({}, {}),
    "elu": ({"alpha": 1.5}, {"alpha": 1.5, "scale": 1.0, "input_scale": 1.0}),
    "silu": ({}, {}),
    "clip": ({"min": -1.0, "max": 2.0}, {"min": -1.0, "max": 2.0}),
}
"""By the page's names: the options there, and those of the ATen operator."""
ATEN = {"clip": "clamp"}
DRAWN = "((draw) => Array.from({{length: 20000}}, draw))(float32.{}(7))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    file = tmp_path_factory.mktemp("lab") / "lab.html"
    write_lab(file)
    with Page() as page:
        page.open(file.as_uri())
        yield page


def computed(page: Page, expression: str, **given: Any) -> Any:
    """The value of an expression of the page, where the given arrays are arrays of float32."""
    names = ", ".join(given)
    values = ", ".join(
        f"Float32Array.from({json.dumps(v.reshape(-1).tolist())})" if isinstance(v, np.ndarray) else json.dumps(v)
        for v in given.values()
    )
    return page.evaluate(f"(({names}) => {expression})({values})")


def float32s(values: list[float]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float32)


def numbers() -> np.ndarray:
    """Finite float32 numbers of every exponent, ties of the narrower formats, and the largest ones of float16."""
    patterns = RNG.integers(0, 2**32, 6000, dtype=np.uint32)
    ties = (RNG.integers(0, 2**32, 3000, dtype=np.uint32) & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    edges = np.array([0.0, 65504, 65519.996, 65520, 2**-14, 2**-24, 2**-25, 3 * 2**-25, -(2**-149), 2**-126], "f4")
    near = RNG.uniform(-4, 4, 4000).astype(np.float32)
    found = np.concatenate([patterns.view(np.float32), ties.view(np.float32), edges, near])
    return found[np.isfinite(found)]


def test_neighbours_and_narrower_formats(page: Page) -> None:
    x = numbers()
    with np.errstate(over="ignore"):
        expected = {
            "nextUp": np.nextafter(x, np.float32(np.inf)),
            "tf32": tf32(x),
            "float16": x.astype(np.float16).astype(np.float32),
        }
    for name, values in expected.items():
        patterns = computed(page, f"Array.from(x, (v) => float32.bits(float32.{name}(v)))", x=x)
        same = np.array(patterns, np.uint32).view(np.float32) == values
        assert same.all(), (name, x[~same][:3])


@pytest.mark.parametrize("order", ["sequence", "four"])
@pytest.mark.parametrize("is_tf32", [False, True], ids=["float32", "tf32"])
def test_a_linear_has_the_bits_of_numpy(page: Page, order: str, is_tf32: bool) -> None:
    inputs, outputs, rows = 13, 7, 20
    weight, bias, x = (RNG.standard_normal(s).astype("f4") for s in ((outputs, inputs), outputs, (rows, inputs)))
    layer = "{op: 'linear', path: '0', inputs: 13, outputs: 7, weight, bias}"
    how = json.dumps({"order": order, "isTf32": is_tf32})
    found = computed(page, f"[...networks.run([{layer}], x, 20, {how})[1]]", weight=weight, bias=bias, x=x)
    left, right = (tf32(x), tf32(weight)) if is_tf32 else (x, weight)
    sums = np.zeros((4, rows, outputs), np.float32)
    for i in range(inputs):
        place = i % 4 if order == "four" else 0
        sums[place] = sums[place] + left[:, i, None] * right[None, :, i]
    expected = (sums[0] + sums[1]) + (sums[2] + sums[3]) + bias
    np.testing.assert_array_equal(float32s(found).reshape(rows, outputs), expected)


@pytest.mark.parametrize("op", ["sub", "div", "mul", "add"])
def test_arithmetic_has_the_bits_of_numpy(page: Page, op: str) -> None:
    x = (RNG.standard_normal((500, N)) * 10.0 ** RNG.integers(-6, 6, (500, N))).astype(np.float32)
    numpy = {"sub": np.subtract, "div": np.divide, "mul": np.multiply, "add": np.add}[op]
    layer = f"{{op: '{op}', path: '0', value}}"
    found = computed(page, f"[...networks.run([{layer}], x, 500, {{}})[1]]", value=CONSTANT, x=x)
    np.testing.assert_array_equal(float32s(found).reshape(500, N), numpy(x, CONSTANT))


def aten(op: str, x: torch.Tensor) -> torch.Tensor:
    name, options = ATEN.get(op, op), FUNCTIONS[op][1]
    rounded = {key: float(np.float32(value)) for key, value in options.items()}
    return getattr(torch.ops.aten, name)(x, **rounded)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_are_those_of_pytorch(page: Page, op: str) -> None:
    """Exactly, as far as float64 goes; in float32 the page rounds that once, so PyTorch's float32 is near."""
    x = np.concatenate([numbers()[:500].clip(-1e4, 1e4), RNG.standard_normal(500)]).astype(np.float32)
    layer = {"op": op, "path": "0", **{k: float(np.float32(v)) for k, v in FUNCTIONS[op][0].items()}}
    exact = computed(page, "[...networks.bounded(layer, x, x.length, lab.record.limits).exact]", layer=layer, x=x)
    expected = aten(op, torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(np.array(exact, float), expected, rtol=1e-14, atol=1e-300)
    found = float32s(computed(page, "[...networks.run([layer], x, x.length, {})[1]]", layer=layer, x=x))
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1.2e-7, atol=2**-149)


def rule(op: str, x: np.ndarray, tensors: dict[str, np.ndarray], attributes: dict[str, float]) -> np.ndarray:
    """The radius that a proof allows."""
    held = {role: Tensor(role, values) for role, values in tensors.items()}
    overload = "Tensor" if "other" in tensors else "default"
    node = Node(op, "", ("x",), "y", (Rows(), x.shape[1]), attributes=attributes, tensors=held, overload=overload)
    z = torch.from_numpy(x).double()
    constants = {role: torch.from_numpy(values).double() for role, values in tensors.items()}
    if op == "linear":
        y = z @ constants["weight"].T + constants.get("bias", torch.zeros(1))
    elif op in ("sub", "div", "mul", "add"):
        y = {"sub": torch.sub, "div": torch.div, "mul": torch.mul, "add": torch.add}[op](z, constants["other"])
    else:
        y = aten({"clamp": "clip"}.get(op, op), z)
    return (RULES[op](node, [z], [None], y) * SLACK).numpy()


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_bound_of_a_linear_is_that_of_a_proof(page: Page, with_bias: bool) -> None:
    weight, bias, x = (RNG.standard_normal(s).astype("f4") for s in ((7, 13), 7, (20, 13)))
    layer = f"{{op: 'linear', path: '0', inputs: 13, outputs: 7, weight, bias: {'bias' if with_bias else 'null'}}}"
    found = computed(
        page, f"[...networks.bounded({layer}, x, 20, lab.record.limits).radius]", weight=weight, bias=bias, x=x
    )
    expected = rule("linear", x, {"weight": weight} | ({"bias": bias} if with_bias else {}), {})
    np.testing.assert_allclose(np.array(found).reshape(20, 7), expected, rtol=1e-12)


@pytest.mark.parametrize("op", [*FUNCTIONS, "sub", "div", "mul", "add"])
def test_the_bounds_of_other_layers_are_those_of_a_proof(page: Page, op: str) -> None:
    x = (RNG.standard_normal((200, N)) * 10.0 ** RNG.integers(-6, 4, (200, N))).astype(np.float32)
    options, attributes = FUNCTIONS.get(op, ({}, {}))
    layer = {"op": op, "path": "0", **{k: float(np.float32(v)) for k, v in options.items()}}
    call = "[...networks.bounded({...layer, value}, x, 200, lab.record.limits).radius]"
    found = computed(page, call, layer=layer, value=CONSTANT, x=x)
    expected = rule(ATEN.get(op, op), x, {"other": CONSTANT} if op not in FUNCTIONS else {}, attributes)
    np.testing.assert_allclose(np.array(found).reshape(200, N), expected, rtol=1e-12, atol=0)


def test_a_seed_draws_the_same_numbers_and_they_are_spread(page: Page) -> None:
    drawn = computed(page, DRAWN.format("random"))
    assert drawn == computed(page, DRAWN.format("random"))
    values = np.array(drawn)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 10, (0, 1))[0]
    assert abs(counts - 2000).max() < 200
    normal = np.array(computed(page, DRAWN.format("normal")))
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
