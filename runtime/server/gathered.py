"""The statistics of every worker, as plain records, added up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .loaded_model import Served
from .statistics import Histogram

Record = dict[str, Any]
HISTOGRAMS = ("requests", "queued", "runs")


def record(served: Served) -> Record:
    """What was counted of a version of a model, in values that JSON holds."""
    held = served.statistics
    histograms = {name: {"counts": h.counts, "sum": h.sum} for name in HISTOGRAMS for h in [getattr(held, name)]}
    return {
        "name": served.name,
        "version": served.version,
        "refused": held.refused,
        "rows": held.rows,
        "batches": {str(rows): both for rows, both in held.batches.items()},
        "last": held.last,
        "waiting": held.waiting,
        **histograms,
    }


def added(records: Iterable[Record]) -> list[Record]:
    """One record for each version of a model: counts added, the latest time."""
    found: dict[tuple[str, str], Record] = {}
    for one in records:
        key = one["name"], one["version"]
        found[key] = one if key not in found else _both(found[key], one)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], int(key[1])))]


def _both(a: Record, b: Record) -> Record:
    whole = dict(a)
    for name in HISTOGRAMS:
        counts = [x + y for x, y in zip(a[name]["counts"], b[name]["counts"], strict=True)]
        whole[name] = {"counts": counts, "sum": a[name]["sum"] + b[name]["sum"]}
    for name in ("rows", "waiting"):
        whole[name] = a[name] + b[name]
    whole["last"] = max(a["last"], b["last"])
    whole["refused"] = {
        code: a["refused"].get(code, 0) + b["refused"].get(code, 0) for code in {**a["refused"], **b["refused"]}
    }
    none = (0, 0.0)
    whole["batches"] = {
        rows: [x + y for x, y in zip(a["batches"].get(rows, none), b["batches"].get(rows, none), strict=True)]
        for rows in {**a["batches"], **b["batches"]}
    }
    return whole


def histogram(held: Record) -> Histogram:
    """Of a record."""
    return Histogram(list(held["counts"]), held["sum"])
