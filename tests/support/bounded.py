"""A bound in the certificate of a published file: figures that are only to be shown, which nothing computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export import read_report
from export.bounds.report import BoundReport, LabelRecord, LayerShare, OutputBound, StepRecord

WORDS = "at most 0.00655 for every input with input -0.5 to 16 (largest seen 0.000312)"
"""For the bound that ``give_bound`` writes without changes."""


def give_bound(file: Path, **changes: Any) -> BoundReport:
    """Write a bound of two values, or what is changed of it, into the certificate beside a file."""
    path = file.with_name(f"{file.stem}.parity.json")
    report = read_report(path)
    output = OutputBound(bound=[0.00125, 0.006543], seen=[0.0003123, 1e-5], interval=[(-27.25, 30.5), (0, 1)])
    fields: dict[str, Any] = {
        "file": report.file.name,
        "sha256": report.file.sha256,
        "box": {"input": [(-0.5, 16)]},
        "outputs": {"output": output},
        "steps": [
            StepRecord(name="intervals", words="one for each value", bound=0.0166, seconds=0.0125),
            StepRecord(name="splitting", words="in two", bound=0.006543, seconds=9.25),
        ],
        "layers": [
            LayerShare(path=layer.path, op=layer.op, error=index / 1000) for index, layer in enumerate(report.layers)
        ],
        "boxes": 1357,
        "labels": LabelRecord(margin=0.01309, rows=1797, above=1780),
        "seconds": 9.5,
    }
    bound = BoundReport(**(fields | changes))
    report.model_copy(update={"bound": bound}).write(path)
    return bound
