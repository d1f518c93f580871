"""Files of any tool with the same operators and weights, wired or set otherwise: they are never called equal."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import pytest
import torch
from torch import nn

from builder import MLPSpec, assemble
from builder.documents import as_yaml
from export import compare, export
from runtime.contracts import contract

PAIRS: dict[str, tuple[str, str]] = {
    "a skip": ("a = Relu(x) b = Tanh(a) y = Add(b, a)", "a = Relu(x) b = Tanh(a) y = Add(b, x)"),
    "a difference": ("a = Tanh(x) y = Sub(x, a)", "a = Tanh(x) y = Sub(a, x)"),
    "a Concat": ("a = Tanh(x) y = Concat <axis = 1> (a, x)", "a = Tanh(x) y = Concat <axis = 1> (x, a)"),
    "a Where": ("a = Neg(x) b = Less(x, a) y = Where(b, x, a)", "a = Neg(x) b = Less(x, a) y = Where(b, a, x)"),
    "the part of a Split": ("a, b = Split <axis = 1> (x) y = Tanh(a)", "a, b = Split <axis = 1> (x) y = Tanh(b)"),
    "the operand": (
        "c = Constant <value_float = 2.0> () a = Relu(x) y = Div(a, c)",
        "c = Constant <value_float = 2.0> () a = Relu(x) y = Div(c, a)",
    ),
    "indices": (
        "i = Constant <value_ints = [0, 1, 2]> () y = Gather <axis = 1> (x, i)",
        "i = Constant <value_ints = [0, 2, 1]> () y = Gather <axis = 1> (x, i)",
    ),
    "indices in a tensor": (
        "i = Constant <value = int64[2] {0, 1}> () y = Gather <axis = 1> (x, i)",
        "i = Constant <value = int64[2] {1, 2}> () y = Gather <axis = 1> (x, i)",
    ),
    "the axis of a Gather": (
        "i = Constant <value_int = 1> () y = Gather (x, i)",
        "i = Constant <value_int = 1> () y = Gather <axis = 1> (x, i)",
    ),
    "the axes of a sum": (
        "i = Constant <value_ints = [0]> () y = ReduceSum(x, i)",
        "i = Constant <value_ints = [1]> () y = ReduceSum(x, i)",
    ),
    "shapes": (
        "i = Constant <value_ints = [-1, 2, 3]> () a = Reshape(x, i) y = Softmax(a)",
        "i = Constant <value_ints = [-1, 3, 2]> () a = Reshape(x, i) y = Softmax(a)",
    ),
    "an axis of three dimensions": (
        "i = Constant <value_ints = [-1, 2, 3]> () j = Constant <value_ints = [-1, 6]> () "
        "a = Reshape(x, i) b = Softmax <axis = 1> (a) y = Reshape(b, j)",
        "i = Constant <value_ints = [-1, 2, 3]> () j = Constant <value_ints = [-1, 6]> () "
        "a = Reshape(x, i) b = Softmax <axis = 2> (a) y = Reshape(b, j)",
    ),
    "a list of numbers": (
        "c = Constant <value_floats = [1.0, 2.0, 3.0]> () y = Mul(x, c)",
        "c = Constant <value_floats = [1.0, 2.0, 4.0]> () y = Mul(x, c)",
    ),
    "a constant that is computed": (
        "a = Constant <value_float = 2.0> () c = Exp(a) b = Relu(x) y = Mul(b, c)",
        "a = Constant <value_float = 3.0> () c = Exp(a) b = Relu(x) y = Mul(b, c)",
    ),
    "a tensor of an attribute": (
        "s = Constant <value_ints = [1]> () c = ConstantOfShape <value = float[1] {2.0}> (s) y = Mul(x, c)",
        "s = Constant <value_ints = [1]> () c = ConstantOfShape <value = float[1] {3.0}> (s) y = Mul(x, c)",
    ),
    "a limit that is computed": (
        "a = Constant <value_float = 2.0> () c = Neg(a) b = Relu(x) y = Clip(b, c)",
        "a = Constant <value_float = 3.0> () c = Neg(a) b = Relu(x) y = Clip(b, c)",
    ),
    "a default": ("y = HardSigmoid(x)", "y = HardSigmoid <alpha = 0.5> (x)"),
    "another default": ("y = Celu(x)", "y = Celu <alpha = 0.5> (x)"),
    "the axis of a norm": (
        "s = Constant <value_float = 1.0> () y = LayerNormalization <axis = 0> (x, s)",
        "s = Constant <value_float = 1.0> () y = LayerNormalization(x, s)",
    ),
    "a Flatten": ("a = Flatten <axis = 0> (x) y = Softmax(a)", "a = Flatten(x) y = Softmax(a)"),
    "what reads a Sigmoid": (
        "a = Relu(x) s = Sigmoid(a) b = Mul(a, s) y = Add(b, b)",
        "a = Relu(x) s = Sigmoid(a) b = Mul(a, s) y = Add(b, s)",
    ),
}


def file(
    folder: Path, operators: str, given: str = "float[N,6] x", made: str = "float[N,6] y", opset: int = 18
) -> Path:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    folder.mkdir(exist_ok=True)
    onnx.save(onnx.parser.parse_model(f"{header} g ({given}) => ({made}) {{ {operators} }}"), folder / "m.onnx")
    (folder / "contract.yaml").write_text(contract(folder / "m.onnx").to_yaml())
    return folder / "m.onnx"


def assert_differ(first: Path, second: Path) -> None:
    for name in ("m.onnx", "contract.yaml"):
        assert not compare(first, second.with_name(name)).equal
        assert not compare(first.with_name(name), second).equal
    for each in (first, second):
        assert compare(each, each.with_name("contract.yaml")).equal


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_operators_with_other_values_differ(name: str, tmp_path: Path) -> None:
    one, other = PAIRS[name]
    assert_differ(file(tmp_path / "a", one), file(tmp_path / "b", other))


def test_outputs_that_change_places_differ(tmp_path: Path) -> None:
    made = "float[N,6] {}, float[N,6] {}"
    first = file(tmp_path / "a", "p = Tanh(x) q = Relu(x)", made=made.format("p", "q"))
    second = file(tmp_path / "b", "p = Tanh(x) q = Relu(x)", made=made.format("q", "p"))
    third = file(tmp_path / "c", "q = Tanh(x) p = Relu(x)", made=made.format("p", "q"))
    assert_differ(first, second)
    assert_differ(first, third)


def test_inputs_that_change_places_differ(tmp_path: Path) -> None:
    first = file(tmp_path / "a", "c = Tanh(a) y = Sub(c, b)", "float[N,6] a, float[N,6] b")
    second = file(tmp_path / "b", "c = Tanh(b) y = Sub(c, a)", "float[N,6] b, float[N,6] a")
    assert_differ(first, second)


def test_a_clip_that_another_output_reads_is_no_step_of_one_output(tmp_path: Path) -> None:
    limits = (
        "l = Constant <value_float = -1.0> () h = Constant <value_float = 1.0> () c = Constant <value_float = 2.0> ()"
    )
    made = "float[N,6] y, float[N,6] z"
    first, second = (
        file(tmp_path / read, f"{limits} a = Relu(x) b = Clip(a, l, h) y = Mul(b, c) z = Tanh({read})", made=made)
        for read in "ab"
    )
    assert_differ(first, second)


@pytest.mark.parametrize("shape", ["N,2,3", "N,7"])
def test_rows_of_another_shape_differ(shape: str, tmp_path: Path) -> None:
    made = f"float[{shape}] y"
    first = file(tmp_path / "a", "y = Softmax(x)")
    assert_differ(first, file(tmp_path / "b", "y = Softmax(x)", f"float[{shape}] x", made))


def test_vectors_of_another_size_differ(tmp_path: Path) -> None:
    first, second = (file(tmp_path / str(n), "y = Tanh(x)", f"float[{n}] x", f"float[{n}] y") for n in (6, 7))
    assert not compare(first, second).equal


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", ["", "<axis = 1>"])
def test_a_softmax_over_several_dimensions_in_older_opsets_differs(name: str, axis: str, tmp_path: Path) -> None:
    first, second = (
        file(tmp_path / str(opset), f"y = {name} {axis} (x)", "float[N,2,3] x", "float[N,2,3] y", opset)
        for opset in (11, 13)
    )
    assert_differ(first, second)


def test_the_same_in_another_opset_is_equal(tmp_path: Path) -> None:
    first = file(tmp_path / "a", "a = ReduceMean <axes = [1]> (x) y = Softmax <axis = 1> (a)", opset=11)
    second = file(
        tmp_path / "b", "i = Constant <value_ints = [1]> () a = ReduceMean <keepdims = 1> (x, i) y = Softmax(a)"
    )
    assert [each.words for each in compare(first, second).differences if "reducemean" in each.words] == []


def test_where_a_residual_begins_is_compared_in_every_form(tmp_path: Path) -> None:
    """``h + linear(tanh(h))`` and ``tanh(h) + linear(tanh(h))`` have the same layers and weights."""
    specs = [["tanh", {"residual": [{"linear": 4}]}], [{"residual": ["tanh", {"linear": 4}]}]]
    forms: list[list[Path]] = []
    weights: list[torch.Tensor] = []
    for index, blocks in enumerate(specs):
        spec = MLPSpec(name="m", input={"features": 4}, blocks=[{"linear": 4}, *blocks, {"linear": 2}])
        module = assemble(spec, seed=1)
        weights = weights or [each.detach() for each in module.parameters()]
        with torch.no_grad():
            for ours, theirs in zip(module.parameters(), weights, strict=True):
                ours.copy_(theirs)
        path = export(module, tmp_path / str(index) / "m.onnx", spec=spec).path
        (path.parent / "spec.yaml").write_text(as_yaml(spec))
        (path.parent / "contract.yaml").write_text(contract(path).to_yaml())
        forms.append([path.with_name(name) for name in ("m.onnx", "spec.yaml", "contract.yaml")])
    for first in forms[0]:
        for second in forms[1]:
            assert any("reads" in each.words for each in compare(first, second).differences)


class Own(nn.Module):
    """A module of one's own, which may norm the same numbers in two ways."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind.startswith("p"):
            return x / x.norm(p=int(self.kind[1:]), dim=1, keepdim=True)
        rows = x.reshape(-1, 2, 3)
        return nn.functional.layer_norm(rows, (2, 3) if self.kind == "both" else (3,))


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kinds", [("p1", "p2"), ("both", "last")])
def test_files_of_modules_that_norm_otherwise_differ(kinds: tuple[str, str], opset: int, tmp_path: Path) -> None:
    rows = torch.randn(3, 6)
    first, second = (export(Own(kind), tmp_path / f"{kind}.onnx", example=rows, opset=opset).path for kind in kinds)
    assert not compare(first, second).equal
    assert compare(first, first).equal
