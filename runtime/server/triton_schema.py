"""What Triton's extensions tell of a model, its configuration and its statistics, as JSON has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .gathered import Record, histogram
from .loaded_model import Served
from .options import Options
from .signature import Tensor

_NS = 1_000_000_000


def config(served: Served, options: Options) -> dict[str, Any]:
    """The ``ModelConfig`` of a version; https://github.com/triton-inference-server/common, model_config.proto."""
    batching = served.together
    record: dict[str, Any] = {
        "name": served.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": options.max_rows if served.signature.fixed else 0,
        "input": [_tensor(tensor, served.signature.fixed) for tensor in served.signature.inputs.values()],
        "output": [_tensor(tensor, served.signature.fixed) for tensor in served.signature.outputs.values()],
        "instance_group": [
            {"name": served.name, "kind": "KIND_CPU" if served.session.device == "cpu" else "KIND_GPU", "count": 1}
        ],
        "default_model_filename": "" if served.session.path is None else served.session.path.name,
    }
    if batching:
        record["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
    return record


def _tensor(tensor: Tensor, batched: bool) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": f"TYPE_{tensor.datatype}",
        "dims": list(tensor.row) if batched else tensor.shape,
    }


def statistics(gathered: Iterable[Record], name: str | None = None, version: str | None = None) -> list[dict[str, Any]]:
    """Triton's statistics of every version, or of those of a model; durations in nanoseconds.

    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
    """
    chosen = [one for one in gathered if name in (None, one["name"]) and version in (None, one["version"])]
    return [_of(one) for one in chosen]


def _of(one: Record) -> dict[str, Any]:
    requests, queued, runs = (histogram(one[key]) for key in ("requests", "queued", "runs"))
    return {
        "name": one["name"],
        "version": one["version"],
        "last_inference": int(one["last"] * 1000),
        "inference_count": one["rows"],
        "execution_count": runs.count,
        "inference_stats": {
            "success": _duration(requests.count, requests.sum),
            "fail": _duration(sum(one["refused"].values()), 0.0),
            "queue": _duration(queued.count, queued.sum),
            "compute_input": _duration(0, 0.0),
            "compute_infer": _duration(runs.count, runs.sum),
            "compute_output": _duration(0, 0.0),
        },
        "batch_stats": [
            {
                "batch_size": int(rows),
                "compute_input": _duration(0, 0.0),
                "compute_infer": _duration(int(count), seconds),
                "compute_output": _duration(0, 0.0),
            }
            for rows, (count, seconds) in sorted(one["batches"].items(), key=lambda item: int(item[0]))
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * _NS)}
