"""What a figure was measured on."""

from __future__ import annotations

import os
from datetime import date

from runtime.extras import installed_version
from runtime.session.processor import processor_name

CORES = 2


def keep_to_two_cores() -> None:
    """The tables are for 2 cores; every process that is started from here on inherits this."""
    if hasattr(os, "sched_setaffinity") and len(cores := sorted(os.sched_getaffinity(0))) > CORES:
        os.sched_setaffinity(0, cores[:CORES])


def described() -> dict[str, str]:
    """The date, the processor, the cores that may be used, and the versions that matter."""
    packages = ("mlpx", "torch", "onnx", "onnxruntime-gpu", "onnxruntime")
    versions = {package: version for package in packages if (version := installed_version(package)) is not None}
    cores = str(len(os.sched_getaffinity(0)))
    return {"date": date.today().isoformat(), "processor": processor_name(), "cores": cores, **versions}
