"""Which provider runs, decided from what was asked and what the machine has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import InputError, Machine, ProviderError, choose, this_machine
from runtime.session.cuda_libraries import Cuda

GPU = (("onnxruntime-gpu", "1.31.1"),)
NO_CUDA = Machine((("onnxruntime", "1.31.1"),), Cuda(built_in=False))
NO_LIBRARIES = Machine(GPU, Cuda(True, missing=("libcublas.so.13", "libcuda.so.1")))
NO_DRIVER = Machine(GPU, Cuda(True, missing=("libcuda.so.1",)))
NO_DEVICE = Machine(GPU, Cuda(True, driver_error="the driver's cuInit answers error 100"))
TWO_DEVICES = Machine(GPU, Cuda(True, devices=2))
EVERY = [NO_CUDA, NO_LIBRARIES, NO_DRIVER, NO_DEVICE, TWO_DEVICES]


@pytest.mark.parametrize("machine", EVERY)
def test_the_cpu_is_always_to_be_had(machine: Machine) -> None:
    choice = choose("cpu", machine)
    assert choice.device == "cpu"
    assert [name for name, _ in choice.providers] == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (NO_CUDA, [r"built without it", 'pip uninstall -y onnxruntime && pip install "mlpx[cuda]"']),
        (NO_LIBRARIES, ["libcublas.so.13", "libcuda.so.1", 'pip install "mlpx[cuda]"', "NVIDIA driver"]),
        (NO_DRIVER, ["missing libcuda.so.1", "NVIDIA driver"]),
        (NO_DEVICE, ["cuInit answers error 100", "nvidia-smi"]),
    ],
)
def test_cuda_that_cannot_be_had_is_an_error_and_auto_says_why(machine: Machine, expected: list[str]) -> None:
    with pytest.raises(ProviderError) as caught:
        choose("cuda", machine)
    said = str(caught.value)
    assert said.startswith("cuda was requested and is not available")
    assert [x for x in expected if x not in said] == []
    auto = choose("auto", machine)
    assert auto.device == "cpu"
    assert expected[0] in auto.reason
    assert "What to do" not in auto.reason


def test_a_driver_alone_needs_no_pip_line() -> None:
    with pytest.raises(ProviderError) as caught:
        choose("cuda", NO_DRIVER)
    assert "mlpx[cuda]" not in str(caught.value)


def test_libraries_alone_need_no_driver() -> None:
    with pytest.raises(ProviderError) as caught:
        choose("cuda", Machine(GPU, Cuda(True, missing=("libcublas.so.13",))))
    assert str(caught.value).endswith('missing libcublas.so.13. What to do: pip install "mlpx[cuda]"')


@pytest.mark.parametrize(("asked", "index"), [("cuda", "0"), ("cuda:1", "1"), ("auto", "0")])
def test_cuda_that_can_be_had(asked: str, index: str) -> None:
    choice = choose(asked, TWO_DEVICES)
    assert choice.device == f"cuda:{index}"
    assert choice.providers[0] == ("CUDAExecutionProvider", {"device_id": index, "use_tf32": "0"})
    assert choice.providers[1][0] == "CPUExecutionProvider"


def test_tf32_only_when_asked() -> None:
    assert choose("cuda", TWO_DEVICES, tf32=True).providers[0][1]["use_tf32"] == "1"


def test_a_device_beyond_the_last() -> None:
    with pytest.raises(ProviderError, match=r"no device 2: the machine has 2.*cuda:0 to cuda:1"):
        choose("cuda:2", TWO_DEVICES)


@given(device=st.one_of(st.text(), st.from_regex(r"(cuda|cpu|auto).{0,3}")), machine=st.sampled_from(EVERY))
def test_what_was_asked_is_what_is_chosen_or_an_error(device: str, machine: Machine) -> None:
    try:
        choice = choose(device, machine)
    except (ProviderError, InputError):
        return
    assert device == "auto" or choice.device == device or (device == "cuda" and choice.device == "cuda:0")


def test_both_distributions_are_a_conflict() -> None:
    both = Machine((*GPU, ("onnxruntime", "1.30.0")), Cuda(built_in=True))
    assert both.conflict is not None
    assert all(part in both.conflict for part in ("onnxruntime-gpu 1.31.1", "onnxruntime 1.30.0", "pip uninstall"))
    assert NO_CUDA.conflict is None


def test_looking_at_this_machine_prints_nothing_and_names_what_is_missing(root: Path) -> None:
    code = "from runtime import this_machine; this_machine()"
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout == b""
    assert done.stderr == b""
    cuda = this_machine().cuda
    assert cuda.usable or not cuda.built_in or cuda.missing or cuda.driver_error


def test_a_machine_without_onnx_runtime_gets_both_install_lines(root: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from runtime import this_machine\n"
        "try: this_machine()\n"
        "except RuntimeError as error: print(error)"
    )
    environment = {"PYTHONPATH": str(root), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert 'pip install "mlpx[cpu]"' in done.stdout
    assert 'pip install "mlpx[gpu]"' in done.stdout
