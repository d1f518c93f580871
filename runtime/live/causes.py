"""What explains wrong answers, as far as the figures allow.

The checks are tried in this order, and the first that explains an output's answers is reported:

    not numbers      NaN or infinity
    one answer       the same answer for every row
    another output   the answers of an output under the name of another
    rows mixed       answers that belong to other rows
    columns moved    the values of each row in another order
    transposed       the values of all rows column by column
    function         softmax, log-softmax, sigmoid, tanh or relu applied, or left out
    scale            one factor and one offset for each column: a transformation of the outputs applied or left out
    rounded          to a few decimals
    precision        TF32, bfloat16 or float16
    similar          close to the correct answers: quantised, another precision, or a network trained alike
    unrelated        another file

Each is a pure function of the evidence that returns a text or None. None of them can prove what a server does: they
describe what its answers, or those saved in a file, are like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .judge import Evidence, Judgement, rms

_UNEXPLAINED = 0.02
"""The part of the difference that a cause may leave unexplained."""
_MIN_STEPS = 8
"""Any answer would pass as rounded to decimals of fewer float32 steps."""
_UNREACHED = "the input does not reach the model"
_PRECISION_HINTS = {
    "TF32": "switch it off where the server runs (CUDA provider: use_tf32=0; or NVIDIA_TF32_OVERRIDE=0)",
    "bfloat16": "the server or its backend converts the file, or was given another one",
    "float16": "the server or its backend (TensorRT, OpenVINO) converts the file, or was given another one",
}


@np.errstate(all="ignore")  # a server may send anything
def causes_of(judgement: Judgement) -> list[str]:
    """What explains the findings: first whether it depends on the batches, then a cause for each output."""
    causes = _batching(judgement.bad, judgement.good)
    for output in dict.fromkeys(evidence.output for evidence in judgement.bad):
        explanations = (
            text
            for evidence in judgement.bad
            if evidence.output == output
            for check in CAUSES
            if (text := check(evidence)) is not None
        )
        causes.append(next(explanations, "the figures do not show the cause"))
    return list(dict.fromkeys(causes))


def _batching(bad: Sequence[Evidence], good: Sequence[Evidence]) -> list[str]:
    wrong = {evidence.method.how for evidence in bad}
    right = {evidence.method.how for evidence in good} - wrong
    if not wrong or not right:
        return []
    return [f"it depends on how the rows are sent: right {', '.join(sorted(right))}; wrong {', '.join(sorted(wrong))}"]


def _not_numbers(evidence: Evidence) -> str | None:
    if np.isfinite(evidence.values).all():
        return None
    also = "" if evidence.saved else ", or a server that sends null"
    return f"values that are not numbers: an overflow, as in float16 or a wrong input scale{also}"


def _one_answer(evidence: Evidence) -> str | None:
    values, exact, bound = evidence.values, evidence.exact, evidence.bound
    if len(set(evidence.rows.tolist())) < 2 or not (values == values[0]).all():
        return None
    if not (np.abs(exact - exact[0]) > bound + bound[0]).any():
        return None
    row = _certified_row(evidence, values[0])
    if row is not None:
        return f"every row has the answer of row {row}"
    zeros = "" if values.any() else ", all zeros"
    reason = "one answer was saved for all rows, or for the same inputs" if evidence.saved else _UNREACHED
    return f"every row has the same answer{zeros}: {reason}"


def _certified_row(evidence: Evidence, values: np.ndarray) -> int | None:
    """The row of the certificate whose answer these values are, the first of several."""
    exact, bound = (table[evidence.output] for table in (evidence.answers.exact, evidence.answers.bound))
    rows = (np.abs(values - exact.reshape(len(exact), -1)) <= bound.reshape(len(bound), -1)).all(axis=1)
    return int(rows.argmax()) if rows.any() else None


def _another_output(evidence: Evidence) -> str | None:
    for name in evidence.answers.exact:
        exact, bound = (evidence.expected(table, name) for table in (evidence.answers.exact, evidence.answers.bound))
        if name == evidence.output or exact.shape != evidence.values.shape:
            continue
        if (np.abs(evidence.values - exact) <= bound).all():
            return f"'{evidence.output}' holds what belongs to '{name}': the outputs are exchanged"
    return None


def _rows_mixed(evidence: Evidence) -> str | None:
    sources: dict[int, int] = {}
    for index in np.flatnonzero(evidence.beyond.any(axis=1)):
        source = _certified_row(evidence, evidence.values[index])
        if source is None:
            return None
        sources[int(evidence.rows[index])] = source
    if not sources:
        return None
    examples = ", ".join(f"row {row} has the answer of row {source}" for row, source in list(sources.items())[:3])
    return f"rows are mixed up: {examples}" + (f", and {len(sources) - 3} more" if len(sources) > 3 else "")


def _columns_moved(evidence: Evidence) -> str | None:
    order: list[int] = []
    for column in evidence.values.T:
        matches = (np.abs(column[:, None] - evidence.exact) <= evidence.bound).all(axis=0)
        if not matches.any():
            return None
        order.append(int(matches.argmax()))
    if len(set(order)) < len(order) or order == sorted(order):
        return None
    columns = ", ".join(map(str, order[:12])) + (", …" if len(order) > 12 else "")
    return f"the values of '{evidence.output}' are in another order: those of {columns}"


def _transposed(evidence: Evidence) -> str | None:
    shape = evidence.values.shape
    transposed = evidence.values.ravel().reshape(shape[::-1]).T
    if min(shape) < 2 or not (np.abs(transposed - evidence.exact) <= evidence.bound).all():
        return None
    return "the values come column by column, and are declared row by row"


def _softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(_log_softmax(x))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": _softmax,
    "log-softmax": _log_softmax,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": _relu,
}
"""None of them increases the distance of two values, but log-softmax, which may double it."""


def _function(evidence: Evidence) -> str | None:
    allowed = 2 * evidence.bound.max(axis=1, keepdims=True) + 1e-5
    for name, function in _FUNCTIONS.items():
        applied = evidence.values - function(evidence.exact)
        left_out = function(evidence.values) - evidence.exact
        for change, rest in (("applied to", applied), ("left out of", left_out)):
            if (np.abs(rest) <= allowed).all() and rms(rest) <= _UNEXPLAINED * rms(evidence.error):
                return f"{name} is {change} '{evidence.output}'"
    return None


def _scale(evidence: Evidence) -> str | None:
    """One factor and one offset for each column, fitted by least squares."""
    exact, values = evidence.exact, evidence.values
    if len(set(evidence.rows.tolist())) < 6:
        return None
    centred = exact - exact.mean(axis=0)
    squares = np.square(centred).sum(axis=0)
    if not (squares > 0).all():
        return None
    factor = (centred * values).sum(axis=0) / squares
    offset = values.mean(axis=0) - factor * exact.mean(axis=0)
    rest, deviation = rms(values - factor * exact - offset), rms(values - values.mean(axis=0))
    if rest > _UNEXPLAINED * min(deviation, rms(evidence.error)) or not factor.all():
        return None
    factors, offsets = (
        ", ".join(f"{number:.4g}" for number in numbers[:4]) + (", …" if len(numbers) > 4 else "")
        for numbers in (factor, offset)
    )
    reason = "a transformation of the outputs that is applied or left out, or another last layer"
    return f"the answers are the right ones times ({factors}) plus ({offsets}): {reason}"


def _rounded(evidence: Evidence) -> str | None:
    values = evidence.values
    for decimals in range(7):
        step = 10.0**-decimals
        if step < _MIN_STEPS * np.spacing(np.float32(np.abs(values).max(initial=0))):
            return None
        is_rounded = np.abs(values - np.round(values, decimals)) <= 2.0**-23 * np.abs(values)
        if is_rounded.all() and (np.abs(evidence.error) <= evidence.bound + 0.5001 * step).all():
            who = "the saved answers are rounded" if evidence.saved else "the server rounds its answers"
            return f"{who} to {decimals} decimals"
    return None


def _precision(evidence: Evidence) -> str | None:
    name = evidence.explained_by()
    return None if name is None else f"{name}: {_PRECISION_HINTS[name.partition(',')[0]]}"


def _similar(evidence: Evidence) -> str | None:
    correlation = _correlation(evidence)
    if correlation is None or correlation < 0.9:
        return None
    answers, error = evidence.answers, rms(evidence.error)
    reduced = {name: rms(evidence.expected(answers.reduced[name]) - evidence.exact) for name in answers.reduced}
    as_far = dict.fromkeys(name.partition(",")[0] for name, size in reduced.items() if size / 4 < error < size * 4)
    likeness = f"the answers are similar to the right ones (correlation {correlation:.6f}, {error:.2g} off"
    if as_far:
        precisions = " or ".join(as_far)
        return f"{likeness}, about as far as {precisions} would be): weights or values in fewer bits, float16 or int8"
    return f"{likeness}): a quantised file (int8), or a network trained alike; the figures do not show which"


def _unrelated(evidence: Evidence) -> str | None:
    correlation = _correlation(evidence)
    if correlation is None:
        return None
    cause = "another file, or another preprocessing of the inputs"
    return f"{cause}: the shapes are right, and the answers are not (correlation {correlation:.2f})"


def _correlation(evidence: Evidence) -> float | None:
    """Between the answers and the exact ones, each column centred; None where these vary within their bounds only."""
    values = evidence.values - evidence.values.mean(axis=0)
    exact = evidence.exact - evidence.exact.mean(axis=0)
    scale = rms(values) * rms(exact)
    varies = rms(exact) > rms(evidence.bound) and scale > 0 and np.isfinite(scale)
    return float((values * exact).mean()) / scale if varies else None


CAUSES: tuple[Callable[[Evidence], str | None], ...] = (
    _not_numbers,
    _one_answer,
    _another_output,
    _rows_mixed,
    _columns_moved,
    _transposed,
    _function,
    _scale,
    _rounded,
    _precision,
    _similar,
    _unrelated,
)
"""In the order of this file's docstring."""
