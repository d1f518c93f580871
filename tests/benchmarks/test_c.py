"""The benchmarks of C code: each contender is reported or left out with a reason, and planted faults are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.c_builds import CTYPES
from benchmarks.c_drivers import EMX, MLPX, RUNTIME
from benchmarks.c_faults import CHANGES
from benchmarks.peers import NUMPY
from export.csource.compilers import compilers
from runtime.timing.contenders import INTO, ONE_THREAD


@pytest.fixture(autouse=True)
def gcc() -> None:
    found, missing = compilers()
    if not found or found[0].name != "gcc":
        pytest.skip("; ".join(missing))


def ran(root: Path, program: str, *options: object) -> str:
    command = [sys.executable, "-m", program, *map(str, options)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_contender_is_timed_or_left_out(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    printed = ran(root, "benchmarks.c", "--quick", "--only", "tiny", "--peers", tmp_path, "--json", path)
    case = json.loads(path.read_text())["cases"]["tiny"]
    left_out = {one["name"]: one["reason"] for one in case["left_out"]}
    assert str(tmp_path) in left_out[EMX]
    assert "onnx2c" in left_out
    built = f"{MLPX}, gcc -O2"
    assert {built, INTO, ONE_THREAD, NUMPY, CTYPES} <= set(case["seconds"])
    assert RUNTIME in case["seconds"] or RUNTIME in left_out
    for name, seconds in case["seconds"].items():
        assert seconds["median"] > 0
        assert case["from_float64"][name] < 1e-5
        assert name in printed
    sizes = case["bytes"][built]
    scratch = 4 * 32  # of two layers of 16 numbers
    assert sizes["stack"] >= scratch
    constants = 4 * (8 * 16 + 16 + 16 * 16 + 16 + 16 + 1)
    assert sizes["constants"] is None or sizes["constants"] >= constants


def test_faults_are_found(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    ran(root, "benchmarks.c_faults", "--only", "digits", "--faults", 5, "--json", path)
    found = json.loads(path.read_text())["results"]["digits"]
    assert set(found["planted"]) == set(CHANGES)
    for count in found["planted"].values():
        assert 0 < count["faults"] == count["by the checksum"] >= count["by the rows alone"]
    assert found["planted"]["the sign of a constant"]["by the rows alone"] > 0
    assert all("-ffast-math" in found["builds"][flags] for flags in ("-ffast-math", "-Ofast"))
