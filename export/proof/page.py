"""The report as one page that needs nothing else: ``NAME.parity.html``."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from runtime import imported, write_whole

from .plots import histograms, network
from .report import MEANING, ElementRecord, ParityReport

MOST_WORST = 6
EXPLAINED = {
    "interface": "A program that calls the model goes by these words.",
    "structure": "Each operator of the file was matched with a block of the module, in order.",
    "constants": "Compared without running anything. Folded weights were folded again from the module.",
    "exact probes": "Each linear layer alone, on inputs whose result takes one rounding only: a runtime that used "
    "other weights, or rounded products to TF32, would show in single bits.",
    "whole range": "Every other layer alone, on numbers from the smallest to the largest that float32 has.",
    "module": "The module was called as you call it: one that is random, or does other things than its trace, shows.",
    "layer bounds": "Each layer, on the input that it really received, was computed again in float64 from the module. "
    "Rounding allows a certain error, which the bound is; 1 is the limit, and 0.9 is no worse than 0.1.",
    "shipped file": "To look inside, layers' values were made outputs. This says that looking changed nothing.",
    "batches": "Rows must not depend on the rows beside them.",
    "end to end": "A figure, not part of the proof. The first-order bound adds up what rounding in each layer can do.",
}
"""What each check is for."""


def can_write_page() -> bool:
    """Whether the packages of ``mlpx[report]`` are installed."""
    return all(find_spec(name) is not None for name in ("matplotlib", "jinja2"))


def write_page(report: ParityReport, path: str | Path) -> None:
    """Write the report as a self-contained HTML page, whole. Raises MissingPackageError without ``mlpx[report]``."""
    jinja2 = imported("jinja2", "the report as a page")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    drawn = histograms(report)
    text = template.render(
        report=report,
        rows=sum(given.rows for given in report.inputs),
        network=network(report),
        histograms=drawn,
        hidden=sum(1 for layer in report.layers if layer.ratio > 0) - len(drawn),
        exact=sum(1 for layer in report.layers if layer.ratio == 0),
        explained=EXPLAINED,
        worst=worst(report),
        meaning=MEANING,
        number=lambda value: f"{value:.9g}",
        short=lambda value: f"{value:.3g}" if isfinite(value) else str(value),
    )
    write_whole(Path(path), text.encode())


def worst(report: ParityReport) -> list[ElementRecord]:
    """The elements that came nearest their bound, one of each layer, the nearest first."""
    found = [layer.worst for layer in report.layers if layer.worst is not None and layer.ratio > 0]
    return sorted(found, key=lambda element: -element.ratio)[:MOST_WORST]
