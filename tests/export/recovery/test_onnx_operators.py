"""Operators that look like a block's and have an option, a constant or a shape that no block has; shapes computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from builder import RecoveryError
from export import read_onnx
from tests.support.onnx_drafts import Draft, agree, kinds

W = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
Write = Callable[[Draft], str]


def of_shape(d: Draft, axis: int) -> str:
    """One size of the input, as a tensor of one integer."""
    return d("Gather", d("Shape", "x"), np.array([axis]), axis=0)


def reshaped(d: Draft, *sizes: Any) -> str:
    return d("Tanh", d("Reshape", "x", d("Concat", *sizes, axis=0)))


def branch_used_twice(d: Draft) -> str:
    inner = d("Tanh", "x")
    return d("Add", d("Add", "x", inner), inner)


ODD: dict[str, tuple[Write, str]] = {
    "axes that are floats": (lambda d: d("Squeeze", "x", np.ones(1)), "axes from 'c0', which is not a constant of int"),
    "its own input as the bias": (
        lambda d: d("Gemm", d("MatMul", "x", W), W, "v0"),
        "takes its bias from 'v0', which is not a constant",
    ),
    "a bias alone": (lambda d: d("Gemm", W, W, "x"), "reads 'x' as another input than the first two"),
    "a sum of one": (lambda d: d("Sum", "x"), "Sum 'v0'.*has one operand; two are expected"),
    "an infinite slope": (lambda d: d("PRelu", "x", np.full(6, np.inf)), "PRelu 'v0'.*slope that no block has"),
    "a bias of more dimensions": (
        lambda d: d("Gemm", "x", W, np.ones((1, 1, 6))),
        r"bias of shape \[1, 1, 6\], of more dimensions than its result",
    ),
    "a clip without bounds": (lambda d: d("Clip", "x"), "Clip 'v0'.*has bounds that no block has"),
    "rows normalised with others": (
        lambda d: d("LayerNormalization", "x", np.ones(6), axis=0),
        r"normalises \[batch, 6\] from axis 0 on",
    ),
    "a norm that is not in float32": (
        lambda d: d("LayerNormalization", "x", np.ones(6), stash_type=10),
        "the features of a row, in float32, are expected",
    ),
    "a norm's weight of more dimensions": (
        lambda d: d("LayerNormalization", "x", np.ones((1, 1, 6))),
        "has a weight of 3 dimensions; at most 2",
    ),
    "a shape without entries": (
        lambda d: d("Reshape", "x", np.array([0, 6]), allowzero=1),
        "reshapes to a shape without entries",
    ),
    "more dimensions than are read": (
        lambda d: d("Reshape", "x", np.array([-1, 6] + [1] * 40)),
        "has 42 dimensions; at most 32 are read",
    ),
    "an offset of integers": (lambda d: d("Add", "x", np.ones(6, np.int64)), "a constant of type int64; float32"),
    "two open sizes": (lambda d: d("Reshape", "x", np.array([-1, -1])), "which is not a valid shape"),
    "an axis twice": (lambda d: d("Unsqueeze", "x", np.array([1, 1])), r"adds an axis twice: \[1, 1\]"),
    "a branch that is read after its sum": (branch_used_twice, "no further operator reads 'v0'"),
    "a constant as the output": (lambda d: d.constant(W), "the output 'c0' does not depend on the input"),
    "no type to convert to": (lambda d: d("Cast", "x"), "Cast 'v0' lacks the attribute 'to'"),
    "an empty constant": (lambda d: d("Add", "x", d("Constant")), "the Constant 'v0' holds nothing; one tensor"),
    "a constant of two": (
        lambda d: d("Add", "x", d("Constant", value_float=1.0, value_int=1)),
        "holds value_float, value_int; one",
    ),
    "a shape that is the input": (lambda d: d("Reshape", "x", "x"), "shape that cannot be seen in the file: 'x'"),
    "a shape of an unknown shape": (
        lambda d: d("Reshape", d("Squeeze", "x"), d("Shape", "v0")),
        "shape that cannot be seen in the file: 'v1'",
    ),
    "a product of two sizes": (
        lambda d: d("Reshape", "x", d("Mul", d("Shape", "x"), np.array([1]))),
        "shape that cannot be seen in the file: 'v1'",
    ),
    "the batch squared": (
        lambda d: reshaped(d, d("Mul", of_shape(d, 0), of_shape(d, 0)), np.array([6])),
        "shape that cannot be seen in the file",
    ),
    "twice the batch": (
        lambda d: reshaped(d, d("Mul", of_shape(d, 0), np.array([2])), np.array([3])),
        "another number of entries",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_operator_that_no_block_is_says_why(name: str, tmp_path: Path) -> None:
    spelling, words = ODD[name]
    draft = Draft(17)
    with pytest.raises(RecoveryError, match=words):
        read_onnx(draft.save(tmp_path / "x.onnx", spelling(draft)))


def test_a_sum_over_a_lone_row_without_its_dimension(tmp_path: Path) -> None:
    draft = Draft(17, (6,))
    powers = draft("Exp", "x")
    path = draft.save(tmp_path / "x.onnx", draft("Div", powers, draft("ReduceSum", powers, np.array([0]), keepdims=0)))
    with pytest.raises(RecoveryError, match=r"Exp 'v0' is in a combination that no block has"):
        read_onnx(path)


PRODUCTS: dict[str, Write] = {
    "the batch, from the left": lambda d: reshaped(d, d("Mul", of_shape(d, 0), np.array([1])), np.array([6])),
    "the batch, from the right": lambda d: reshaped(d, d("Mul", np.array([1]), of_shape(d, 0)), np.array([6])),
    "the features": lambda d: reshaped(d, np.array([-1]), d("Mul", of_shape(d, 1), np.array([1]))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_size_that_is_a_product_is_seen(name: str, tmp_path: Path) -> None:
    draft = Draft(17)
    path = draft.save(tmp_path / "x.onnx", PRODUCTS[name](draft))
    recovered = read_onnx(path)
    assert kinds(recovered) == ["tanh"]
    agree(path, recovered)


def _of_a_sequence(model: ModelProto) -> None:
    kind = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["batch", 6])
    model.graph.input[0].CopyFrom(kind)


PORTS: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "a sequence": (_of_a_sequence, "the input 'x' is not a tensor"),
    "no name": (lambda m: setattr(m.graph.input[0], "name", ""), "the input has no name"),
    "no dimensions": (
        lambda m: m.graph.input[0].type.tensor_type.shape.ClearField("dim"),
        "the input 'x' has 0 dimensions; rows of features",
    ),
}


@pytest.mark.parametrize("name", PORTS)
def test_an_input_that_is_no_rows(name: str, tmp_path: Path) -> None:
    change, words = PORTS[name]
    draft = Draft(17)
    model = draft.model(draft("Tanh", "x"))
    change(model)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RecoveryError, match=words):
        read_onnx(tmp_path / "x.onnx")
