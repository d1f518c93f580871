"""The report on a file on this device."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.live.report import Asked, Finding

LIMITS = (
    "the certificate is believed, and the file not proved anew; other inputs than these rows were not tried, and "
    "operators other than linear layers on these rows only"
)
"""What a pass does not say."""


@dataclass(frozen=True)
class DeviceReport:
    """The verdict on a file, its certificate and this device, and what it rests on."""

    path: str
    certificate: str
    sha256: str
    """Of the certified file."""
    made: str
    """The day of the proof, in UTC."""
    proved_on: str
    """The device of the proof."""
    device: str
    """What ran it: "cpu" or "cuda:N"; "" where nothing was run."""
    runtime: str
    """ONNX Runtime's version."""
    unchanged: bool
    """Whether the file and its external data have the bytes that were proved."""
    findings: tuple[Finding, ...]
    """Why it does not hold; empty if it does."""
    causes: tuple[str, ...]
    """What explains the findings, as far as the figures allow."""
    warnings: tuple[str, ...]
    asked: tuple[Asked, ...]
    rows: int
    """Of the certificate; each was run in every way. 0: none was run."""
    largest: float
    """The largest difference from an exact answer."""
    share: float
    """The largest difference as a part of the bound there; above 1 it does not hold."""
    at_proof: float | None
    """The largest difference that the file had when it was proved."""
    told_apart: tuple[str, ...]
    """The reduced precisions whose answers differ enough from float32's on these rows."""
    linear_layers: int
    """Those that were run alone."""
    products: int
    """The results of exact probes that were compared bit for bit."""
    skipped: int
    """Those that were not, since a correct runtime may flush them to zero."""
    left_out: tuple[str, ...]
    """The products of the file that were not run alone, with the reason."""
    seconds: float

    @property
    def proved(self) -> bool:
        """Whether the file is the proved one, and this device computes it as the certificate says."""
        return not self.findings
