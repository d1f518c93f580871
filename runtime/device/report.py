"""The report on a file on this device."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.live.report import ComparedAnswers

LIMITS = (
    "the certificate is believed, and the file not proved anew; other inputs than these rows were not tried, and "
    "operators other than linear layers on these rows only"
)
"""What a pass does not say."""


@dataclass(frozen=True)
class DeviceReport(ComparedAnswers):
    """The verdict on a file, its certificate and this device, and what it rests on.

    Examples:
        >>> from runtime import check_device
        >>> report = check_device("comfort.onnx", "comfort.parity.json", device="cpu")
        >>> report.unchanged, report.linear_layers, report.findings
        (True, 2, ())
    """

    path: str
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
    linear_layers: int
    """Those that were run alone."""
    products: int
    """The results of exact probes that were compared bit for bit."""
    skipped: int
    """Those that were not, since a correct runtime may flush them to zero."""
    left_out: tuple[str, ...]
    """The products of the file that were not run alone, with the reason."""
