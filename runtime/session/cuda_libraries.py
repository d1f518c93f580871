"""Whether ONNX Runtime's CUDA provider can load here.

ONNX Runtime is not asked, since it would print errors and fall back to the CPU. The provider's library names the
libraries that it links to. Each of them is loaded, from the path where pip installed it or by the loader's own search,
which is also the preloading that the provider needs; then the driver is asked for its devices. Nothing here prints or
raises.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SYSTEM = re.compile(r"lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+)\.so|ld-linux")
_DRIVER = "libcuda.so.1"


@dataclass(frozen=True)
class Cuda:
    """The state of CUDA. ``usable`` when the provider's libraries load and the driver has a device."""

    built_in: bool
    """ONNX Runtime was built with the CUDA provider."""
    missing: tuple[str, ...] = ()
    """Libraries that the provider links to and that did not load, by name."""
    optional_missing: tuple[str, ...] = ()
    """Libraries that some operators need, but no dense network."""
    devices: int = 0
    driver_error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a session can run on CUDA."""
        return self.built_in and not self.missing and self.devices > 0


@cache
def look_for_cuda(providers: tuple[str, ...]) -> Cuda:
    """The state of CUDA on this machine, given ONNX Runtime's list of compiled-in providers. Looked up once."""
    if "CUDAExecutionProvider" not in providers:
        return Cuda(built_in=False)
    if sys.platform != "linux":
        return Cuda(built_in=True, driver_error="CUDA is supported on Linux only")
    needed = [name for name in _needed_by(_provider_library()) if not _SYSTEM.match(name)]
    installed = dict(_installed_by_pip())
    missing = tuple(
        name for name in sorted(needed, key=lambda name: name == _DRIVER) if not _loads(installed.get(name), name)
    )
    major = next((name.rpartition(".")[2] for name in needed if name.startswith("libcudart.so.")), "13")
    optional = ("libcudnn.so.9", f"libnvrtc.so.{major}", "libcufft.so.12" if major >= "13" else "libcufft.so.11")
    optional_missing = tuple(name for name in optional if not _loads(installed.get(name), name))
    devices, error = (0, None) if _DRIVER in missing else _devices()
    return Cuda(True, missing, optional_missing, devices, error)


def _provider_library() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    root = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    return root / "capi" / "libonnxruntime_providers_cuda.so"


def _needed_by(library: Path) -> list[str]:
    """The names of the libraries that an ELF file needs (its DT_NEEDED entries)."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    if not library.exists():
        return [library.name]
    with open(library, "rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        return [getattr(tag, "needed") for tag in dynamic.iter_tags("DT_NEEDED")]  # noqa: B009 - set at run time


def _installed_by_pip() -> Iterator[tuple[str, str]]:
    """The libraries in NVIDIA's own Python packages (``nvidia/*/lib``), by name."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec is not None else []:
        for path in sorted(Path(root).glob("**/lib/*.so*")):
            yield path.name, str(path)


def _loads(path: str | None, name: str) -> bool:
    for candidate in filter(None, (path, name)):
        try:
            ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            return True
        except OSError:
            continue
    return False


def _devices() -> tuple[int, str | None]:
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return 0, f"{_DRIVER} cannot be loaded"
    for call, arguments in (("cuInit", (0,)), ("cuDeviceGetCount", (ctypes.byref(count := ctypes.c_int()),))):
        status = getattr(driver, call)(*arguments)
        if status != 0:
            return 0, f"the driver's {call} answers error {status}"
    return count.value, None if count.value else "the driver finds no device"
