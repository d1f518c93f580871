"""What every package holds besides the server's own files: README.md and the smoke test."""

from __future__ import annotations

import json

import numpy as np

from runtime import Certificate, Summary
from runtime.model.bound import format_bound, format_up

from .readiness import described as described_readiness
from .sidecar import described
from .target import DATATYPES, Deployment, Files, Target, source

_ROWS = 4
_NUMBERS = 4096
"""The smoke test sends and compares about this many numbers of an input or an output at most, but one row at least."""


def readme(deployment: Deployment, target: Target, made: Files, notes: tuple[str, ...]) -> str:
    """Markdown, for the person who unpacks the folder on the server's machine."""
    name, summary, certificate = deployment.name, deployment.summary, deployment.certificate
    backend = f", backend {deployment.backend}" if deployment.backend else ""
    batch = f"exactly {deployment.fixed_batch} rows" if deployment.fixed_batch else "any number of rows"
    request = f" A request has {batch}." if target.ports else ""
    release = f" {deployment.release}" if target.ports else ""
    ports = "\n".join(
        f"| {kind} | `{port.name}` | [{', '.join(map(str, port.shape))}] | {port.dtype} |"
        for kind, side in (("input", summary.inputs), ("output", summary.outputs))
        for port in side
    )
    overview = f"""# {name}, for {target.name}{release}

{target.title[0].upper()}{target.title[1:]}{backend}.{request}

| | name | shape | type |
| --- | --- | --- | --- |
{ports}

The model is opset {summary.opset}, IR {summary.ir_version}, SHA-256 `{certificate.sha256}`.
Proved on {certificate.device} on {certificate.made} by mlpx {certificate.mlpx_version}: `{name}.parity.json` is the
certificate."""
    proof = f"""## What is proved

`{name}.parity.json` records which file was proved, on which device and with which versions, to compute what its
network computes. It holds rows, their exact outputs, and how far a correct float32 evaluation can be from these. Keep
it with the model.{_bound(certificate)}"""
    sections = [
        overview,
        *(["\n".join(["Notes on this package:", "", *(f"- {note}" for note in notes)])] if notes else []),
        f"## {'Start' if target.ports else 'Build and test'}\n\nIn this folder:\n\n{_shell(target.start(deployment))}",
        *([_ports(target)] if target.exposed_by else []),
        *_categories(summary),
        *target.remarks(deployment),
        *target.sections(made),
        *described_readiness(deployment, target),
        *([_requests(name, target.url(name)), described(deployment, target)] if target.speaks_v2 else []),
        proof,
    ]
    return "\n\n".join(sections) + "\n"


def _categories(summary: Summary) -> list[str]:
    """The words that the codes of inputs stand for, and which inputs may have missing values; nothing without any."""
    named = [
        (port.name, feature, vocabulary)
        for port in summary.inputs
        for feature, vocabulary in zip(port.features or (), port.categories or (), strict=False)
        if vocabulary is not None
    ]
    rows = [
        f"| `{port}` | {feature} | {', '.join(f'{code}: {word}' for code, word in enumerate(vocabulary.words))} | "
        f"{'refuse it' if vocabulary.unknown is None else vocabulary.unknown} |"
        for port, feature, vocabulary in named
    ]
    table = "\n".join(["| input | feature | code: word | code of any other word |", "| --- | --- | --- | --- |", *rows])
    missing = ", ".join(f"`{port.name}`" for port in summary.inputs if port.missing)
    return [
        *([f"## Words\n\nThe model takes these words as whole numbers:\n\n{table}"] if rows else []),
        *([f"Values of {missing} may be missing: send NaN for them."] if missing else []),
    ]


def _bound(certificate: Certificate) -> str:
    """The bound for every input, as a paragraph; none where the certificate has none."""
    if (bound := certificate.bound) is None:
        return ""
    against = "Any correct float32 evaluation, against the network in real arithmetic"
    lines = ["", "", f"{against}: {format_bound(bound)}."]
    if bound.largest is not None and bound.margin is not None:
        lines.append(f"It cannot change a label where the exact margin exceeds {format_up(bound.margin)}.")
    if bound.largest is not None:
        lines.append("It says nothing of inputs outside these ranges.")
    return "\n".join(lines)


def _ports(target: Target) -> str:
    (first, port), *others = target.ports.items()
    listed = ", ".join([f"{first} is on port {port}", *(f"{protocol} on {number}" for protocol, number in others)])
    return f"{listed}, on the loopback address only; {target.exposed_by} opens {'them' if others else 'it'} to others."


def _requests(name: str, url: str) -> str:
    curl = f"curl --fail --header 'Content-Type: application/json' --data @smoke/request.json {url}/infer"
    return f"""## Send a request

A few rows, with curl:

{_shell(curl)}

The same rows, with a check that the answers are the proved ones (it needs Python's standard library only, and exits
with 0 if they are, 1 if not):

{_shell(f"python3 smoke/check.py {url}")}

All rows of the certificate, and a diagnosis of wrong answers, where mlpx is installed:

{_shell(f"mlpx verify --url {url} --certificate {name}.parity.json")}"""


def _shell(commands: str) -> str:
    return f"```console\n{commands.strip()}\n```"


def smoke_test(deployment: Deployment, target: Target) -> Files:
    """A request, the proved answers to it, and a script that compares.

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
        {
            "name": port.name,
            "shape": [len(rows), *answers.inputs[port.name].shape[1:]],
            "datatype": DATATYPES[port.dtype],
            "data": flat(answers.inputs[port.name].astype(port.dtype)),
        }
        for port in deployment.summary.inputs
    ]
    finite = {  # JSON cannot hold answers that overflow in a precision; the bound tells those apart
        precision: values
        for precision, values in answers.reduced.items()
        if all(np.isfinite(values[name][rows]).all() for name in outputs)
    }
    expected = {
        "url": target.url(deployment.name),
        "model_sha256": deployment.certificate.sha256,
        "rows": len(rows),
        "outputs": {
            name: {
                "shape": [len(rows), *answers.exact[name].shape[1:]],
                "exact": flat(answers.exact[name]),
                "bound": flat(answers.bound[name]),
                "reduced": {precision: flat(values[name]) for precision, values in finite.items()},
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
