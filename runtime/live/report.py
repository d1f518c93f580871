"""The report on a live server."""

from __future__ import annotations

from dataclasses import dataclass

from .sight import Sight


@dataclass(frozen=True)
class Finding:
    """A reason why the server is not proved.

    Examples:
        >>> from torch import nn
        >>> from mlpx import export
        >>> from runtime import check_device
        >>> other = export(nn.Linear(2, 2), "changed.onnx").path
        >>> finding = check_device(other, "comfort.parity.json", device="cpu").findings[0]
        >>> finding.kind
        'file'
    """

    kind: str
    """"model", "interface", "no answer", "form", "not a number", "bound", "precision", "version" or "file"."""
    words: str


@dataclass(frozen=True)
class Asked:
    """The requests of one kind, and how far their answers were from the exact ones.

    Examples:
        Continues the example of ``runtime.check_live``:

        >>> asked = report.asked[0]
        >>> asked.how, asked.tensors, asked.rows
        ('all at once', 'JSON', 31)
    """

    how: str
    """"all at once", "one by one", "in batches", "at the same time", "repeatedly" or both of these."""
    tensors: str
    """"JSON" or "bytes"."""
    requests: int
    rows: int
    """Of all its requests together."""
    largest: float
    """The largest difference from an exact answer; 0.0 where no answer could be compared."""


@dataclass(frozen=True)
class ComparedAnswers:
    """What came of comparing answers with the proved ones: the part that a server and a device have in common."""

    certificate: str
    """Its path."""
    sha256: str
    """Of the proved file."""
    findings: tuple[Finding, ...]
    """Why it is not proved; empty if it is."""
    causes: tuple[str, ...]
    """What explains the findings, the likeliest first, as far as the figures allow."""
    warnings: tuple[str, ...]
    asked: tuple[Asked, ...]
    rows: int
    """Of the certificate; each was asked in every way. 0: none was."""
    largest: float
    """The largest difference from an exact answer."""
    share: float
    """The largest difference as a part of the bound there; above 1 it is not proved."""
    at_proof: float | None
    """The largest difference that the file had when it was proved."""
    told_apart: tuple[str, ...]
    """The reduced precisions whose answers differ enough from float32's on these rows."""
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether it is the proved file, and every answer that of a correct float32 evaluation of it."""
        return not self.findings


@dataclass(frozen=True)
class LiveReport(ComparedAnswers):
    """The verdict on a server, and what it rests on.

    Examples:
        Continues the example of ``runtime.check_live``:

        >>> report.model, report.findings, report.told_apart[0]
        ('comfort', (), 'TF32')
    """

    url: str
    protocol: str
    """"REST" or "gRPC"."""
    server: str
    """Its name and version, by its metadata."""
    model: str
    version: str
    """The one that answered; "" if the server does not say."""
    versions: tuple[str, ...]
    """All that the metadata names."""
    file: str
    sight: Sight | None
    """What a pass shows; None if it is not proved."""
