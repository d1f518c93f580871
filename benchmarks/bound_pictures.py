"""The pictures of ``docs/bounds.md``, computed while this runs: ``docs/images/bounds_*.png``.

Run it with ``python -m benchmarks.bound_pictures``, in about two minutes, or with the names of some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.bound_tables import STEPS
from benchmarks.bounds import subject
from benchmarks.pictures import BAD, GOOD, IMAGES, INK, SOFT, STYLE
from export.bounds.bounding import Bounding
from export.bounds.lines import lines
from export.bounds.report import BoundReport
from export.evaluation import evaluate
from export.graph import Node, Rows
from export.proof.rules import ENCLOSURES
from export.proof.rules.spans import Span
from runtime.model.bound import format_up

OTHERS = ("#3b6ea5", "#8a6d00")
"""Colours for what is neither good nor bad."""
SHOWN = {
    "digits": ("digits, 64–128–64–10, over 0 to 16", GOOD, "o"),
    "diabetes": ("diabetes, 10–8–1, over its patients' ranges", OTHERS[0], "s"),
    "grid relu 6 50": ("6 layers of 50, ReLU, over -1 to 1", BAD, "D"),
    "grid elu 3 256": ("3 layers of 256, ELU, over -1 to 1", OTHERS[1], "^"),
}
"""Networks with their names, colours and markers; those of the grid have random weights."""
DEPTHS, WIDTHS = (1, 2, 3, 4, 6, 8), (16, 64, 256)
SHARES = tuple(2.0**-k for k in range(11))
"""Widths of boxes around a row, over the width of a network's own."""


def bounded(name: str, seconds: float, share: float = 1.0) -> BoundReport:
    """The bound of a network of ``benchmarks.bounds`` over its box, or a ``share`` of it around a row."""
    with subject(name) as given:
        box, rng = given.box, np.random.default_rng(0)
        low, high = dict[str, np.ndarray](), dict[str, np.ndarray]()
        for key in box.low:
            row = rng.uniform(box.low[key], box.high[key])
            low[key], high[key] = (row + share * (ends[key] - row) for ends in (box.low, box.high))
        report = Bounding(
            given.structure,
            replace(box, low=low, high=high),
            "network.onnx",
            given.sha256,
            seconds=seconds,
            evaluations=[given.run],
        ).report()
    assert report.why is None, f"{name}: {report.why}"
    return report


def seen(report: BoundReport) -> float:
    """The largest error of any output that the bound's own search has seen."""
    return max(value for output in report.outputs.values() for value in output.seen)


def between_lines(axes: Any) -> None:
    """Functions between their lines: over one interval, and over its halves."""
    cases = {
        "ReLU, one interval": ("relu", [(-2.0, 3.0)]),
        "tanh, one interval": ("tanh", [(-1.0, 3.0)]),
        "tanh, two halves": ("tanh", [(-1.0, 1.0), (1.0, 3.0)]),
    }
    for place, (axis, (title, (op, intervals))) in enumerate(zip(axes, cases.items(), strict=True)):
        for low, high in intervals:
            node = Node(op, "", ("x",), "y", (Rows(), 1))
            x = Span(*(torch.tensor([[end]], dtype=torch.float64) for end in (low, high)))
            y = Span(*ENCLOSURES[op].values(node, [x]))
            found = lines(node, x, y)
            points = np.linspace(low, high, 101)
            upper, lower = (
                float(slope) * points + float(offset)
                for slope, offset in ((found.upper, found.upper_offset), (found.lower, found.lower_offset))
            )
            ends = (float(y.low), float(y.high))
            axis.fill_between(points, *ends, color=SOFT, alpha=0.14, lw=0, label="interval: between two numbers")
            axis.fill_between(points, lower, upper, color=GOOD, alpha=0.25, lw=0, label="between two lines")
            axis.plot(points, upper, color=GOOD, lw=1.2)
            axis.plot(points, lower, color=GOOD, lw=1.2)
            values = evaluate(node, [torch.from_numpy(points)], precision=torch.float64).numpy()
            axis.plot(points, values, color=INK, lw=1.8, label="the function")
            if place == 0:
                axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 1.0))
        axis.set_title(title, size=10)
        axis.set(xlabel="argument")
    axes[0].set(ylabel="result", ylim=(-2.2, 4.9))


