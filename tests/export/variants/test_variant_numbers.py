"""The arithmetic of files of reduced precision, against numpy's on the integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export import write_variant
from export.variants import KINDS
from export.variants.kinds import activation_range, extremes, is_exact, passed_over, per_block, per_column, probe
from runtime import Session
from tests.support.cases import normal
from tests.support.onnx_drafts import layer

WAYS = [(kind, way) for kind, one in KINDS.items() for way in one.ways]
SIZES = st.tuples(st.integers(1, 70), st.integers(1, 20), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_the_results_are_those_of_the_rounded_weights(
    sizes: tuple[int, int, int], seed: int, scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against numpy's arithmetic on the integers. What remains is float32's own rounding, of n + 3 operations."""
    features, outputs, count = sizes
    generator = np.random.default_rng(seed)
    weight = (generator.standard_normal((features, outputs)) * scale).astype(np.float32)
    bias = generator.standard_normal(outputs).astype(np.float32)
    x = generator.standard_normal((count, features)).astype(np.float32)
    path = layer(tmp_path_factory.mktemp("layer"), weight, bias)
    for kind, one in EMULATED.items():
        expected, magnitude = one(weight, bias, x)
        with Session(write_variant(path, kind, rows={"x": x}).path, "cpu") as session:
            found = session.predict(x)
        assert (np.abs(found - expected) <= (features + 8) * 2.0**-23 * magnitude).all(), kind


