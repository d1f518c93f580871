"""The plot of a tuning: latency against accuracy."""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from runtime.extras import imported
from runtime.session.tuning_file import FileTuning, Tuning

_CHOSEN, _KEPT, _REFUSED, _INK, _LINE = "#0b6e4f", "#2b5c8a", "#b3432b", "#222222", "#999999"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpx",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LINE,
    "text.color": _INK,
}
_MARKERS = "osD^vP*X"
"""One for each file, in their order."""


def can_plot() -> bool:
    """Whether matplotlib is installed, which ``mlpx[report]`` brings."""
    return find_spec("matplotlib") is not None


def write_plot(tuning: Tuning, path: str | Path) -> None:
    """Draw the fastest setting of each file to ``path``, a .png or .svg.

    The y axis is the largest error, on a scale that includes 0, the x axis the median latency of a call. Small points
    are the other settings of a file; files that the gate refused are hollow.
    Raises MissingPackageError without ``mlpx[report]``.
    """
    figure = imported("matplotlib.figure", "the plot of a tuning")
    matplotlib = imported("matplotlib", "the plot of a tuning")
    with matplotlib.rc_context(_STYLE):
        canvas = figure.Figure(figsize=(8.4, 4.2), layout="constrained")
        _draw(canvas.add_subplot(), tuning)
        metadata = {"Date": None, "Creator": None} if Path(path).suffix == ".svg" else {"Software": None}
        canvas.savefig(path, dpi=160, metadata=metadata)


def _draw(axes: Any, tuning: Tuning) -> None:
    shown = [(file, file.best) for file in tuning.files if file.best is not None]
    unit, name = _unit(max(best.latency for _, best in shown))
    errors = [file.error for file, _ in shown if file.error and isfinite(file.error)]
    highest = max([*errors, tuning.max_error or 0.0])
    for index, (file, best) in enumerate(shown):
        error = file.error or 0.0
        y, colour = error if isfinite(error) else 10 * (highest or 1.0), _colour(file, tuning)
        style = {"color": colour, "marker": _MARKERS[index % len(_MARKERS)], "ls": "", "zorder": 3}
        others = [measured for measured in file.measured if measured != best]
        axes.plot(
            [measured.latency / unit for measured in others], [y] * len(others), **style | {"alpha": 0.3, "ms": 4}
        )
        face = colour if file.kept else "none"
        axes.plot(best.latency / unit, y, **style, mfc=face, mew=1.8, ms=9, label=_format_kind(file, tuning))
    if tuning.max_error is not None:
        axes.axhline(tuning.max_error, color=_LINE, lw=1, ls="--", label=f"largest allowed, {tuning.max_error:g}")
    lowest: float = min([*errors, tuning.max_error or highest]) if errors else tuning.max_error or 1.0
    low = 10.0 ** int(f"{lowest:e}".partition("e")[2])  # the power of ten below
    axes.set_yscale("symlog", linthresh=low, linscale=0.5)
    axes.set_ylim(-0.25 * low, 4 * max(highest, low))
    axes.set_xlim(0, 1.05 * max(measured.latency for file, _ in shown for measured in file.measured) / unit)
    calls = "back to back" if tuning.rate is None else f"{tuning.rate:g} calls a second"
    rows = "1 row" if tuning.batch == 1 else f"{tuning.batch:,} rows"
    axes.set(xlabel=f"median latency of a call of {rows}, {name} ({calls})", ylabel="largest difference from float32")
    axes.set_title(tuning.model, loc="left", size=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, labelspacing=0.8)


def _colour(file: FileTuning, tuning: Tuning) -> str:
    return _REFUSED if not file.kept else _CHOSEN if file.kind == tuning.chosen else _KEPT


def _format_kind(file: FileTuning, tuning: Tuning) -> str:
    if not file.kept:
        return f"{file.kind}, refused"
    return f"{file.kind}, chosen" if file.kind == tuning.chosen else file.kind


def _unit(seconds: float) -> tuple[float, str]:
    return (1e-6, "microseconds") if seconds < 1e-3 else (1e-3, "milliseconds")
