"""What this machine has to run a model with, and which execution provider runs it, decided before a session exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.errors import InputError, ProviderError
from runtime.extras import installed_version

from .cuda_libraries import Cuda, look_for_cuda

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DISTRIBUTIONS = ("onnxruntime-gpu", "onnxruntime")
INSTALL_ONE = (
    'pip install "mlpx[cpu]" (for the CPU) or pip install "mlpx[gpu]" (for CUDA), one of the two, since they overwrite '
    "each other"
)
_INSTALL_CUDA = 'pip install "mlpx[cuda]"'


@dataclass(frozen=True)
class Machine:
    """The installed distributions of ONNX Runtime, by name and version, and what CUDA has here.

    Examples:
        >>> from runtime import this_machine
        >>> machine = this_machine(cuda=False)
        >>> {name.partition("-")[0] for name, version in machine.distributions}
        {'onnxruntime'}
    """

    distributions: tuple[tuple[str, str], ...]
    cuda: Cuda

    @property
    def conflict(self) -> str | None:
        """What to do where both distributions are installed and one has overwritten the other's files."""
        if len(self.distributions) < 2:
            return None
        both = " and ".join(f"{name} {version}" for name, version in self.distributions)
        remove = "pip uninstall -y onnxruntime onnxruntime-gpu"
        return f"{both} are both installed and overwrite each other. What to do: {remove}, then {INSTALL_ONE}"


def this_machine(*, cuda: bool = True) -> Machine:
    """Look at this machine. Without ``cuda`` its libraries are left alone: looking for them loads them.

    Raises ProviderError where ONNX Runtime is not installed.

    Examples:
        >>> from runtime import this_machine
        >>> this_machine(cuda=False).distributions[0]
        ('onnxruntime...', '...')
    """
    versions = ((name, installed_version(name)) for name in DISTRIBUTIONS)
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(f"ONNX Runtime cannot be imported ({error}). What to do: {INSTALL_ONE}") from None
    providers = tuple(onnxruntime.get_available_providers()) if cuda else ()
    return Machine(tuple((name, version) for name, version in versions if version), look_for_cuda(providers))


@dataclass(frozen=True)
class Choice:
    """The device that will run, and the providers and options that ONNX Runtime is given for it.

    Examples:
        >>> from runtime import choose, this_machine
        >>> choice = choose("cpu", this_machine(cuda=False))
        >>> choice.providers, choice.reason
        ((('CPUExecutionProvider', {}),), 'asked for')
    """

    device: str
    providers: tuple[tuple[str, dict[str, str]], ...]
    reason: str
    """Why this device, in words."""


def choose(device: str, machine: Machine, *, tf32: bool = False) -> Choice:
    """The providers for ``device``: "auto", "cpu", "cuda" or "cuda:N". A pure function.

    "auto" takes CUDA where it can load and the CPU elsewhere. TF32 is off unless requested: ONNX Runtime would turn it
    on. Raises InputError: an unknown device; ProviderError: CUDA is not available, with what is missing and how to
    install it.

    Examples:
        >>> from runtime import choose, this_machine
        >>> choose("cpu", this_machine(cuda=False)).device
        'cpu'
    """
    is_text = isinstance(device, str)  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check types
    request = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,4}))?", device) if is_text else None
    if request is None:
        raise InputError(f"the device is auto, cpu, cuda or cuda:N, not {device!r}")
    if device == "cpu":
        return Choice("cpu", ((CPU, {}),), "asked for")
    index = request.group(1) or "0"
    fault = obstacle(machine, int(index))
    if fault is not None:
        if device == "auto":
            return Choice("cpu", ((CPU, {}),), f"CUDA cannot be used: {fault.partition('. What to do')[0]}")
        raise ProviderError(f"{device} was requested and is not available: {fault}")
    options = {"device_id": index, "use_tf32": "1" if tf32 else "0"}
    reason = "asked for" if device != "auto" else "CUDA can be used"
    return Choice(f"cuda:{index}", ((CUDA, options), (CPU, {})), reason)


def obstacle(machine: Machine, index: int = 0) -> str | None:
    """Why CUDA is not available, and what to do; None where it is."""
    cuda = machine.cuda
    libraries = [name for name in cuda.missing if not name.startswith("libcuda.so")]
    if not cuda.built_in:
        remove = "pip uninstall -y onnxruntime && "
        return f"this ONNX Runtime was built without it. What to do: {remove}{_INSTALL_CUDA}"
    if cuda.missing:
        steps = [_INSTALL_CUDA] if libraries else []
        if len(libraries) < len(cuda.missing):
            steps.append("install the NVIDIA driver, which brings libcuda.so.1 (pip has none)")
        return f"missing {', '.join(cuda.missing)}. What to do: {', and '.join(steps)}"
    if cuda.devices == 0:
        return f"{cuda.driver_error or 'no device'}. What to do: check the NVIDIA driver with nvidia-smi"
    if index >= cuda.devices:
        highest = f"cuda:{cuda.devices - 1}"
        return f"there is no device {index}: the machine has {cuda.devices}. What to do: ask for cuda:0 to {highest}"
    return None
