"""The benchmark of speed: every row of its table is reported, and its peers compute what the models compute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import by_numpy, by_sklearn
from benchmarks.subjects import NAMES, prepared
from benchmarks.targets import TARGETS, Outcome
from runtime.timing.timer import Ratio
from runtime.timing.worker import Unsuitable


def speed(root: Path, *options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", *map(str, options)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def test_every_row_is_reported_with_its_target(root: Path, tmp_path: Path) -> None:
    done = speed(root, "--quick", "--only", "tiny", "--json", tmp_path / "speed.json", "--plot", tmp_path / "speed.png")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "speed.json").read_text())["targets"]}
    wanted = [target for target in TARGETS if "tiny" in target.name]
    assert set(rows) == {target.name for target in wanted}
    assert len(wanted) == 4
    for target in wanted:
        row = rows[target.name]
        assert row["at_most"] == target.at_most
        assert row["measured"]["median"] > 0
        printed = next(line for line in done.stdout.splitlines() if line.startswith(f"{target.name} "))
        figure = f"{row['measured']['median']:.2f}"
        assert f" {target.at_most:.2f}  {figure} " in printed
        assert printed.endswith(row["verdict"])
    assert "GFLOP/s" in done.stdout
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_that_is_none(root: Path) -> None:
    done = speed(root, "--only", "nothing like it")
    assert done.returncode == 2
    assert all(target.name in done.stderr for target in TARGETS)


def test_the_verdict_is_by_what_is_printed() -> None:
    target = next(target for target in TARGETS if target.at_most == 0.7)
    for median, verdict in ((0.69, "ok"), (0.7049, "ok"), (0.7051, "missed"), (0.71, "missed")):
        outcome = Outcome(target, Ratio(median, 0.6, 0.8))
        assert outcome.verdict == verdict
        assert outcome.format().endswith(verdict)
    assert Outcome(target, None, "no such peer").format().endswith("not measured: no such peer")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "large"])
def test_the_peers_compute_what_the_models_compute(name: str, tmp_path: Path) -> None:
    subject = prepared(name, tmp_path)
    rows = subject.rows(50)
    (exact,) = subject.exact(rows)
    with np.errstate(over="ignore"):  # of exp, in a sigmoid that is 0 then
        found = [by_numpy(str(subject.steps))(rows)()]
    if name in ("breast_cancer", "diabetes"):
        with pytest.raises(Unsuitable, match="one kind of activation"):
            by_sklearn(str(subject.steps))
    else:
        found.append(by_sklearn(str(subject.steps))(rows)())
    for output in found:
        assert output.shape == exact.shape
        assert np.abs(output - exact).max() <= 1e-5 * np.abs(exact).max()
