"""The one proved file of a folder, with what it says of itself and its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import ProofError, TargetError
from export.inspection import inspect
from runtime import Certificate, Summary, read_certificate, read_header, require_signature, through_link

CERTIFICATE, PAGE, SIGNATURE = ".parity.json", ".parity.html", ".parity.intoto.jsonl"
"""What is beside NAME.onnx is called NAME and this."""


@dataclass(frozen=True)
class ProvedModel:
    """A proved ONNX file."""

    path: Path
    summary: Summary
    certificate: Certificate

    def beside(self, suffix: str) -> Path:
        """The file of the same name with another ending."""
        return self.path.with_name(f"{self.path.stem}{suffix}")


def find_model(path: Path) -> Path:
    """An ONNX file, or the only one of a folder. Raises TargetError: there is none, or more than one."""
    if not path.is_dir():
        return through_link(path)
    found = sorted(path.glob("*.onnx"))
    if len(found) == 1:
        return through_link(found[0])
    if not found:
        hint = "name the folder that mlpx build, export or recover wrote"
        raise TargetError(f"{path} holds no ONNX file. What to do: {hint}")
    names = ", ".join(file.name for file in found[:5])
    hint = "name the file instead of its folder; a repository holds one"
    raise TargetError(f"{path} holds {len(found)} ONNX files: {names}. What to do: {hint}")


def read_model(path: Path, trusted_keys: Sequence[str | Path] | None = None) -> ProvedModel:
    """The file, its summary and its certificate, once the hashes agree.

    Raises ProofError: there is no certificate, it is of another file, or its verdict is not "proved"; SignatureError:
    it is not signed with one of the keys; InputError, ModelError: one of them cannot be read.
    """
    read_header(path)  # says what is wrong with the file itself
    source = path.with_name(f"{path.stem}{CERTIFICATE}")
    prove = f"prove it: mlpx verify {path.name} --spec SPEC -o FOLDER"
    if not source.is_file():
        message = f"{path} has no certificate beside it ({source.name}), and only proved files are pushed"
        raise ProofError(f"{message}. What to do: {prove}")
    certificate = read_certificate(source)
    if not certificate.is_of(path):
        message = f"{path} is not the file that {source.name} was made of: it, or its external data, has changed"
        raise ProofError(f"{message}. What to do: push the file that the certificate is of, or {prove}")
    if not certificate.proved:
        message = f"{source.name} gives {path.name} the verdict '{certificate.verdict}': {certificate.why}"
        raise ProofError(f"{message}. What to do: push a file that is proved")
    if trusted_keys:
        require_signature(certificate, trusted_keys)
    return ProvedModel(path, inspect(path).summary, certificate)
