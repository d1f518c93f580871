"""``mlpx bound``: what is printed, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vnnlib

from tests.support.commands import Run

RANGED = """name: tiny
input: {name: x, features: [a, b, c], range: [-1, 2]}
blocks: [{linear: 4}, relu, {linear: 2}]
output: {name: y, labels: [no, yes]}
"""


@pytest.fixture
def ranged(run: Run, tmp_path: Path) -> Path:
    """A classifier of three features with a declared range, and a file of rows."""
    (tmp_path / "ranged.yaml").write_text(RANGED)
    done = run("build", tmp_path / "ranged.yaml", "--seed", 1, "-o", tmp_path / "ranged", "--no-html")
    assert done.code == 0
    assert "bound     at most " in done.out
    (tmp_path / "rows.csv").write_text("a,b,c\n0,0.5,1\n1,1,-0.75\n9,0,0\n")
    return tmp_path / "ranged" / "tiny.onnx"


def test_bound_of_a_file(run: Run, ranged: Path) -> None:
    done = run("bound", ranged, "--data", ranged.parents[1] / "rows.csv")
    assert done.code == 0
    assert done.out.startswith("bound     at most ")
    assert "for every input with x -1 to 2 (largest seen " in done.out
    assert "no correct runtime changes a label whose exact margin is above " in done.out
    assert "of 2 rows of the data are" in done.out  # the third is not in the box
    for title in ("output y", "steps", "where it comes from, by sensitivities"):
        assert f"\n{title}\n" in done.out
    assert "at once" in done.out


def test_bound_as_json(run: Run, ranged: Path) -> None:
    done = run("bound", ranged, "--range", -0.5, 0.5, "--seconds", 0, "--json")
    record = json.loads(done.out)
    assert record["box"] == {"x": [[-0.5, 0.5]]}
    assert record["why"] is None
    (output,) = record["outputs"].values()
    assert set(output) == {"bound", "seen", "interval", "folding"}
    assert len(output["bound"]) == len(output["seen"]) == len(output["interval"]) == 2
    wide = json.loads(run("bound", ranged, "--seconds", 0, "--json").out)
    assert max(output["bound"]) < max(wide["outputs"]["y"]["bound"])


def test_build_leaves_the_bound_out(run: Run, ranged: Path) -> None:
    certificate = ranged.with_suffix(".parity.json")
    assert json.loads(certificate.read_text())["bound"] is not None
    spec = ranged.parents[1] / "ranged.yaml"
    done = run("build", spec, "--seed", 1, "-o", ranged.parent, "--no-bound", "--no-html")
    assert done.code == 0
    assert "\nbound " not in done.out
    assert json.loads(certificate.read_text())["bound"] is None


@pytest.fixture
def seeded(nets: Path) -> Path:
    """The hand-written networks, with the same weights whenever they are loaded."""
    nets.write_text(nets.read_text().replace("class Net", "torch.manual_seed(0)\n\nclass Net", 1))
    return nets


def test_bound_with_a_module(run: Run, seeded: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    assert run("export", f"{seeded}:ready", "-o", file, "--method", "act", "--no-html").code == 0
    done = run("bound", file, "--module", f"{seeded}:ready", "--method", "act", "--range", -1, 1)
    assert done.code == 0
    assert "for every input with input -1 to 1" in done.out
    wrong = run("bound", file, "--module", f"{seeded}:ready", "--range", -1, 1)
    assert wrong.code == 2
    assert "is not this network" in wrong.err


def test_bound_with_a_spec(run: Run, ranged: Path) -> None:
    weights = ranged.parents[1] / "none.safetensors"
    done = run("bound", ranged, "--spec", ranged.parents[1] / "ranged.yaml", "--weights", weights)
    assert done.code == 2
    assert "none.safetensors: no such file" in done.err


def test_where_there_is_no_bound(run: Run, tmp_path: Path) -> None:
    (tmp_path / "huge.yaml").write_text(RANGED.replace("[-1, 2]", "[-3e38, 3e38]"))
    done = run("build", tmp_path / "huge.yaml", "--seed", 1, "-o", tmp_path / "huge", "--no-html")
    assert done.code == 0
    assert "bound     none for inputs with x -3e+38 to 3e+38: '0': linear" in done.out
    alone = run("bound", tmp_path / "huge" / "tiny.onnx")
    assert alone.code == 0
    assert "overflow" in alone.out
    query = run("bound", tmp_path / "huge" / "tiny.onnx", "--vnnlib", tmp_path / "q.vnnlib", "--within", 0, 1)
    assert query.code == 2
    assert "no query without a bound" in query.err
    assert not (tmp_path / "q.vnnlib").exists()


@pytest.mark.parametrize("version", ["2.0", "1.0"])
def test_a_query_around_a_row(version: str, run: Run, ranged: Path) -> None:
    rows, query = ranged.parents[1] / "rows.csv", ranged.parents[1] / "q.vnnlib"
    arguments = ("--around", f"{rows}:2", "--eps", 0.1, "--vnnlib", query, "--vnnlib-version", version)
    done = run("bound", ranged, *arguments, "--json")
    assert done.code == 0
    record = json.loads(done.out)
    assert np.allclose(record["box"]["x"], [[0.9, 1.1], [0.9, 1.1], [-0.85, -0.65]])
    text = query.read_text()
    assert f"VNN-LIB {version}" in text
    assert record["sha256"] in text
    if version == "2.0":
        assert vnnlib.parse_query_string(text) is not None
    errors = record["outputs"]["y"]["bound"]
    margin = next(line.split()[-1].strip(")") for line in text.splitlines() if "(- Y" in line)
    assert float(margin) >= sum(errors)
    assert float(margin) == pytest.approx(sum(errors))


def test_the_label_of_a_single_probability_is_told_at_one_half(run: Run, tmp_path: Path) -> None:
    """And a row at the very end of the declared range, which float32 rounds up, is in it."""
    spec = RANGED.replace("[-1, 2]", "[0, 0.1]").replace("{linear: 2}", "{linear: 1}, sigmoid")
    (tmp_path / "one.yaml").write_text(spec)
    assert run("build", tmp_path / "one.yaml", "--seed", 1, "-o", tmp_path / "one", "--no-html").code == 0
    (tmp_path / "rows.csv").write_text("a,b,c\n0.1,0,0.05\n")
    query = tmp_path / "q.vnnlib"
    arguments = ("--around", f"{tmp_path / 'rows.csv'}:1", "--eps", 0.01, "--vnnlib", query, "--json")
    done = run("bound", tmp_path / "one" / "tiny.onnx", *arguments)
    assert done.code == 0
    (error,) = json.loads(done.out)["outputs"]["y"]["bound"]
    (comparison,) = [
        line for line in query.read_text().splitlines() if line.startswith("(assert") and "Y[0, 0]" in line
    ]
    limit = float(comparison.split()[-1].strip(")"))
    assert 0 < abs(limit - 0.5) <= 2 * error < 1e-3


def test_a_query_about_limits(run: Run, ranged: Path, tmp_path: Path) -> None:
    query = tmp_path / "q.vnnlib"
    done = run("bound", ranged, "--vnnlib", query, "--within", -5, 5)
    assert done.code == 0
    assert f"query     {query}, VNN-LIB 2.0: unsat means that it holds" in done.out
    network = vnnlib.parse_query_string(query.read_text())
    assert network is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--range", 2, 1], "the range of 'x' is 2 to 1; expected LOW at most HIGH"),
        (["--range", 0, "inf"], "expected finite float32 numbers"),
        (["--range", "nan", 1], "expected finite float32 numbers"),
        (["--seconds", -1], "--seconds"),
        (["--spec", "a.yaml", "--module", "b:c"], "give --spec or --module, not both"),
        (["--weights", "w.safetensors"], "--weights goes with --spec"),
        (["--around", "rows.csv:1"], "--around FILE:ROW and --eps go together"),
        (["--eps", 1], "--around FILE:ROW and --eps go together"),
        (["--within", 0, 1], "--within goes with --vnnlib"),
        (["--vnnlib", "q.vnnlib"], "over a whole box some label always changes"),
        (["--around", "rows.csv", "--eps", 1], "'rows.csv' is not FILE:ROW"),
        (["--around", "ROWS:4", "--eps", 1], "has the rows 1 to 3, and row 4 was asked for"),
        (["--around", "ROWS:0", "--eps", 1], "has the rows 1 to 3, and row 0 was asked for"),
        (["--around", "ROWS:3", "--eps", 1], "value 1 of the row is 9"),
        (["--around", "ROWS:1", "--eps", -1], "expected a distance from the row of at least 0"),
        (["--vnnlib", "q.vnnlib", "--within", 5, -5], "What to do"),
        (["--certificate", "none.json"], "none.json: cannot be read"),
    ],
)
def test_what_is_refused(arguments: list[object], words: str, run: Run, ranged: Path, tmp_path: Path) -> None:
    rows = str(tmp_path / "rows.csv")
    done = run("bound", ranged, *(str(each).replace("ROWS", rows) for each in arguments))
    assert done.code == 2
    assert words in " ".join(done.err.split())
    assert not Path("q.vnnlib").exists()


def test_a_bound_needs_a_range_and_a_certificate(run: Run, model: Path) -> None:
    done = run("bound", model)
    assert done.code == 2
    assert "the input 'x' has no declared range (of feature a, first)" in done.err
    model.with_suffix(".parity.json").unlink()
    done = run("bound", model, "--range", 0, 1)
    assert done.code == 2
    assert "no certificate tiny.parity.json beside it" in done.err


def test_a_query_is_not_about_whole_numbers(run: Run, seeded: Path, tmp_path: Path) -> None:
    file = tmp_path / "table.onnx"
    assert run("export", f"{seeded}:table", "-o", file, "--integers", "input", "--features", 1, "--no-html").code == 0
    done = run("bound", file, "--module", f"{seeded}:table")
    assert done.code == 0
    assert "for every input with input 0 to 4" in done.out
    np.save(tmp_path / "rows.npy", np.zeros((1, 1), np.int64))
    arguments = ("--around", f"{tmp_path / 'rows.npy'}:1", "--eps", 0, "--vnnlib", tmp_path / "q.vnnlib")
    refused = run("bound", file, "--module", f"{seeded}:table", *arguments)
    assert refused.code == 2
    assert "a query is about real numbers, and 'input' takes whole numbers" in refused.err
