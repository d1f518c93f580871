"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CORES = 2


def keep_to_two_cores() -> None:
    """The tables are for 2 cores; every process that is started from here on inherits this."""
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > CORES:
        os.sched_setaffinity(0, cores[:CORES])


def described() -> dict[str, str]:
    """The date, the processor, the cores that may be used, and the versions that matter."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    found = {"date": date.today().isoformat(), "processor": processor, "cores": str(len(os.sched_getaffinity(0)))}
    for package in ("mlpx", "torch", "onnx", "onnxruntime-gpu", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
