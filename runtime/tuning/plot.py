"""The picture of a tuning: latency against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from runtime.extras import imported

from .record import FileTuning, Tuning

_CHOSEN, _KEPT, _OUT, _INK, _LINE = "#0b6e4f", "#2b5c8a", "#b3432b", "#222222", "#999999"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpx",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LINE,
    "text.color": _INK,
}


_PLACES = [((0, 14), "center"), ((9, -1), "left"), ((0, -14), "center"), ((-9, -1), "right")]
_PLACES += [((-12, up), "right") for up in (26, -26, 42, -42)] + [((12, up), "left") for up in (26, -26, 42, -42)]
"""Of a text from its point, in points, and where its anchor is."""


def can_plot() -> bool:
    """Whether the package of ``mlpx[report]`` that draws is installed."""
    return find_spec("matplotlib") is not None


def write_plot(tuning: Tuning, path: str | Path) -> None:
    """Draw the fastest setting of each file to ``path``, a .png or .svg.

    Up: the largest error, on a scale that holds 0; to the right: the median latency of a call, from the fastest on.
    Raises MissingPackageError without ``mlpx[report]``.
    """
    figure = imported("matplotlib.figure", "the plot of a tuning")
    matplotlib = imported("matplotlib", "the plot of a tuning")
    with matplotlib.rc_context(_STYLE):
        canvas = figure.Figure(figsize=(7.2, 4.2), layout="constrained")
        _draw(canvas.add_subplot(), tuning)
        metadata = {"Date": None, "Creator": None} if Path(path).suffix == ".svg" else {"Software": None}
        canvas.savefig(path, dpi=160, metadata=metadata)


def _draw(axes: Any, tuning: Tuning) -> None:
    shown = [file for file in tuning.files if file.best is not None]
    unit, name = _unit(max(file.best.latency for file in shown if file.best is not None))
    errors = [file.error for file in shown if file.error and isfinite(file.error)]
    smallest = min(errors, default=1.0)
    labels: list[tuple[float, float, str, str]] = []
    for file in shown:
        assert file.best is not None
        error = file.error or 0.0
        y = error if isfinite(error) else 10 * max(errors, default=1.0)
        x, colour = file.best.latency / unit, _colour(file, tuning)
        for other in file.measured if file.kept else ():
            axes.plot(other.latency / unit, y, ".", color=colour, alpha=0.3, ms=6)
        axes.plot(x, y, "o" if file.kept else "x", color=colour, ms=8, mew=2)
        labels.append((x, y, _words(file, tuning), colour))
    fixed = []
    if tuning.max_error is not None:
        axes.axhline(tuning.max_error, color=_LINE, lw=1, ls="--")
        words = f"largest error allowed, {tuning.max_error:g}"
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        fixed.append(axes.annotate(words, (0, tuning.max_error), (4, 3), size=8, color=_LINE, **place))
    low = 10.0 ** _floor(min(smallest, tuning.max_error or smallest))
    axes.set_yscale("symlog", linthresh=low, linscale=0.5)
    top = max([*errors, tuning.max_error or 0.0, low])
    axes.set_ylim(-0.25 * low, 4 * top if errors or tuning.max_error else 10 * low)
    right = max(each.latency for file in shown for each in (file.measured if file.kept else (file.best,)) if each)
    axes.set_xlim(0, 1.15 * right / unit)
    calls = "back to back" if tuning.rate is None else f"{tuning.rate:g} calls a second"
    rows = "1 row" if tuning.batch == 1 else f"{tuning.batch:,} rows"
    axes.set(xlabel=f"median latency of a call of {rows}, {name} ({calls})", ylabel="largest difference from float32")
    axes.set_title(tuning.model, loc="left", size=11)
    _label(axes, labels, fixed)


def _label(axes: Any, labels: Sequence[tuple[float, float, str, str]], fixed: Sequence[Any]) -> None:
    """Each text beside its point where no other text or point is: above, below, left, right, then further off."""
    figure = axes.figure
    figure.draw_without_rendering()
    points = [axes.transData.transform((x, y)) for x, y, _, _ in labels]
    taken: list[Any] = [text.get_window_extent() for text in fixed]
    for x, y, words, colour in sorted(labels, reverse=True):
        text = None
        for (right, up), align in _PLACES:
            if text is not None:
                text.remove()
            arrow = {"arrowstyle": "-", "color": _LINE, "lw": 0.6} if abs(up) > 20 else None
            text = axes.annotate(
                words,
                (x, y),
                (right, up),
                textcoords="offset points",
                ha=align,
                va="center",
                color=colour,
                arrowprops=arrow,
            )
            box = text.get_window_extent().padded(2)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and axes.bbox.y0 <= box.y0
            if inside and not any(box.overlaps(other) for other in taken) and not any(box.contains(*p) for p in points):
                break
        if text is not None:
            taken.append(text.get_window_extent().padded(2))


def _colour(file: FileTuning, tuning: Tuning) -> str:
    return _OUT if not file.kept else _CHOSEN if file.kind == tuning.chosen else _KEPT


def _words(file: FileTuning, tuning: Tuning) -> str:
    if not file.kept:
        return f"{file.kind}, refused"
    return f"{file.kind}, chosen" if file.kind == tuning.chosen else file.kind


def _unit(seconds: float) -> tuple[float, str]:
    return (1e-6, "microseconds") if seconds < 1e-3 else (1e-3, "milliseconds")


def _floor(value: float) -> int:
    """The power of ten below a number."""
    return int(f"{value:e}".partition("e")[2])
