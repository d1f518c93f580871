"""Whether CUDA can be used here, with libraries and a driver that stand for NVIDIA's."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.session import cuda_libraries
from runtime.session.cuda_libraries import Cuda, look_for_cuda

PROVIDERS = ("CUDAExecutionProvider",)


def found() -> Cuda:
    """The state of CUDA, looked up again."""
    look_for_cuda.cache_clear()
    try:
        return look_for_cuda(PROVIDERS)
    finally:
        look_for_cuda.cache_clear()


def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert found() == Cuda(built_in=True, driver_error="CUDA is supported on Linux only")


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA is supported on Linux only")
def test_a_provider_without_its_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_libraries, "_provider_library", lambda: tmp_path / "libprovider.so")
    monkeypatch.setattr(cuda_libraries, "_DRIVER", "libcuda-mlpx.so.1")
    assert found().missing == ("libprovider.so",)
    assert found().driver_error == "libcuda-mlpx.so.1 cannot be loaded"


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA is supported on Linux only")
def test_libraries_that_pip_installed_are_loaded_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["libmlpx-one.so.9", "libmlpx-two.so.9", "libcuda-mlpx.so.1", "libc.so.6"]
    monkeypatch.setattr(cuda_libraries, "_needed_by", lambda _: names)
    monkeypatch.setattr(cuda_libraries, "_DRIVER", names[2])
    assert set(found().missing) == set(names[:3])
    library = importlib.util.find_spec("math")
    assert library is not None
    assert library.origin is not None
    for name in names[:2]:
        (tmp_path / "nvidia" / name / "lib").mkdir(parents=True)
        shutil.copy(library.origin, tmp_path / "nvidia" / name / "lib" / name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    importlib.invalidate_caches()
    assert found().missing == ("libcuda-mlpx.so.1",)


@pytest.mark.parametrize(
    ("init", "count", "devices", "error"),
    [
        (0, 0, 2, None),
        (0, 0, 0, "the driver finds no device"),
        (100, 0, 0, "the driver's cuInit answers error 100"),
        (0, 3, 0, "the driver's cuDeviceGetCount answers error 3"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="CUDA is supported on Linux only")
def test_the_driver_is_asked_for_its_devices(
    init: int, count: int, devices: int, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_count(number: Any) -> int:
        number._obj.value = devices
        return count

    driver = SimpleNamespace(cuInit=lambda _: init, cuDeviceGetCount=get_count)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name, mode=0: (mode, driver)[1])
    monkeypatch.setattr(cuda_libraries, "_needed_by", lambda _: ["libcudart.so.13", "libcuda.so.1"])
    cuda = found()
    assert (cuda.missing, cuda.devices, cuda.driver_error) == ((), devices, error)
    assert cuda.usable == (error is None)
