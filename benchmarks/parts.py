"""The rows of the table that programs of their own measure, each run as a process that writes JSON."""

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
"""Given the options: a figure, or the reason why there is none, by ``Target.case``."""
GATE = 0.01
"""The largest share of changed labels that a variant of reduced precision may have."""
_ROOM = 1.3
"""Disk that scoring a file takes, results included, as a multiple of the file."""


def files(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """1 M x 64 rows from files into files of the same kind"""
    found = _results("benchmarks.files", *(("--rows", 10_000, "--rounds", 1) if options.quick else ("--rounds", 3)))
    return {
        kind: found if isinstance(found, str) else _figure(found[kind]["alike"]["ratio"]) for kind in ("csv", "parquet")
    }


def memory(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """memory while large files are scored"""
    gigabytes = min(options.gigabytes, 0.05) if options.quick else options.gigabytes
    folder = tempfile.gettempdir()
    needed, free = _ROOM * gigabytes, shutil.disk_usage(folder).free / 1e9
    if free < needed:
        hint = "What to do: name another folder with TMPDIR, or a smaller file with --gigabytes"
        return {"memory": f"it needs {needed:.1f} GB in {folder}, which has {free:.1f}. {hint}"}
    found = _results("benchmarks.files", "--gigabytes", gigabytes)
    return {"memory": found if isinstance(found, str) else _figure(max(one["memory_gb"] for one in found.values()))}


def variants(options: argparse.Namespace) -> dict[str, Ratio | str]:
    """int8 variants of a trained network"""
    found = _results("benchmarks.variants", *(("--steps", 5, "--seconds", 2) if options.quick else ()))
    if isinstance(found, str):
        return {"int8": found}
    made = {kind: one for kind, one in found.items() if kind.startswith("int8")}
    passed = [one["ratio"] for one in made.values() if one["changed_labels"] <= GATE]
    if not passed:
        told = ", ".join(f"{kind} changes {100 * one['changed_labels']:.2f} %" for kind, one in made.items())
        return {"int8": f"none is within {100 * GATE:g} % of changed labels: {told or 'none could be made'}"}
    return {"int8": _figure(min(passed))}


PARTS: dict[str, Part] = {"csv": files, "parquet": files, "memory": memory, "int8": variants}


def _figure(value: float) -> Ratio:
    """A figure whose spread its program does not tell."""
    return Ratio(value, value, value)


def _results(program: str, *arguments: object) -> dict[str, Any] | str:
    """The ``results`` of the JSON that a program writes, or the reason why there are none."""
    if find_spec(program) is None:
        return f"there is no {program}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", program, *map(str, arguments), "--json", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return f"{program} ended with code {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
        return json.loads(path.read_text(encoding="utf-8"))["results"]
