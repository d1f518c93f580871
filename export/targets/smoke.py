"""A package's smoke test: a request, the answers that were proved for it, and a script that compares."""

from __future__ import annotations

import json
from importlib.resources import files as resources
from typing import Any

import numpy as np

from runtime import Answers, Port

from .target import Deployment, Files, Target

_ROWS = 4
_NUMBERS = 4096
"""Numbers of an input or an output that are sent and compared, about; one row at least."""


def smoke(deployment: Deployment, target: Target) -> Files:
    """``smoke/``: ``request.json`` of the Open Inference Protocol, ``expected.json`` and ``check.py``."""
    answers = deployment.certificate.answers
    assert answers is not None  # packaging refuses others
    chosen = _rows(deployment, answers)
    inputs = [
        _tensor(port, answers.inputs[port.name][chosen]) | {"data": answers.inputs[port.name][chosen].ravel().tolist()}
        for port in deployment.summary.inputs
    ]
    finite = {
        kind: all(np.isfinite(held[port.name][chosen]).all() for port in deployment.summary.outputs)
        for kind, held in answers.reduced.items()
    }
    reduced = {kind: held for kind, held in answers.reduced.items() if finite[kind]}  # the bound tells the others
    request = {"inputs": inputs, "outputs": [{"name": port.name} for port in deployment.summary.outputs]}
    expected = {
        "url": target.url.format(name=deployment.name),
        "model_sha256": deployment.certificate.sha256,
        "rows": len(chosen),
        "outputs": {
            port.name: {
                "shape": list(answers.exact[port.name][chosen].shape),
                "exact": answers.exact[port.name][chosen].ravel().tolist(),
                "bound": answers.bound[port.name][chosen].ravel().tolist(),
                "reduced": {kind: held[port.name][chosen].ravel().tolist() for kind, held in reduced.items()},
            }
            for port in deployment.summary.outputs
        },
    }
    script = (resources("export.targets") / "smoke_check.py").read_text(encoding="utf-8")
    return {
        "smoke/request.json": json.dumps(request, allow_nan=False) + "\n",
        "smoke/expected.json": json.dumps(expected, allow_nan=False) + "\n",
        "smoke/check.py": script,
    }


def _tensor(port: Port, values: np.ndarray) -> dict[str, Any]:
    return {"name": port.name, "shape": list(values.shape), "datatype": "FP32"}


def _rows(deployment: Deployment, answers: Answers) -> list[int]:
    """Which rows are sent: as many as a fixed batch has, else a few that are spread over the kinds of rows."""
    if deployment.fixed_batch is not None:
        return [row % answers.rows for row in range(deployment.fixed_batch)]
    widest = max(values[0].size for values in (*answers.inputs.values(), *answers.exact.values()))
    count = min(_ROWS, answers.rows, deployment.max_batch, max(1, _NUMBERS // widest))
    return np.linspace(0, answers.rows - 1, count).astype(int).tolist()
