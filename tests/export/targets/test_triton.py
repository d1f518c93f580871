"""The model repository for Triton, read with its own ModelConfig."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tritonclient.grpc import model_config_pb2

from builder import MLPSpec, assemble
from export import Package, package, publish
from export.servers import SERVERS
from tests.support.cases import network, randomised, specs
from tests.support.policy import SHAPES, Policy

pb2: Any = model_config_pb2
"""Its classes are made at run time, and no type checker knows them."""
RELEASES = [key.partition(":")[2] for key in SERVERS if key.startswith("triton:")]


def config(made: Package) -> Any:
    text = (made.folder / "models" / made.deployment.name / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb2.ModelConfig())


def assert_agrees(found: Any, made: Package) -> None:
    """The config is the file's: names, types, sizes, and whether batches are put together."""
    deployment = made.deployment
    fixed = deployment.fixed_batch is not None
    for told, ports in ((found.input, deployment.summary.inputs), (found.output, deployment.summary.outputs)):
        expected = [(port.name, pb2.TYPE_FP32, list(port.shape if fixed else port.shape[1:])) for port in ports]
        assert [(port.name, port.data_type, list(port.dims)) for port in told] == expected
    assert found.max_batch_size == (0 if fixed else deployment.max_batch)
    assert found.HasField("dynamic_batching") is not fixed
    (warmup,) = found.model_warmup
    assert warmup.batch_size == (0 if fixed else 1)
    expected = {port.name: list(port.dims) for port in found.input}
    assert {name: list(value.dims) for name, value in warmup.inputs.items()} == expected


@given(
    spec=specs(deepest=4, widest=64),
    max_batch=st.integers(1, 2**31 - 1),
    delay_us=st.integers(0, 10**6),
    instances=st.integers(1, 16),
    threads=st.integers(1, 64),
    device=st.sampled_from(["cpu", "cuda"]),
    release=st.sampled_from(RELEASES),
    backend=st.sampled_from(["onnxruntime", "python"]),
)
@settings(max_examples=15, deadline=None)
def test_the_config_is_that_of_any_network(
    tmp_path_factory: pytest.TempPathFactory,
    spec: MLPSpec,
    max_batch: int,
    delay_us: int,
    instances: int,
    threads: int,
    device: str,
    release: str,
    backend: str,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    publish(randomised(assemble(spec), 0), folder / "m.onnx", spec=spec, page=False)
    made = package(
        folder / "m.onnx",
        "triton",
        folder / "p",
        release=release,
        backend=backend,
        device=device,
        max_batch=max_batch,
        delay_us=delay_us,
        instances=instances,
        threads=threads,
    )
    found = config(made)
    assert_agrees(found, made)
    assert (found.name, found.backend) == ("m", backend)
    assert found.dynamic_batching.max_queue_delay_microseconds == delay_us
    (group,) = found.instance_group
    kind = pb2.ModelInstanceGroup.KIND_GPU if device == "cuda" else pb2.ModelInstanceGroup.KIND_CPU
    assert (group.count, group.kind) == (instances, kind)
    assert found.parameters["intra_op_thread_count"].string_value == str(threads)
    assert found.max_batch_size == max_batch == made.deployment.max_batch


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, page=False)
    made = package(tmp_path / "m.onnx", "triton", tmp_path / "p")
    found = config(made)
    assert_agrees(found, made)
    assert [port.name for port in (*found.input, *found.output)] == ["obs", "goal", "action", "value"]


@pytest.mark.parametrize("name", ['say "x"', "back\\slash", "größe", "tab\tand\nline", "{ } # : \x01"])
def test_names_of_any_characters(name: str, tmp_path: Path) -> None:
    publish(nn.Linear(2, 1).eval(), tmp_path / "m.onnx", input_name=name, page=False)
    made = package(tmp_path / "m.onnx", "triton", tmp_path / "p")
    assert_agrees(config(made), made)
    assert config(made).input[0].name == name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    spec, module = network([{"linear": 3}, "relu"])
    publish(module, folder / "m.onnx", spec=spec, page=False)
    return folder / "m.onnx"


@pytest.mark.parametrize("release", RELEASES)
def test_tf32_is_off_on_a_gpu(model: Path, release: str, tmp_path: Path) -> None:
    """By the backend's option where it has one, which older ones refuse to load, and always by NVIDIA's variable."""
    made = package(model, "triton", tmp_path / "p", release=release, device="cuda")
    accelerators = config(made).optimization.execution_accelerators.gpu_execution_accelerator
    year, month = map(int, release.split("."))
    known = [("cuda", {"use_tf32": "0"})] if (year, month) >= (24, 7) else []
    assert [(each.name, dict(each.parameters)) for each in accelerators] == known
    assert "--gpus=all --env NVIDIA_TF32_OVERRIDE=0" in made.start
    assert "TF32 is off" in (made.folder / "README.md").read_text()


def test_nothing_of_a_gpu_on_the_cpu(model: Path, tmp_path: Path) -> None:
    made = package(model, "triton", tmp_path / "p")
    assert not config(made).HasField("optimization")
    assert not re.search("gpu|tf32", made.start, re.IGNORECASE)
    assert f"tritonserver:{made.deployment.release}-py3" in made.start


def test_the_python_backend_brings_its_runtime(model: Path, tmp_path: Path) -> None:
    cpu = package(model, "triton:23.10", tmp_path / "cpu", backend="python")
    assert (cpu.folder / "Dockerfile").read_text().splitlines() == [
        "FROM nvcr.io/nvidia/tritonserver:23.10-py3",
        'RUN pip install --no-cache-dir "onnxruntime>=1.12"',
        "COPY models /models",
        'CMD ["tritonserver", "--model-repository=/models"]',
    ]
    gpu = package(model, "triton:24.02", tmp_path / "gpu", backend="python", device="cuda", name="A_b.C")
    assert '"onnxruntime-gpu>=1.18"' in (gpu.folder / "Dockerfile").read_text()  # the first with use_tf32
    assert "docker build --tag a-b-c-triton ." in gpu.start