def after_steps(axes: Any) -> None:
    """The largest bound of any output after each step, and the largest error that was seen."""
    places = range(len(STEPS))
    for name, (label, colour, marker) in SHOWN.items():
        report = bounded(name, 10.0)
        known = {step.name: step.bound for step in report.steps}
        found = [known.get(step, report.largest) for step in STEPS]
        axes.plot(places, found, marker, ls="-", color=colour, ms=5, label=label)
        axes.plot([len(STEPS) - 0.2], [seen(report)], marker, color=colour, mfc="white", ms=6)
        for place, value in ((0, found[0]), (len(STEPS) - 1, found[-1])):
            axes.annotate(
                format_up(value), (place, value), (0, 7), textcoords="offset points", ha="center", color=colour, size=8
            )
        print(f"steps: {name}: {known}, {report.boxes} parts, {report.largest:.3g}, seen {seen(report):.3g}")
    axes.axvline(len(STEPS) - 0.6, color="#e3e6e9", lw=1)
    axes.set_xticks([*places, len(STEPS) - 0.2], [*STEPS, "seen"])
    axes.set(yscale="log", xlim=(-0.3, len(STEPS) + 0.2), ylabel="largest error of any output")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def by_depth_box_and_parts(axes: Any) -> None:
    """The bound and the largest error by depth and width, and by the size of the box; the bound by the box's parts."""
    deep, narrow, parts = axes
    for width, colour in zip(WIDTHS, (OTHERS[0], GOOD, BAD), strict=True):
        reports = [bounded(f"grid relu {depth} {width}", 0.3) for depth in DEPTHS]
        bounds, errors = [report.largest for report in reports], [seen(report) for report in reports]
        deep.plot(DEPTHS, bounds, "o-", color=colour, ms=4, label=f"width {width}")
        deep.plot(DEPTHS, errors, "o:", color=colour, mfc="white", ms=4)
        print(f"depth: width {width}: {[f'{b:.3g}/{e:.3g}' for b, e in zip(bounds, errors, strict=True)]}", flush=True)
    for dash, label in (("-", "bound"), (":", "largest seen")):
        deep.plot([], [], dash, color=SOFT, label=label)
        narrow.plot([], [], dash, color=SOFT, label=label)
    deep.set(yscale="log", xlabel="hidden layers (ReLU, over -1 to 1)", ylabel="largest error of any output")
    deep.xaxis.set_major_locator(FixedLocator(list(DEPTHS)))
    for name, (label, colour, marker) in SHOWN.items():
        reports = [bounded(name, 0.3, share) for share in SHARES]
        for dash, values in (("-", [one.largest for one in reports]), (":", [seen(one) for one in reports])):
            narrow.plot(SHARES, values, marker, ls=dash, color=colour, mfc=None if dash == "-" else "white", ms=4)
        print(f"box: {name}: {[f'{one.largest:.3g}/{seen(one):.3g}' for one in reports]}", flush=True)
        narrow.plot([], [], marker, ls="-", color=colour, ms=4, label=label)
        found = dict[int, float]()
        for seconds in (0.01, 0.3, 1.0, 3.0, 10.0, 30.0):
            report = bounded(name, seconds)
            found[report.boxes] = min(report.largest, found.get(report.boxes, np.inf))
        whole = next(iter(found.values()))
        shares = [value / whole for value in found.values()]
        parts.plot(list(found), shares, marker, ls="-", color=colour, ms=4)
        print(f"parts: {name}: {found}", flush=True)
    narrow.set(xscale="log", yscale="log", xlabel="width of a box around a row, of the whole")
    narrow.set_xticks([1, 0.1, 0.01, 0.001], ["1", "1/10", "1/100", "1/1000"])
    parts.set(xscale="log", ylim=(0, 1.05), xlabel="parts of the whole box", ylabel="bound, of that of one part")
    parts.xaxis.set_minor_locator(NullLocator())
    for axis in (deep, narrow):
        axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0))


PICTURES: dict[str, tuple[tuple[float, float], Callable[[Any], None], int]] = {
    "bounds_lines": ((8.0, 2.9), between_lines, 3),
    "bounds_steps": ((7.2, 4.0), after_steps, 1),
    "bounds_depth": ((9.6, 4.2), by_depth_box_and_parts, 3),
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PICTURES:
        size, draw, panels = PICTURES[name]
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=size, layout="constrained", facecolor="white")
            draw(figure.subplots(1, panels))
            figure.savefig(IMAGES / f"{name}.png", dpi=140, metadata={"Software": None})


if __name__ == "__main__":
    main()
