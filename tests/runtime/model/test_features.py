"""Names, units and ranges of features: from the spec into the file, shown, proved over, and checked by predict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import onnx
import polars
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from builder import MLPSpec, assemble, load_spec
from export import export, inspect
from runtime import InputError, ModelError, Port, Session, Summary, read_rows, score_file, summary_of
from runtime.data.unusual_values import Outside, find_outside
from tests.support.arm import ROWS, STATE, TORQUE, UNHURRIED, UNITS, WORDS, built_arm, csv
from tests.support.cases import network
from tests.support.commands import Run


@pytest.fixture
def arm(tmp_path: Path) -> Path:
    return built_arm(tmp_path)


def outside(rows: np.ndarray, port: Port) -> tuple[int, tuple[Outside, ...]]:
    """How many rows leave a declared range, and each feature that does."""
    count, features = find_outside(rows, port)
    return count, tuple(features.values())


def test_the_file_holds_what_the_spec_says_of_features(arm: Path) -> None:
    summary = inspect(arm).summary
    assert summary.inputs == (STATE,)
    assert summary.outputs == (TORQUE,)
    with Session(arm, "cpu") as session:
        assert session.summary is not None
        assert session.summary.inputs == (STATE,)


def test_a_file_without_units_and_ranges_says_nothing_of_them(tmp_path: Path) -> None:
    spec, module = network([{"linear": 2}])
    path = export(module, tmp_path / "m.onnx", spec=spec).path
    stored = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert set(json.loads(stored["mlpx.inputs"])[0]) == {
        *("name", "shape", "features", "range", "labels", "scores", "dtype")
    }
    assert '"features"' not in json.dumps(json.loads(stored["mlpx.spec"])["output"])


TEXTS = st.text(max_size=5)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | TEXTS, lambda inner: st.lists(inner, max_size=3)
)
KEYS = ["name", "shape", "features", "units", "range", "ranges", "labels", "scores", "dtype", "descriptions"]
KEYS += ["categories", "missing"]


@UNHURRIED
@given(changes=st.dictionaries(st.sampled_from([*KEYS, "new"]), JUNK, min_size=1, max_size=3), where=st.booleans())
def test_a_record_of_another_make_is_none_or_a_sound_port(changes: dict[str, Any], where: bool) -> None:
    record = Summary("m", (STATE,), (TORQUE,), (), 17, 8, mlpx_version="1").to_metadata()
    key = "mlpx.inputs" if where else "mlpx.outputs"
    ports = json.loads(record[key])
    found = summary_of(record | {key: json.dumps([ports[0] | changes])})
    if found is None:
        assert set(changes) != {"new"}
        return
    port = (found.inputs if where else found.outputs)[0]
    assert isinstance(port.name, str)
    assert all(type(size) in (int, str) for size in port.shape)
    width = math.prod(size for size in port.shape[1:] if isinstance(size, int))
    for listed in (port.features, port.units, port.ranges, port.descriptions):
        assert listed is None or (isinstance(listed, tuple) and len(listed) == width)
    assert port.features is None or (port.labels is None and len(set(port.features)) == width)
    for limits in (port.range, *(port.ranges or ())):
        assert limits is None or (math.isfinite(limits[0]) and limits[0] <= limits[1] < math.inf)


@pytest.mark.parametrize(
    "changes",
    [
        {"features": ["a", "a", "b"]},
        {"features": ["a", "b"]},
        {"features": "abc"},
        {"features": None},
        {"labels": ["a", "b", "c"]},
        {"shape": ["batch", "n"]},
        {"units": ["m", None]},
        {"units": ["m", None, 3]},
        {"ranges": [[0, 1], None]},
        {"descriptions": ["a", None]},
        {"descriptions": ["a", None, 3]},
        {"ranges": [[0, 1], None, [2, 1]]},
        {"range": [0, float("inf")]},
        {"range": [0, 1, 2]},
        {"range": ["0", "1"]},
        {"range": [False, True]},
        {"categories": [{"words": ["a"]}, None, None]},
        {"categories": [{"words": ["a"]}], "dtype": "int64"},
        {"categories": [{"words": ["a", "a"]}, None, None], "dtype": "int64"},
        {"categories": [{"words": []}, None, None], "dtype": "int64"},
        {"categories": [{"words": ["a"], "unknown": 1}, None, None], "dtype": "int64"},
        {"categories": [{"words": ["a", 3]}, None, None], "dtype": "int64"},
        {"missing": 1},
        {"missing": True, "dtype": "int64"},
    ],
)
def test_a_record_that_contradicts_itself_is_none(changes: dict[str, Any]) -> None:
    record = Summary("m", (STATE,), (TORQUE,), (), 17, 8, mlpx_version="1").to_metadata()
    (port,) = json.loads(record["mlpx.inputs"])
    assert summary_of(record | {"mlpx.inputs": json.dumps([port | changes])}) is None


@pytest.mark.parametrize("value", ["[[[" * 100_000, "7", "[7]", "{}", "null", '"ab"', "[{}]"])
def test_a_record_that_is_no_list_of_ports(value: str) -> None:
    record = Summary("m", (STATE,), (TORQUE,), (), 17, 8, mlpx_version="1").to_metadata()
    assert summary_of(record) is not None
    found = summary_of(record | {"mlpx.inputs": value})
    assert found is None or found.inputs == ()


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_metadata_of_another_width_is_an_error(kind: str, arm: Path, tmp_path: Path) -> None:
    model = onnx.load(str(arm))
    entry = next(entry for entry in model.metadata_props if entry.key == f"mlpx.{kind}")
    entry.value = json.dumps([{"name": "z", "shape": ["batch", 4], "features": list("abcd")}])
    onnx.save(model, arm)
    np.save(tmp_path / "rows.npy", np.zeros((1, 3), np.float32))
    with Session(arm, "cpu") as session, pytest.raises(ModelError, match=r"describes rows of shape \[4\]"):
        score_file(session, tmp_path / "rows.npy", tmp_path / "o.csv")


HEADERS = [
    "pitch,load,speed",
    "pitch [rad],load,speed (m/s)",
    "pitch(rad),load, speed  [ m/s ] ",
    "pitch,load,speed,speed [km/h]",
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_may_carry_the_features_unit(header: str, kind: str, tmp_path: Path) -> None:
    names = [name.strip() for name in header.split(",")]
    frame = polars.DataFrame({name: [float(i), i + 0.5] for i, name in enumerate(names)})
    path = tmp_path / f"r.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    rows, how = read_rows(path, STATE)
    assert rows.tolist() == [[2, 0, 1], [2.5, 0.5, 1.5]]
    assert how.startswith("columns by name")
    assert ("'speed [km/h]' not used" in how) == (len(names) > 3)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("speed [km/h],pitch,load", r"'speed \[km/h\]' is in km/h, and the model takes 'speed' in m/s\. What to do"),
        ("speed,pitch (deg),load", r"column 'pitch \(deg\)' is in deg, and the model takes 'pitch' in rad"),
        ("speed [],pitch,load", r"is in no unit, and the model takes 'speed' in m/s"),
        ("speed,pitch,load [kg]", r"columns are missing: 'load'; the file has 'speed', 'pitch', 'load \[kg\]'"),
        ("speed,speed [m/s],pitch,load", r"more than one column named 'speed': 'speed', 'speed \[m/s\]'"),
    ],
)  # fmt: skip
def test_columns_in_another_unit_are_refused(header: str, expected: str, tmp_path: Path) -> None:
    values = ",".join(map(str, range(len(header.split(",")))))
    with pytest.raises(InputError, match=expected):
        read_rows(csv(tmp_path, f"{header}\n{values}\n"), STATE)


@UNHURRIED
@given(unit=UNITS, other=UNITS, opening=st.sampled_from(["[]", "()"]))
def test_any_unit_is_found_in_a_header(unit: str, other: str, opening: str, tmp_path_factory: Any) -> None:
    port = Port("x", ("batch", 1), ("a [b",), units=(unit,))
    path = tmp_path_factory.getbasetemp() / "units.parquet"
    polars.DataFrame({f"a [b {opening[0]}{unit}{opening[1]}": [4.0]}).write_parquet(path)
    assert read_rows(path, port)[0].tolist() == [[4.0]]
    assume(normalize("NFKC", unit) != normalize("NFKC", other))
    polars.DataFrame({f"a [b {opening[0]}{other}{opening[1]}": [4.0]}).write_parquet(path)
    with pytest.raises(InputError, match=r"and the model takes 'a \[b' in "):
        read_rows(path, port)


def test_two_ways_to_write_one_sign_are_one_unit(tmp_path: Path) -> None:
    port = Port("x", ("batch", 1), ("a",), units=("\u00b5m",))  # the micro sign
    assert read_rows(csv(tmp_path, "a [\u03bcm]\n1\n"), port)[0].tolist() == [[1.0]]  # the letter mu


VALUES = st.floats(width=32) | st.sampled_from([0.0, 30.0, -10.0, 10.0, 0.1])


@UNHURRIED
@given(rows=st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=6))
def test_what_is_outside_is_counted(rows: list[tuple[float, ...]]) -> None:
    found, told = outside(np.array(rows, np.float32).reshape(-1, 3), STATE)
    inside = [(0, 30), (-10, 10), (-10, 10)]
    wrong = [[not low <= value <= high for value, (low, high) in zip(row, inside, strict=True)] for row in rows]
    assert found == sum(map(any, wrong))
    by_name = {feature.feature: feature for feature in told}
    for index, name in enumerate(("speed", "pitch", "load")):
        column = [row[index] for row in wrong]
        assert (name in by_name) == any(column)
        if any(column):
            feature, first = by_name[name], column.index(True)
            assert (feature.rows, feature.first_row, feature.range) == (sum(column), first + 1, inside[index])
            assert np.float32(feature.value).tobytes() == np.float32(rows[first][index]).tobytes() or math.isnan(
                feature.value
            )


@UNHURRIED
@given(low=st.floats(-1e30, 1e30), share=st.floats(0, 1), width=st.floats(0, 1e30))
def test_a_value_within_the_limits_stays_so_as_float32(low: float, share: float, width: float) -> None:
    port = Port("x", ("batch", 1), range=(low, low + width))
    value = min(max(low, low + share * width), low + width)
    assert outside(np.array([[value]], np.float32), port) == (0, ())


def test_features_without_a_range_may_be_anything() -> None:
    port = Port("x", ("batch", 2), ("a", "b"), ranges=(None, (0, 1)))
    count, told = outside(np.array([[np.nan, 0.5], [1e30, 2], [0, np.nan]], np.float32), port)
    assert count == 2
    assert [(feature.feature, feature.rows) for feature in told] == [("b", 2)]
    assert outside(np.full((2, 2), np.nan, np.float32), Port("x", ("batch", 2), ("a", "b"))) == (0, ())
    many = outside(np.array([[[0, 0], [0, 9]]], np.float32), Port("x", ("batch", 2, 2), range=(0, 1)))
    assert [feature.feature for feature in many[1]] == ["2, 2"]


def test_predict_notes_rows_outside_the_ranges(run: Run, arm: Path, tmp_path: Path) -> None:
    code, out, err = run("predict", arm, csv(tmp_path, ROWS))
    assert code == 0
    assert f"note: {WORDS}\n" in err
    assert out.splitlines()[0] == "shoulder,elbow"
    assert len(out.splitlines()) == 4
    code, out, _ = run("predict", arm, tmp_path / "rows.csv", "-o", tmp_path / "o.parquet", "--json")
    record = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert code == 0
    assert record["outside_rows"] == 2
    assert record["outside_words"] == WORDS
    speed = {"feature": "speed", "rows": 2, "first_row": 2, "value": 31.5, "range": [0, 30], "unit": "m/s"}
    load = {"feature": "load", "rows": 1, "first_row": 2, "value": "nan", "range": [-10, 10], "unit": None}
    assert record["outside"] == [speed, load]
    assert polars.read_parquet(tmp_path / "o.parquet").columns == ["shoulder", "elbow"]


def test_predict_is_strict_when_asked(run: Run, arm: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([[30, 1, 1], [31, 0, 0]], np.float32))
    for data, part in ((csv(tmp_path, ROWS), WORDS), (tmp_path / "rows.npy", "'speed' in row 2: 31 m/s")):
        code, out, err = run("predict", arm, data, "-o", tmp_path / "o.csv", "--strict")
        assert code == 2
        assert out == ""
        assert part in err
        assert not (tmp_path / "o.csv").exists()
    code, _, err = run("predict", arm, csv(tmp_path, "speed,pitch,load\n0,10,-10\n30,-10,10\n"), "--strict")
    assert code == 0
    assert "outside" not in err
    assert "nothing to check" not in err
    spec, module = network([{"linear": 2}], features=3)
    plain = export(module, tmp_path / "plain.onnx", spec=spec).path
    code, _, err = run("predict", plain, tmp_path / "rows.npy", "--strict")
    assert code == 0
    assert f"note: {plain} declares no ranges, so --strict had nothing to check" in err


def test_inspect_shows_features(run: Run, arm: Path) -> None:
    _, out, _ = run("inspect", arm)
    lines = out.splitlines()
    start = lines.index("features of state")
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["name", "unit", "range"],
        ["speed", "m/s", "0", "to", "30"],
        ["pitch", "rad", "-10", "to", "10"],
        ["load", "-10", "to", "10"],
    ]
    assert lines[start + 5] == "features of torque"
    assert lines[start + 7].split() == ["shoulder", "Nm", "-5", "to", "5"]
    _, out, _ = run("inspect", arm, "--json")
    assert json.loads(out)["summary"]["inputs"][0]["units"] == ["m/s", "rad", None]


DESCRIBED = """name: leg
period: 0.02
input: {features: [{name: knee, description: "relative to the default position 0.4"}, hip]}
blocks: [{linear: 1}]
output: {features: [{name: torque, unit: Nm, description: of the motor}]}
"""


def described(folder: Path, text: str = DESCRIBED) -> tuple[Path, Path]:
    """The spec of a controller, and its exported file."""
    (folder / "leg.yaml").write_text(text)
    spec = load_spec(folder / "leg.yaml")
    return folder / "leg.yaml", export(assemble(spec, seed=0), folder / "leg.onnx", spec=spec).path


def test_the_file_holds_descriptions_and_the_period_and_inspect_shows_them(run: Run, tmp_path: Path) -> None:
    spec, path = described(tmp_path)
    summary = inspect(path).summary
    assert summary.period == 0.02
    assert summary.inputs[0].descriptions == ("relative to the default position 0.4", None)
    assert summary.outputs[0].descriptions == ("of the motor",)
    assert load_spec(spec) == MLPSpec(**(summary.spec or {}))
    _, out, _ = run("inspect", path)
    assert "  period   0.02 s\n" in out
    assert "  name  unit  range  description\n  knee               relative to the default position 0.4\n" in out
    assert "  torque  Nm           of the motor\n" in out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("position 0.4", "position 0.5", "the descriptions of the file are"),
        ("of the motor", "of the joint", "the output descriptions of the file are"),
        ("0.02", "0.01", "the file is of 0.02 s, and the spec of 0.01 s"),
        ("period: 0.02\n", "", "the file is of 0.02 s, and the spec without a period"),
    ],
)
def test_verify_fails_a_file_of_another_description_or_period(
    old: str, new: str, expected: str, run: Run, tmp_path: Path
) -> None:
    spec, path = described(tmp_path)
    save_file(assemble(load_spec(spec), seed=0).state_dict(), tmp_path / "w.safetensors")
    code, out, _ = run("verify", path, "--spec", spec, "--weights", tmp_path / "w.safetensors")
    assert code == 0, out
    spec.write_text(DESCRIBED.replace(old, new))
    code, out, _ = run("verify", path, "--spec", spec, "--weights", tmp_path / "w.safetensors")
    assert code == 1
    assert expected in out


def test_inspect_shows_the_first_of_many_features(run: Run, tmp_path: Path) -> None:
    many = [{"name": f"joint_{i}", "unit": "rad"} for i in range(15)]
    spec = MLPSpec(name="m", input={"features": many}, blocks=[{"linear": 1}])
    _, out, _ = run("inspect", export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec).path)
    assert "  joint_11  rad" in out
    assert "joint_12" not in out
    assert "  … 3 more, all with --json" in out
