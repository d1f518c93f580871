"""What ``Session`` takes, gives and refuses."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export import export
from runtime import InputError, ModelError, Session
from tests.support.cases import normal


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("session") / "m.onnx"
    export(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), path)
    return path


@pytest.fixture(scope="module")
def session(model: Path) -> Session:
    return Session(model, "cpu")


X = normal(5, 3)
SAME: dict[str, Any] = {
    "array": X,
    "not contiguous": np.asfortranarray(X),
    "view": np.repeat(X, 2, axis=0)[::2],
    "big-endian": X.astype(">f4"),
    "read-only": np.frombuffer(X.tobytes(), np.float32).reshape(X.shape),
    "float64 of float32 values": X.astype(np.float64),
    "tensor": torch.from_numpy(X),
    "tensor that needs a gradient": torch.from_numpy(X).requires_grad_(),
    "tensor, transposed": torch.from_numpy(X.T.copy()).T,
    "list": X.astype(np.float64).tolist(),
    "tuple of lists": tuple(X.astype(np.float64).tolist()),
}


@pytest.mark.parametrize("name", SAME)
def test_every_kind_of_rows_gives_the_same(name: str, session: Session) -> None:
    found = session.predict(SAME[name])
    assert found.dtype == np.float32
    assert found.tobytes() == session.predict(X).tobytes()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, np.float16, bool])
def test_exact_values_of_other_dtypes_are_converted(dtype: Any, session: Session) -> None:
    rows = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    assert session.predict(rows).tobytes() == session.predict(rows.astype(np.float32)).tobytes()


def test_bfloat16_and_half_tensors_are_exact(session: Session) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.from_numpy(X).to(dtype)
        assert session.predict(x).tobytes() == session.predict(x.float()).tobytes()


CHANGED = {
    "float64": (np.full((2, 3), 0.1), r"float64.*0\.1 in row 1, feature 1 would become 0\.10000000149"),
    "float64 overflow": (np.array([[0, 0, 1e300]]), r"1e\+300 in row 1, feature 3 would become inf"),
    "int64": (np.array([[0, 2**24 + 1, 0]]), r"int64.*16777217 in row 1, feature 2 would become 16777216"),
    "uint64": (np.full((1, 3), 2**64 - 1, np.uint64), r"uint64.*18446744073709551615"),
    "list of float64 arrays": ([np.full(3, 0.1)], r"0\.1 in row 1"),
    "large int in a list": ([[0, 0, 2**24 + 1]], r"16777217"),
    "overflow in a list": ([[0.0, 0.0, 1e300]], r"1e\+300"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_values_that_would_change_are_refused(name: str, session: Session) -> None:
    rows, expected = CHANGED[name]
    with pytest.raises(InputError, match=expected):
        session.predict(rows)


def test_a_view_that_negates_keeps_its_sign(session: Session) -> None:
    x = torch.tensor([[1 + 2j, 3 - 4j, 0 + 1j]]).conj().imag
    assert x.is_neg()
    assert session.predict(x).tobytes() == session.predict(np.array([[-2, 4, -1]], np.float32)).tobytes()


def test_rounding_on_request(session: Session) -> None:
    x = np.full((2, 3), 0.1)
    assert session.predict(x, dtype="float32").tobytes() == session.predict(x.astype(np.float32)).tobytes()
    assert session.predict([[0.1, 0.1, 0.1]]).tobytes() == session.predict(np.full((1, 3), 0.1, np.float32)).tobytes()
    with pytest.raises(InputError, match="inf"):
        session.predict(np.full((2, 3), 1e300), dtype="float32")
    with pytest.raises(InputError, match="dtype is 'float32' or left out"):
        session.predict(x, dtype="float16")


@settings(max_examples=200, deadline=None)
@given(value=st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**26), 2**26)))
def test_integers_pass_exactly_when_float32_holds_them(value: int, session: Session) -> None:
    rows = np.array([[value, 0, 0]], np.int64)
    if int(np.float32(value)) == value:
        session.predict(rows)
    else:
        with pytest.raises(InputError):
            session.predict(rows)


REFUSED = {
    "text": (np.array([["a", "b", "c"]]), r"expects numbers.*'a'"),
    "objects": (np.array([[None, 1, 2]], object), r"expects numbers"),
    "complex": (np.ones((1, 3), complex), r"expects numbers; this holds complex128"),
    "ragged list": ([[1, 2, 3], [1, 2]], r"not equally long"),
    "list of text": ([["a", "b", "c"]], r"expects numbers"),
    "a number": (3.0, r"expects an array, a tensor or a list of rows, not float"),
    "nothing": (None, r"not NoneType"),
    "one dimension": (np.zeros(3, np.float32), r"shape \(batch, 3\), and got \(3,\); for a single row, give x\[None\]"),
    "too wide": (np.zeros((2, 4), np.float32), r"shape \(batch, 3\), and got \(2, 4\)"),
    "masked": (np.ma.masked_array(np.ones((1, 3), np.float32), mask=[[True, False, False]]), r"masked values"),
    "a masked row in a list": ([np.ma.masked_array(np.ones(3), mask=[False, True, False])], r"masked values"),
    "a list of numbers and arrays": ([[1.0, 2.0, 3.0], np.full(3, 0.1)], r"0\.1 in row 2"),
    "list of tensors with gradients": ([torch.ones(3, requires_grad=True)], r"hold more than numbers|expects"),
    "meta tensor": (torch.ones(2, 3, device="meta"), r"cannot be read by DLPack"),
    "as wide, of another rank": (np.zeros((1, 3, 1), np.float32), r"got \(1, 3, 1\)$"),
    "empty list": ([], r"shape \(batch, 3\), and got \(0,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_rows_is_refused(name: str, session: Session) -> None:
    rows, expected = REFUSED[name]
    with pytest.raises(InputError, match=expected):
        session.predict(rows)


def test_arrays_and_tensors_are_read_without_a_copy() -> None:
    from runtime import Port
    from runtime.data.arrays import as_array

    tensor: Any = torch.ones(4, 3)
    port = Port("x", ("batch", 3))
    assert as_array(tensor, port).ctypes.data == tensor.data_ptr()
    assert as_array(X, port) is X


def test_an_empty_batch(session: Session) -> None:
    assert session.predict(np.zeros((0, 3), np.float32)).shape == (0, 4)


def test_threads_share_a_session(session: Session) -> None:
    rows = [normal(17, 3, seed) for seed in range(64)]
    expected = [session.predict(x).tobytes() for x in rows]
    with ThreadPoolExecutor(8) as pool:
        assert [found.tobytes() for found in pool.map(session.predict, rows * 4)] == expected * 4


def test_a_closed_session_says_so(model: Path) -> None:
    with Session(model, "cpu") as session:
        session.predict(X)
    with pytest.raises(ModelError, match=r"m.onnx is closed"):
        session.predict(X)


def test_the_device_that_runs_is_told(model: Path) -> None:
    with Session(model) as session:
        assert session.device == "cpu" or session.device.startswith("cuda:")
        assert session.reason
        assert session.device in repr(session)


@pytest.mark.parametrize("keep", [0, 1, 10, 200, 0.5, 0.99])
def test_truncated_files(keep: float, model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"cut\.onnx: not a whole ONNX file"):
        Session(path, "cpu")


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello, this is not a model")
    with pytest.raises(ModelError, match=r"text\.onnx: not a whole ONNX file"):
        Session(tmp_path / "text.onnx", "cpu")
    with pytest.raises(ModelError, match="no such file"):
        Session(tmp_path / "nothing.onnx", "cpu")
    with pytest.raises(ModelError, match="not a file"):
        Session(tmp_path, "cpu")


def test_a_model_of_another_type_is_refused(tmp_path: Path) -> None:
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["n", 3]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "double.onnx")
    with pytest.raises(ModelError, match=r"'x' is tensor\(double\)"):
        Session(tmp_path / "double.onnx", "cpu")


def test_several_outputs_are_not_quietly_one(tmp_path: Path) -> None:
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xyz"]
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"]), onnx.helper.make_node("Tanh", ["x"], ["z"])]
    graph = onnx.helper.make_graph(nodes, "g", ports[:1], ports[1:])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m"
    )
    with Session(tmp_path / "m", "cpu") as session:
        with pytest.raises(InputError, match=r"2 outputs \(y, z\)"):
            session.predict(X)
        assert set(session.run(X)) == {"y", "z"}


def test_a_session_on_the_cpu_leaves_cuda_alone(model: Path, root: Path) -> None:
    """Looking for CUDA loads hundreds of megabytes of libraries where they are installed."""
    code = "import sys; from runtime import Session; Session(sys.argv[1], 'cpu'); print('elftools' in sys.modules)"
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    command = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_nothing_is_printed(model: Path, root: Path) -> None:
    code = "import sys; from runtime import Session; Session(sys.argv[1]).predict([[1, 2, 3]])"
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code, str(model)], env=environment, capture_output=True, check=True)
    assert done.stdout == b""
    assert done.stderr == b""
