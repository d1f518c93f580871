"""OpenVINO Model Server: a folder of models and its config.json.

OpenVINO computes in bfloat16 where the processor can (https://docs.openvino.ai/2024/openvino-workflow/
running-inference/inference-devices-and-modes/cpu-device.html), so float32 is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from .target import Deployment, Files, Target, json_text, published


def _files(deployment: Deployment) -> Files:
    """``models/``, with the model and ``config.json``."""
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
    if deployment.fixed_batch is None:  # rows as a range: a larger request is refused
        rows = f"1:{deployment.max_batch}"
        model["shape"] = {
            port.name: f"({','.join([rows, *map(str, port.shape[1:])])})" for port in deployment.summary.inputs
        }
    return {
        "models/config.json": json_text({"model_config_list": [{"config": model}]}),
        **deployment.model_files(f"models/{deployment.name}/1/model.onnx"),
    }


def _start(deployment: Deployment) -> str:
    image, (rest, grpc) = f"openvino/model_server:{deployment.release}", TARGET.ports.values()
    return (
        f'docker run --rm {published(TARGET.ports)} -v "$PWD/models:/models:ro" \\\n'
        f"  {image} --config_path /models/config.json --rest_port {rest} --port {grpc}"
    )


def _remarks(deployment: Deployment) -> Sequence[str]:
    batch = f"A request has at most {deployment.max_batch} rows (`shape` in config.json); requests share no batch."
    return (
        "OpenVINO computes in bfloat16 where the processor can, which is further from the exact answers than float32 "
        "can be: `INFERENCE_PRECISION_HINT` in config.json asks for float32.",
        *([] if deployment.fixed_batch else [batch]),
    )


TARGET = Target(
    name="openvino",
    title="a folder for OpenVINO Model Server",
    files=_files,
    start=_start,
    ports={"REST": 8000, "gRPC": 9000},
    exposed_by="taking `127.0.0.1:` out of the start command",
    release="2025.4",
    server="openvino",
    fixed={
        "device": (
            "OpenVINO Model Server runs on CPUs and Intel's devices, not on {device}",
            "package for triton, or leave --device out",
        ),
        "delay_us": (
            "OpenVINO Model Server runs every request by itself: none waits to share a batch",
            "leave --delay-us out, or package for triton",
        ),
    },
    remarks=_remarks,
)
