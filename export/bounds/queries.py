"""A query in VNN-LIB for a file and its bound: the label of a row, or limits of the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import ExportError
from runtime import InputError, Port, Session, read_inputs
from runtime.data.scoring import input_ports, score
from runtime.model.port import LARGEST, limits
from runtime.model.port import threshold as threshold_of

from .report import BoundReport
from .vnnlib import Input, Limits, Network, Output, around, label_query, range_query

Pairs = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Around:
    """The box around one row, for each input a pair for each feature, and the label that the file gives the row.

    ``label`` counts from 0; None if the file's one output is no score of labels. A single value means the second label
    above ``threshold``.
    """

    ranges: Pairs
    label: int | None
    threshold: float


def refuse_whole_numbers(path: str | Path) -> None:
    """Raise InputError for a file with inputs of whole numbers: a query is about real ones."""
    with Session(path, "cpu") as session:
        ports = input_ports(session)
    whole = next((port for port in ports if port.dtype == "int64" or port.indices is not None), None)
    if whole is not None:
        hint = "What to do: leave out --vnnlib; mlpx bound itself takes whole numbers"
        raise InputError(f"a query is about real numbers, and '{whole.name}' takes whole numbers. {hint}")


def around_row(
    path: str | Path,
    data: str | Path,
    row: int,
    eps: float,
    *,
    within: tuple[float, float] | None = None,
    dtype: str | None = None,
) -> Around:
    """The values at most ``eps`` from a row of a data file, within the declared ranges (or ``within``).

    ``row`` counts from 1. Raises InputError: no such row; ExportError: a row outside the ranges, or a negative ``eps``.
    """
    with Session(path, "cpu") as session:
        ports = input_ports(session)
        arrays, _ = read_inputs(data, ports, dtype=dtype)
        count = len(next(iter(arrays.values())))
        if not 1 <= row <= count:
            raise InputError(f"{data}: has the rows 1 to {count:,}, and row {row} was asked for")
        one = {name: array[row - 1 : row] for name, array in arrays.items()}
        (scores, *others) = score(session, one if len(one) > 1 else next(iter(one.values())))
    label = None
    if scores.labels is not None and not others and scores.labels[0] is not None:
        label = list(scores.port.labels or ()).index(scores.labels[0])
    ranges: Pairs = {}
    for port in ports:
        values = one[port.name][0].astype(np.float64)
        low, high = _ends(port, values, within)
        first, last = around(values, eps, low, high)
        ranges[port.name] = list(zip(first.reshape(-1).tolist(), last.reshape(-1).tolist(), strict=True))
    return Around(ranges, label, threshold_of(scores.port))


def _ends(port: Port, row: np.ndarray, within: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """The box that the row is taken in: float32's numbers where nothing is declared."""
    declared = limits(port)
    both = declared if within is None and declared is not None else within or (-LARGEST, LARGEST)
    # As a box has them: a row of 0.1, in float32, is above 0.1 in float64.
    ends = (np.asarray(end, np.float32).astype(np.float64) for end in both)
    low, high = (np.broadcast_to(end, row.size).reshape(row.shape) for end in ends)
    return np.where(np.isnan(low), -LARGEST, low), np.where(np.isnan(high), LARGEST, high)


def query(
    report: BoundReport,
    *,
    label: int | None = None,
    threshold: float = 0.0,
    within: Limits | None = None,
    version: str = "2.0",
) -> str:
    """The query that asks whether float32 results in the report's box keep the ``label``, or stay ``within`` limits.

    It is answered with ``unsat`` if they do. See ``label_query`` and ``range_query``.
    Raises ExportError: no bound, or neither a label nor limits.
    """
    if report.why is not None:
        raise ExportError(f"no query without a bound: {report.why}. What to do: give a smaller box (--range, --eps)")
    inputs = [Input(name, tuple(report.shapes[name]), *_box(report, name)) for name in report.box]
    outputs = [
        Output(name, tuple(report.shapes[name]), np.array(output.bound).reshape(report.shapes[name]))
        for name, output in report.outputs.items()
    ]
    network = Network(report.file, report.sha256, inputs, outputs)
    if within is not None:
        return range_query(network, [within] * len(outputs), version=version)
    if label is None:
        message = "a query needs a label to keep or limits to stay within"
        hint = "give --around FILE:ROW of a classifier (over a whole box some label always changes), or --within"
        raise ExportError(f"{message}. What to do: {hint}")
    return label_query(network, label, threshold=threshold, version=version)


def _box(report: BoundReport, name: str) -> tuple[np.ndarray, np.ndarray]:
    shape = report.shapes[name]
    pairs = np.array(report.box[name], np.float32).astype(np.float64)  # what the shortest decimals stand for
    both = np.broadcast_to(pairs, (int(np.prod(shape)), 2))
    return both[:, 0].reshape(shape), both[:, 1].reshape(shape)
