"""The processor: its name, its instructions, the cores that may be used."""

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
_X86 = ("x86_64", "amd64", "i686", "i386")
_VNNI = frozenset(("avx512_vnni", "avx_vnni"))


def cpuinfo(path: Path | None = None) -> Mapping[str, str]:
    """The fields of ``/proc/cpuinfo`` for the first core; empty where there is no such file."""
    return _read_cpuinfo(path or CPUINFO)


@cache
def _read_cpuinfo(path: Path) -> Mapping[str, str]:
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(2**14)
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def processor_name() -> str:
    """The model's name, or what the system calls it."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def instructions(path: Path | None = None) -> frozenset[str]:
    """The instruction sets, as Linux names them; empty where they are not known."""
    fields = cpuinfo(path)
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the container's quota where it has one (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        return max(1, min(cores, ceil(int(limit) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def vnni(path: Path | None = None) -> str:
    """Which of the instructions that make products of bytes exact the processor has, in words."""
    flags = instructions(path)
    if not flags:
        return "its instructions are not known"
    present = " and ".join(sorted(flags & _VNNI))
    return f"it has {present or 'neither avx512_vnni nor avx_vnni'}"


def saturating(metadata: Mapping[str, str], path: Path | None = None, machine: str | None = None) -> str | None:
    """Why a file of reduced precision would give wrong numbers here, in words; None where it would not.

    ``machine`` is the architecture, by default this one's. Files say in their metadata how their products are made.
    """
    try:
        way = json.loads(metadata["mlpx.variant"])["way"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    x86 = (machine or platform.machine()).lower() in _X86
    if way != PAIRS or not x86 or not (flags := instructions(path)) or flags & _VNNI:
        return None
    return f"its products of {way} saturate on this processor: {vnni(path)}"
