"""The tables of the benchmark of bounds, in Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.networks import MODELS

DEPTHS, WIDTHS = (0, 1, 2, 4, 8, 1000), (0, 33, 129, 513, 1_000_000)
"""Where the classes of depth and width begin."""
FLOAT32 = ("ONNX Runtime", "PyTorch", "shuffled", "report")
"""Evaluations that a machine makes; "report" is what the bound's own search has seen."""
STEPS = ("intervals", "enclosures", "sensitivities", "at once", "splitting")


def tables(records: Sequence[dict[str, Any]]) -> str:
    """All of them: the generated networks, why some have no bound, the grid, the models."""
    alone = {"grid": "The grid", "models": "The models"}
    groups: dict[str, list[dict[str, Any]]] = {"networks": [], "narrow": [], "grid": [], "models": []}
    for record in records:
        name = record["network"]
        kind, _, rest = name.partition(" ")
        if kind == "narrow":
            record = {**record, "network": rest}
        groups["models" if name in MODELS else kind if kind in groups else "networks"].append(record)
    parts = [by_size(groups["networks"]), reasons(groups["networks"])] if groups["networks"] else []
    if groups["narrow"]:
        parts += [f"Over narrow boxes\n\n{by_size(groups['narrow'])}", reasons(groups["narrow"])]
    parts += [f"{title}\n\n{each(groups[key])}" for key, title in alone.items() if groups[key]]
    wrong = [one for record in records for one in record.get("violations", [])]
    return "\n\n".join([*parts, f"{len(wrong)} errors above their bounds"])


def seen(record: dict[str, Any]) -> float:
    """The largest error of any float32 evaluation."""
    return max(record["seen"][key] for key in FLOAT32)


def by_size(records: Sequence[dict[str, Any]]) -> str:
    """By classes of depth and width."""
    kinds = Counter(record["network"].split()[0] for record in records)
    lines = [", ".join(f"{count} {kind} networks" for kind, count in kinds.items()), ""]
    heads = ["matrices", "widest", "networks", "bounded"]
    heads += ["bound/seen, median", "largest", "bound/adverse, median", "largest", "largest error/bound", "above"]
    lines.append(f"| {' | '.join(heads)} |")
    lines.append(f"| --- | --- |{' ---: |' * (len(heads) - 2)}")
    for low, high in pairwise(DEPTHS):
        for narrow, wide in pairwise(WIDTHS):
            chosen = [r for r in records if low <= r["depth"] < high and narrow <= r["width"] < wide]
            if chosen:
                lines.append(f"| {_span(low, high)} | {_span(narrow, wide)} | {' | '.join(_cells(chosen))} |")
    for kind in kinds:
        cells = _cells([record for record in records if record["network"].startswith(kind)])
        lines.append(f"| all {kind} | | {' | '.join(cells)} |")
    lines.append(f"| all | | {' | '.join(_cells(records))} |")
    return "\n".join(lines)


def _span(low: int, high: int) -> str:
    if high - 1 == low:
        return str(low)
    return f"from {low}" if high in (DEPTHS[-1], WIDTHS[-1]) else f"{low} to {high - 1}"


def _cells(records: Sequence[dict[str, Any]]) -> list[str]:
    bounded = [record for record in records if record["why"] is None]
    above = sum(bool(record["violations"]) for record in bounded)
    to_seen = [record["bound"] / seen(record) for record in bounded if seen(record) > 0]
    to_adverse = [record["bound"] / record["seen"]["adverse"] for record in bounded if record["seen"]["adverse"] > 0]
    shares = [max(record["share"].values()) for record in bounded]
    found = [str(len(records)), str(len(bounded))]
    for ratios in (to_seen, to_adverse):
        found += [f"{median(ratios):.3g}", f"{max(ratios):.3g}"] if ratios else ["", ""]
    return [*found, f"{max(shares):.5g}" if shares else "", str(above)]


def reasons(records: Sequence[dict[str, Any]]) -> str:
    """Networks without a bound, by the reason without its names and numbers."""
    found = Counter(_short(record["why"]) for record in records if record["why"] is not None)
    lines = ["| no bound, since | networks |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {why} | {count} |" for why, count in found.most_common())])


def _short(why: str) -> str:
    return re.sub(r"^'[^']*': |,? for (numbers|every number) in .*$", "", why)


def each(records: Sequence[dict[str, Any]]) -> str:
    """One network a line, with the bound after each step."""
    heads = ["network", *STEPS, "parts", "bound", "seen", "adverse", "bound/seen", "bound/adverse", "seconds"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for record in records:
        name = record["network"].removeprefix("grid ")
        if record["why"] is not None:
            lines.append(f"| {name} |{' |' * (len(heads) - 2)} {record['why']} |")
            continue
        steps = [f"{record['steps'][step]:.3g}" if step in record["steps"] else "" for step in STEPS]
        bound, adverse = record["bound"], record["seen"]["adverse"]
        ratios = [f"{bound / value:.3g}" if value > 0 else "" for value in (seen(record), adverse)]
        cells = [str(record["boxes"]), f"{bound:.3g}", f"{seen(record):.3g}", f"{adverse:.3g}", *ratios]
        lines.append(f"| {name} | {' | '.join([*steps, *cells])} | {record['seconds']:.2f} |")
    return "\n".join(lines)
