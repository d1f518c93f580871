"""Drawings of a bound for every input: each value of an output on a log scale, and the share of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

from export.bounds.report import BoundReport, OutputBound
from runtime import imported
from runtime.model.bound import format_up

from .drawings import GOOD, INK, LINE, cut, draw_figure, short

_MOST_OUTPUTS = 6
_MOST_BARS = 24
_MOST_LETTERS = 52
_ROW = 0.42
"""Inches: a line of text, and the bars below it."""
_COLOURS = {"seen": GOOD, "bound": INK, "width of the interval": LINE}
_TICKS = 5


class Drawing(NamedTuple):
    """An ``svg`` element, its caption, and words on what is not drawn."""

    caption: str
    svg: str
    rest: str


def draw_outputs(bound: BoundReport) -> list[Drawing]:
    """The bound, the largest error seen and the width of the interval of each value, for the first outputs."""
    return [_output(name, output) for name, output in list(bound.outputs.items())[:_MOST_OUTPUTS]]


def _output(name: str, output: OutputBound) -> Drawing:
    drawn = _largest(output.bound)
    texts: list[str] = []
    sizes: list[tuple[float, ...]] = []
    for index in drawn:
        bound, seen, (low, high) = output.bound[index], output.seen[index], output.interval[index]
        texts.append(f"{index}: ± {format_up(bound)}, seen {short(seen)}, in {short(low)} to {short(high)}")
        sizes.append((seen, bound, high - low))
    scale = _log_scale([size for row in sizes for size in row])

    def draw(axes: Any) -> None:
        patches = imported("matplotlib.patches", "the report as a page")
        _rows(axes, texts)
        for bar, (column, colour) in enumerate(zip(zip(*sizes, strict=True), _COLOURS.values(), strict=True)):
            heights = [row + 0.16 + 0.15 * bar for row in range(len(drawn))]
            axes.barh(heights, [scale.place(size) for size in column], 0.13, color=colour)
        handles = [patches.Patch(color=colour, label=label) for label, colour in _COLOURS.items()]
        where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(handles=handles, ncols=3, frameon=False, fontsize=8, handlelength=1, columnspacing=1, **where)
        axes.set_xticks(*zip(*scale.ticks, strict=True), size=8)
        axes.spines["left"].set_visible(False)

    others = sorted(set(range(len(output.bound))) - set(drawn))
    rest = ""
    if others:
        most, seen = (max(values[index] for index in others) for values in (output.bound, output.seen))
        rest = (
            f"The {len(drawn)} values with the largest bounds are drawn. Those of the other {len(others):,} are at "
            f"most {format_up(most)}, and errors of at most {short(seen)} were seen."
        )
    largest = f"the largest bound is {format_up(max(output.bound))}"
    title = f"Bound, largest error seen and width of the interval for each value of {name}; {largest}"
    return Drawing(f"{name}, value by value", draw_figure(draw, _ROW * len(drawn) + 0.55, title), rest)


def draw_layers(bound: BoundReport) -> Drawing | None:
    """The share of each layer in the largest bound, in the file's order; None where none has one."""
    total = sum(layer.error for layer in bound.layers)
    if not 0 < total < float("inf"):
        return None
    inexact = [layer for layer in bound.layers if layer.error > 0]
    drawn = [inexact[index] for index in _largest([layer.error for layer in inexact])]
    shares = [100 * layer.error / total for layer in drawn]
    texts: list[str] = []
    for layer, share in zip(drawn, shares, strict=True):
        figures = f"{share:.1f} %, {short(layer.error)}"
        texts.append(f"{cut(f'{layer.path}, {layer.op}', _MOST_LETTERS - len(figures) - 2)}: {figures}")

    def draw(axes: Any) -> None:
        _rows(axes, texts)
        axes.barh([row + 0.22 for row in range(len(drawn))], shares, 0.22, color=GOOD)
        axes.set(xlim=(0, 100))
        axes.axis("off")

    others = len(inexact) - len(drawn)
    rest = f"The {len(drawn)} largest are drawn; {others:,} others add {100 - sum(shares):.1f} %." if others else ""
    title = "Share of each layer in the largest bound"
    return Drawing("", draw_figure(draw, _ROW * len(drawn) + 0.1, title), rest)


def _largest(values: Sequence[float]) -> list[int]:
    """The places of the largest values, in order."""
    return sorted(sorted(range(len(values)), key=lambda index: -values[index])[:_MOST_BARS])


def _rows(axes: Any, texts: Sequence[str]) -> None:
    """One row for each text, from the top; its bars go below the text."""
    for row, text in enumerate(texts):
        axes.text(0, row - 0.12, text, va="center", size=8, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(len(texts) - 0.4, -0.4))
    axes.set_yticks([])


class _Scale(NamedTuple):
    place: Callable[[float], float]
    """Where a value ends from 0 to 1; 0 for 0, and 1 for infinity."""
    ticks: Sequence[tuple[float, str]]
    """Powers of 10: their places and labels."""


def _log_scale(values: Sequence[float]) -> _Scale:
    """A scale on which the smallest value above 0 still has a bar."""
    sizes = [value for value in values if isfinite(value) and value > 0] or [1.0]
    low = floor(log10(min(sizes)) - 0.5)
    high = max(ceil(log10(max(sizes))), low + 1)

    def place(value: float) -> float:
        if not isfinite(value):
            return 1.0
        return (log10(value) - low) / (high - low) if value > 0 else 0.0

    powers = range(low, high + 1, ceil((high - low) / _TICKS))
    return _Scale(place, [((power - low) / (high - low), f"{float(f'1e{power}'):g}") for power in powers])
