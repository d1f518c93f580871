"""Queries in VNN-LIB about a file's float32 results, for verifiers that reason in real arithmetic.

If every correct float32 evaluation of a file is within E of the file's network in real arithmetic, for every row of a
box, then a claim about real numbers that leaves a margin of E for each output is a claim about what runtimes compute. A
query (https://www.vnnlib.org) is the negation of such a claim: ``unsat`` means that no row of the box breaks it. Sums
are rounded so that a margin is never smaller than E.

Every reader of version 1.0 takes comparisons of an output with a number, which are the queries about limits and about
the label of a single output. The label of several outputs is a matter of their differences, ``(<= (- Y_3 Y_0) 0.02)``:
a comparison ``(<= Y_3 Y_0)`` has no place for a margin. Readers that know linear terms take it: Marabou 2.0, which
takes no product in a sum instead, and the package ``vnnlib`` 0.0.1. Those that know comparisons alone stop with an
error: alpha-beta-CROWN, nnenum. For them the margins can be put into the last layer: take E off the label's bias, add E
to the others', and ask for ``(<= Y_3 Y_0)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from export.bounds.vnnlib_text import compare, query_text, tensors
from export.errors import ExportError
from runtime.model.bound import format_box
from runtime.model.port import LARGEST, format_number

Limits = tuple[ArrayLike | None, ArrayLike | None]
"""The lowest and highest value allowed: a number, or an array of a row's shape; infinite, or None, for no limit."""
_Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Input:
    """An input of the file: its name, the shape of a row, and the box: the ends of each value, of that shape."""

    name: str
    shape: tuple[int, ...]
    low: ArrayLike
    high: ArrayLike


@dataclass(frozen=True, eq=False)
class Output:
    """An output of the file: its name, the shape of a row, and the error E of each value in the box, of that shape."""

    name: str
    shape: tuple[int, ...]
    errors: ArrayLike


@dataclass(frozen=True, eq=False)
class Network:
    """A file by its name and SHA-256, with its inputs and outputs in the file's order."""

    file: str
    sha256: str
    inputs: Sequence[Input]
    outputs: Sequence[Output]


def label_query(network: Network, label: int, *, threshold: float = 0.0, version: str = "2.0") -> str:
    """The query to which ``unsat`` means: every row in the box has this label, whatever correct runtime is used.

    Args:
        network: A network with one output. A row's label is the place of its largest value; if it has one value, the
            label is 1 above ``threshold``, else 0.
        label: From 0 on, of as many labels as values, or of 2 for a single one.
        threshold: 0 for a logit, 0.5 for a probability.
        version: 2.0 or 1.0.

    Raises:
        ExportError: Several outputs, a label out of range, a box or errors of another size than the input or output,
            a lower end above the upper one, a negative error, a number that is not a finite float32.
    """
    if len(network.outputs) != 1:
        names = ", ".join(f"'{output.name}'" for output in network.outputs)
        message = f"a label is the place of the largest value of one output, and the file has {len(network.outputs)}"
        raise ExportError(f"{message}: {names}. What to do: ask for limits instead (--within)")
    (output,) = network.outputs
    (names,) = (tensor.names for tensor in tensors("Y", [output.shape], version))
    errors, labels = _errors(output), max(len(names), 2)
    if not 0 <= label < labels:
        message = f"'{output.name}' has the labels 0 to {labels - 1}, and label {label} was asked for"
        raise ExportError(f"{message}. What to do: give one of them")
    if len(names) > 1:
        margins = _sum(errors, errors[label], inf)
        others = [k for k in range(labels) if k != label]
        breaking = [compare("<=", f"(- {names[label]} {names[k]})", margins[k]) for k in others]
        claim = f"label {label} (the place of the largest value, from 0 on)"
    else:
        end = _numbers(threshold, 1, "the threshold")
        (last,) = _sum(end, errors, inf) if label else _sum(end, -errors, -inf)
        breaking = [compare("<=" if label else ">=", names[0], last)]
        claim = f"label {label} (the output is {'above' if label else 'at most'} {_shown(end[0])})"
    return _query(network, f"every row in the box has {claim}", breaking, version)


