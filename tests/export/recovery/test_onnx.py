"""An ONNX file becomes the spec and the weights of the network that it computes, however it is spelt."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builder import MLPSpec, assemble
from export import Recovered, read_onnx
from tests.support.onnx_drafts import Draft, agree, inputs, kinds

RNG = np.random.default_rng(7)
W = RNG.normal(size=(6, 4)).astype(np.float32)
B = RNG.normal(size=4).astype(np.float32)
C = RNG.normal(size=6).astype(np.float32)
P = np.abs(RNG.normal(size=6).astype(np.float32)) + 0.5
S = np.float32

Spelling = Callable[[Draft, str], str]


def _erf(d: Draft, x: str) -> str:
    return d("Add", d("Erf", d("Div", x, S(sqrt(2)))), S(1))


def _tanh(d: Draft, x: str, inner: str) -> str:
    return d("Add", S(1), d("Tanh", d("Mul", S(sqrt(2 / pi)), inner)))


def _cubed(d: Draft, x: str) -> str:
    return d("Add", x, d("Mul", S(0.044715), d("Pow", x, S(3))))


def _factored(d: Draft, x: str) -> str:
    return d("Mul", x, d("Add", S(1), d("Mul", d("Mul", x, x), S(0.044715))))


def _one_plus(d: Draft, x: str) -> str:
    return d("Add", d("Exp", d("Neg", x)), S(1))


def _norm(d: Draft, x: str, square: bool) -> str:
    off = d("Sub", x, d.axes("ReduceMean", x, [-1], 18))
    squared = d("Mul", off, off) if square else d("Pow", off, S(2))
    deviation = d("Sqrt", d("Add", d.axes("ReduceMean", squared, [1], 18), S(1e-3)))
    return d("Div", off, deviation)


SPELLINGS: dict[str, tuple[Any, Spelling]] = {
    "gemm": ("linear", lambda d, x: d("Gemm", x, W, B)),
    "gemm transB": ("linear", lambda d, x: d("Gemm", x, W.T, B, transB=1)),
    "gemm scaled exactly": ("linear", lambda d, x: d("Gemm", x, W, B, alpha=0.5, beta=2.0)),
    "gemm scaled": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3)),
    "gemm scaled alike": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3, beta=0.3)),
    "gemm scaled both": ("linear scale", lambda d, x: d("Gemm", x, W, B, alpha=0.3, beta=0.7)),
    "gemm one bias": ("linear", lambda d, x: d("Gemm", x, W, np.ones(1, S))),
    "matmul": ("linear", lambda d, x: d("MatMul", x, W)),
    "matmul add": ("linear", lambda d, x: d("Add", d("MatMul", x, W), B)),
    "add matmul": ("linear", lambda d, x: d("Add", B.reshape(1, 4), d("MatMul", x, W))),
    "matmul sub": ("linear", lambda d, x: d("Sub", d("MatMul", x, W), B)),
    "matmul transposed": ("linear", lambda d, x: d("MatMul", x, d("Transpose", W.T.copy(), perm=[1, 0]))),
    "matmul left": (
        "linear",
        lambda d, x: d.axes(
            "Squeeze",
            d("Add", d("MatMul", W.T.copy(), d.axes("Unsqueeze", x, [2], 13)), B.reshape(4, 1)),
            [2],
            13,
        ),
    ),
    "matmul left turned": (
        "linear",
        lambda d, x: d("Transpose", d("Add", d("MatMul", W.T.copy(), d("Transpose", x)), B.reshape(4, 1))),
    ),
    "gemm left": ("linear", lambda d, x: d("Transpose", d("Gemm", W, x, B.reshape(4, 1), transA=1, transB=1))),
    "sub div": ("standardize", lambda d, x: d("Div", d("Sub", x, C), P)),
    "sub": ("standardize", lambda d, x: d("Sub", x, C)),
    "div": ("standardize", lambda d, x: d("Div", x, P.reshape(1, 6))),
    "add div": ("standardize", lambda d, x: d("Div", d("Add", x, C), P)),
    "sub mul": ("standardize scale", lambda d, x: d("Mul", d("Sub", x, C), P)),
    "mul add": ("scale", lambda d, x: d("Add", C, d("Mul", P, x))),
    "mul sub": ("scale", lambda d, x: d("Sub", d("Mul", x, P), C)),
    "mul": ("scale", lambda d, x: d("Mul", x, S(2.5))),
    "add": ("scale", lambda d, x: d("Add", C.reshape(1, 6), x)),
    "sub from": ("scale", lambda d, x: d("Sub", C, x)),
    "neg": ("scale", lambda d, x: d("Neg", x)),
    "relu": ("relu", lambda d, x: d("Relu", x)),
    "relu max": ("relu", lambda d, x: d("Max", S(0), x)),
    "ramp clip": ("clip", lambda d, x: d("Clip", x, min=0.0) if d.opset < 11 else d("Clip", x, S(0))),
    "leaky": ({"leaky_relu": 0.01}, lambda d, x: d("LeakyRelu", x)),
    "leaky 0.2": ({"leaky_relu": 0.2}, lambda d, x: d("LeakyRelu", x, alpha=0.2)),
    "leaky prelu": ({"leaky_relu": 0.25}, lambda d, x: d("PRelu", x, np.full(6, 0.25, S))),
    "leaky max": ({"leaky_relu": 0.1}, lambda d, x: d("Max", d("Mul", x, S(0.1)), x)),
    "elu": ({"elu": 1.3}, lambda d, x: d("Elu", x, alpha=1.3)),
    "tanh": ("tanh", lambda d, x: d("Tanh", x)),
    "sigmoid": ("sigmoid", lambda d, x: d("Sigmoid", x)),
    "sigmoid div": ("sigmoid", lambda d, x: d("Div", S(1), _one_plus(d, x))),
    "sigmoid reciprocal": ("sigmoid", lambda d, x: d("Reciprocal", _one_plus(d, x))),
    "hardsigmoid": ("hardsigmoid", lambda d, x: d("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    "hardsigmoid other": ("scale clip", lambda d, x: d("HardSigmoid", x)),
    "hardsigmoid steps": ("hardsigmoid", lambda d, x: d("Div", d.clip(d("Add", x, S(3)), 0, 6), S(6))),
    "hardsigmoid line": (
        "hardsigmoid",
        lambda d, x: d.clip(d("Add", d("Mul", x, S(1 / 6)), S(0.5)), 0, 1),
    ),
    "silu": ("silu", lambda d, x: d("Mul", x, d("Sigmoid", x))),
    "silu turned": ("silu", lambda d, x: d("Mul", d("Sigmoid", x), x)),
    "silu div": ("silu", lambda d, x: d("Div", x, _one_plus(d, x))),
    "gelu": ("gelu", lambda d, x: d("Mul", d("Mul", x, _erf(d, x)), S(0.5))),
    "gelu half first": ("gelu", lambda d, x: d("Mul", d("Mul", S(0.5), x), _erf(d, x))),
    "gelu half inside": ("gelu", lambda d, x: d("Mul", d("Div", _erf(d, x), S(2)), x)),
    "gelu tanh": ({"gelu": "tanh"}, lambda d, x: d("Mul", d("Mul", x, S(0.5)), _tanh(d, x, _cubed(d, x)))),
    "gelu tanh factored": (
        {"gelu": "tanh"},
        lambda d, x: d("Mul", S(0.5), d("Mul", _tanh(d, x, _factored(d, x)), x)),
    ),
    "softplus": ("softplus", lambda d, x: d("Softplus", x)),
    "softplus log": ("softplus", lambda d, x: d("Log", d("Add", d("Exp", x), S(1)))),
    "softplus beta": ({"softplus": 2.5}, lambda d, x: d("Div", d("Softplus", d("Mul", x, S(2.5))), S(2.5))),
    "softplus threshold": (
        {"softplus": {"beta": 1.0, "threshold": 1.5}},
        lambda d, x: d("Where", d("Greater", x, S(1.5)), x, d("Softplus", x)),
    ),
    "softmax": ("softmax", lambda d, x: d("Softmax", x, axis=1)),
    "softmax last": ("softmax", lambda d, x: d("Softmax", x, axis=-1) if d.opset > 10 else d("Softmax", x)),
    "softmax steps": (
        "softmax",
        lambda d, x: (lambda e: d("Div", e, d.axes("ReduceSum", e, [1], 13)))(
            d("Exp", d("Sub", x, d.axes("ReduceMax", x, [1], 18)))
        ),
    ),
    "relu6": ("relu6", lambda d, x: d.clip(x, 0, 6)),
    "relu6 min": ("relu6", lambda d, x: d("Min", d("Relu", x), S(6))),
    "clip": ({"clip": [-0.4, 0.9]}, lambda d, x: d.clip(x, -0.4, 0.9)),
    "clip max min": ({"clip": [-0.4, 0.9]}, lambda d, x: d("Min", d("Max", x, S(-0.4)), S(0.9))),
    "clip min max": ({"clip": [-0.4, 0.9]}, lambda d, x: d("Max", S(-0.4), d("Min", x, S(0.9)))),
    "batch norm": (
        {"batch_norm": {"eps": 1e-3}},
        lambda d, x: d("BatchNormalization", x, P, C, C, P, epsilon=1e-3),
    ),
    "layer norm": ({"layer_norm": {"eps": 1e-3, "elementwise_affine": False}}, lambda d, x: _norm(d, x, False)),
    "layer norm weights": (
        {"layer_norm": 1e-3},
        lambda d, x: d("Add", d("Mul", P, _norm(d, x, True)), C),
    ),
    "residual": ("residual", lambda d, x: d("Add", x, d("Tanh", x))),
    "residual turned": ("residual", lambda d, x: d("Sum", d("Relu", d("Mul", x, P)), x)),
    "flatten": ("scale", lambda d, x: d("Neg", d("Flatten", x))),
    "reshape": ("relu", lambda d, x: d("Relu", d("Reshape", x, np.array([-1, 6])))),
    "reshape copy": ("relu", lambda d, x: d("Relu", d("Reshape", x, np.array([0, -1])))),
    "dropout": ("tanh", lambda d, x: d("Dropout", d("Tanh", d("Identity", x)))),
    "cast": ("tanh", lambda d, x: d("Tanh", d("Cast", x, to=1))),
}
NEWER: dict[str, tuple[int, Any, Spelling]] = {
    "gelu node": (20, "gelu", lambda d, x: d("Gelu", x)),
    "gelu tanh node": (20, {"gelu": "tanh"}, lambda d, x: d("Gelu", x, approximate="tanh")),
    "layer norm node": (17, {"layer_norm": 1e-3}, lambda d, x: d("LayerNormalization", x, P, C, epsilon=1e-3)),
    "layer norm no bias": (
        17,
        {"layer_norm": {"bias": False}},
        lambda d, x: d("LayerNormalization", x, P, axis=1),
    ),
    "gemm no bias": (11, {"linear": {"features": 4, "bias": False}}, lambda d, x: d("Gemm", x, W)),
}


def _exists(name: str, opset: int) -> bool:
    """Opset 7 has no Erf and Where, and no Min and Max that broadcast."""
    draft = Draft(opset)
    SPELLINGS[name][1](draft, "x")
    return opset > 7 or not any(node.op_type in ("Erf", "Where", "Min", "Max") for node in draft.nodes)


CASES = [(name, opset) for name in SPELLINGS for opset in (7, 9, 11, 13, 18, 21) if _exists(name, opset)]


def _expected(blocks: Any, features: int) -> list[Any]:
    """The blocks, where a case says all of them; a text names kinds only."""
    return list(MLPSpec(name="x", input={"features": features}, blocks=[blocks]).blocks)


@pytest.mark.parametrize(("name", "opset"), CASES, ids=lambda value: str(value))
def test_a_spelling_is_its_block(name: str, opset: int, tmp_path: Path) -> None:
    blocks, spelling = SPELLINGS[name]
    draft = Draft(opset)
    _holds(draft.save(tmp_path / "draft.onnx", spelling(draft, "x")), blocks)


@pytest.mark.parametrize("name", NEWER)
def test_a_newer_spelling_is_its_block(name: str, tmp_path: Path) -> None:
    opset, blocks, spelling = NEWER[name]
    draft = Draft(opset)
    _holds(draft.save(tmp_path / "draft.onnx", spelling(draft, "x")), blocks)


def _holds(path: Path, blocks: Any) -> None:
    recovered = read_onnx(path)
    if isinstance(blocks, str):
        assert kinds(recovered) == blocks.split()
    else:
        assert list(recovered.spec.blocks) == _expected(blocks, 6)
    agree(path, recovered)


@given(names=st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_chain_of_spellings_is_the_chain_of_their_blocks(tmp_path_factory, names: list[str], seed: int) -> None:
    draft, value = Draft(13), "x"
    for name in names:
        value = SPELLINGS[name][1](draft, value)
        if SPELLINGS[name][0] in ("linear", "linear scale"):
            value = draft("MatMul", value, W.T[:4])
    path = draft.save(tmp_path_factory.mktemp("chain") / "chain.onnx", value)
    recovered = read_onnx(path)
    assume(_largest(recovered, seed) < 80)  # beyond, the exponentials of some spellings overflow float32
    agree(path, recovered, seed=seed)


def _largest(recovered: Recovered, seed: int) -> float:
    """The greatest magnitude of a value between the blocks, for the inputs that ``agree`` draws."""
    module = assemble(recovered.spec).eval()
    module.load_state_dict(recovered.weights)
    value, largest = torch.from_numpy(inputs((5, 6), seed)), 0.0
    with torch.no_grad():
        for block in module.children():
            value = block(value)
            largest = max(largest, float(value.abs().max()))
    return largest


def test_a_view_computed_from_the_input_s_shape_is_a_flatten(tmp_path: Path) -> None:
    draft = Draft(13, ("n", 2, 3))
    batch = draft.axes("Unsqueeze", draft("Gather", draft("Shape", "x"), np.array(0), axis=0), [0], 13)
    flat = draft("Reshape", "x", draft("Concat", batch, np.array([-1]), axis=0))
    path = draft.save(tmp_path / "view.onnx", draft("Gemm", flat, W, B))
    agree(path, read_onnx(path), (5, 2, 3))


SHAPED = {
    "[1, 1, 1, 6]": lambda d: d("MatMul", d("Flatten", d("Sub", "x", C.reshape(1, 1, 1, 6))), W),
    "[1, 2, 1, 3]": lambda d: d("MatMul", d("Flatten", d("Mul", "x", C[:2].reshape(2, 1, 1))), W),
    "[1, 6, 1]": lambda d: d("MatMul", d("Reshape", "x", np.array([1, 6])), W),
}


@pytest.mark.parametrize("dims", SHAPED)
@pytest.mark.parametrize("keep", [False, True])
def test_a_row_that_is_not_flat(dims: str, keep: bool, tmp_path: Path) -> None:
    shape = tuple(int(size) for size in dims.strip("[]").split(","))
    draft = Draft(13, shape)
    path = draft.save(tmp_path / "shaped.onnx", SHAPED[dims](draft))
    recovered = read_onnx(path, keep_shape=keep)
    assert recovered.flattened == (None if keep else shape[1:])
    assert recovered.spec.input.row_shape == (shape[1:] if keep else (6,))
    assert (kinds(recovered)[0] == "flatten") == keep
    agree(path, recovered, shape)


@pytest.mark.parametrize("sizes", [[4, 6], [4, -1], [-1, 6], [1, 4, 6], [4, 2, 3]])
def test_a_file_for_batches_of_one_size(sizes: list[int], tmp_path: Path) -> None:
    draft = Draft(13, (4, 6))
    path = draft.save(tmp_path / "four.onnx", draft("Tanh", draft("Reshape", "x", np.array(sizes))))
    recovered = read_onnx(path)
    assert any("batches of 4 rows" in note for note in recovered.notes)
    agree(path, recovered, (4, 6))


def test_a_row_without_a_batch_dimension(tmp_path: Path) -> None:
    draft = Draft(13, (6,))
    path = draft.save(tmp_path / "row.onnx", draft("Softmax", draft("Add", draft("MatMul", "x", W), B), axis=0))
    agree(path, read_onnx(path), (6,))


def test_names_and_notes(tmp_path: Path) -> None:
    draft = Draft(13, (1, 6))
    path = draft.save(tmp_path / "_my net (2).onnx", draft("Dropout", draft("Relu", "x")))
    recovered = read_onnx(path)
    assert recovered.spec.name == "my-net-2-"
    assert (recovered.spec.input.name, recovered.spec.output.name) == ("x", "v1")
    assert any("Dropout" in note for note in recovered.notes) and any("one row" in note for note in recovered.notes)
    assert read_onnx(path, name="policy").spec.name == "policy"


def test_no_weight_is_rounded_by_alpha(tmp_path: Path) -> None:
    draft = Draft(13)
    path = draft.save(tmp_path / "alpha.onnx", draft("Gemm", "x", W, B, alpha=0.3))
    recovered = read_onnx(path)
    assert np.array_equal(recovered.weights["0.weight"].numpy(), W.T)
    assert recovered.weights["1.factor"].tolist() == [np.float32(0.3)] * 4


def test_a_weight_in_two_layers_is_two_tensors(tmp_path: Path) -> None:
    draft = Draft(13)
    name = draft.constant(np.eye(6) * 1.5)
    path = draft.save(tmp_path / "twice.onnx", draft("MatMul", draft("Tanh", draft("MatMul", "x", name)), name))
    weights = read_onnx(path).weights
    assert torch.equal(weights["0.weight"], weights["2.weight"])
    assert weights["0.weight"].data_ptr() != weights["2.weight"].data_ptr()


def test_weights_that_are_not_finite_are_said(tmp_path: Path) -> None:
    draft = Draft(13)
    path = draft.save(tmp_path / "nan.onnx", draft("Add", "x", np.full(6, np.nan)))
    assert any("0.offset" in note and "NaN" in note for note in read_onnx(path).notes)
