"""What this machine has to run a model with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

from runtime.errors import ProviderError

from .cuda_libraries import Cuda, look_for_cuda

DISTRIBUTIONS = ("onnxruntime-gpu", "onnxruntime")
INSTALL_ONE = (
    'pip install "mlpx[cpu]" (for the CPU) or pip install "mlpx[gpu]" (for CUDA), one of the two, since they overwrite '
    "each other"
)


@dataclass(frozen=True)
class Machine:
    """The installed distributions of ONNX Runtime, by name and version, and what CUDA has here."""

    distributions: tuple[tuple[str, str], ...]
    cuda: Cuda

    @property
    def conflict(self) -> str | None:
        """What to do where both distributions are installed and one has overwritten the other's files."""
        if len(self.distributions) < 2:
            return None
        both = " and ".join(f"{name} {number}" for name, number in self.distributions)
        remove = "pip uninstall -y onnxruntime onnxruntime-gpu"
        return f"{both} are both installed and overwrite each other. What to do: {remove}, then {INSTALL_ONE}"


def this_machine(*, cuda: bool = True) -> Machine:
    """Look at this machine. Without ``cuda`` its libraries are left alone: looking for them loads them.

    Raises ProviderError where ONNX Runtime is not installed.
    """
    found = tuple((name, number) for name in DISTRIBUTIONS if (number := _version(name)) is not None)
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(f"ONNX Runtime cannot be imported ({error}). What to do: {INSTALL_ONE}") from None
    providers = tuple(onnxruntime.get_available_providers()) if cuda else ()
    return Machine(found, look_for_cuda(providers))


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and the container's quota where it has one (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        most, period = quota.read_text().split()
        return max(1, min(cores, ceil(int(most) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
