"""Whether a file, with its external data, is the one that its certificate was made of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.files import identity, sha256
from runtime.live.report import Finding
from runtime.model.certificate import Certificate
from runtime.model.onnx_header import read_header
from runtime.model.onnx_messages import external_names, parse_model

PROVE = "prove it again: mlpx verify with --spec or --module, and -o"


def compare(path: Path, known: Certificate) -> tuple[Any, list[Finding], list[str]]:
    """The file as a ModelProto, findings where it or its external data is not what was proved, and their causes.

    The ModelProto is None where the file itself is another. Raises ModelError: it cannot be read.
    """
    if not path.is_file():
        read_header(path)  # raises the error that says why
    name = known.path.name
    try:
        digest = sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if digest != known.sha256:
        hashes = f"its SHA-256 is {digest[:16]}…, the certificate's {known.sha256[:16]}…"
        words = f"{path} is not the file that {name} was made of: {hashes}"
        return None, [Finding("file", words)], [_why(path, known)]
    findings: list[Finding] = []
    causes: list[str] = []
    model = parse_model(path.read_bytes(), path)
    if unknown := external_names(model) - known.data.keys():
        words = f"{path} reads {', '.join(sorted(unknown))}, and {name} does not hold the hash of it"
        findings.append(Finding("file", words))
        causes.append(f"an older mlpx made the certificate; {PROVE}")
    for data, expected in known.data.items():
        digest = ""
        with suppress(OSError, ValueError):
            digest = sha256(path.parent / data)
        if digest != expected:
            state = "is different" if digest else "cannot be read"
            words = f"{path} is not the file that {name} was made of: its external data, {data}, {state}"
            findings.append(Finding("file", words))
            causes.append("beside the file are the weights of another export" if digest else "its weights are missing")
    return model, findings, causes


def identities(path: Path, known: Certificate) -> object:
    """Changes when the file or its external data is replaced."""
    return [identity(path.parent / name) for name in (path.name, *known.data)]


def _why(path: Path, known: Certificate) -> str:
    """Which of the two is stale, by the hash of the module's weights that both hold if mlpx wrote the file."""
    try:
        weights_sha256 = read_header(path).metadata.get("mlpx.weights_sha256")
    except ModelError:
        return "the file is damaged, or no ONNX file"
    if not weights_sha256 or not known.weights_sha256:
        return "the file or the certificate is of another export; the file does not say of which weights it is"
    if weights_sha256 == known.weights_sha256:
        return f"the file says that it has the same weights: it was written anew, and the certificate is stale; {PROVE}"
    return "the file says that it has other weights: one of the two is of an older or a newer export"