def emulated_float16(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = weight.astype(np.float16).astype(np.float64)
    return x @ held + bias, np.abs(x) @ np.abs(held) + np.abs(bias)


def emulated_dynamic(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DynamicQuantizeLinear as ONNX defines it: uint8, the range of the batch widened to hold 0."""
    low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
    step = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(-low / step), 0, 255)
    quantised = np.clip(np.rint(x / step) + zero, 0, 255) - zero
    held, scale = per_column(weight)
    products = quantised.astype(np.int64) @ held.astype(np.int64)
    expected = products * (np.float64(step) * scale) + bias
    return expected, np.abs(products) * np.float64(step) * scale + np.abs(bias)


def emulated_static(weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step, zero = activation_range(float(x.min()), float(x.max()))
    held, scale = per_column(weight, np.abs(bias) / (step * np.float32(2**30)))
    quantised = np.clip(np.rint(x / step) + zero, -128, 127) - zero
    joint = (step * scale).astype(np.float32).astype(np.float64)
    whole = quantised.astype(np.int64) @ held.astype(np.int64) + np.rint(bias / joint).astype(np.int64)
    return whole * joint, np.abs(whole) * joint


EMULATED = {"float16": emulated_float16, "int8-dynamic": emulated_dynamic, "int8-static": emulated_static}


def test_columns_are_read_back_within_half_a_step() -> None:
    weight = normal(50, 9) * np.arange(9, dtype=np.float32)
    held, scale = per_column(weight)
    assert (np.abs(held * scale.astype(np.float64) - weight) <= 0.5001 * scale).all()
    assert (np.abs(held).max(axis=0)[1:] == 127).all()
    assert scale[0] == 1


def test_ranges_are_those_of_all_rows(tmp_path: Path) -> None:
    """The extremes stand in the first of several thousand rows; without them the result would be cut off at 1."""
    path = layer(tmp_path, np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    x = np.random.default_rng(0).uniform(-1, 1, (5000, 1)).astype(np.float32)
    x[0], x[1] = 8, -4
    with Session(write_variant(path, "int8-static", rows={"x": x}).path, "cpu") as session:
        assert np.abs(session.predict(x) - x).max() <= 0.51 * 12 / 255


@pytest.mark.parametrize(("bits", "block"), [(8, 128), (4, 32), (4, 16)])
def test_blocks_are_read_back_within_half_a_step(bits: int, block: int) -> None:
    """Each weight within half a scale; the largest positive of a block may be a whole one off, as it is clipped."""
    weight = normal(block * 3 + 5, 7)
    held, scale = per_block(weight, bits, block)
    if bits == 4:
        held = np.stack([held & 15, held >> 4], axis=3).reshape(*held.shape[:2], -1)
    read = (held.astype(np.float64) - 2 ** (bits - 1)) * scale[:, :, None]
    read = read.reshape(7, -1)[:, : len(weight)].T
    steps = np.repeat(np.abs(scale), block, axis=1)[:, : len(weight)].T
    assert (np.abs(read - weight) <= 1.0001 * steps).all()
    inner = np.abs(weight) < np.abs(steps) * (2 ** (bits - 1) - 1)
    assert (np.abs(read - weight)[inner] <= 0.5001 * steps[inner]).all()
    assert inner.mean() > 0.8


@pytest.mark.parametrize(("kind", "way"), [w for w in WAYS if w[0].startswith("weights")])
def test_weights_by_blocks_give_what_the_read_back_weights_give(kind: str, way: str, tmp_path: Path) -> None:
    """With rows as float32 the products are those of the weights read back; as int8 a row's block rounds by 1/254."""
    weight, bias, x = normal(150, 9), normal(1, 9, 1)[0], normal(6, 150, 2)
    bits, block = (8, 128) if kind == "weights8" else (4, 32)
    held, scale = per_block(weight, bits, block)
    if bits == 4:
        held = np.stack([held & 15, held >> 4], axis=3).reshape(*held.shape[:2], -1)
    read = ((held.astype(np.float64) - 2 ** (bits - 1)) * scale[:, :, None]).reshape(9, -1)[:, :150].T
    with Session(write_variant(layer(tmp_path, weight, bias), kind, way=way).path, "cpu") as session:
        found = session.predict(x)
    bound = 160 * 2.0**-23 * (np.abs(x) @ np.abs(read) + np.abs(bias))
    if way == "rows as int8":
        starts = np.arange(0, 150, block)
        largest = np.maximum.reduceat(np.abs(x), starts, axis=1)
        bound = bound + (largest / 254 * 1.001) @ np.add.reduceat(np.abs(read), starts, axis=0)
    assert (np.abs(found - (x @ read + bias)) <= bound).all()


def saturating(row: np.ndarray) -> np.ndarray:
    """The product of u8 rows and s8 weights where pairs are added in 16 bits, as on AVX2 without VNNI."""
    _, weight = extremes()
    low = min(0.0, float(row.min()))
    step = (float(row.max()) - low) / 255
    zero = round(-low / step)
    quantised = np.rint(row / step).astype(np.int64) + zero
    products = quantised[:, :, None] * (127 * weight).astype(np.int64)
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -(2**15), 2**15 - 1).sum(axis=1)
    return (pairs - zero * (127 * weight).astype(np.int64).sum(axis=0)) * step / 127


def test_a_product_that_saturates_is_detected() -> None:
    _, weight = extremes()
    assert is_exact(lambda row: row @ weight)
    assert not is_exact(saturating)


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_slower_way_has_a_reason(kind: str, way: str) -> None:
    reason, fastest = passed_over(kind, way), next(iter(KINDS[kind].ways))
    assert reason is None if way == fastest else f"{kind} as {fastest}: its products are not exact" in str(reason)
    assert reason is None or "vnni" in reason or "not known" in reason


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_the_check_agrees_with_the_integer_product(kind: str, way: str) -> None:
    """Where MatMulInteger of u8 and s8 is exact here, every way is found exact; where not, that one is not."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 64), ("y", 8))
    ]
    held = np.full((64, 8), 127, np.int8)
    nodes = [
        helper.make_node("Cast", ["x"], ["q"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["q", "w"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "product", ports[:1], ports[1:], [numpy_helper.from_array(held, "w")])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with Session(content, "cpu", threads=1) as session:
        exact = bool((session.predict(np.full((1, 64), 255, np.float32)) == 255 * 127 * 64).all())
    with Session(probe(KINDS[kind], way), "cpu", threads=1) as session:
        assert is_exact(session.predict) or (not exact and way in ("u8 rows, s8 weights", "rows as int8"))
        assert exact or way != "u8 rows, s8 weights" or not is_exact(session.predict)
