"""OpenVINO Model Server: a folder of models and its config.json.

OpenVINO computes in bfloat16 where the processor can (https://docs.openvino.ai/2024/openvino-workflow/
running-inference/inference-devices-and-modes/cpu-device.html), so float32 is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from export.errors import TargetError

from .target import Deployment, Files, Target


def _files(deployment: Deployment) -> Files:
    """``models/``. Raises TargetError: what the Model Server does not have."""
    if deployment.device != "cpu":
        message = f"OpenVINO Model Server runs on Intel's devices and CPUs, not on {deployment.device}"
        raise TargetError(f"{message}. What to do: package for triton, or leave --device out")
    if deployment.delay_us:
        message = "OpenVINO Model Server runs every request by itself, and none waits to share a batch"
        raise TargetError(f"{message}. What to do: leave --delay-us out, or package for triton")
    model = {
        "name": deployment.name,
        "base_path": f"/models/{deployment.name}",  # where the container sees it
        "target_device": "CPU",
        "nireq": deployment.instances,
        "plugin_config": {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": str(deployment.instances),
            "INFERENCE_NUM_THREADS": str(deployment.instances * deployment.threads),
        },
    }
    if deployment.fixed_batch is None:  # rows as a range: a request of more is refused
        rows = f"1:{deployment.max_batch}"
        model["shape"] = {
            port.name: f"({','.join([rows, *map(str, port.shape[1:])])})" for port in deployment.summary.inputs
        }
    config = json.dumps({"model_config_list": [{"config": model}]}, indent=2, ensure_ascii=False) + "\n"
    return {"models/config.json": config, **deployment.model_files(f"models/{deployment.name}/1/model.onnx")}


def _start(deployment: Deployment) -> str:
    image = f"openvino/model_server:{deployment.release}"
    ports = "-p 127.0.0.1:8000:8000 -p 127.0.0.1:9000:9000"
    return (
        f'docker run --rm {ports} -v "$PWD/models:/models:ro" \\\n'
        f"  {image} --config_path /models/config.json --rest_port 8000 --port 9000"
    )


def _remarks(deployment: Deployment) -> Sequence[str]:
    batch = (
        f"A request has at most {deployment.max_batch} rows (`shape` in config.json); requests are not put together."
    )
    return (
        "REST is on port 8000 and gRPC on 9000, on the loopback address only: take `127.0.0.1:` out of the command to "
        "open them to others.",
        "OpenVINO computes in bfloat16 where the processor can, which is further from the exact answers than float32 "
        "can be: `INFERENCE_PRECISION_HINT` in config.json asks for float32.",
        *([] if deployment.fixed_batch else [batch]),
    )


TARGET = Target(
    name="openvino",
    words="a folder for OpenVINO Model Server",
    files=_files,
    start=_start,
    url="http://127.0.0.1:8000/v2/models/{name}",
    release="2025.4",
    server="openvino",
    remarks=_remarks,
)
