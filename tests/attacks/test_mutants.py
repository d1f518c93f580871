"""Random faults in files of generated networks: none is proved and computes something else (``benchmarks.mutants``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutants import Findings, with_ending
from tests.support import ROOT
from tests.support.forking import ONE_THREAD, Ending
from tests.support.mutants.faults import FAULTS, faulty
from tests.support.mutants.subjects import Subject, subject
from tests.support.mutants.trial import mutant
from tests.support.repeats import examples

FILES = examples(60, of=500)


def run(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """The benchmark in a process of its own, which forks; ``before`` is Python that comes first."""
    code = f"{before}\nfrom benchmarks.mutants import main\nmain()"
    command = [sys.executable, "-c", code] if before else [sys.executable, "-m", "benchmarks.mutants"]
    options = ["--processes", "1", *map(str, arguments)]
    one_thread = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, env=one_thread, check=False)


def records(path: Path) -> dict[int, dict[str, Any]]:
    return {record["number"]: record for record in map(json.loads, path.read_text().splitlines())}


def test_no_file_with_a_fault_is_proved_and_computes_something_else(tmp_path: Path) -> None:
    done = run("--files", FILES, "--json", tmp_path / "all.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(tmp_path / "all.jsonl")
    tried = [found[number] for number in range(FILES)]
    assert len({record["kind"] for record in tried}) >= 24
    assert sum(bool(record.get("different")) for record in tried) > FILES // 3, "the oracle sees faults"
    assert sum(record["verdict"] == "proved" for record in tried) > FILES // 30, "some faults change nothing"
    number = FILES - 1
    done = run("--only", f"0:{number}", "--json", tmp_path / "one.jsonl")
    assert records(tmp_path / "one.jsonl")[number]["kind"] == found[number]["kind"]
    assert records(tmp_path / "one.jsonl")[number]["verdict"] == found[number]["verdict"]


PASSES = """
import tests.support.mutants.trial as trial
trial.judged = lambda *_, **__: ("proved", 0, "")
"""


def test_a_verifier_that_passes_everything_is_found_out(tmp_path: Path) -> None:
    done = run("--files", 30, "--json", tmp_path / "all.jsonl", "--keep", tmp_path / "kept", before=PASSES)
    assert done.returncode == 1
    wrong = [r for r in records(tmp_path / "all.jsonl").values() if r.get("different")]
    assert len(wrong) > 10, done.stdout
    assert len({record["kind"] for record in wrong}) > 10
    for record in wrong:
        assert (tmp_path / "kept" / f"0-{record['number']}.onnx").exists()


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[Subject]:
    """Networks of every source but the slowest."""
    folder = tmp_path_factory.mktemp("subjects")
    places = [folder / str(number) for number in range(12)]
    for place in places:
        place.mkdir()
    return [subject(number, 0, place) for number, place in enumerate(places)]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_kind_of_fault_has_a_place_in_some_file(kind: str, subjects: list[Subject]) -> None:
    clean = [each.proto.SerializeToString() for each in subjects]
    made = [faulty(kind, each.proto, [7, n]) for n, each in enumerate(subjects)]
    again = [faulty(kind, each.proto, [7, n]) for n, each in enumerate(subjects)]
    assert any(proto is not None for proto in made)
    for first, second in zip(made, again, strict=True):
        assert (first is None) == (second is None)
        assert first is None or second is None or first.SerializeToString() == second.SerializeToString()
    assert clean == [each.proto.SerializeToString() for each in subjects], "the right file is left as it is"


def test_kinds_take_turns(subjects: list[Subject]) -> None:
    kinds = {mutant(subjects[number % 12].proto, 0, number).kind for number in range(2 * len(FAULTS))}
    assert len(kinds) > 0.9 * len(FAULTS)


FORKS = """
import json, os, signal, sys, time
from collections import deque
from pathlib import Path
from tests.support import ROOT
from tests.support.forking import forked

def work(job):
    yield {"began": job}
    if job == "crash":
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "error":
        raise ValueError("no")
    if job == "endless":
        while True:
            pass
    if job == "memory":
        bytearray(2**33)
    yield {"ended": job}

jobs = deque(["fine", "crash", "error", "endless", "memory", "fine"])
for job, came in forked(jobs, work, Path(sys.argv[1]), processes=2, seconds=2, gigabytes=0.5):
    print(json.dumps([job, came if came is None or isinstance(came, dict) else [came.words, came.printed]]))
"""


def test_a_child_that_crashes_or_hangs_ends_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    ends = {job: came for job, came in found if not isinstance(came, dict)}
    assert ends["fine"] is None
    assert ends["crash"][0] == "signal 11 (SIGSEGV)"
    assert "the last words" in ends["crash"][1]
    assert ends["error"][0] == "exit code 1"
    assert "ValueError: no" in ends["error"][1]
    assert ends["endless"][0] == "silent for 2 s"
    assert "MemoryError" in ends["memory"][1]
    assert found.count(["fine", {"ended": "fine"}]) == 2


def test_how_a_child_ended_counts_unless_the_verdict_was_there() -> None:
    findings, crash = Findings(0, None), Ending("signal 6 (SIGABRT)", 6)
    record = {"number": 5, "kind": "a scan", "network": "n"}
    findings.add(with_ending(record, crash, Path()), Path())
    findings.add(with_ending(record | {"verdict": "failed", "code": 1, "why": ""}, crash, Path()), Path())
    findings.add(with_ending(record | {"verdict": "proved", "code": 0, "why": ""}, crash, Path()), Path())
    findings.add(with_ending(record, Ending("silent", timed_out=True), Path()), Path())
    assert (findings.count("signal"), findings.count("no end"), findings.wrong) == (2, 1, 3)
