"""Padded device buffers. Their logic runs anywhere, on the CPU's buffers; CUDA graphs and tensors need a GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export import export
from runtime import InputError, Session
from runtime.session.buffers import MAX_PADDED, padded_size
from runtime.session.gpu import GpuRunner
from runtime.session.settings import Settings
from tests.support.cases import normal, relu_network

CPU = (("CPUExecutionProvider", {}),)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec, module = relu_network("small")
    return export(module, tmp_path_factory.mktemp("gpu") / "small.onnx", spec=spec).path


@pytest.fixture(scope="module")
def padded(small: Path) -> GpuRunner:
    return GpuRunner(small, CPU, Settings(), kind="cpu")


@given(rows=st.integers(1, 10**6))
def test_a_batch_is_padded_to_the_next_power_of_two(rows: int) -> None:
    size = padded_size(rows)
    assert size & (size - 1) == 0
    assert (size >= rows and size < 2 * rows) or size == MAX_PADDED


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(0, 2 * MAX_PADDED + 10), strided=st.booleans())
def test_padded_batches_give_what_a_session_gives(small: Path, padded: GpuRunner, rows: int, strided: bool) -> None:
    x = normal(2 * MAX_PADDED + 10, 128)[:rows, ::2] if strided else normal(2 * MAX_PADDED + 10, 64)[:rows]
    with Session(small, "cpu") as session:
        (found,) = _run(padded, x)
        np.testing.assert_allclose(found, session.predict(x), rtol=0, atol=1e-5)


def _run(padded: GpuRunner, x: np.ndarray) -> list[np.ndarray]:
    return padded.run([padded.outputs[0].name], {padded.inputs[0].name: x})


def test_what_lay_in_the_buffers_before_does_not_show(padded: GpuRunner) -> None:
    x = normal(5, 64)
    (before,) = _run(padded, x)
    _run(padded, np.full((8, 64), np.nan, np.float32))
    (after,) = _run(padded, x)
    np.testing.assert_array_equal(before, after)


def test_threads_take_turns(padded: GpuRunner) -> None:
    x = normal(64, 64)
    (whole,) = _run(padded, x)

    def wrong(start: int) -> bool:
        return any(
            not np.allclose(_run(padded, x[start : start + 8])[0], whole[start : start + 8], atol=1e-5)
            for _ in range(50)
        )

    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(wrong, range(0, 56, 7)))


@pytest.mark.parametrize("rows", [0, 1, 7, 64, MAX_PADDED + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_come_back_as_tensors(padded: GpuRunner, rows: int, dtype: torch.dtype) -> None:
    x = torch.from_numpy(normal(rows, 64)).to(dtype).requires_grad_(True)
    assert padded.takes(x)
    found = padded.predict_tensor(x)
    assert isinstance(found, torch.Tensor)
    assert found.shape == (rows, 10)
    (expected,) = _run(padded, x.detach().float().numpy())
    np.testing.assert_array_equal(found.numpy(), expected)
    kept = found.clone()
    padded.predict_tensor(-x)
    assert torch.equal(found, kept)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(2, 63), r"expects shape \(batch, 64\), and got \(2, 63\)"),
        (torch.zeros(64), r"expects shape \(batch, 64\), and got \(64,\)"),
        (torch.zeros(2, 64, dtype=torch.float64), "a tensor of float64 on cpu: the model takes float32"),
        (torch.zeros(2, 64, dtype=torch.int32), "a tensor of int32"),
    ],
)
def test_tensors_that_do_not_fit(padded: GpuRunner, x: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        padded.predict_tensor(x)


def _cuda_torch() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")


@pytest.mark.cuda
@pytest.mark.parametrize("graphs", [True, False])
def test_on_a_gpu_with_and_without_graphs(small: Path, cuda: str, graphs: bool) -> None:
    x = normal(3 * MAX_PADDED, 64)
    with Session(small, "cpu") as reference, Session(small, cuda, cuda_graphs=graphs) as session:
        assert session.cuda_graphs is graphs
        for rows in (1, 2, 3, 17, 1000, MAX_PADDED, 3 * MAX_PADDED):
            expected = reference.predict(x[:rows])
            for _ in range(4):  # capture comes after warm-up runs, then replays
                np.testing.assert_allclose(session.predict(x[:rows]), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(session.predict(-x[:3]), reference.predict(-x[:3]), rtol=0, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("graphs", [True, False])
def test_an_operator_that_cuda_lacks(tmp_path: Path, cuda: str, graphs: bool) -> None:
    """ONNX Runtime runs Elu of opset 22 on the CPU, which reads the input of every call, not only of the first."""
    module = nn.Sequential(nn.ELU(), nn.Linear(64, 5)).eval()
    path = export(module, tmp_path / "m.onnx", opset=22).path
    with Session(path, "cpu") as reference, Session(path, cuda, cuda_graphs=graphs) as session:
        for rows in (1, 3, 3, 64, 3):
            x = normal(rows, 64) * rows
            np.testing.assert_allclose(session.predict(x), reference.predict(x), rtol=1e-5, atol=1e-4)


@pytest.mark.cuda
def test_cuda_tensors_stay_on_the_gpu(small: Path, cuda: str) -> None:
    _cuda_torch()
    x = torch.from_numpy(normal(5000, 64)).cuda()
    with Session(small, "cpu") as reference, Session(small, cuda) as session:
        for rows in (1, 17, 5000):
            for sign in (1, -1, 1):
                found = session.predict(sign * x[:rows])
                assert found.is_cuda
                np.testing.assert_allclose(found.cpu(), reference.predict((sign * x[:rows]).cpu()), rtol=0, atol=1e-5)


@pytest.mark.cuda
def test_threads_on_a_gpu(small: Path, cuda: str) -> None:
    x = normal(512, 64)
    with Session(small, cuda) as session:
        whole = session.predict(x)

        def wrong(start: int) -> bool:
            return any(
                not np.allclose(session.predict(x[start : start + 32]), whole[start : start + 32], atol=1e-5)
                for _ in range(50)
            )

        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(wrong, range(0, 480, 60)))


@pytest.mark.cuda
def test_tf32_is_off_unless_asked_for(tmp_path: Path, cuda: str) -> None:
    layer = nn.Linear(256, 256, bias=False).eval()
    path = export(layer, tmp_path / "m.onnx").path
    x = np.eye(256, dtype=np.float32)
    with Session(path, cuda) as exact, Session(path, cuda, tf32=True) as rounded:
        np.testing.assert_array_equal(exact.predict(x), layer.weight.detach().numpy().T)
        assert not np.array_equal(rounded.predict(x), exact.predict(x))
