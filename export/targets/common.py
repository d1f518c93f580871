"""What every package holds besides the server's own files: README.md and the smoke test."""

from __future__ import annotations

import json

import numpy as np

from .target import Deployment, Files, Target, source

_ROWS = 4
_NUMBERS = 4096
"""Numbers of an input or an output that the smoke test sends and compares, about; one row at least."""


def readme(deployment: Deployment, target: Target, notes: tuple[str, ...]) -> str:
    """Markdown, for the person who unpacks the folder on the server's machine."""
    name, summary, certificate = deployment.name, deployment.summary, deployment.certificate
    backend = f", backend {deployment.backend}" if deployment.backend else ""
    batch = f"exactly {deployment.fixed_batch} rows a request" if deployment.fixed_batch else "any number of rows"
    ports = "\n".join(
        f"| {kind} | `{port.name}` | [{', '.join(map(str, port.shape))}] | {port.dtype} |"
        for kind, given in (("input", summary.inputs), ("output", summary.outputs))
        for port in given
    )
    what = f"""# {name}, for {target.name} {deployment.release}

{target.words[0].upper()}{target.words[1:]}{backend}. The model takes {batch}.

| | name | shape | type |
| --- | --- | --- | --- |
{ports}

It is opset {summary.opset}, IR {summary.ir_version}, SHA-256 `{certificate.sha256}`, proved on {certificate.device}
on {certificate.made} by mlpx {certificate.mlpx_version}: `{name}.parity.json` is the certificate."""
    proof = f"""## What is proved

`{name}.parity.json` says of which file, on which device and with which versions it was proved that the file
computes what its network computes. It holds rows, their exact outputs, and how far from these a correct float32
evaluation can be. Keep it with the model."""
    sections = [
        what,
        *(["\n".join(["Of this package:", "", *(f"- {line}" for line in notes)])] if notes else []),
        f"## Start\n\nIn this folder:\n\n{_shell(target.start(deployment))}",
        *target.remarks(deployment),
        *([_queries(name, target.url.format(name=name))] if target.speaks_v2 else []),
        proof,
    ]
    return "\n\n".join(sections) + "\n"


def _queries(name: str, url: str) -> str:
    asked = f"curl --fail --header 'Content-Type: application/json' --data @smoke/request.json {url}/infer"
    return f"""## Ask

A few rows, with curl:

{_shell(asked)}

The same rows, and whether the answers are the proved ones (Python's standard library is enough; exit code 0 if they
are, 1 if not):

{_shell(f"python3 smoke/check.py {url}")}

All rows of the certificate, and what a wrong answer comes from, where mlpx is installed:

{_shell(f"mlpx verify --url {url} --certificate {name}.parity.json")}"""


def _shell(commands: str) -> str:
    return f"```console\n{commands.strip()}\n```"


def smoke(deployment: Deployment, target: Target) -> Files:
    """A request, the answers that were proved for it, and a script that compares.

    ``smoke/``: ``request.json`` of the Open Inference Protocol, ``expected.json`` and ``check.py``.
    """
    answers, outputs = deployment.certificate.answers, [port.name for port in deployment.summary.outputs]
    assert answers is not None  # packaging refuses others
    if deployment.fixed_batch is not None:
        rows = [row % answers.rows for row in range(deployment.fixed_batch)]
    else:  # a few that are spread over the kinds of rows
        widest = max(values[0].size for values in (*answers.inputs.values(), *answers.exact.values()))
        count = min(_ROWS, answers.rows, deployment.max_batch, max(1, _NUMBERS // widest))
        rows = np.linspace(0, answers.rows - 1, count).astype(int).tolist()

    def flat(values: np.ndarray) -> list[float]:
        return values[rows].ravel().tolist()

    inputs = [
        {"name": name, "shape": [len(rows), *values.shape[1:]], "datatype": "FP32", "data": flat(values)}
        for name, values in ((port.name, answers.inputs[port.name]) for port in deployment.summary.inputs)
    ]
    finite = {  # what overflows in a precision is no JSON; the bound tells those answers
        kind: held
        for kind, held in answers.reduced.items()
        if all(np.isfinite(held[name][rows]).all() for name in outputs)
    }
    expected = {
        "url": target.url.format(name=deployment.name),
        "model_sha256": deployment.certificate.sha256,
        "rows": len(rows),
        "outputs": {
            name: {
                "shape": [len(rows), *answers.exact[name].shape[1:]],
                "exact": flat(answers.exact[name]),
                "bound": flat(answers.bound[name]),
                "reduced": {kind: flat(held[name]) for kind, held in finite.items()},
            }
            for name in outputs
        },
    }
    request = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
    return {
        "smoke/request.json": json.dumps(request, allow_nan=False) + "\n",
        "smoke/expected.json": json.dumps(expected, allow_nan=False) + "\n",
        "smoke/check.py": source("smoke_check.py"),
    }
