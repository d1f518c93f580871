"""``mlpx.table``: a spec's inputs and a normaliser's constants from the rows that a network is trained on."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
import torch

from builder import MLPSpec, assemble
from export import publish
from mlpx import table
from runtime import InputError, score_table
from runtime.session.session import Session

COLUMNS: dict[str, Any] = {
    "id": [7, 8, 9, 10],
    "city": ["Rome", "Oslo", "Rome", "Bonn"],
    "height": [1.6, 2.5, None, 1.9],
    "month": [3, 12, 3, 1],
    "weekend": [True, False, False, True],
    "late": ["yes", "no", "no", "yes"],
}
HEIGHTS = np.array([1.6, 2.5, 1.9], np.float32).astype(np.float64)
LIBRARIES: dict[str, Any] = {
    "pandas": pandas.DataFrame,
    "pandas categories": lambda columns: pandas.DataFrame(columns).astype({"city": "category", "late": "category"}),
    "polars": polars.DataFrame,
    "arrow": pyarrow.table,
}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


def fitted_to(frame: Any, **options: Any) -> table.Features:
    return table.fit_features(frame, target="late", drop=["id"], words=["month"], **options)


def test_a_spec_takes_the_same_rows(library: Any) -> None:
    frame = library(COLUMNS)
    fitted = fitted_to(frame, unknown="first")
    spec = MLPSpec(name="m", inputs=fitted.inputs, blocks=[{"linear": 1}])
    expected, found = fitted.rows(frame), table.rows_of(spec, frame)
    assert list(found) == list(expected) == ["numbers", "words"]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    with pytest.raises(InputError, match="1 of the model's 4 columns are missing: 'height'"):
        table.rows_of(spec, library({name: values for name, values in COLUMNS.items() if name != "height"}))
    with pytest.raises(InputError, match="expected a table of pandas, polars or Arrow, not a list"):
        table.rows_of(spec, [[1.0]])


def test_a_spec_of_one_input_of_numbers_takes_rows_too(library: Any) -> None:
    spec = MLPSpec(name="m", input={"features": ["month", "id"]}, blocks=[{"linear": 1}])
    assert table.rows_of(spec, library(COLUMNS))["input"].tolist() == [[3, 7], [12, 8], [3, 9], [1, 10]]


def test_numbers_have_ranges_means_and_deviations_and_words_are_ordered(library: Any) -> None:
    fitted = fitted_to(library(COLUMNS), unknown="first", embedding=2)
    numbers, words = fitted.inputs
    assert numbers["features"] == [
        {"name": "height", "range": [1.6, 2.5]},
        {"name": "weekend", "range": [0.0, 1.0]},
    ]
    means, deviations = [float(HEIGHTS.mean()), 0.5], [float(HEIGHTS.std()), 0.5]
    assert numbers["blocks"] == [{"impute": {"value": means}}, {"standardize": {"mean": means, "std": deviations}}]
    assert words["features"] == [
        {"name": "city", "categories": ["Rome", "Bonn", "Oslo"], "unknown": "first", "embedding": 2},
        {"name": "month", "categories": ["3", "1", "12"], "unknown": "first", "embedding": 2},
    ]
    assert fitted.labels == ["no", "yes"]


def test_rows_and_targets_are_those_that_the_network_takes(library: Any) -> None:
    fitted = fitted_to(library(COLUMNS))
    rows = fitted.rows(library(COLUMNS))
    assert rows["numbers"].dtype == np.float32
    np.testing.assert_array_equal(rows["numbers"], np.array([[1.6, 1], [2.5, 0], [np.nan, 0], [1.9, 1]], np.float32))
    assert rows["words"].tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]
    assert fitted.targets(library(COLUMNS)).tolist() == [1, 0, 0, 1]
    with pytest.raises(InputError, match="column 'city', row 1: 'Paris' is none of its 3 categories"):
        fitted.rows(library(COLUMNS | {"city": ["Paris", "Oslo", "Rome", "Bonn"]}))
    with pytest.raises(InputError, match="column 'late', row 3: 'maybe' is none of its 2 categories"):
        fitted.targets(library(COLUMNS | {"late": ["yes", "no", "maybe", "yes"]}))


def test_the_spec_of_a_table_scores_the_table(library: Any, tmp_path: Any) -> None:
    frame = library(COLUMNS)
    fitted = fitted_to(frame, unknown="first")
    spec = MLPSpec(
        name="late", inputs=fitted.inputs, blocks=[{"linear": 1}], output={"name": "y", "labels": fitted.labels}
    )
    module = assemble(spec).eval()
    artifact, _ = publish(module, tmp_path / "late.onnx", spec=spec, device="cpu", page=False)
    rows = [torch.from_numpy(values) for values in fitted.rows(frame).values()]
    with Session(artifact.path, "cpu") as session:
        found = score_table(session, frame, dtype="float32")["y"]
    np.testing.assert_allclose(found, module(*rows).detach()[:, 0], rtol=0, atol=1e-6)


def test_targets_of_numbers_and_of_bool() -> None:
    frame = polars.DataFrame({"x": [1.0, 2.0], "y": [0.25, 0.5], "z": [True, False]})
    of_numbers = table.fit_features(frame, target="y")
    assert of_numbers.labels is None
    assert of_numbers.targets(frame).tolist() == [0.25, 0.5]
    assert [each["name"] for each in of_numbers.inputs] == ["numbers"]
    of_bool = table.fit_features(frame, target="z")
    assert of_bool.labels == ["false", "true"]
    assert of_bool.targets(frame).tolist() == [1, 0]
    with pytest.raises(InputError, match="there is no target"):
        table.fit_features(frame).targets(frame)


def test_a_constant_column_has_no_range_and_a_deviation_of_one() -> None:
    (numbers,) = table.fit_features(polars.DataFrame({"x": [3, 3]})).inputs
    assert numbers == {"name": "numbers", "features": ["x"], "blocks": [{"standardize": {"mean": [3.0], "std": [1.0]}}]}


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        ({"a": [1]}, {"target": "b"}, "the table has no column 'b'; it has 'a'"),
        ({"a": [1]}, {"drop": ["b"]}, "the table has no column 'b' to drop; it has 'a'"),
        ({"a": ["x", None]}, {}, r"column 'a' has 1 empty values\. What to do: fill them, or"),
        ({"a": [None, None], "b": [1, 2]}, {}, "column 'a' (has no|holds)"),
        ({"a": [float("nan")]}, {}, r"column 'a' has no value\. What to do: leave it out with drop=\['a'\]"),
        ({"a": [1e300]}, {}, "column 'a' has values that float32 cannot hold"),
        ({"a": [1.5]}, {"words": ["a"]}, r"column 'a' holds 1\.5, which is no whole number"),
        ({"a": [np.datetime64("2026-01-01", "ns")]}, {}, "column 'a' holds .*What to do: leave it out"),
        ({"a": [1]}, {"unknown": "last"}, "unknown is 'error' or 'first', not 'last'"),
    ],
)
def test_what_cannot_be_a_feature_is_named(columns: Any, options: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        table.fit_features(pandas.DataFrame(columns), **options)
    with pytest.raises(InputError, match="expected a table of pandas, polars or Arrow, not a list"):
        table.fit_features([1, 2])


def test_the_target_is_read_without_the_columns_that_are_dropped() -> None:
    days = [date(2026, 1, 1), date(2026, 1, 2)]
    frame = polars.DataFrame({"x": [1.0, 2.0], "day": days, "late": ["yes", ""]})
    fitted = table.fit_features(frame, target="late", drop=["day"])
    assert fitted.labels == ["yes"]
    with pytest.raises(InputError, match="column 'late' has 1 empty values, the first in row 2"):
        fitted.targets(frame)
    assert fitted.targets(frame[:1]).tolist() == [0]


def test_a_dict_of_arrays_is_a_table() -> None:
    columns = {"x": np.array([1.0, 2.0]), "day": np.array(["1", "2"], "M8[D]"), "y": np.array([3.0, 4.0])}
    fitted = table.fit_features(columns, target="y", drop=["day"])
    assert [feature["name"] for feature in fitted.inputs[0]["features"]] == ["x"]
    assert fitted.targets(columns).tolist() == [3, 4]


def test_bool_is_no_word() -> None:
    with pytest.raises(InputError, match="column 'flag' holds bool, not words"):
        table.fit_features(pandas.DataFrame({"flag": [True, False]}), words=["flag"])


def test_whole_numbers_among_words_are_words() -> None:
    frame = pandas.DataFrame({"x": [1.0, 2.0], "y": np.array([1, "b"], object)})
    fitted = table.fit_features(frame, target="y")
    assert fitted.labels == ["1", "b"]
    assert fitted.targets(frame).tolist() == [0, 1]


def test_columns_may_be_called_as_attributes_of_frames_are() -> None:
    """``schema`` and ``drop_columns`` of Arrow and polars are columns of a pandas frame, by its attributes."""
    names = ("schema", "column_names", "drop_columns", "columns")
    frame = pandas.DataFrame({name: [1.0, 2.0, 4.0] for name in names} | {"late": ["a", "b", "a"]})
    fitted = table.fit_features(frame, target="late", drop=["columns"])
    assert [each["name"] for each in fitted.inputs[0]["features"]] == list(names[:3])
    assert fitted.targets(frame).tolist() == [0, 1, 0]


def test_a_target_that_is_nan_is_named() -> None:
    frame = pandas.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, float("nan"), 2.0, float("nan")]})
    fitted = table.fit_features(frame, target="y")
    with pytest.raises(InputError, match=r"column 'y' has 2 values that are NaN, the first in row 2\. What to do"):
        fitted.targets(frame)
