"""Sessions of ONNX Runtime: what is opened, on which provider, and what is refused; a GPU's road on a CPU."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from runtime import InputError, Machine, ModelError, ProviderError, Session
from runtime.session import session as session_module
from runtime.session.buffers import BoundBuffers, DeviceBuffers
from runtime.session.cuda_libraries import Cuda
from runtime.session.gpu import GpuRunner
from runtime.session.ort_session import SPIN_DURATION, open_session, run_options
from runtime.session.parallel import Workers
from runtime.session.providers import Choice
from runtime.session.settings import Settings
from tests.support.cases import normal

helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
CPU = (("CPUExecutionProvider", {}),)
BOTH = (("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {}))
SHAPE = ["batch", 3]


def saved(
    path: Path, node: Any, *, inputs: int | None = FLOAT, shape: list[str | int] = SHAPE, **metadata: str
) -> Path:
    """A file of one node from x to y, or without an input."""
    ports = [] if inputs is None else [helper.make_tensor_value_info("x", inputs, shape)]
    graph = helper.make_graph([node], "g", ports, [helper.make_tensor_value_info("y", FLOAT, shape)])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {f"mlpx.{key}": value for key, value in metadata.items()})
    onnx.save(model, path)
    return path


@pytest.fixture
def tanh(tmp_path: Path) -> Path:
    return saved(tmp_path / "tanh.onnx", helper.make_node("Tanh", ["x"], ["y"]), multiply_adds="3")


def test_inputs_without_rows_are_refused(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=onnx.numpy_helper.from_array(normal(2, 3)))
    with pytest.raises(ModelError, match=r"none\.onnx has no input"):
        Session(saved(tmp_path / "none.onnx", constant, inputs=None), "cpu")
    scalar = saved(tmp_path / "scalar.onnx", helper.make_node("Tanh", ["x"], ["y"]), shape=[])
    with pytest.raises(ModelError, match=r"'x' has no batch dimension \(shape \[\]\); rows in batches are expected"):
        Session(scalar, "cpu")


@pytest.mark.parametrize(("version", "entry"), [("1.25.2", "0"), ("1.26.0", "100")])
def test_older_versions_do_not_spin(tanh: Path, version: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    options = open_session(tanh, CPU, 2, {SPIN_DURATION: "100"}).get_session_options()
    name = "session.intra_op.allow_spinning" if entry == "0" else SPIN_DURATION
    assert options.get_session_config_entry(name) == entry


def test_a_provider_that_does_not_start_is_never_replaced(tanh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_start(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : libcublas.so.13 is missing")

    monkeypatch.setattr(onnxruntime, "InferenceSession", no_start)
    with pytest.raises(ProviderError, match=r"^CUDAExecutionProvider did not start: libcublas\.so\.13 is missing$"):
        open_session(tanh, BOTH, None)
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run it: libcublas"):
        open_session(tanh, CPU, None)
    other = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: other)
    with pytest.raises(ProviderError, match=r"^CUDAExecutionProvider was requested, and ONNX Runtime gave CPUExec"):
        open_session(tanh, BOTH, None)


def test_two_distributions_are_warned_of_once(tanh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = Machine((("onnxruntime-gpu", "1.26"), ("onnxruntime", "1.25")), Cuda(built_in=False))
    monkeypatch.setattr(session_module, "this_machine", lambda cuda: both if not cuda else None)
    monkeypatch.setattr(session_module, "_warned", set())
    with pytest.warns(UserWarning, match=r"onnxruntime 1\.25 are both installed and overwrite each other"):
        Session(tanh, "cpu").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Session(tanh, "cpu").close()


def test_errors_that_are_not_onnx_runtime_s_are_raised_as_they_are(tanh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> Any:
        raise MemoryError("no room")

    with Session(tanh, "cpu") as session:
        monkeypatch.setattr(session._runner, "run", out_of_memory)
        with pytest.raises(MemoryError, match="no room"):
            session.predict(normal(3, 3))


def test_more_batch_sizes_than_are_kept(tanh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.session.cpu._MOST_BOUND", 3)
    with Session(tanh, "cpu") as session:
        for rows in (1, 2, 3, 4, 5, 4, 1):
            x = normal(rows, 3, rows)
            np.testing.assert_allclose(session.predict(x), np.tanh(x), atol=1e-6)


class OnCpu(GpuRunner):
    """A GPU's buffers and roads, on a CPU."""

    def __init__(self, *arguments: Any, graphs: bool):
        super().__init__(*arguments, kind="cpu", graphs=graphs)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions take the road of a GPU."""
    monkeypatch.setattr(session_module, "GpuRunner", OnCpu)
    monkeypatch.setattr(session_module, "choose", lambda *_, **__: Choice("cuda:0", CPU, "asked for"))


@pytest.mark.usefixtures("on_a_gpu")
def test_a_tensor_on_the_device_gives_a_tensor_there(tanh: Path) -> None:
    x = torch.from_numpy(normal(5, 3))
    with Session(tanh, "cpu") as session:
        found = session.predict(x)
        assert isinstance(found, torch.Tensor)
        assert torch.allclose(found, x.tanh(), atol=1e-6)
        np.testing.assert_array_equal(session.predict(x.numpy()), found.numpy())
    with pytest.raises(ModelError, match=r"tanh\.onnx is closed"):
        session.predict(x)


@pytest.mark.usefixtures("on_a_gpu")
def test_whole_numbers_on_the_device_are_checked(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    with Session(saved(tmp_path / "m.onnx", node, inputs=INT64, multiply_adds="3"), "cpu") as session:
        found = session.predict(torch.tensor([[1, 2, 3]]))
        assert isinstance(found, torch.Tensor)
        assert found.tolist() == [[1, 2, 3]]
        with pytest.raises(InputError, match=r"0\.5"):
            session.predict(torch.tensor([[1, 2, 0.5]]))


def test_graphs_are_for_files_whose_batches_may_be_padded(tanh: Path, tmp_path: Path) -> None:
    foreign = saved(tmp_path / "foreign.onnx", helper.make_node("Tanh", ["x"], ["y"]))
    assert GpuRunner(tanh, CPU, Settings()).graphs
    assert not GpuRunner(tanh, CPU, Settings(), graphs=False).graphs
    assert not GpuRunner(foreign, CPU, Settings()).graphs


def test_a_tensor_on_another_device_is_refused(tanh: Path) -> None:
    second = GpuRunner(tanh, (("CPUExecutionProvider", {"device_id": "1"}),), Settings(), kind="cpu")
    told = r"the tensor is on cpu and the session on cpu:1\. What to do: x\.to\('cpu:1'\)"
    with pytest.raises(InputError, match=told):
        second.predict_tensor(torch.zeros(1, 3))


def test_buffers_run_with_a_graph_s_number_and_by_the_wrapper_of_onnx_runtime(tanh: Path) -> None:
    session = open_session(tanh, CPU, 1)
    with Session(tanh, "cpu") as ours:
        ports = ours.inputs, ours.outputs
    x = normal(2, 3)
    device = DeviceBuffers(session, *ports, 2, ("cpu", 0), 7)
    device.put({"x": x})
    device.run()
    np.testing.assert_allclose(device.get("y", 2), np.tanh(x), atol=1e-6)
    wrapper: Any = SimpleNamespace(io_binding=session.io_binding, run_with_iobinding=session.run_with_iobinding)
    bound = BoundBuffers(wrapper, *ports, [x], [np.zeros_like(x)], run_options())
    bound.run()
    np.testing.assert_allclose(bound.output, np.tanh(x), atol=1e-6)


class Broken(Exception):
    """Of the work on a part."""


def test_an_error_of_one_part_ends_the_others() -> None:
    begun: list[int] = []

    def work(start: int, _stop: int) -> None:
        begun.append(start)
        raise Broken(start)

    with pytest.raises(Broken, match="0"):
        Workers(1).run(work, [(part, part + 1) for part in range(50)])
    assert begun == [0]


def test_an_error_of_another_thread_is_raised() -> None:
    raised = threading.Event()

    def work(_start: int, _stop: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert raised.wait(60)
            return
        raised.set()
        raise Broken

    workers = Workers(2)
    with pytest.raises(Broken):
        workers.run(work, [(0, 1), (1, 2)])
    workers.close()


def test_a_fork_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the pool, and none of its threads."""
    workers, meeting = Workers(2), threading.Barrier(2, timeout=60)
    workers.run(lambda _start, _stop: None, [(0, 1), (1, 2)])
    workers._lock.acquire()
    monkeypatch.setattr("runtime.session.parallel.os", SimpleNamespace(getpid=lambda: -1))
    workers.run(lambda _start, _stop: [meeting.wait()].clear(), [(0, 1), (1, 2)])
    workers.close()
