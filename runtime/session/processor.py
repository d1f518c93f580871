"""What the processor says of itself."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from math import ceil
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
PAIRS = "u8 rows, s8 weights"
"""The products of bytes that x86 processors without VNNI add in pairs of 16 bits, which saturate."""


def cpuinfo(path: Path | None = None) -> Mapping[str, str]:
    """Of the first core, on Linux: the file has a part for each. Elsewhere empty."""
    return _read(path or CPUINFO)


@cache
def _read(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(2**14)
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def instructions(path: Path | None = None) -> frozenset[str]:
    """The instruction sets, by the names that Linux gives them; empty where it does not say."""
    told = cpuinfo(path)
    return frozenset((told.get("flags") or told.get("Features") or "").split())


def vnni(path: Path | None = None) -> str:
    """What the processor says of the instructions that make products of bytes exact, in words."""
    flags = instructions(path)
    has = sorted(flags & {"avx512_vnni", "avx_vnni"})
    if not flags:
        return "its instructions are not known"
    return f"it has {' and '.join(has)}" if has else "it has neither avx512_vnni nor avx_vnni"


def saturating(metadata: Mapping[str, str], path: Path | None = None, machine: str | None = None) -> str | None:
    """Why a file of reduced precision would give wrong numbers here, in words; None where it would not.

    ``machine`` is the architecture, this one's if left out. Files say in their metadata how their products are made.
    """
    try:
        way = json.loads(metadata["mlpx.variant"])["way"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    x86 = (machine or platform.machine()).lower() in ("x86_64", "amd64", "i686", "i386")
    if way != PAIRS or not x86 or not (flags := instructions(path)) or flags & {"avx512_vnni", "avx_vnni"}:
        return None
    return f"its products of {way} saturate on this processor: {vnni(path)}"


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the container's quota where it has one (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = quota.read_text().split()
        return max(1, min(cores, ceil(int(most) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores
