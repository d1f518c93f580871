"""Tables in memory in ``Session.predict``: pandas, polars and Arrow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

from builder import MLPSpec, assemble
from export import export
from runtime import InputError, Session, columns_of, score, score_table
from runtime.errors import RoundingWarning

NAMES = ["age", "height", "weight"]
ROWS = np.array([[1, 2.5, -3], [4, 0.25, 6], [7, 8, 9]], np.float32)
LIBRARIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pandas": pandas.DataFrame,
    "pandas of Arrow": lambda columns: pyarrow.table(columns).to_pandas(types_mapper=pandas.ArrowDtype),
    "polars": polars.DataFrame,
    "an Arrow table": pyarrow.table,
    "an Arrow batch": lambda columns: pyarrow.table(columns).combine_chunks().to_batches()[0],
    "a stream of Arrow": lambda columns: pyarrow.RecordBatchReader.from_batches(
        pyarrow.table(columns).schema, pyarrow.table(columns).to_batches()
    ),
}


def session(folder: Path, *, names: bool = True, unit: str | None = None, **output: Any) -> Session:
    features: Any = 3 if not names else [*NAMES[:2], {"name": "weight", "unit": unit} if unit else "weight"]
    spec = MLPSpec(
        name="m", input={"name": "x", "features": features}, blocks=[{"linear": 2}], output={"name": "y", **output}
    )
    export(assemble(spec, seed=1).eval(), folder / "m.onnx", spec=spec)
    return Session(folder / "m.onnx", "cpu")


def columns(**more: Any) -> dict[str, Any]:
    return {name: ROWS[:, i] for i, name in enumerate(NAMES)} | more


@pytest.fixture(params=LIBRARIES)
def table(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Any]:
    return LIBRARIES[request.param]


def test_columns_are_matched_by_name(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path, unit="kg")
    expected = model.predict(ROWS)
    shuffled = {"other": ["a", "b", "c"]} | dict(reversed(columns().items()))
    shuffled["weight [kg]"] = shuffled.pop("weight")
    assert model.predict(table(shuffled)).tobytes() == expected.tobytes()
    shuffled["weight [t]"] = shuffled.pop("weight [kg]")
    with pytest.raises(InputError, match=r"column 'weight \[t\]' is in t, and the model takes 'weight' in kg"):
        model.predict(table(shuffled))


def test_columns_are_taken_in_order_where_the_model_names_none(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path, names=False)
    assert model.predict(table(columns())).tobytes() == model.predict(ROWS).tobytes()
    with pytest.raises(InputError, match="'x' expects 3 columns and the model names no features; the table has 4"):
        model.predict(table(columns(more=[1.0, 2.0, 3.0])))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"height": None}, "1 of the model's 3 columns are missing: 'height'; the table has 'age', 'weight'"),
        ({"height": ["tall", "small", "?"]}, r"column 'height' holds [A-Za-z\[\]]+, not numbers"),
        ({"height": [0.5, 0.1, 1e39]}, r"column 'height', row 3.*1e[+]?39|column 'height' is float64.*1e\+39 in row 3"),
        ({"height": [1, 2, 2**24 + 1]}, r"column 'height' is int64.*16777217 in row 3"),
    ],
)
def test_columns_that_do_not_fit(table: Callable, changed: dict, expected: str, tmp_path: Path) -> None:
    given = {name: values for name, values in (columns() | changed).items() if values is not None}
    with pytest.raises(InputError, match=expected):
        session(tmp_path).predict(table(given))


def test_doubles_become_the_nearest_float32_and_that_is_said(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path)
    doubles = columns(height=[0.1, 0.2, 0.3])
    rounded = np.stack(list(doubles.values()), axis=1).astype(np.float32)
    with pytest.warns(RoundingWarning, match="float64 columns of the table become the nearest float32"):
        found = model.predict(table(doubles))
    assert found.tobytes() == model.predict(rounded).tobytes()
    for call in (model.run, partial(score, model), partial(score_table, model)):  # through one function or several
        with pytest.warns(RoundingWarning) as said:
            call(table(doubles))
        assert [warning.filename for warning in said] == [__file__]
    exact = model.predict(table(columns(height=[0.5, 0.25, 3.0])))  # no warning, which would be an error
    assert exact.shape == (3, 2)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "uint16", "int64", "bool"])
def test_numbers_of_every_type_are_exact(table: Callable, kind: str, tmp_path: Path) -> None:
    model = session(tmp_path)
    values = np.array([0, 1, 1]).astype(kind)
    expected = model.predict(np.stack([values.astype(np.float32)] * 3, axis=1))
    assert model.predict(table(dict.fromkeys(NAMES, values))).tobytes() == expected.tobytes()


@pytest.mark.parametrize("values", [[0.5, None, None], [3, None, None], [True, None, None]])
@pytest.mark.parametrize("library", ["pandas of Arrow", "polars", "an Arrow table"])
def test_gaps_are_named(library: str, values: list, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'height' has 2 empty values, the first in row 2"):
        session(tmp_path).predict(LIBRARIES[library](columns(height=values)))


def test_pandas_own_types(tmp_path: Path) -> None:
    model = session(tmp_path)
    frame = pandas.DataFrame(columns()).astype({"age": "Int16", "height": "Float32"})
    assert model.predict(frame).tobytes() == model.predict(ROWS).tobytes()
    frame.loc[1, "age"] = pandas.NA
    with pytest.raises(InputError, match="column 'age' has 1 empty values, the first in row 2"):
        model.predict(frame)
    frame = pandas.DataFrame(columns(height=[1.0, None, 2.0]))  # NaN, as in an array
    assert np.isnan(model.predict(frame)[1]).all()
    assert not np.isnan(model.predict(frame)[[0, 2]]).any()
    assert model.predict(frame.iloc[::-1]).tobytes() == model.predict(frame)[::-1].tobytes()
    with pytest.raises(InputError, match="column 'height' holds category"):
        model.predict(frame.astype({"height": "category"}))


def test_what_is_no_table(tmp_path: Path) -> None:
    model = session(tmp_path)
    with pytest.raises(InputError, match=r"LazyFrame holds no rows yet.*frame.collect\(\)"):
        model.predict(polars.DataFrame(columns()).lazy())
    for series in (polars.Series([1.0, 2.0, 3.0]), pandas.Series([1.0, 2.0, 3.0]), pyarrow.array([1.0, 2.0, 3.0])):
        with pytest.raises(InputError, match=r"'x' expects an array, a tensor or a list of rows, not|expects shape"):
            model.predict(series)


def test_rounding_and_no_rows(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path)
    doubles = columns(height=[0.1, 0.2, 0.3])
    rounded = np.stack(list(doubles.values()), axis=1).astype(np.float32)
    assert model.predict(table(doubles), dtype="float32").tobytes() == model.predict(rounded).tobytes()
    with pytest.raises(InputError, match=r"1e[+]?300 in row 3 would become inf"):
        model.predict(table(columns(height=[1.0, 1.0, 1e300])), dtype="float32")
    if table is not LIBRARIES["an Arrow batch"]:
        assert model.predict(table({name: np.zeros(0, np.float32) for name in NAMES})).shape == (0, 2)


def test_a_table_of_results(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path, labels=["no", "yes"])
    expected = columns_of(score(model, ROWS))
    assert list(expected) == ["label", "probability_no", "probability_yes", "y_no", "y_yes"]
    for given in (table(columns()), columns()):
        found = score_table(model, given)
        assert list(found) == list(expected)
        assert all(found[name].tolist() == expected[name].tolist() for name in expected)


def test_a_dict_of_columns_that_do_not_fit(tmp_path: Path) -> None:
    model = session(tmp_path)
    for changed, expected in (
        ({"height": np.array(["a", "b", "c"])}, "column 'height' holds <U1"),
        (
            {"height": np.zeros((3, 2))},
            r"column 'height' expects one value per row, and got an array of shape \(3, 2\)",
        ),
        ({"height": np.ma.masked_array([1.0, 2, 3], [False, True, False])}, "column 'height' has 1 empty values"),
        ({"height": np.zeros(2)}, "'height' has 2 rows, and 'age' has 3"),
    ):
        with pytest.raises(InputError, match=expected):
            score_table(model, columns() | changed)


def test_one_input_of_several_is_a_table(table: Callable, tmp_path: Path) -> None:
    model = session(tmp_path)
    assert model.run({"x": table(dict(reversed(columns().items())))})["y"].tobytes() == model.predict(ROWS).tobytes()
    with pytest.raises(InputError, match="columns are missing: 'height'"):
        model.run({"x": table({name: ROWS[:, 0] for name in NAMES if name != "height"})})
