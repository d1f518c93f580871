"""The report as one page that needs nothing else: ``NAME.parity.html``."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from runtime import imported, write_whole

from .plots import histograms, network
from .report import MEANING, ElementRecord, ParityReport

MOST_WORST = 6


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
        hidden=sum(1 for layer in report.layers if sum(layer.histogram)) - len(drawn),
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
