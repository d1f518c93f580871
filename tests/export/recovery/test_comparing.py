"""``export.compare`` of specs with the files that are built from them, and with specs of other options."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx.parser
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import nn

from builder import MLPSpec, RecoveryError, SpecError, assemble
from builder.documents import as_yaml
from export import compare, export
from runtime.contracts import Comparison, contract, read_contract
from tests.support.cases import BLOCKS, network, randomised, specs
from tests.support.commands import Run
from tests.support.repeats import examples
from tests.support.run_folders import mlp, named

OTHER: dict[str, Any] = {
    "linear": {"linear": {"features": 7, "bias": False}},
    "linear without bias": {"linear": 7},
    "leaky_relu": {"leaky_relu": 0.02},
    "leaky_relu with a negative slope": {"leaky_relu": 0.37},
    "elu": {"elu": 1.4},
    "gelu": {"gelu": "tanh"},
    "gelu tanh": "gelu",
    "softplus": {"softplus": 2.0},
    "softplus with a threshold": {"softplus": {"beta": 2.5, "threshold": 2.5}},
    "clip": {"clip": [-0.4, 0.8]},
    "batch_norm": {"batch_norm": 0.25},
    "batch_norm without weights": {"batch_norm": {"affine": False, "eps": 0.25}},
    "layer_norm": {"layer_norm": 1e-2},
    "layer_norm without weights": {"layer_norm": {"elementwise_affine": False, "eps": 1e-2}},
    "layer_norm without bias": {"layer_norm": {"bias": False, "eps": 1e-2}},
    "standardize": {"standardize": {"mean": 0.7, "std": 2.0}},
    "scale": {"scale": {"factor": -2.5, "offset": 0.25}},
    "impute": {"impute": 0.5},
    "residual": {"residual": ["tanh", {"scale": {"factor": 0.5, "offset": 0.2}}]},
}
"""The blocks of ``BLOCKS`` that have options, each with one of them changed."""
WITHOUT_OPTIONS = {"sigmoid", "relu", "tanh", "silu", "softmax", "relu6", "hardsigmoid", "softsign"}
WITHOUT_OPTIONS |= {"flatten", "identity", "dropout"}


def spec_file(folder: Path, spec: MLPSpec, module: nn.Sequential | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(as_yaml(spec))
    if module is not None:
        save_file(module.state_dict(), folder / "weights.safetensors")
    return folder / "spec.yaml"


def forms(folder: Path, blocks: list[Any], opset: int = 18) -> dict[str, Path]:
    """A spec alone and with its weights, the file that is built from it, and the contract of that."""
    spec, module = network(copy.deepcopy(blocks))
    path = export(module, folder / "m.onnx", spec=spec, opset=opset).path
    (folder / "contract.yaml").write_text(contract(path).to_yaml())
    with_weights = spec_file(folder / "with", spec, module)
    alone = spec_file(folder / "alone", spec)
    return {"spec": alone, "weights": with_weights, "onnx": path, "contract": folder / "contract.yaml"}


def around(block: Any) -> list[Any]:
    return [{"linear": 7}, block, "tanh", {"linear": 7}]


def words(found: Comparison) -> list[str]:
    return [each.words for each in found.differences]


def test_every_block_is_here() -> None:
    assert set(BLOCKS) == OTHER.keys() | WITHOUT_OPTIONS


@pytest.mark.parametrize("opset", [9, 12, 20])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_spec_equals_the_file_that_is_built_from_it(name: str, opset: int, tmp_path: Path) -> None:
    for place, blocks in (("middle", around(BLOCKS[name])), ("first", [BLOCKS[name], *around("relu")])):
        found = forms(tmp_path / place, blocks, opset)
        for first in found.values():
            for second in found.values():
                assert words(compare(first, second)) == []
        folded = contract(found["onnx"]).notes
        assert compare(found["weights"], found["onnx"]).notes == tuple(f"the second: {line}" for line in folded)


@settings(deadline=None, max_examples=examples(15, of=150))
@given(spec=specs(deepest=7, widest=24))
def test_any_spec_equals_the_file_that_is_built_from_it(
    spec: MLPSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    module = randomised(assemble(spec, seed=1), 1)
    path = export(module, folder / "m.onnx", spec=spec).path
    for beside in (module, None):
        assert words(compare(spec_file(folder / f"{beside is None}", spec, beside), path)) == []


@pytest.mark.parametrize("opset", [9, 20])
def test_options_are_rounded_to_float32_as_in_the_file(opset: int, tmp_path: Path) -> None:
    blocks: list[Any] = [
        {"linear": 7},
        {"elu": 0.1},
        {"softplus": {"beta": 0.3, "threshold": 1.1}},
        {"clip": [-0.1, 0.7]},
    ]
    blocks += [{"layer_norm": 1e-4}, {"softplus": {"threshold": 30}}, {"clip": {"min": [0.1] * 7, "max": [None] * 7}}]
    found = forms(tmp_path, [*blocks, {"linear": 2}, {"batch_norm": 3e-5}], opset)
    for first in found.values():
        for second in found.values():
            assert words(compare(first, second)) == []


@pytest.mark.parametrize("opset", [9, 20])
@pytest.mark.parametrize("name", OTHER)
def test_another_option_of_a_block_is_a_difference(name: str, opset: int, tmp_path: Path) -> None:
    ours, theirs = (
        forms(tmp_path / place, around(block), opset) for place, block in (("a", BLOCKS[name]), ("b", OTHER[name]))
    )
    for form in ours:
        assert words(compare(ours[form], theirs[form])) != [], form
    assert words(compare(ours["weights"], theirs["onnx"])) != []
    assert words(compare(ours["contract"], theirs["onnx"])) != []


def test_what_an_option_is_stands_in_the_words(tmp_path: Path) -> None:
    for index, (one, other, expected) in enumerate(
        [
            ("gelu", {"gelu": "tanh"}, "layer 2 is gelu, and gelu tanh in the second"),
            ({"layer_norm": 1e-2}, "layer_norm", "layer 2 is layer_norm 0.01, and layer_norm in the second"),
            ("softplus", {"softplus": 2.0}, "layer 2 is softplus, and softplus beta 2.0 in the second"),
            ({"clip": [-1, 1]}, {"clip": [-5, 1]}, "layer 2 is clip min -1.0 max 1.0, and clip min -5.0 max 1.0 in"),
            (
                {"clip": {"min": [-1.0] * 7, "max": 9}},
                {"clip": {"min": [-1.0] * 5 + [-2.0, None], "max": 9}},
                "layer 2, clip min -1.0 max 9.0: another min of 2 features",
            ),
        ]
    ):
        ours, theirs = (forms(tmp_path / f"{index}{place}", around(b)) for place, b in (("a", one), ("b", other)))
        for form in ours:
            (found,) = [each for each in words(compare(ours[form], theirs[form])) if "layer 2" in each]
            assert found.startswith(expected), form


POWER = "c = Constant <value_float = 2.0> () y = Pow(x, c)"


def other_tool(path: Path, operators: str, opset: int = 20) -> Path:
    """A file of another tool: ``operators`` from x to y, both (N, 3)."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    onnx.save(onnx.parser.parse_model(f"{header} g (float[N,3] x) => (float[N,3] y) {{ {operators} }}"), path)
    return path


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("y = Gelu(x)", 'y = Gelu <approximate = "none"> (x)', True),
        ("y = Gelu(x)", 'y = Gelu <approximate = "tanh"> (x)', False),
        ("y = Softmax <axis = 1> (x)", "y = Softmax <axis = -1> (x)", True),
        ("y = Softmax <axis = 0> (x)", "y = Softmax <axis = -1> (x)", False),
        ("y = Elu(x)", "y = Elu <alpha = 1.0> (x)", True),
        ("y = LeakyRelu(x)", "y = LeakyRelu <alpha = 0.02> (x)", False),
        (POWER, POWER, True),
        (POWER, POWER.replace("2", "3"), False),
    ],
)
def test_attributes_and_constants_of_other_tools_files_are_compared(
    one: str, other: str, equal: bool, tmp_path: Path
) -> None:
    first, second = (other_tool(tmp_path / f"{name}.onnx", text) for name, text in (("a", one), ("b", other)))
    assert compare(first, second).equal == equal
    assert compare(first, second).notes == ()