def range_query(network: Network, within: Sequence[Limits], *, version: str = "2.0") -> str:
    """The query to which ``unsat`` means: in the whole box the outputs of every correct runtime stay within limits.

    Args:
        network: The network.
        within: For each output its lowest and highest value.
        version: 2.0 or 1.0.

    Raises:
        ExportError: As ``label_query``; also no limit at all, limits for another number of outputs, and limits so close
            together that the errors leave nothing between them.
    """
    if len(within) != len(network.outputs):
        message = (
            f"expected a pair of limits for every output of the file, {len(network.outputs)}, received {len(within)}"
        )
        raise ExportError(f"{message}. What to do: give a pair for each output, (None, None) for no limits")
    breaking: list[str] = []
    claims: list[str] = []
    places = tensors("Y", [output.shape for output in network.outputs], version)
    for output, limits, tensor in zip(network.outputs, within, places, strict=True):
        errors, (low, high) = _errors(output), _limits(output, limits)
        lowest, highest = _sum(low, errors, inf), _sum(high, -errors, -inf)
        if (lowest >= highest).any():
            k = int((lowest >= highest).argmax())
            message = f"'{output.name}', value {k + 1}: errors of up to {_shown(errors[k])} leave nothing between the "
            message += f"limits {_span(low[k], high[k])}"
            raise ExportError(f"{message}. What to do: give limits further apart, or a smaller box")
        for name, first, last in zip(tensor.names, lowest, highest, strict=True):
            breaking += [compare("<=", name, first)] if first > -inf else []
            breaking += [compare(">=", name, last)] if last < inf else []
        claims.append(f"{output.name!a} is within {_each(map(_span, low, high))}")
    if not breaking:
        raise ExportError("a query about limits has none. What to do: give a lowest or a highest value (--within)")
    return _query(network, f"in every row of the box {'; '.join(claims)}", breaking, version)


def around(row: ArrayLike, eps: float, low: ArrayLike, high: ArrayLike) -> tuple[_Values, _Values]:
    """The box of the values at most ``eps`` from a row, inside another box.

    Args:
        row: The row, of any shape.
        eps: At least 0.
        low: The lower ends of the box around it, of the row's shape.
        high: Its upper ends.

    Returns:
        The ends, float64 of the row's shape: the exact ones, or the next numbers outside of these.

    Raises:
        ExportError: A number that is not a finite float32, ends of another size, a negative ``eps``, and a row outside
            the box, for which no bound holds.
    """
    shape = np.shape(row)
    values = _numbers(row, prod(shape), "the row")
    lowest = _numbers(low, prod(shape), "the lower ends of the box")
    highest = _numbers(high, prod(shape), "the upper ends of the box")
    (distance,) = _numbers(eps, 1, "the distance from the row")
    if distance < 0:
        message = f"expected a distance from the row of at least 0, received {_shown(distance)}"
        raise ExportError(f"{message}. What to do: give a positive number (--eps)")
    outside = (values < lowest) | (values > highest)
    if outside.any():
        k = int(outside.argmax())
        message = f"value {k + 1} of the row is {_shown(values[k])}, and the bound holds for "
        message += _span(lowest[k], highest[k])
        raise ExportError(f"{message}. What to do: take a row in the box, or a larger box (--range)")
    first = np.maximum(lowest, _sum(values, np.full_like(values, -distance), -inf))
    last = np.minimum(highest, _sum(values, np.full_like(values, distance), inf))
    return first.reshape(shape), last.reshape(shape)


