"""The README of a package: what it is, and the commands that start it, ask it and verify it."""

from __future__ import annotations

from runtime import Port

from .target import Deployment, Target


def readme(deployment: Deployment, target: Target, notes: tuple[str, ...]) -> str:
    """Markdown, for the person who unpacks the folder on the server's machine."""
    sections = [
        _head(deployment, target),
        *([_listed(["Of this package:", *notes])] if notes else []),
        f"## Start\n\nIn this folder:\n\n{_shell(target.start(deployment))}",
        *target.remarks(deployment),
        *([_queries(deployment, target)] if target.speaks_v2 else []),
        _proof(deployment),
    ]
    return "\n\n".join(sections) + "\n"


def _head(deployment: Deployment, target: Target) -> str:
    summary, certificate = deployment.summary, deployment.certificate
    backend = f", backend {deployment.backend}" if deployment.backend else ""
    batch = f"exactly {deployment.fixed_batch} rows a request" if deployment.fixed_batch else "any number of rows"
    ports = "\n".join(
        f"| {kind} | `{port.name}` | {_shape(port)} | {port.dtype} |"
        for kind, given in (("input", summary.inputs), ("output", summary.outputs))
        for port in given
    )
    return f"""# {deployment.name}, for {target.name} {deployment.release}

{target.words[0].upper()}{target.words[1:]}{backend}. The model takes {batch}.

| | name | shape | type |
| --- | --- | --- | --- |
{ports}

It is opset {summary.opset}, IR {summary.ir_version}, SHA-256 `{certificate.sha256}`, proved on {certificate.device}
on {certificate.made} by mlpx {certificate.mlpx_version}: `{deployment.name}.parity.json` is the certificate."""


def _queries(deployment: Deployment, target: Target) -> str:
    url = target.url.format(name=deployment.name)
    asked = f"curl --fail --header 'Content-Type: application/json' --data @smoke/request.json {url}/infer"
    verify = f"mlpx verify --url {url} --certificate {deployment.name}.parity.json"
    return f"""## Ask

A few rows, with curl:

{_shell(asked)}

The same rows, and whether the answers are the proved ones (Python's standard library is enough; exit code 0 if they
are, 1 if not):

{_shell(f"python3 smoke/check.py {url}")}

All rows of the certificate, and what a wrong answer comes from, where mlpx is installed:

{_shell(verify)}"""


def _proof(deployment: Deployment) -> str:
    return f"""## What is proved

`{deployment.name}.parity.json` says of which file, on which device and with which versions it was proved that the file
computes what its network computes. It holds rows, their exact outputs, and how far from these a correct float32
evaluation can be. Keep it with the model."""


def _shape(port: Port) -> str:
    return f"[{', '.join(map(str, port.shape))}]"


def _shell(commands: str) -> str:
    return f"```console\n{commands.strip()}\n```"


def _listed(lines: list[str]) -> str:
    first, *rest = lines
    return "\n".join([first, "", *(f"- {line}" for line in rest)])