def test_several_batch_norms_are_folded_as_the_export_does(tmp_path: Path) -> None:
    blocks: list[Any] = [{"linear": 7}, "dropout", "batch_norm", {"batch_norm": {"affine": False}}, {"linear": 3}]
    blocks += ["batch_norm", {"residual": ["batch_norm", {"linear": 3}, "batch_norm"]}]
    found = forms(tmp_path, blocks)
    assert [str(each) for each in contract(found["onnx"]).layers].count("batch_norm") == 1
    assert words(compare(found["weights"], found["onnx"])) == []
    assert words(compare(found["spec"], found["onnx"])) == []
    without = forms(tmp_path / "without", [block for block in blocks if block != "batch_norm"])
    assert words(compare(found["spec"], without["spec"]))


def test_specs_without_weights_differ_in_a_batch_norm_or_a_bias(tmp_path: Path) -> None:
    one, other, third = (
        spec_file(tmp_path / name, MLPSpec(name="m", input={"features": 3}, blocks=blocks))
        for name, blocks in (
            ("a", [{"linear": 4}, "batch_norm", "relu"]),
            ("b", [{"linear": 4}, "relu"]),
            ("c", [{"linear": {"features": 4, "bias": False}}, "relu"]),
        )
    )
    assert words(compare(one, other)) == ["layer 1 is linear 3 to 4 batch_norm 1e-05, and linear 3 to 4 in the second"]
    assert words(compare(other, third)) == ["layer 1 is linear 3 to 4, and linear 3 to 4 without bias in the second"]
    assert compare(one, one).notes == ("the weights of both are not known, so they were not compared",)


