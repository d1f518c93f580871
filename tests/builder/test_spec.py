"""Reading and checking specs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from torch import nn

from builder import BLOCKS, MLPSpec, SpecError, assemble, json_schema, load_spec
from tests.support.cases import BLOCKS as CASES
from tests.support.cases import specs

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
HEAD = "name: net\ninput: {features: 4}\n"


def read(folder: Path, text: str, suffix: str = ".yaml") -> MLPSpec:
    path = folder / f"spec{suffix}"
    path.write_text(text, encoding="utf-8")
    return load_spec(path)


def message(folder: Path, text: str, suffix: str = ".yaml") -> str:
    with pytest.raises(SpecError) as caught:
        read(folder, text, suffix)
    assert str(folder / f"spec{suffix}") in str(caught.value)
    return str(caught.value)


YAML = """format: 1
name: digits
input: {name: pixels, features: 64, range: [0, 16]}
blocks:
  - standardize: {mean: 7.5, std: 4.3}
  - linear: 128
  - relu
  - dropout: 0.2
  - linear: {features: 10, bias: true}
output: {name: logits, labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
"""
TOML = """format = 1
name = "digits"
blocks = [{standardize = {mean = 7.5, std = 4.3}}, {linear = 128}, "relu", {dropout = 0.2}, {linear = {features = 10}}]
[input]
name = "pixels"
features = 64
range = [0, 16]
[output]
name = "logits"
labels = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
"""


def test_yaml_json_toml_and_python_say_the_same(tmp_path: Path) -> None:
    from_yaml = read(tmp_path, YAML)
    as_json = json.dumps(from_yaml.model_dump(exclude_none=True))
    assert from_yaml == read(tmp_path, TOML, ".toml") == read(tmp_path, as_json, ".json")
    python = MLPSpec(
        name="digits",
        input={"name": "pixels", "features": 64, "range": [0, 16]},
        blocks=[{"standardize": {"mean": 7.5, "std": 4.3}}, {"linear": 128}, "relu", {"dropout": 0.2}, {"linear": 10}],
        output={"name": "logits", "labels": from_yaml.output.labels},
    )
    assert python == from_yaml
    assert [type(part) for part in assemble(from_yaml)][1:] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


@pytest.mark.parametrize("name", CASES)
def test_every_block_is_assembled_under_both_of_its_names(name: str) -> None:
    block = CASES[name]
    kind, options = next(iter(block.items())) if isinstance(block, dict) else (block, None)
    torch_name = BLOCKS[kind].torch_name
    under_torch_name = torch_name if options is None else {torch_name: options}
    a, b = (MLPSpec(name="x", input={"features": 7}, blocks=[written]) for written in (block, under_torch_name))
    assert a == b
    assert type(assemble(a)[0]).__name__ == torch_name
    if kind not in ("standardize", "scale", "impute", "residual"):
        assert type(assemble(a)[0]) is getattr(nn, torch_name)


@given(spec=specs(deepest=6, widest=32))
def test_a_spec_survives_being_written_and_read(spec: MLPSpec) -> None:
    written = spec.model_dump(exclude_none=True)
    assert MLPSpec(**json.loads(json.dumps(written))) == spec
    VALIDATOR.validate(written)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    schema = json_schema()
    good: dict[str, Any] = {"name": "x", "input": {"features": 3}, "blocks": ["relu", {"clip": [-1, 1]}]}
    jsonschema.validate(good, schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    for change in (
        {"blocks": ["reluu"]},
        {"blocks": []},
        {"blocks": [{"relu": 1}]},
        {"blocks": [{"linear": {"bias": True}}]},
        {"blocks": [{"linear": 3, "relu": None}]},
        {"name": "a b"},
        {"format": 2},
        {"extra": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | change, schema)


def test_yaml_1_2_scalars(tmp_path: Path) -> None:
    text = "name: no\ninput: {features: 010, name: 'on'}\nblocks: [{leaky_relu: 1e-3}, {linear: 0x10}]\noutput: {name: yes}"
    spec = read(tmp_path, text)
    assert (spec.name, spec.input.features, spec.output.name) == ("no", 10, "yes")
    assert spec.blocks[0].model_dump() == {"negative_slope": 0.001}
    assert spec.output_shape == (16,)


def test_input_shape_and_flatten(tmp_path: Path) -> None:
    spec = read(tmp_path, "name: net\ninput: {shape: [1, 28, 28]}\nblocks: [flatten, {linear: 10}]")
    assert spec.input.row_shape == (1, 28, 28)
    assert spec.output_shape == (10,)
    assert isinstance(assemble(spec)[1], nn.Linear)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blocks: [relu, lineer]", ["line 3, blocks[1]", "unknown block 'lineer'", "did you mean 'linear'?", "softplus"]),
        ("blocks:\n  - linear: {featurs: 3}", ["line 4", "unknown key", "did you mean 'features'?"]),
        ("blocks: [relu]\noutptu: {name: y}", ["line 4, outptu", "did you mean 'output'?"]),
        ("blocks: [{linear: 3}, {linear: {features: 2, in_features: 5}}]", ["blocks[1]", "linear expects 5", "blocks[0] linear gives 3"]),
        ("blocks: [{linear: 3}, relu, {standardize: {mean: [1, 2]}}]", ["2 values in mean", "blocks[0] linear gives 3"]),
        ("blocks: [{linear: 3}, {residual: [{linear: 4}]}]", ["blocks[1]", "the 4 features that its blocks give", "blocks[0] linear gives 3"]),
        ("blocks: [{residual: [{linear: 9}, {linear: {features: 4, in_features: 8}}]}]", ["blocks[0].residual[1]", "residual[0] linear gives 9"]),
        ("blocks: [{dropout: 1.5}]", ["line 3, blocks[0].dropout", "less than or equal to 1", "1.5"]),
        ("blocks: [{dropout: -0.1}]", ["greater than or equal to 0", "-0.1"]),
        ("blocks: [{leaky_relu: .inf}]", ["blocks[0].leaky_relu", "finite", "inf"]),
        ("blocks: [{leaky_relu: .nan}]", ["finite", "nan"]),
        ("blocks: [{elu: no}]", ["valid number", "'no'"]),
        ("blocks: []", ["line 3, blocks", "at least 1"]),
        ("blocks: [linear]", ["'features' is missing"]),
        ("blocks: [{relu: 3}]", ["relu takes no bare value"]),
        ("blocks: [3]", ["a block is a name", "relu"]),
        ("blocks: [{clip: [2, 1]}]", ["min must be below max"]),
        ("blocks: [{standardize: {std: [1, 0, 1, 1]}}]", ["std must be above 0"]),
        ("blocks: [{standardize: {std: 1e-60}}]", ["std must be above 0, in float32"]),
        ("blocks: [{scale: 1e300}]", ["factor is 1e+300, beyond float32"]),
        ("blocks: [{clip: [0, 1e39]}]", ["max is 1e+39, beyond float32"]),
        ("blocks: [{linear: 1000000000000000}]", ["less than or equal to 10000000"]),
        ("blocks: [relu]\noutput: {name: label, labels: [a, b, c, d]}", ["'label' is a column that predict writes"]),
        ("blocks: [relu]\noutput: {nam: x}", ["output.nam", "did you mean 'name'?"]),
        ("blocks: [relu]\nformat: true", ["format", "'True'"]),
        ("blocks: !foo [relu]", ["tag !foo is not allowed"]),
        ("blocks: [{linear: " + "9" * 5000 + "}]", ["limit"]),
        ("blocks: [relu]\noutput: {labels: [a, b]}", ["2 labels", "4 features"]),
        ("blocks: [{linear: 2}]\noutput: {labels: [a, a]}", ["'a' appears more than once"]),
        ("blocks: [{linear: 1}, tanh]\noutput: {labels: [a, b]}", ["sigmoid", "linear"]),
        ("blocks: [relu]\noutput: {name: input}", ["'input' is also the input's name"]),
        ("blocks: [relu]\nblocks: [tanh]", ["line 4, blocks", "duplicate key"]),
        ("blocks: [relu", ["line 3", "not YAML"]),
        ("blocks: &a [*a]", ["alias"]),
        ("blocks: [!!python/name:os.system relu]", ["tag"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text: str, expected: list[str], tmp_path: Path) -> None:
    said = message(tmp_path, HEAD + text)
    assert [part for part in expected if part not in said] == []


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    said = message(tmp_path, "name: net\ninput: {features: 4}\nblocks: [reluu, {dropout: 2}]\nfoo: 1")
    assert "3 problems" in said
    assert all(part in said for part in ("reluu", "dropout", "foo"))


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "", "7"])
def test_a_document_that_is_not_a_mapping(text: str, tmp_path: Path) -> None:
    assert "expected a mapping with the keys format, name, period, input, inputs, blocks, output" in message(
        tmp_path, text
    )


def test_aliases_that_multiply_are_stopped(tmp_path: Path) -> None:
    levels = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10) if i else 'x'}]" for i in range(9))
    assert "more than 1,000,000 values" in message(tmp_path, levels)


@pytest.mark.parametrize(
    ("text", "suffix", "expected"),
    [
        ('{"name": "a", "name": "b"}', ".json", "duplicate key 'name'"),
        ('{"name": }', ".json", "line 1: not JSON"),
        ('{"name": "a", "input": {"features": NaN}}', ".json", "NaN is not a JSON number"),
        ('name = "a"\nname = "b"', ".toml", "not TOML"),
        ('name = "a"\nblocks = ["relu"]\n[input]\nfeaturs = 3', ".toml", "input.featurs: unknown key; did you mean"),
        ("name: a", ".txt", "a spec's file name ends in .yaml"),
    ],
)
def test_other_formats(text: str, suffix: str, expected: str, tmp_path: Path) -> None:
    assert expected in message(tmp_path, text, suffix)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="No such file"):
        load_spec(tmp_path / "nothing.yaml")


def test_problems_in_python_have_paths() -> None:
    with pytest.raises(SpecError, match=r"blocks\[0\].*unknown block 'lin'"):
        MLPSpec(name="x", input={"features": 3}, blocks=["lin"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{HEAD}blocks: [{{clip: 3}}]", "clip takes a list of 2 values: [min, max]"),
        ("name: net\ninput: {name: x}\nblocks: [relu]", "takes either features or shape"),
        ("name: net\ninput: {features: 4, shape: [4]}\nblocks: [relu]", "takes either features or shape"),
        (f"{HEAD}blocks: [relu]\n1: 2", "a key is a string, not 1"),
        (f"{HEAD}blocks: [{{linear: !!int many}}]", "'many' is tagged as int, but is not a valid int"),
        ("name: net\ninput: {shape: [2, 2]}\nblocks: [{linear: 3}]", "expects flat rows (put a flatten in front)"),
        ("name: net\ninput: {shape: [2, 2]}\nblocks: [batch_norm]", "expects flat rows (put a flatten in front)"),
    ],
)
def test_what_a_spec_cannot_say(text: str, words: str, tmp_path: Path) -> None:
    assert words in message(tmp_path, text)


def test_a_block_may_be_given_as_itself() -> None:
    spec = MLPSpec(name="net", input={"features": 4}, blocks=[{"linear": 3}, "relu"])
    again = MLPSpec(name="net", input={"features": 4}, blocks=list(spec.blocks))  # type: ignore[arg-type]
    assert again == spec
