"""The picture of ``benchmarks.speed``: every contender's time over plain ONNX Runtime's, by model, at batch 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.cases import Case
from benchmarks.peers import COMPILED, EAGER, NUMPY, SKLEARN
from benchmarks.pictures import BAD, GOOD, INK, SOFT, STYLE
from runtime.timing.contenders import INTO, OPENVINO, PLAIN, PREDICT, TRACT
from runtime.timing.timer import paired

LOOKS: dict[str, tuple[str, str, bool]] = {
    INTO: ("D", GOOD, False),
    PREDICT: ("D", GOOD, True),
    NUMPY: ("o", SOFT, False),
    OPENVINO: ("s", "#3b6ea5", True),
    TRACT: ("s", "#3b6ea5", False),
    EAGER: ("^", BAD, True),
    COMPILED: ("^", BAD, False),
    SKLEARN: ("v", "#8a6d00", True),
}
"""A marker, its colour, and whether it is filled."""


def written(cases: dict[Any, Case], path: Path) -> None:
    """Draw the cases of batch 1 that have plain ONNX Runtime in them, fewest microseconds on top."""
    shown = [case for key, case in cases.items() if key != "paced" and case.batch == 1 and PLAIN in case.timings]
    shown.sort(key=lambda case: -case.timings[PLAIN].median)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.6 + 0.42 * len(shown)), layout="constrained", facecolor="white")
        axes: Any = figure.subplots()
        axes.axvline(1, color=INK, lw=1)
        for place, case in enumerate(shown):
            axes.axhline(place, color="#e3e6e9", lw=0.8, zorder=0)
            for name, (marker, colour, filled) in LOOKS.items():
                if name not in case.timings:
                    continue
                ratio = paired(case.timings[name], case.timings[PLAIN])
                axes.plot([ratio.low, ratio.high], [place, place], color=colour, lw=1.5, solid_capstyle="butt")
                face = colour if filled else "white"
                axes.plot(ratio.median, place, marker, color=colour, mfc=face, ms=6, ls="none")
        for name, (marker, colour, filled) in LOOKS.items():
            axes.plot([], [], marker, color=colour, mfc=colour if filled else "white", ms=6, ls="none", label=name)
        labels = [f"{case.model}\n{1e6 * case.timings[PLAIN].median:,.0f} µs" for case in shown]
        axes.set_yticks(range(len(shown)), labels)
        axes.set(xscale="log", xlabel=f"time over {PLAIN} (its own beside the model), one row; left is faster")
        ticks = [0.25, 0.5, 1, 2, 4, 8, 16, 32]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{tick:g}" for tick in ticks])
        axes.tick_params(axis="y", length=0)
        axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=4)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, metadata={"Software": None})
