"""A runtime that multiplies wrongly is found by the exact probes: in any precision, at any place, in any batch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export import export
from runtime import Certificate, DeviceReport, check_device
from runtime.device.linear_layers import Graph
from runtime.device.precisions import PRECISIONS
from runtime.device.probes import probe
from runtime.device.running import on_device
from runtime.model.onnx_messages import parse_model
from tests.support.cases import network, randomised
from tests.support.live import with_certificate
from tests.support.repeats import examples
from tests.support.runtimes import Product, with_product

bfloat16, tf32 = PRECISIONS["bfloat16"], PRECISIONS["TF32"]
File = tuple[Certificate, Path]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    """A file of two linear layers, 20 to 24 and 24 to 5."""
    _, module = network([{"linear": 24}, "relu", {"linear": 5}], features=20)
    return with_certificate(randomised(module, 3), tmp_path_factory.mktemp("file"))


def checked(file: File, product: Product) -> DeviceReport:
    certificate, path = file
    return check_device(path, certificate, opener=with_product(product))


def plain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b


def one_by_one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Another order of the sums."""
    y = np.zeros((len(a), b.shape[1]), np.float32)
    for k in reversed(range(b.shape[0])):
        y += a[:, k : k + 1] * b[k]
    return y


def blocked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fused, in blocks: products and sums of eight terms in float64, rounded once."""
    blocks = range(0, b.shape[0], 8)
    parts = [(a[:, k : k + 8].astype("f8") @ b[k : k + 8].astype("f8")).astype("f4") for k in blocks]
    return np.add.reduce(parts, axis=0)


@pytest.mark.parametrize("product", [plain, one_by_one, blocked])
def test_any_order_of_the_sums_is_right(product: Product, file: File) -> None:
    report = checked(file, product)
    assert report.proved, report.findings
    assert report.linear_layers == 2
    assert report.products > 10_000


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_reduced_precision_is_named(name: str, file: File) -> None:
    rounded = PRECISIONS[name]
    report = checked(file, lambda a, b: rounded(a) @ rounded(b))
    assert not report.proved
    layers = [finding.words for finding in report.findings if finding.kind == "product"]
    assert len(layers) == 2
    assert "a linear layer of 20 to 24" in layers[0]
    assert "the first, x = 2^0, at input 0: output 0 is " in layers[0]
    assert any(cause.startswith(f"products are rounded to {name}: ") for cause in report.causes)


@pytest.mark.parametrize("name", PRECISIONS)
def test_factors_that_are_rounded_alone_are_found(name: str, file: File) -> None:
    rounded = PRECISIONS[name]
    for product in (lambda a, b: a @ rounded(b), lambda a, b: rounded(a) @ b):
        report = checked(file, product)
        assert {finding.kind for finding in report.findings} >= {"product"}


def one_of_200(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every 200th product of two numbers is rounded to bfloat16, by its place."""
    products = np.ascontiguousarray(a[:, :, None] * b)
    flat = products.reshape(-1)
    flat[100::200] = bfloat16(flat[100::200])
    return products.sum(axis=1)


def after_200_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The kernel of large batches is wrong in its last rows."""
    y = a @ b
    y[199:] = bfloat16(a[199:]) @ bfloat16(b)
    return y


def one_call_of_200() -> Product:
    calls = count(1)
    return lambda a, b: bfloat16(a @ b) if next(calls) % 200 == 0 else a @ b


def one_column(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The remainder of the columns is computed twice."""
    y = a @ b
    y[:, -1] += a[:, -1] * b[-1, -1]
    return y


def narrow_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact products, added up in fewer bits."""
    y = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(b.shape[0]):
        y = tf32(y + a[:, k : k + 1] * b[k])
    return y


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (lambda: one_of_200, "some products are rounded to bfloat16: "),
        (lambda: after_200_rows, "wrong in batches of 200, 256 rows, and right in those of 1, 2, 3"),
        (one_call_of_200, "wrong in batches of 1 rows, and right in those of 2, 3"),
        (lambda: one_column, "multiplies wrongly on this processor"),
        (lambda: narrow_sums, "products are rounded to TF32: "),
    ],
)
def test_a_wrong_product_is_found(fault: Callable[[], Product], cause: str, file: File) -> None:
    report = checked(file, fault())
    assert not report.proved
    assert "product" in {finding.kind for finding in report.findings}
    assert any(cause in each for each in report.causes), report.causes


@given(st.data())
@settings(max_examples=examples(15, of=60), deadline=None)
def test_a_single_product_that_is_rounded_is_found_at_any_place(file: File, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 64, 200, 256]))
    row, k, column = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 19)), data.draw(st.integers(0, 23))

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = a @ b
        if len(a) == size and b.shape == (20, 24):
            right = a[row, k] * b[k, column]
            y[row, column] += tf32(right[None])[0] - right
        return y

    report = checked(file, product)
    (finding,) = (finding for finding in report.findings if finding.kind == "product")
    assert f"output {column} is" in finding.words


def test_weights_that_a_bias_hides_are_probed_behind_it(tmp_path: Path) -> None:
    """Weights that are cut to three decimals are right for integers, and with x = 1 the bias has no room for them."""
    _, module = network([{"linear": 3}], features=4)
    nn.init.constant_(module[0].get_parameter("bias"), 1e6)
    path = export(module, tmp_path / "m.onnx").path
    graph = Graph(parse_model(path.read_bytes(), path), tmp_path)
    (layer,) = graph.linear_layers()
    coarse = with_product(lambda a, b: a @ np.round(b, 3))
    probed = probe(layer, graph.model, coarse, 0, None)
    assert probed.first.startswith("x = 2^40, at input 0: output 0 is ")
    assert probed.wrong == probed.single == layer.weight.size
    assert probed.precision is None


def test_a_wide_layer_is_probed_in_every_input(tmp_path: Path) -> None:
    """Sums of more than 2^12 terms would not be exact, so that rows take turns."""
    _, module = network([{"linear": 3}], features=5000)
    path = export(module, tmp_path / "m.onnx").path
    graph = Graph(parse_model(path.read_bytes(), path), tmp_path)
    (layer,) = graph.linear_layers()

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = a.astype("f8") @ b.astype("f8")
        if len(a) == 16:
            y[:, 1] += tf32(a[:, 4999] * b[4999, 1]) - a[:, 4999] * b[4999, 1]
        return y.astype("f4")

    assert probe(layer, graph.model, on_device(path, "cpu"), 0, None).wrong == 0
    assert "in a batch of 16: row" in probe(layer, graph.model, with_product(product), 0, None).first
