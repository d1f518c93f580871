"""The report as one self-contained page, ``NAME.parity.html``."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from export.bounds.report import MEANING as BOUND_MEANING
from runtime import imported, write_whole
from runtime.model.bound import format_box, format_up

from .bound_drawings import draw_layers, draw_outputs
from .checks import CHECKS
from .drawings import draw_histogram, draw_network, short
from .report import MEANING, ParityReport

_MOST_WORST = 6
_MOST_HISTOGRAMS = 12


def can_write_page() -> bool:
    """Whether the packages of ``mlpx[report]`` are installed."""
    return all(find_spec(name) is not None for name in ("matplotlib", "jinja2"))


def write_page(report: ParityReport, path: str | Path) -> None:
    """Write the report as a self-contained HTML page. Raises MissingPackageError without ``mlpx[report]``."""
    jinja2 = imported("jinja2", "the report as a page")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    inexact = sorted((layer for layer in report.layers if layer.ratio > 0), key=lambda layer: -layer.ratio)
    drawn = [layer for layer in inexact if sum(layer.histogram)][:_MOST_HISTOGRAMS]
    bound = report.bound
    values = [] if bound is None else list(bound.outputs.values())
    text = template.render(
        report=report,
        rows=sum(inputs.rows for inputs in report.inputs),
        network=draw_network(report),
        histograms=[(f"{layer.path}, {layer.op}", draw_histogram(layer, report.bins)) for layer in drawn],
        hidden=len(inexact) - len(drawn),
        exact=sum(1 for layer in report.layers if layer.ratio == 0),
        purposes={check.name: check.purpose for check in CHECKS},
        worst=[layer.worst for layer in inexact if layer.worst is not None][:_MOST_WORST],
        bound_outputs=draw_outputs(bound) if bound else [],
        bound_layers=draw_layers(bound) if bound else None,
        bound_ratio=bound.ratio if bound and bound.ratio is not None and isfinite(bound.ratio) else None,
        bound_seen=max((size for output in values for size in output.seen), default=0.0),
        bound_folding=max((size for output in values for size in output.folding or ()), default=None),
        bound_meaning=BOUND_MEANING,
        meaning=MEANING,
        number="{:.9g}".format,
        short=short,
        up=format_up,
        box=format_box,
    )
    write_whole(Path(path), text.encode())
