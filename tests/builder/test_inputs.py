"""Specs with several inputs, categories and missing values, and the modules that they describe."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from builder import MLPSpec, SpecError, assemble, json_schema, load_port_specs, load_spec, load_weights
from builder.documents import as_yaml
from tests.support.words import RECORD, delays

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def test_a_spec_with_inputs_survives_every_form_and_agrees_with_the_schema(tmp_path: Path) -> None:
    spec = MLPSpec(**RECORD)
    SCHEMA.validate(RECORD)
    record = spec.model_dump(exclude_none=True)
    SCHEMA.validate(record)
    assert MLPSpec(**json.loads(json.dumps(record))) == spec
    (tmp_path / "s.yaml").write_text(as_yaml(spec), encoding="utf-8")
    assert load_spec(tmp_path / "s.yaml") == spec
    assert spec.inputs[1].listed is not None
    assert [port.dtype for port in spec.inputs] == ["float32", "int64"]
    assert [spec.takes_missing(port) for port in spec.inputs] == [True, False]
    assert [feature.unknown_code for feature in spec.inputs[1].listed] == [2, None]


def test_one_input_in_a_list_is_that_input() -> None:
    rest: dict[str, Any] = {"name": "x", "blocks": [{"linear": 2}]}
    listed, alone = MLPSpec(inputs=[{"features": 3}], **rest), MLPSpec(input={"features": 3}, **rest)
    assert listed == alone
    assert "input" in listed.model_dump()
    assert list(assemble(listed).state_dict()) == ["0.weight", "0.bias"]


def test_the_module_joins_its_inputs_in_order() -> None:
    _, module = delays()
    numbers, codes = torch.tensor([[torch.nan, 3.0], [500.0, torch.nan]]), torch.tensor([[3, 0], [1, 2]])
    filled = torch.where(numbers.isnan(), torch.tensor([1000.0, 10.0]), numbers)
    standard = (filled - torch.tensor([1000.0, 10.0])) / torch.tensor([730.0, 5.5])
    state = module.state_dict()
    embedded = state["inputs.1.0.weight"][codes[:, 0]]
    row = torch.cat([standard, embedded, functional.one_hot(codes[:, 1], 3).float()], dim=1)
    expected = nn.Sequential(*[block for name, block in module.named_children() if name != "inputs"])(row)
    assert torch.equal(module(numbers, codes), expected)
    with pytest.raises(TypeError, match=r"takes 2 inputs \(numbers, words\), and got 1"):
        module(numbers)
    with pytest.raises(IndexError):
        module(numbers, torch.tensor([[0, 3], [0, 0]]))  # beyond the one-hot words


def test_the_names_of_weights_are_those_of_the_document(tmp_path: Path) -> None:
    _, module = delays(seed=1)
    blocks = ["0.weight", "0.bias", *(f"2.{n}" for n in ("weight", "bias", "running_mean", "running_var"))]
    blocks += ["2.num_batches_tracked", "4.weight", "4.bias"]
    own = ["inputs.0.0.value", "inputs.0.1.mean", "inputs.0.1.std", "inputs.1.0.weight"]
    assert list(module.state_dict()) == [*own, *blocks]
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    _, other = delays(seed=2)
    load_weights(other, tmp_path / "w.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), module.state_dict().values(), strict=True)
    )


def changed(path: str, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    *parents, last = path.split(".")
    part: Any = record
    for key in parents:
        part = part[int(key) if key.isdigit() else key]
    part[int(last) if last.isdigit() else last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("input", {"features": 1}, "takes either input or inputs"),
        ("inputs", [], "inputs: list should have at least 1 item"),
        ("inputs.1.name", "numbers", "inputs[1].name: 'numbers' is also the name of another input"),
        ("output.name", "words", "output.name: 'words' is also the input's name"),
        ("inputs.1.features.0.name", "wind", "inputs: 'wind' is a feature of two inputs"),
        ("inputs.0.features.1", {"name": "w", "categories": ["a"]}, "'distance' is a number and 'w' a category"),
        ("inputs.1.features.0.unknown", "XX", "unknown is 'error', 'first' or one of the categories, not 'XX'"),
        (
            "inputs.1.features.0",
            {"name": "c", "categories": ["a", "first"], "unknown": "first"},
            "'first' is a category too, so that unknown: first has two meanings",
        ),
        ("inputs.1.features.0.categories", ["AA", "AA"], "'AA' appears more than once"),
        ("inputs.1.features.0.categories", [], "categories: list should have at least 1 item"),
        ("inputs.1.features.0.categories", [" A"], "a category is one line, without space before or after it"),
        ("inputs.1.features.0.categoris", ["A"], "unknown key; did you mean 'categories'?"),
        ("inputs.1.features.0.unit", "m", "a feature with categories has neither unit nor range"),
        ("inputs.1.features.1.embedding", 0, "greater than 0"),
        ("inputs.1.features.1.categories", [f"c{i}" for i in range(1025)], "more than 1,024 categories; give it an em"),
        ("inputs.1.range", [0, 1], "an input of categories has neither a range nor blocks"),
        ("inputs.1.blocks", ["relu"], "an input of categories has neither a range nor blocks"),
        ("inputs.0.features.0", {"name": "distance", "unknown": "a"}, "are for a feature with categories"),
        ("inputs.0.blocks.0", {"impute": [1.0]}, "inputs[0].blocks[0]: impute has 1 values in value, so it expects 1"),
        ("inputs.0.blocks.0", "lineer", "inputs[0].blocks[0]: unknown block 'lineer'; did you mean 'linear'?"),
        ("blocks.2", {"standardize": {"mean": [1, 2]}}, "blocks[2]: standardize has 2 values in mean"),
        ("output", {"features": [{"name": "a", "categories": ["x"]}]}, "'a' is an output, which is a number"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_inputs_is_named(path: str, value: Any, expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        MLPSpec(**changed(path, value))
    assert expected in str(caught.value)


def test_a_problem_in_a_file_has_its_line(tmp_path: Path) -> None:
    text = "name: x\ninputs:\n  - name: a\n    features: [b]\n    blocks:\n      - reul\nblocks: [relu]\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"line 6, inputs\[0\]\.blocks\[0\]: unknown block 'reul'"):
        load_spec(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: [a, {nme: b}]", "line 1, x[1].nme: unknown key; did you mean 'name'?"),
        ("x:\n  feature: [a]", "line 2, x.feature: unknown key; did you mean 'features'?"),
        ("x: [a, a]", "line 1, x: 'a' appears more than once"),
        ("y: {labels: [a, b], features: [c]}", "takes either labels (classes) or features (values)"),
        ("y: {scores: logits}", "scores are those of labels"),
        ("y: {missing: false}", "y: says nothing"),
        ("x: [{name: a, categories: [b], embedding: 2}]", "embedding is for a spec"),
        ("- a", "expected a mapping with the names of inputs and outputs as keys; found a list"),
    ],
)
def test_what_is_wrong_in_a_file_of_features_is_named(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_port_specs(tmp_path / "f.yaml")
    assert expected in str(caught.value)
