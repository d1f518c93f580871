"""What a figure was measured on, and how the benchmarks print and write their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from runtime.extras import installed_version
from runtime.session.processor import processor_name

CORES = 2


def keep_to_two_cores() -> None:
    """The tables are for 2 cores; every process started from here on inherits this."""
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > CORES:
        os.sched_setaffinity(0, cores[:CORES])


def described() -> dict[str, str]:
    """The date, the processor, the usable cores, and the versions of the packages that matter."""
    packages = ("mlpx", "torch", "onnx", "onnxruntime-gpu", "onnxruntime")
    versions = {package: version for package in packages if (version := installed_version(package)) is not None}
    cores = str(len(os.sched_getaffinity(0)))
    return {"date": date.today().isoformat(), "processor": processor_name(), "cores": cores, **versions}


def print_machine() -> None:
    """Print what ``described`` gives, in a line."""
    print(", ".join(f"{key} {value}" for key, value in described().items()))


def write_results(path: Path | None, **record: Any) -> None:
    """Write a record and the machine as JSON, if there is a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": described(), **record}, indent=2), encoding="utf-8")


def in_process(program: str, *arguments: object) -> Any:
    """Run ``python -m PROGRAM ARGUMENTS`` in a process of its own; the JSON that it prints."""
    command = [sys.executable, "-m", program, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