def test_features_that_moved_with_all_before_the_first_linear_are_one_difference(tmp_path: Path) -> None:
    """A layer_norm and an impute before it, whose constants moved with the features."""
    names, order = ["a", "b", "c", "d"], [2, 0, 1, 3]
    files: list[Path] = []
    for place, taken in (("a", [0, 1, 2, 3]), ("b", order)):
        blocks = [{"impute": {"value": [float(i) for i in taken]}}, "layer_norm", {"linear": 3}, "tanh", {"linear": 2}]
        spec = MLPSpec(name="m", input={"features": [names[i] for i in taken]}, blocks=blocks)
        module = assemble(spec, seed=1).eval()
        with torch.no_grad():
            for name, start in (("weight", 1.0), ("bias", 5.0)):
                module.get_parameter(f"1.{name}")[:] = torch.arange(start, start + 4)[taken]
            module.get_parameter("2.weight")[:] = torch.arange(12.0).reshape(3, 4)[:, taken]
        (tmp_path / place).mkdir()
        files.append(export(module, tmp_path / place / "m.onnx", spec=spec).path)
    (difference,) = compare(*files).differences
    assert difference.kind == "order"


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ({"input": {"features": [{"name": "a", "categories": ["x", "y"], "embedding": 2}]}}, "its input has them"),
        ({"inputs": [{"name": "c", "features": 3, "blocks": [{"linear": 2}]}]}, "its input has them"),
        ({"inputs": [{"name": "a", "features": 1}, {"name": "b", "features": 1}]}, "it has 2 inputs"),
    ],
)
def test_a_spec_whose_inputs_are_joined_is_refused(ports: Any, expected: str, tmp_path: Path) -> None:
    path = spec_file(tmp_path, MLPSpec(name="m", **ports, blocks=[{"linear": 2}]))
    with pytest.raises(RecoveryError, match=f"expected a spec of one input .* {expected}. What to do: build it"):
        compare(path, path)


def test_the_words_of_categories_are_compared(tmp_path: Path) -> None:
    found: list[Path] = []
    for place, listed in (("a", ["x", "y"]), ("b", ["y", "x"])):
        features = [{"name": "a", "categories": listed, "embedding": 2}, {"name": "b", "categories": ["p", "q"]}]
        spec = MLPSpec(name="m", input={"features": features}, blocks=[{"linear": 2}])
        (tmp_path / place).mkdir()
        found.append(export(assemble(spec, seed=1), tmp_path / place / "m.onnx", spec=spec).path)
    as_yaml_file = tmp_path / "c.yaml"
    as_yaml_file.write_text(contract(found[1]).to_yaml())
    features = [port.features for file in (read_contract(as_yaml_file), contract(found[1])) for port in file.inputs]
    assert features[0] == features[1]
    for second in (found[1], as_yaml_file):
        (difference,) = compare(found[0], second).differences
        assert (difference.kind, difference.features) == ("categories", ("a",))
        assert "another categories of a [x, y] and [y, x]" in difference.words
    assert compare(found[1], as_yaml_file).equal


def test_what_a_recovery_left_out_is_a_warning_and_last(run: Run, tmp_path: Path) -> None:
    state = {"std": torch.ones(3), **named({"actor": mlp(10, 8, 3), "critic": mlp(9, 8, 1)})}
    policy = tmp_path / "Jul13_12-00-00_"  # of legged_gym
    policy.mkdir()
    torch.save({"model_state_dict": state, "iter": 5}, policy / "model_5.pt")
    path = spec_file(tmp_path / "spec", *network([{"linear": 3}]))
    code, out, err = run("recover", policy, "--compare", path, "--activation", "elu")
    assert (code, out.splitlines()[-1]) == (1, "verdict   different")
    lines = [line for line in err.splitlines() if line.startswith(("note: ", "warning: "))]
    kinds = [line.partition(":")[0] for line in lines]
    assert kinds == sorted(kinds)
    assert set(kinds) == {"note", "warning"}
    assert all("the first: " in line and " LEFT OUT" in line for line in lines if line.startswith("warning"))


def test_a_file_nested_too_deep_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 3000 + "]" * 3000)
    with pytest.raises(SpecError, match=r"deep\.yaml"):
        compare(tmp_path / "deep.yaml", tmp_path / "deep.yaml")
