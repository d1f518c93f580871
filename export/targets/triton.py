"""Triton Inference Server: a model repository, for its ONNX Runtime backend or its Python backend.

TF32 is off, which ONNX Runtime has on by default on a GPU: the backend hands options of the accelerator "cuda" to ONNX
Runtime (https://github.com/triton-inference-server/onnxruntime_backend/pull/256, June 2024), which knows use_tf32 from
1.18 on (https://github.com/microsoft/onnxruntime/pull/19357). Before release 24.07 the environment variable of NVIDIA's
libraries, which the start command sets, is the only way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from export.servers import number

from .target import DATATYPES, Deployment, Files, Target, published, source

if TYPE_CHECKING:
    from runtime import Port

_TF32_OPTION = (24, 7)
"""The first release whose backend takes the option use_tf32."""


def _files(deployment: Deployment) -> Files:
    folder = f"models/{deployment.name}"
    files = {f"{folder}/config.pbtxt": _config(deployment), **deployment.model_files(f"{folder}/1/model.onnx")}
    if deployment.backend == "python":
        files[f"{folder}/1/model.py"] = source("runners/triton_model.py")
        files[f"{folder}/1/proved.py"] = source("runners/proved.py")
        files[f"{folder}/1/model.parity.json"] = deployment.certificate.path
        files["Dockerfile"] = (
            f"FROM {_image(deployment)}\n"
            f'RUN pip install --no-cache-dir "{deployment.requirement}"\n'
            "COPY models /models\n"
            'CMD ["tritonserver", "--model-repository=/models"]\n'
        )
    return files


def _config(deployment: Deployment) -> str:
    """``config.pbtxt``, a ``ModelConfig`` in Protocol Buffers' text format."""
    summary, batches = deployment.summary, deployment.fixed_batch is None
    kind = "KIND_GPU" if deployment.device == "cuda" else "KIND_CPU"

    def tensor(port: Port) -> Sequence[str]:
        """The sizes of a row where Triton puts batches together, else with the batch that the file fixes."""
        return f"data_type: TYPE_{DATATYPES[port.dtype]}", f"dims: [ {', '.join(map(str, port.shape[batches:]))} ]"

    zeros = [
        _block("inputs", [f"key: {_text(port.name)}", _block("value", [*tensor(port), "zero_data: true"])])
        for port in summary.inputs
    ]
    blocks = [
        f"name: {_text(deployment.name)}",
        f"backend: {_text(deployment.backend or '')}",
        f"max_batch_size: {deployment.max_batch if batches else 0}",
        *(_block("input", [f"name: {_text(port.name)}", *tensor(port)]) for port in summary.inputs),
        *(_block("output", [f"name: {_text(port.name)}", *tensor(port)]) for port in summary.outputs),
        _block("instance_group", [f"count: {deployment.instances}", f"kind: {kind}"]),
    ]
    if batches:
        blocks.append(_block("dynamic_batching", [f"max_queue_delay_microseconds: {deployment.delay_us}"]))
    settings: dict[str, float] = {"intra_op_thread_count": deployment.threads, "inter_op_thread_count": 1}
    if deployment.verify_every is not None:
        settings["verify_every"] = deployment.verify_every
    for key, value in settings.items():
        blocks.append(_block("parameters", [f'key: "{key}"', _block("value", [f'string_value: "{value:g}"'])]))
    if _sets_tf32(deployment):
        off = _block("parameters", ['key: "use_tf32"', 'value: "0"'])
        cuda = _block("gpu_execution_accelerator", ['name: "cuda"', off])
        blocks.append(_block("optimization", [_block("execution_accelerators", [cuda])]))
    # Run before the model is ready, so that the first user does not wait for buffers and kernels.
    blocks.append(_block("model_warmup", ['name: "zeros"', f"batch_size: {int(batches)}", *zeros]))
    return "\n".join(blocks) + "\n"


def _sets_tf32(deployment: Deployment) -> bool:
    has_option = deployment.backend == "onnxruntime" and number(deployment.release) >= _TF32_OPTION
    return has_option and deployment.device == "cuda"


def _block(name: str, lines: Iterable[str]) -> str:
    inner = "\n".join(f"  {line}" for part in lines for line in part.split("\n"))
    return f"{name} {{\n{inner}\n}}"


def _text(value: str) -> str:
    escaped = (f"\\{ord(c):03o}" if c < " " or c == "\x7f" else f"\\{c}" if c in '"\\' else c for c in value)
    return f'"{"".join(escaped)}"'


def _image(deployment: Deployment) -> str:
    return f"nvcr.io/nvidia/tritonserver:{deployment.release}-py3"


def _start(deployment: Deployment) -> str:
    gpu = "--gpus=all --env NVIDIA_TF32_OVERRIDE=0 " if deployment.device == "cuda" else ""
    run = f"docker run --rm {gpu}--shm-size=1g {published(TARGET.ports)}"
    if deployment.backend == "python":
        tag = f"{deployment.plain_name}-triton"
        return f"docker build --tag {tag} .\n{run} \\\n  {tag}"
    mount = f'-v "$PWD/models:/models:ro" {_image(deployment)}'
    return f"{run} \\\n  {mount} tritonserver --model-repository=/models"


def _remarks(deployment: Deployment) -> Sequence[str]:
    remarks: list[str] = []
    if deployment.fixed_batch is None:
        shared = f"Requests that wait at the same time share a batch of at most {deployment.max_batch} rows"
        delay = f"; one waits at most {deployment.delay_us} microseconds for others." if deployment.delay_us else "."
        remarks.append(shared + delay)
    if deployment.device == "cuda":
        option = "config.pbtxt (`use_tf32`) and " if _sets_tf32(deployment) else ""
        option = "model.py and " if deployment.backend == "python" else option
        remarks.append(
            f"TF32 is off, by {option}the variable NVIDIA_TF32_OVERRIDE of the start command. With TF32, answers are "
            "further from the exact ones than a correct float32 evaluation can be."
        )
    if deployment.backend == "python":
        remarks.append(
            f"The model runs in Triton's Python backend (`model.py`), on the ONNX Runtime that the Dockerfile installs "
            f"(`{deployment.requirement}`): for images without the ONNX Runtime backend. Without Docker, install it "
            "into the Python that Triton's stub was built for, and start "
            "`tritonserver --model-repository=$PWD/models --backend-directory=…`."
        )
    return remarks


TARGET = Target(
    name="triton",
    title="a model repository for Triton Inference Server",
    files=_files,
    start=_start,
    ports={"REST": 8000, "gRPC": 8001, "metrics": 8002},
    exposed_by="taking `127.0.0.1:` out of the start command",
    release="26.08",
    server="triton",
    backends=("onnxruntime", "python"),
    bundled=("python",),
    in_pods=True,
    remarks=_remarks,
)
