"""What a model in MLflow holds: the proved file, and what belongs to it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from export.errors import ProofError
from export.proved_file import proved_certificate
from runtime import (
    Certificate,
    ModelError,
    Summary,
    sha256,
    signature_path,
    through_link,
)

if TYPE_CHECKING:
    from export import Artifact, ParityReport

FLAVOR_NAME = "mlpx"
"""The name of the flavour in an MLmodel file."""
PURPOSE = "mlpx.mlflow"


@dataclass(frozen=True)
class Contents:
    """A proved file with its certificate, and where everything that goes along is, by its place in the model."""

    certificate: Certificate
    summary: Summary
    files: dict[str, Path]
    names: dict[str, str]
    """The places of the ONNX file, of its certificate and, where there is one, of the report's page."""

    def flavor(self) -> dict[str, Any]:
        """What the flavour's entry of the MLmodel file says."""
        digests = {"sha256": self.certificate.sha256, "certificate_sha256": self.certificate.digest}
        categories = {
            name: list(vocabulary.words)
            for port in self.summary.inputs
            for name, vocabulary in zip(port.features or (), port.categories or (), strict=False)
            if vocabulary is not None
        }
        words = {"categories": categories} if categories else {}
        return {**self.names, **digests, "mlpx_version": self.certificate.mlpx_version, **words}

    def copy_to(self, folder: Path) -> None:
        """Copy the files into the folder of a model. Raises ProofError: one was replaced since it was looked at."""
        for place, source in self.files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / place)
        digests = self.certificate.digest, sha256(folder / self.names["certificate"])
        if digests[0] != digests[1] or not self.certificate.is_of(folder / self.names["file"]):
            message = f"{self.files[self.names['file']]}, or what belongs to it, was replaced while it was logged"
            raise ProofError(f"{message}; nothing was kept of it. What to do: log it again")


def proved_contents(model: str | Path | Artifact, report: str | Path | ParityReport | None, folder: Path) -> Contents:
    """The contents for a file and its report; ``folder``, a temporary one, takes a report that is not a file yet.

    Raises ProofError: there is no certificate, it is of another file, or its verdict is not "proved"; ModelError: not
    an ONNX file, or one whose external data lie elsewhere; InputError: a damaged certificate.
    """
    path = through_link(model if isinstance(model, str | Path) else model.path)
    source = _certificate_file(report, path, folder)
    certificate = proved_certificate(path, "log", "logged", source, ", or give its report")
    from export.inspection import inspect

    return Contents(certificate, inspect(path).summary, *_files(path, certificate))


def _certificate_file(report: str | Path | ParityReport | None, path: Path, folder: Path) -> str | Path | None:
    """Where the certificate is; None for the one beside the file."""
    if report is None or isinstance(report, str | Path):
        return report
    from export.proof import can_write_page, write_page

    written = folder / f"{path.stem}.parity.json"
    report.write(written)
    if can_write_page():
        write_page(report, written.with_suffix(".html"))
    return written


def _files(path: Path, certificate: Certificate) -> tuple[dict[str, Path], dict[str, str]]:
    """Where the files are, and their names by what they are. External data keep the place that the file names."""
    report = Path(certificate.file).with_suffix(".parity.json")
    files = {certificate.file: path, report.name: certificate.path}
    names = {"file": certificate.file, "certificate": report.name}
    for place in certificate.data:
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            hint = "write the file again with its external data beside it"
            raise ModelError(f"{path}: its data file {place!r} would lie outside of the model. What to do: {hint}")
        files[place] = path.parent / place
    if (signature := signature_path(certificate.path)).is_file():
        files[signature_path(report).name] = signature
    if (page := certificate.path.with_suffix(".html")).is_file():
        names["page"] = report.with_suffix(".html").name
        files[names["page"]] = page
    return files, names
