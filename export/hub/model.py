"""The one proved file of a folder, with what it says of itself and its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.errors import TargetError
from export.inspection import inspect
from export.proved_file import proved_certificate
from runtime import Certificate, Summary, require_signature, through_link

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
    certificate = proved_certificate(path, "push", "pushed")
    if trusted_keys:
        require_signature(certificate, trusted_keys)
    return ProvedModel(path, inspect(path).summary, certificate)
