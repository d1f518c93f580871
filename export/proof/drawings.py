"""Drawings of a report: the network, histograms of errors, and what all of them share.

They are SVG with the page's colours, so that they fit light and dark.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from math import isfinite
from typing import Any

from runtime import imported

from .report import LayerRecord, ParityReport

_WIDTH = 3.4
"""Inches at 96 pixels: full size on a phone of 360 pixels."""
_COLOURS = {"#010101": "var(--ink)", "#020202": "var(--line)", "#030303": "var(--good)", "#040404": "var(--bad)"}
_COLOURS["#050505"] = "var(--panel)"
INK, LINE, GOOD, BAD, PANEL = _COLOURS
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpx",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": LINE,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
}


def draw_network(report: ParityReport) -> str:
    """The layers as blocks from input to output, each with the largest error / bound."""
    if not report.layers:
        return ""
    patches = imported("matplotlib.patches", "the report as a page")
    lanes: dict[str, int] = {}
    heights = {"input": 0.0} | {layer.path: index + 1.0 for index, layer in enumerate(report.layers)}
    for index, layer in enumerate(report.layers):  # an earlier value is drawn around the side
        for source in layer.inputs:
            if heights.get(source, index) != index:
                lanes.setdefault(source, len(lanes))

    def draw(axes: Any) -> None:
        rounded = "round,pad=0,rounding_size=0.03"
        arrow = {"arrowstyle": "->", "color": LINE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
        for layer in report.layers:
            y, bad = heights[layer.path], not layer.ratio <= 1
            box = {"boxstyle": rounded, "facecolor": PANEL, "edgecolor": BAD if bad else LINE, "lw": 1.2}
            axes.add_patch(patches.FancyBboxPatch((0.02, y - 0.36), 0.96, 0.72, **box))
            filled = 0.96 * min(1.0, layer.ratio if isfinite(layer.ratio) else 1.0)
            bar = {"facecolor": BAD if bad else GOOD, "edgecolor": "none"}
            axes.add_patch(patches.Rectangle((0.02, y + 0.27), filled, 0.09, **bar))
            axes.text(0.05, y - 0.13, cut(layer.path, 34), va="center", weight="bold", parse_math=False)
            widths = f"{_shape(layer.input_shape)} to {_shape(layer.output_shape)}"
            share = "exact" if layer.ratio == 0 else f"error / bound {layer.ratio:.2g}"
            share = share if isfinite(layer.ratio) else "NaN or infinite"
            label = f"{cut(layer.op, 26)}, {widths}, {share}"
            axes.text(0.05, y + 0.12, cut(label, 52), va="center", size=8, parse_math=False)
            for source in dict.fromkeys(layer.inputs):
                start = heights.get(source, y - 1)
                if start == y - 1:
                    axes.annotate("", (0.5, y - 0.36), (0.5, start + 0.36), arrowprops=arrow)
                else:
                    side = 1.01 + 0.03 * (lanes[source] % 5 + 1)
                    axes.plot([0.98, side, side], [start + 0.1, start + 0.1, y - 0.1], color=LINE, lw=1.0)
                    axes.annotate("", (0.98, y - 0.1), (side, y - 0.1), arrowprops=arrow)
        shapes = dict.fromkeys(_shape(layer.input_shape) for layer in report.layers if "input" in layer.inputs)
        axes.text(0.5, 0.12, f"input, rows of {' and '.join(shapes)}", ha="center", va="center")
        right = 1.02 + 0.03 * (min(len(lanes), 5) + 1) * bool(lanes)
        axes.set(xlim=(0, right), ylim=(len(report.layers) + 0.6, -0.15))
        axes.axis("off")

    return draw_figure(draw, 0.55 * (len(report.layers) + 0.75), "The network, layer by layer")


def draw_histogram(layer: LayerRecord, bins: Sequence[float]) -> str:
    """The distances of a layer's values from the exact ones, in ulp."""
    total = sum(layer.histogram)
    last = max(index for index, count in enumerate(layer.histogram) if count)
    names = ["0", *(f"≤{edge:g}" for edge in bins[1:]), f">{bins[-1]:g}"]
    keep = max(last + 1, 4)

    def draw(axes: Any) -> None:
        shares = [100 * count / total for count in layer.histogram[:keep]]
        axes.bar(range(keep), shares, color=GOOD, width=0.8)
        step = 1 if keep < 7 else 2 if keep < 10 else 3
        axes.set_xticks(range(0, keep, step), names[:keep:step], size=8)
        axes.set(xlabel="error in ulp of the exact value", ylabel="% of values")

    return draw_figure(draw, 1.9, f"Histogram of the errors of layer {layer.path}")


def draw_figure(draw: Callable[[Any], None], height: float, title: str) -> str:
    """A drawing as an ``svg`` element with the page's colours and font, and a name for screen readers."""
    figure = imported("matplotlib.figure", "the report as a page")
    matplotlib = imported("matplotlib", "the report as a page")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: the browser has its own
        canvas = figure.Figure(figsize=(_WIDTH, height), layout="constrained")
        canvas.patch.set_alpha(0)
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        text = StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    for drawn, variable in _COLOURS.items():
        svg = svg.replace(drawn, variable)
    svg = re.sub(r"font-family: [^;\"]*|(?<=font: )([^'\"]*?)'[^\"]*?(?=[;\"])", lambda m: m.group(1) or "", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def short(value: float) -> str:
    """To three digits."""
    return f"{value:.3g}" if isfinite(value) else str(value)


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def cut(text: str, most: int) -> str:
    """A text without its middle if it is long: the ends tell layers apart."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
