"""Features with names, units and ranges in a spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import MLPSpec, SpecError, json_schema, load_spec
from tests.support.arm import NAMES, UNHURRIED, UNITS

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
LIMITS = (
    st.tuples(*[st.floats(-(2.0**126), 2.0**126, width=32)] * 2)
    .map(sorted)
    .filter(lambda limits: limits[0] < limits[1])
    .map(list)
)


@st.composite
def features(draw: st.DrawFn) -> list[Any]:
    names = draw(st.lists(NAMES.filter(lambda name: name != "label"), min_size=1, max_size=5, unique=True))

    def written(name: str) -> Any:
        more = {
            "unit": draw(st.none() | UNITS),
            "range": draw(st.none() | LIMITS),
            "description": draw(st.none() | UNITS.filter(lambda text: len(text.splitlines()) == 1)),
        }
        given = {key: value for key, value in more.items() if value is not None}
        return {"name": name, **given} if given or draw(st.booleans()) else name

    return [written(name) for name in names]


@UNHURRIED
@given(ins=features(), outs=features(), whole=st.none() | LIMITS)
def test_a_spec_with_features_survives_and_agrees_with_the_schema(ins: list, outs: list, whole: Any) -> None:
    written = {"name": "x", "input": {"features": ins}, "blocks": [{"linear": len(outs)}], "output": {"features": outs}}
    if whole is not None:
        written["input"]["range"] = whole
    spec = MLPSpec(**written)
    dumped = spec.model_dump(exclude_none=True)
    assert MLPSpec(**json.loads(json.dumps(dumped))) == spec
    assert dumped["input"]["features"] == ins
    VALIDATOR.validate(written)
    names = [feature if isinstance(feature, str) else feature["name"] for feature in ins]
    assert spec.input.feature_names == names
    assert spec.input.row_shape == (len(ins),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a, {nam: b}]", ["line 2, input.features[1]", "did you mean 'name'?", "The keys are: name, unit, range"]),
        ("[{name: a, units: m}]", ["input.features[0].units: unknown key; did you mean 'unit'?"]),
        ("[{name: a, range: [3, 1]}]", ["input.features[0].range: expected [lowest, highest], lowest below", "[3, 1]"]),
        ("[{name: a, range: [0, 1e39]}]", ["both within float32"]),
        ("[{name: a, range: [0, .inf]}]", ["input.features[0].range[1]", "finite"]),
        ("[{name: a, unit: ' m'}]", ["input.features[0].unit: a unit has no space before or after it"]),
        ("[{name: a, unit: ''}]", ["input.features[0].unit", "at least 1 character"]),
        ("[{name: a, description: 'b '}]", ["input.features[0].description: a description is one line, without space"]),
        ('[{name: a, description: "b\\nc"}]', ["input.features[0].description: a description is one line"]),
        ("[{name: a, descript: b}]", ["input.features[0].descript: unknown key; did you mean 'description'?"]),
        ("[{unit: m}]", ["input.features[0]: the key 'name' is missing"]),
        ("[a, {name: a}]", ["line 2, input: 'a' appears more than once"]),
        ("[3]", ["input.features[0]", "valid string, not 3"]),
        ("[[a]]", ["input.features[0]", "valid string"]),
        ("{a: m}", ["input.features: features are a number, or a list of their names"]),
        ("true", ["input.features: features are a number, or a list of their names, not True"]),
        ("[{scale: 1}]", ["input.features[0].scale: unknown key", "The keys are: name, unit, range"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_features_is_named(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"name: x\ninput: {{features: {text}}}\nblocks: [relu]")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "s.yaml")
    assert [part for part in expected if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (0, "period: input should be greater than 0, not 0"),
        (-0.02, "greater than 0"),
        (True, "valid number"),
        ("50 Hz", "valid number"),
        (1e39, "less than or equal to"),
        (float("inf"), "finite"),
    ],
)
def test_a_period_is_a_positive_number_of_seconds(period: Any, expected: str) -> None:
    written = {"name": "x", "input": {"features": 1}, "blocks": ["relu"]}
    with pytest.raises(SpecError, match=expected):
        MLPSpec(**written, period=period)
    if period != float("inf"):  # JSON has none
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(written | {"period": period})
    VALIDATOR.validate(written | {"period": 0.005})
    spec = MLPSpec(**written, period=0.005)
    assert MLPSpec(**spec.model_dump(exclude_none=True)).period == 0.005
    assert MLPSpec(**written).period is None


@pytest.mark.parametrize(
    "bad", [True, "a", [], [3], {"a": "m"}, [{"unit": "m"}], [{"name": "a", "units": "m"}], [["a"]]]
)
def test_the_schema_refuses_what_the_reader_refuses(bad: Any) -> None:
    for document in ({"input": {"features": bad}}, {"input": {"features": 1}, "output": {"features": bad}}):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate({"name": "x", "blocks": ["relu"], **document})
        with pytest.raises(SpecError):
            MLPSpec(name="x", blocks=["relu"], **document)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"features": ["a"]}, r"output\.features: 1 features are listed, but the last block gives 2 features"),
        ({"features": ["a", {"name": "a"}]}, "output: 'a' appears more than once"),
        ({"features": ["a", "b"], "labels": ["c", "d"]}, r"either labels \(classes\) or features \(values\)"),
        ({"features": ["a", "label"]}, "'label' is a column that predict writes"),
        ({"features": 2}, r"output\.features: input should be a valid list"),
        ({"features": [{"name": "a", "rnge": [0, 1]}, "b"]}, r"output\.features\[0\]\.rnge.*did you mean 'range'"),
    ],
)
def test_what_is_wrong_with_the_outputs_features_is_named(output: dict, expected: str) -> None:
    with pytest.raises(SpecError, match=expected):
        MLPSpec(name="x", input={"features": 2}, blocks=["relu"], output=output)
