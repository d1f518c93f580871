"""Answers in archives and tables of several forms, and in files that are none."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import Run
from tests.support.robot import JOINTS, NAMES, ROWS, answers, judged, observations, saved


@pytest.mark.parametrize(
    ("obs", "action"), [("observations", "actions"), ("input", "output"), ("x", "y"), ("obs", "mu")]
)
def test_usual_names_of_arrays_are_taken(obs: str, action: str, policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations()
    assert judged(run, policy, saved(tmp_path, rows, answers(rows), obs=obs, action=action))[0] == 0


def test_a_row_alone_and_rows_of_many_robots_are_taken(policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations()
    code, report = judged(run, policy, saved(tmp_path, rows[0], answers(rows)[0]))
    assert (code, report["rows"]) == (0, 1)
    many = rows.reshape(4, 10, 12), answers(rows).reshape(4, 10, 4)
    code, report = judged(run, policy, saved(tmp_path, *many))
    assert (code, report["rows"]) == (0, ROWS)


def table(folder: Path, names: list[str], rows: np.ndarray, form: str = "{!r}") -> Path:
    with open(folder / "saved.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([[form.format(float(value)) for value in row] for row in rows])
    return folder / "saved.csv"


ACTIONS = [f"joint_pos:{joint}" for joint in JOINTS]
HEADERS = {
    "qualified": [*(f"obs.{name}" for name in NAMES), *(f"action.{name}" for name in ACTIONS)],
    "only where shared": [
        *(f"obs.{name}" if name in ACTIONS else name for name in NAMES),
        *(f"action.{name}" for name in ACTIONS),
    ],
    "twice": [*NAMES, *ACTIONS],
    "with units": [*NAMES[:-1], "height [m]", *ACTIONS],
}


@pytest.mark.parametrize("headers", HEADERS)
def test_a_table_has_a_column_for_each_feature(headers: str, policy: Path, run: Run, tmp_path: Path) -> None:
    rows = observations()
    columns = np.concatenate([rows, answers(rows)], axis=1)
    order = np.arange(16) if headers != "qualified" else np.random.default_rng(0).permutation(16)
    names = [HEADERS[headers][index] for index in order]
    code, report = judged(run, policy, table(tmp_path, names, columns[:, order]))
    assert (code, report["rows"]) == (0, ROWS)
    columns[3, -1] += 0.01
    code, report = judged(run, policy, table(tmp_path, names, columns[:, order]))
    assert code == 1
    assert (report["worst"]["row"], report["worst"]["feature"]) == (4, ACTIONS[-1])


def test_the_last_digit_of_a_table_is_allowed_for(policy: Path, run: Run, tmp_path: Path) -> None:
    rows = np.round(observations() * 8).astype(np.float32) / 8  # written with three digits
    columns = np.concatenate([rows, answers(rows)], axis=1)
    code, report = judged(run, policy, table(tmp_path, HEADERS["qualified"], columns, "{:.4f}"))
    assert code == 0
    assert 1e-5 < report["worst"]["difference"] < 0.50001e-4
    assert "the answers are written with so few digits that this decides" in report["notes"][0]
    columns[0, 12] += 2e-4
    assert judged(run, policy, table(tmp_path, HEADERS["qualified"], columns, "{:.4f}"))[0] == 1


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another name": (
        lambda f: saved(f, observations(), observations(), obs="o"),
        "it holds o, action; the array of the",
    ),
    "another width": (
        lambda f: saved(f, observations()[:, :5], answers(observations())),
        "the array 'obs' has the shape [40, 5], and (rows, 12) is expected",
    ),
    "rows": (
        lambda f: saved(f, observations(), answers(observations())[:3]),
        "different numbers of rows: 'obs' 40, 'a",
    ),
    "no rows": (lambda f: saved(f, observations()[:0], answers(observations())[:0]), "it has no rows"),
    "objects": (lambda f: saved(f, np.array(["a"] * 12), np.zeros(4)), "is of <U1, not of numbers"),
    "missing": (lambda f: f / "none.npz", "no such file"),
    "kind": (lambda f: f / "policy.onnx", "expected a .npz or .csv file"),
    "half": (lambda f: _cut(saved(f, observations(), answers(observations()))), "not a whole archive"),
    "shared name once": (
        lambda f: table(f, [*NAMES, *ACTIONS[:-1], "x"], np.zeros((2, 16))),
        "'joint_pos:right_knee' is a feature of an input and of an output. What to do: name the columns 'obs.joint_pos",
    ),
    "a column short": (
        lambda f: table(f, HEADERS["qualified"][1:], np.zeros((2, 15))),
        "columns are missing: 'ang_vel",
    ),
    "another unit": (
        lambda f: table(f, [*NAMES[:-1], "height [mm]", *ACTIONS], np.zeros((2, 16))),
        "column 'height [mm]' is in mm, and the model takes 'height' in m",
    ),
    "text": (lambda f: table(f, HEADERS["qualified"], np.zeros((2, 16)), "x{}"), "'x0.0' is not a number"),
}


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:200])
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_answers_are_one_clear_error(name: str, policy: Path, run: Run, tmp_path: Path) -> None:
    make, words = BAD[name]
    code, out, err = run("verify", policy, "--answers", make(tmp_path), "--device", "cpu")
    assert (code, out) == (2, "")
    assert words in err
    assert "What to do" in err or name == "text"
