"""An ONNX file becomes the spec and the weights of the network that it computes, however it is spelt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builder import MLPSpec, RecoveryError, assemble
from export import Recovered, read_onnx
from tests.support.onnx_drafts import Draft, agree, inputs, kinds
from tests.support.spellings import SPELLINGS, B, C, P, Spelling, W

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


def test_a_vector_and_a_matrix_of_three_dimensions(tmp_path: Path) -> None:
    for axis, refused in ((1, False), (2, True)):  # their product has two dimensions
        draft = Draft(12, (6,))
        path = draft.save(tmp_path / "row.onnx", draft("Softmax", draft("MatMul", "x", W[None]), axis=axis))
        if refused:
            with pytest.raises(RecoveryError, match="axis"):
                read_onnx(path)
        else:
            agree(path, read_onnx(path), (6,))


def test_names_and_notes(tmp_path: Path) -> None:
    draft = Draft(13, (1, 6))
    path = draft.save(tmp_path / "_my net (2).onnx", draft("Dropout", draft("Relu", "x")))
    recovered = read_onnx(path)
    assert recovered.spec.name == "my-net-2-"
    assert (recovered.spec.input.name, recovered.spec.output.name) == ("x", "v1")
    assert any("Dropout" in note for note in recovered.notes)
    assert any("one row" in note for note in recovered.notes)
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
