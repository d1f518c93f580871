"""What is not a dense network, or not a whole ONNX file, is refused in one clear sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from builder import RecoveryError
from export import Recovered, read_onnx, recover
from tests.support.onnx_drafts import Draft, agree
from tests.support.outcomes import outcome
from tests.support.repeats import examples

W = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
B = np.random.default_rng(2).normal(size=4).astype(np.float32)
SQUARE = W @ W.T


def refused(path: Path, *words: str) -> None:
    with pytest.raises(RecoveryError) as caught:
        read_onnx(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


FOREIGN: dict[str, tuple[Callable[[Draft], str], list[str]]] = {
    "convolution": (lambda d: d("Conv", "x", np.ones((1, 1, 1))), ["Conv 'v0'", "a convolution"]),
    "recurrent": (lambda d: d("LSTM", "x", W, W, hidden_size=4), ["LSTM 'v0'", "a recurrent cell"]),
    "pooling": (lambda d: d("GlobalAveragePool", "x"), ["pooling"]),
    "quantised": (
        lambda d: d("MatMul", d("DequantizeLinear", "x", np.float32(1)), W),
        ["DequantizeLinear 'v0'", "quantisation", "float file"],
    ),
    "control flow": (lambda d: d("Relu", d("Loop", "x")), ["control flow"]),
    "join": (lambda d: d("Concat", "x", d("Relu", "x"), axis=1), ["Concat 'v1'", "join"]),
    "choice": (lambda d: d("Gather", "x", np.array([1, 0]), axis=1), ["Gather 'v0'", "choice of entries"]),
    "split": (lambda d: d("Relu", d("Split", "x", axis=0)), ["split"]),
    "hard swish": (lambda d: d("HardSwish", "x"), ["HardSwish 'v0'", "activation that no block has"]),
    "hard swish in steps": (lambda d: d("Mul", "x", d("HardSigmoid", "x", alpha=1 / 6)), ["Mul 'v1'", "hardswish"]),
    "a ramp that is no hard sigmoid": (
        lambda d: d("Mul", "x", d("HardSigmoid", "x")),
        ["Mul 'v1'", "both depend on the input"],
    ),
    "SiLU with a factor": (
        lambda d: d("Mul", "x", d("Sigmoid", d("Mul", "x", np.float32(1.7)))),
        ["Mul 'v2'", "both depend on the input"],
    ),
    "mish": (lambda d: d("Mul", "x", d("Tanh", d("Softplus", "x"))), ["mish"]),
    "unknown": (lambda d: d("Einsum", "x", equation="ij->ij"), ["Einsum 'v0'"]),
    "product of two branches": (
        lambda d: d("Mul", d("Tanh", "x"), d("Relu", "x")),
        ["Mul 'v2'", "both depend on the input"],
    ),
    "first of two": (lambda d: d("Exp", d("Relu", d("Abs", d("Tanh", "x")))), ["Abs 'v1'"]),
    "exp alone": (lambda d: d("Relu", d("Exp", "x")), ["Exp 'v0'"]),
    "two branches": (lambda d: d("Add", d("Tanh", "x"), d("Relu", "x")), ["Add 'v2'", "two branches", "'v0'"]),
    "constant over x": (lambda d: d("Div", np.float32(1), "x"), ["Div 'v0'"]),
    "scaled by a row": (lambda d: d("Mul", "x", np.ones((3, 1))), ["Mul 'v0'", "[3, 1]"]),
    "softmax over the batch": (lambda d: d("Softmax", "x", axis=0), ["axis 0"]),
    "transposed features": (
        lambda d: d("MatMul", d("Transpose", "x"), np.ones((3, 3))),
        ["MatMul 'v1'", "batch"],
    ),
    "a batch folded into rows": (lambda d: d("Reshape", "x", np.array([1, -1])), ["Reshape 'v0'"]),
    "slopes": (lambda d: d("PRelu", "x", np.arange(6) / 10), ["PRelu 'v0'", "slope"]),
    "slopes of more dimensions": (
        lambda d: d("PRelu", "x", np.full((1, 1, 6), 0.1)),
        ["slopes of 3 dimensions", "at most 2"],
    ),
    "bounds the wrong way": (lambda d: d.clip("x", 1, -1), ["Clip 'v0'"]),
    "a bound that is computed": (lambda d: d("Clip", "x", d("ReduceMean", "x")), ["Clip 'v1'"]),
    "epsilon below 0": (
        lambda d: d("LayerNormalization", "x", np.ones(6), epsilon=-1.0),
        ["LayerNormalization 'v0'", "eps"],
    ),
    "widened": (lambda d: d("Add", d("MatMul", "x", W[:, :1]), np.ones(6)), ["Add 'v1'", "[6]"]),
    "widths that do not chain": (
        lambda d: d("MatMul", d("MatMul", "x", W), np.ones((5, 2))),
        ["MatMul 'v1'", "expects 5 features", "rows of 4"],
    ),
    "per position": (
        lambda d: d("MatMul", d("Reshape", "x", np.array([-1, 2, 3])), np.ones((3, 3))),
        ["MatMul 'v1'", "2 times"],
    ),
    "residual of another width": (lambda d: d("Add", "x", d("MatMul", "x", W[:, :1])), ["Add 'v1'", "equal"]),
    "a batch of another size": (lambda d: d("Reshape", "x", np.array([2, 3, 6])), ["Reshape 'v0'"]),
    "a batch in columns": (lambda d: d("Tanh", d("Transpose", "x")), ["[6, batch]"]),
    "nothing": (lambda d: d("Identity", "x"), ["no block"]),
    "a constant": (lambda d: d("Relu", W), ["Relu 'v0'", "constants alone"]),
    "a float64 weight": (lambda d: d("MatMul", "x", d("Cast", W, to=TensorProto.DOUBLE)), ["float64"]),
    "a bias that is computed": (lambda d: d("Gemm", "x", W, d("MatMul", "x", W)), ["not a constant"]),
    "dropout in training": (
        lambda d: d("Relu", d("Dropout", "x", np.float32(0.5), np.array(True))),
        ["Dropout 'v0'", "evaluation mode"],
    ),
    "batch norm in training": (
        lambda d: d("BatchNormalization", "x", *[np.ones(6)] * 4, training_mode=1),
        ["BatchNormalization 'v0'", "evaluation mode"],
    ),
    "a Gemm of three dimensions": (lambda d: d("Gemm", "x", SQUARE.reshape(1, 6, 6)), ["Gemm 'v0'", "[1, 6, 6]"]),
    "a conversion": (lambda d: d("Cast", "x", to=TensorProto.FLOAT16), ["Cast 'v0'", "another type"]),
    "an unknown attribute": (lambda d: d("Relu", "x", slope=0.5), ["Relu 'v0'", "slope"]),
    "an attribute of another type": (lambda d: d("Elu", "x", alpha=1), ["Elu 'v0'", "alpha"]),
    "too many inputs": (lambda d: d("Relu", "x", "x"), ["Relu 'v0'", "2 inputs"]),
    "an int8 weight": (lambda d: d("MatMul", "x", W.astype(np.int8)), ["int8", "quantised"]),
    "a float16 weight": (lambda d: d("MatMul", "x", W.astype(np.float16)), ["float16"]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_dense_is_refused_by_name(name: str, tmp_path: Path) -> None:
    spelling, words = FOREIGN[name]
    draft = Draft(17)
    refused(draft.save(tmp_path / "x.onnx", spelling(draft)), *words)


def _dense() -> onnx.ModelProto:
    draft = Draft(17)
    return draft.model(draft("Relu", draft("Gemm", "x", W, B)))


DAMAGED: dict[str, tuple[Callable[[onnx.ModelProto], object], list[str]]] = {
    "functions": (lambda m: m.functions.add(name="mine"), ["operators of its own", "mine"]),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), ["sparse"]),
    "old opset": (lambda m: setattr(m.opset_import[0], "version", 6), ["opset is 6"]),
    "new opset": (lambda m: setattr(m.opset_import[0], "version", 999), ["opset is 999"]),
    "a domain": (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), ["com.microsoft"]),
    "two inputs": (lambda m: m.graph.input.append(m.graph.output[0]), ["one input", "has 2"]),
    "two outputs": (lambda m: m.graph.output.append(m.graph.input[0]), ["one output", "has 2"]),
    "a float16 input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT16),
        ["a float16 file"],
    ),
    "a double output": (
        lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        ["a double file"],
    ),
    "no shape": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), ["has no shape"]),
    "free features": (
        lambda m: m.graph.input[0].type.tensor_type.shape.dim[1].Clear(),
        ["[?, ?]", "What to do"],
    ),
    "absurd features": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 2**60),
        [str(2**60)],
    ),
    "absurd dimensions": (
        lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [10**6, 10**6]),
        ["4,000,000,000,000 bytes", "holds 96"],
    ),
    "dimensions that no array has": (
        lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [0, 2**62]),
        ["too large for a weight"],
    ),
    "too many dimensions": (
        lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [6, 4] + [1] * 80),
        ["too large for a weight"],
    ),
    "negative dimensions": (
        lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [-6, -4]),
        ["negative dimension"],
    ),
    "short data": (lambda m: setattr(m.graph.initializer[0], "raw_data", b"abc"), ["'c0'", "holds 3"]),
    "no data": (lambda m: m.graph.initializer[0].ClearField("raw_data"), ["24 values", "holds 0"]),
    "one name twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), ["have the name 'c0'"]),
    "one output twice": (lambda m: m.graph.node.append(m.graph.node[0]), ["have the name 'v0'"]),
    "out of order": (
        lambda m: m.graph.node.append(m.graph.node.pop(0)),
        ["Relu 'v1' reads 'v0'", "comes later"],
    ),
    "a circle": (lambda m: m.graph.node[0].input.__setitem__(0, "v1"), ["Gemm 'v0' reads 'v1'", "circle"]),
    "a value from nowhere": (lambda m: m.graph.node[0].input.__setitem__(0, "y"), ["'y'", "nothing gives"]),
    "an output from nowhere": (lambda m: setattr(m.graph.output[0], "name", "y"), ["'y'", "no operator"]),
    "no output": (lambda m: m.graph.node[1].ClearField("output"), ["Relu", "no output"]),
    "a text that is none": (
        lambda m: m.graph.node.add(op_type="Gelu", input=["x"], output=["g"]).attribute.add(
            name="approximate", s=b"\xff", type=onnx.AttributeProto.STRING
        ),
        ["opset 17"],
    ),
    "a type of weight that nobody knows": (lambda m: setattr(m.graph.initializer[0], "data_type", 99), ["99"]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_wrong_is_refused(name: str, tmp_path: Path) -> None:
    change, words = DAMAGED[name]
    model = _dense()
    change(model)
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    refused(path, *words)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", "no such file")
    refused(tmp_path, "not a regular file")
    (tmp_path / "x.onnx").write_bytes(b"")
    refused(tmp_path / "x.onnx", "not an ONNX file")
    (tmp_path / "x.onnx").write_text("a text, not a model\n" * 50)
    refused(tmp_path / "x.onnx", "not an ONNX file")
    (tmp_path / "x.onnx").write_bytes(_dense().SerializeToString()[:-90])
    refused(tmp_path / "x.onnx", "cut short")


PLACES: dict[str, tuple[dict[str, str], list[str]]] = {
    "absolute": ({"location": "/etc/passwd"}, ["/etc/passwd", "folder"]),
    "windows": ({"location": "C:\\data"}, ["folder"]),
    "above": ({"location": "../secret"}, ["../secret", "folder"]),
    "above inside": ({"location": "a/../../secret"}, ["folder"]),
    "no place": ({}, ["folder"]),
    "link": ({"location": "link"}, ["symbolic link"]),
    "link to a folder": ({"location": "linked/data"}, ["symbolic link"]),
    "missing": ({"location": "nothing"}, ["cannot be read", "What to do"]),
    "a folder": ({"location": "folder"}, ["not a regular file"]),
    "beyond": ({"location": "data", "offset": "8"}, ["96 bytes from 8 on", "data file of 96 bytes"]),
    "before": ({"location": "data", "offset": "-8"}, ["-8"]),
    "shorter": ({"location": "data", "length": "4"}, ["takes 96 bytes"]),
    "no number": ({"location": "data", "offset": "ten"}, ["offset or length is not a number"]),
    "empty": ({"location": "empty"}, ["data file of 0 bytes"]),
}


@pytest.mark.parametrize("name", PLACES)
def test_external_data_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    entries, words = PLACES[name]
    (tmp_path / "secret").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (folder / "data").write_bytes(W.tobytes())
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(folder)
    model = _dense()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "x.onnx"
    path.write_bytes(model.SerializeToString())
    refused(path, "'c0'", *words)


def _mutated(data: bytes, seed: int) -> bytes:
    source = random.Random(seed)
    mutable = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(mutable))
        how = source.randrange(3)
        if how == 0:
            mutable[place] ^= 1 << source.randrange(8)
        elif how == 1:
            del mutable[place : place + source.randint(1, 9)]
        else:
            mutable[place:place] = source.randbytes(source.randint(1, 5))
    return bytes(mutable)


def _whole() -> bytes:
    draft = Draft(17)
    value = draft("Relu", draft("Gemm", "x", SQUARE, alpha=0.5))
    value = draft("Add", value, draft("Mul", value, draft("Sigmoid", value)))
    value = draft("LayerNormalization", value, np.ones(6), np.zeros(6), epsilon=1e-3)
    value = draft.axes("Squeeze", draft("Reshape", draft.clip(value, -1, 2), np.array([-1, 6, 1])), [2], 13)
    return draft.model(draft("Softmax", value, axis=1)).SerializeToString()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=examples(150, of=400), deadline=None)
def test_damage_gives_a_network_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(_mutated(_whole(), seed))
    found = outcome(RecoveryError, read_onnx, path)
    assert isinstance(found, Recovered) or str(path) in str(found)


def test_residuals_without_end_are_refused(tmp_path: Path) -> None:
    draft = Draft(17)

    def nested(value: str, depth: int) -> str:
        return draft("Add", value, nested(draft("Tanh", value), depth - 1)) if depth else value

    refused(draft.save(tmp_path / "deep.onnx", nested("x", 200)), "residual")


def test_a_long_chain_is_no_trouble(tmp_path: Path) -> None:
    draft, value = Draft(17), "x"
    for _ in range(3000):
        value = draft("Tanh", value)
    recovered = read_onnx(draft.save(tmp_path / "long.onnx", value))
    assert len(recovered.spec.blocks) == 3000
    with pytest.raises(RecoveryError, match="3,000 blocks; at most 1,024 are proved"):
        recover(tmp_path / "long.onnx", tmp_path / "recovered")
    assert not (tmp_path / "recovered").exists()


def test_an_invented_name_takes_nobody_s_place(tmp_path: Path) -> None:
    draft = Draft(9)
    value = draft("Clip", "x", min=-1.0, max=1.0)
    model = draft.model(draft("Mul", value, f"{value}, its min"))
    model.graph.initializer.append(helper.make_tensor(f"{value}, its min", TensorProto.FLOAT, [], [3.0]))
    path = tmp_path / "x.onnx"
    path.write_bytes(model.SerializeToString())
    agree(path, read_onnx(path))


def test_a_name_that_no_model_has_is_refused(tmp_path: Path) -> None:
    draft = Draft(17)
    path = draft.save(tmp_path / "x.onnx", draft("Tanh", "x"))
    with pytest.raises(RecoveryError, match="name"):
        read_onnx(path, name="no name!")


@pytest.mark.parametrize(("join", "words"), [(False, "there is no block in it"), (True, "cannot be seen in the file")])
def test_a_shape_that_is_computed_without_end_is_refused(join: bool, words: str, tmp_path: Path) -> None:
    """In a thousand steps, which are followed, or twice as long at each."""
    draft = Draft(17)
    sizes = draft("Shape", "x")
    for _ in range(1000):
        sizes = draft("Concat", sizes, sizes, axis=0) if join else draft("Cast", sizes, to=TensorProto.INT64)
    refused(draft.save(tmp_path / "x.onnx", draft("Reshape", "x", sizes)), words)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_constant_in_a_residual_sum_is_not_left_out(place: int, tmp_path: Path) -> None:
    draft = Draft()
    operands: list[str | np.ndarray] = ["x", draft("Tanh", "x")]
    operands.insert(place, np.float32(3) * np.ones(6, np.float32))
    path = draft.save(tmp_path / "m.onnx", draft("Sum", *operands))
    with pytest.raises(RecoveryError, match="is a sum of more than two operands"):
        read_onnx(path)