def _query(network: Network, claim: str, breaking: Sequence[str], version: str) -> str:
    """The text of the query for a row in the box that satisfies one of the comparisons ``breaking``."""
    inputs = tensors("X", [port.shape for port in network.inputs], version)
    outputs = tensors("Y", [port.shape for port in network.outputs], version)
    box: list[str] = []
    ranges: dict[str, list[tuple[float, float]]] = {}
    for port, tensor in zip(network.inputs, inputs, strict=True):
        low, high = _box(port)
        pairs = list(zip(low.tolist(), high.tolist(), strict=True))
        ranges[ascii(port.name)] = pairs[:1] if len(set(pairs)) == 1 else pairs
        for name, (first, last) in zip(tensor.names, pairs, strict=True):
            box += [compare(">=", name, first), compare("<=", name, last)]
    comments = [
        f"VNN-LIB {version}: a question about float32 results, to a verifier that reasons in real arithmetic.",
        f"File: {network.file!a}",
        f"SHA-256: {network.sha256}",
        f"Claim: whatever correct float32 runtime runs the file, {claim}.",
        "unsat: the claim holds.",
        "sat: the claim is not shown. On the row found a correct runtime may break it, but need not.",
        "On every row in the box, what a correct float32 runtime gives is within E of the network in real arithmetic.",
        "The query asks for a row where the network comes within E of breaking the claim. Its margins are for exact",
        "values: a margin that was observed in float32 must be twice as large.",
        f"Box: {format_box(ranges)}",
        *(f"{tensor.span}: input {port.name!a}" for port, tensor in zip(network.inputs, inputs, strict=True)),
        *(f"{tensor.span}: output {port.name!a}" for port, tensor in zip(network.outputs, outputs, strict=True)),
        *(f"E of {port.name!a}: {_each(map(_shown, _errors(port)))}" for port in network.outputs),
    ]
    return query_text(comments, inputs, outputs, box, breaking, version)


def _sum(a: _Values, b: _Values, towards: float) -> _Values:
    """The sum in float64, and the next number ``towards`` inf or -inf where the exact sum lies further there."""
    total = a + b
    with np.errstate(invalid="ignore"):  # an infinite limit
        part = total - a
        missing = (a - (total - part)) + (b - part)  # what rounding took off, exactly: Knuth's TwoSum
    short = missing > 0 if towards > 0 else missing < 0
    return np.where(short, np.nextafter(total, towards), total)


def _box(port: Input) -> tuple[_Values, _Values]:
    """The ends of an input's values, float64 (values,)."""
    low = _numbers(port.low, prod(port.shape), f"the lower ends of '{port.name}'")
    high = _numbers(port.high, prod(port.shape), f"the upper ends of '{port.name}'")
    if (low > high).any():
        k = int((low > high).argmax())
        message = f"'{port.name}', value {k + 1}: the lower end {_shown(low[k])} is above the upper, {_shown(high[k])}"
        raise ExportError(f"{message}. What to do: give the lower end first")
    return low, high


def _errors(port: Output) -> _Values:
    """The errors of an output's values, float64 (values,)."""
    errors = _numbers(port.errors, prod(port.shape), f"the errors of '{port.name}'")
    if (errors < 0).any():
        k = int((errors < 0).argmax())
        message = f"'{port.name}', value {k + 1}: expected an error of at least 0, received {_shown(errors[k])}"
        raise ExportError(f"{message}. What to do: give the bound that holds in the box")
    return errors


def _limits(port: Output, limits: Limits) -> tuple[_Values, _Values]:
    """The limits of an output's values, float64 (values,), infinite where there are none."""
    ends: list[_Values] = []
    for limit, none in zip(limits, (-inf, inf), strict=True):
        values = np.asarray(none if limit is None else limit, np.float64)
        values = np.broadcast_to(values, port.shape) if values.ndim == 0 else values
        given = _numbers(np.where(values == none, 0.0, values), prod(port.shape), f"the limits of '{port.name}'")
        ends.append(np.where(values.reshape(-1) == none, none, given))
    return ends[0], ends[1]


def _numbers(values: ArrayLike, size: int, what: str) -> _Values:
    """``values`` as float64 (size,), in C order, all of them finite in float32."""
    numbers = np.asarray(values, np.float64).reshape(-1)
    if len(numbers) != size:
        message = f"expected as many numbers for {what} as there are values, {size:,}, received {len(numbers):,}"
        raise ExportError(f"{message}. What to do: give one for each value of a row")
    wrong = ~(np.abs(numbers) <= LARGEST)
    if wrong.any():
        k = int(wrong.argmax())
        message = f"expected finite float32 numbers for {what}, received {_shown(numbers[k])} as number {k + 1}"
        raise ExportError(f"{message}. What to do: give finite ones; a bound is infinite on too large a box")
    return numbers


def _shown(number: float) -> str:
    return format_number(float(number))


def _span(low: float, high: float) -> str:
    return f"{_shown(low)} to {_shown(high)}"


def _each(texts: Iterable[str]) -> str:
    """All texts, or the one that all are."""
    listed = list(texts)
    return listed[0] if len(set(listed)) == 1 else ", ".join(listed)
