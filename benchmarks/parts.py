"""The rows of the table that separate programs measure, each run as a process that writes JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.timing.timer import Ratio

Part = Callable[[argparse.Namespace], dict[str, Ratio | str]]
"""From the options: a figure, or why there is none, by ``Target.case``."""
GATE = 0.01
"""The largest share of changed labels that a variant of reduced precision may have."""
_ROOM = 1.3
"""Disk that scoring a file takes, results included, as a multiple of the file."""


def files(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """1 M x 64 rows from files into files of the same kind."""
    results = _results("benchmarks.files", *(("--rows", 10_000, "--rounds", 1) if options.quick else ("--rounds", 3)))
    return {
        kind: results if isinstance(results, str) else _figure(results[kind]["alike"]["ratio"])
        for kind in ("csv", "parquet")
    }


def memory(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """Memory while large files are scored."""
    gigabytes = min(options.gigabytes, 0.05) if options.quick else options.gigabytes
    folder = tempfile.gettempdir()
    needed, free = _ROOM * gigabytes, shutil.disk_usage(folder).free / 1e9
    if free < needed:
        hint = "What to do: name another folder with TMPDIR, or a smaller file with --gigabytes"
        return {"memory": f"it needs {needed:.1f} GB in {folder}, which has {free:.1f}. {hint}"}
    results = _results("benchmarks.files", "--gigabytes", gigabytes)
    return {
        "memory": results if isinstance(results, str) else _figure(max(row["memory_gb"] for row in results.values()))
    }


def variants(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """int8 variants of a trained network."""
    results = _results("benchmarks.variants", *(("--steps", 5, "--seconds", 2) if options.quick else ()))
    if isinstance(results, str):
        return {"int8": results}
    int8 = {kind: row for kind, row in results.items() if kind.startswith("int8")}
    passed = [row["ratio"] for row in int8.values() if row["changed_labels"] <= GATE]
    if not passed:
        changes = ", ".join(f"{kind} changes {100 * row['changed_labels']:.2f} %" for kind, row in int8.items())
        return {"int8": f"none is within {100 * GATE:g} % of changed labels: {changes or 'none could be made'}"}
    return {"int8": _figure(min(passed))}


PARTS: dict[str, Part] = {"csv": files, "parquet": files, "memory": memory, "int8": variants}


def _figure(value: float) -> Ratio:
    """A figure whose spread its program does not report."""
    return Ratio(value, value, value)


def _results(program: str, *arguments: object) -> dict[str, Any] | str:
    """The ``results`` of the JSON that a program writes, or why there are none."""
    if find_spec(program) is None:
        return f"{program} is missing"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", program, *map(str, arguments), "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return f"{program} ended with code {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
        return json.loads(path.read_text(encoding="utf-8"))["results"]
