"""What explains wrong answers, as far as the figures allow.

Looked for in this order, and the first that explains an output's answers is said:

    not numbers      NaN or infinity
    one answer       the same answer for every row
    another output   the answers of an output under the name of another
    rows mixed       answers that belong to other rows
    columns moved    the values of each row in another order
    laid out         the values of all rows column by column
    a function       softmax, log-softmax, sigmoid, tanh or relu applied, or left out
    a scale          every value times and plus the same: a transformation of the outputs applied or left out
    rounded          to a few decimals
    a precision      TF32, bfloat16 or float16
    alike            close to the right answers: quantised, another precision, or a network trained alike
    unrelated        another file

Each is a pure function of the evidence that gives words or None. None of them can prove what a server does: they say
what its answers are like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .judge import Evidence, Judgement, rms

_EXPLAINED = 0.02
"""The part of the difference that may be left where a cause is to explain it."""


@np.errstate(all="ignore")  # a server may send anything
def causes_of(judgement: Judgement) -> list[str]:
    """Words for what explains the findings: how batches matter first, then a cause for each output."""
    found = [words for words in (_batching(judgement.bad, judgement.good),) if words is not None]
    for output in dict.fromkeys(one.output for one in judgement.bad):
        ones = [one for one in judgement.bad if one.output == output]
        causes = [words for one in ones for _, tell in CAUSES if (words := tell(one)) is not None][:1]
        found += causes or ["these figures do not tell the cause"]
    return list(dict.fromkeys(found))


def _batching(bad: Sequence[Evidence], good: Sequence[Evidence]) -> str | None:
    wrong, right = {one.how for one in bad}, {one.how for one in good} - {one.how for one in bad}
    if not wrong or not right:
        return None
    return f"it depends on how the rows come: right {', '.join(sorted(right))}; wrong {', '.join(sorted(wrong))}"


def _not_numbers(one: Evidence) -> str | None:
    if np.isfinite(one.got).all():
        return None
    return "values that are not numbers: an overflow, as in float16 or a wrong input scale, or a server that sends null"


def _one_answer(one: Evidence) -> str | None:
    if len(set(one.rows.tolist())) < 2 or not (one.got == one.got[0]).all():
        return None
    if not (np.abs(one.exact - one.exact[0]) > one.bound + one.bound[0]).any():
        return None
    row = next((r for r in range(len(one.answers.exact[one.output])) if _fits(one, one.got[0], r)), None)
    if row is not None:
        return f"every row has the answer of row {row}"
    return "every row has the same answer" + (", zeros" if not one.got.any() else "") + ": the input does not arrive"


def _fits(one: Evidence, row: np.ndarray, which: int) -> bool:
    exact, bound = one.answers.exact[one.output][which].ravel(), one.answers.bound[one.output][which].ravel()
    return bool((np.abs(row - exact) <= bound).all())


def _another_output(one: Evidence) -> str | None:
    for name in one.answers.exact:
        exact = one.expected(one.answers.exact, name)
        if name == one.output or exact.shape != one.got.shape:
            continue
        if (np.abs(one.got - exact) <= one.expected(one.answers.bound, name)).all():
            return f"'{one.output}' holds what belongs to '{name}': the outputs are exchanged"
    return None


def _rows_mixed(one: Evidence) -> str | None:
    moved: dict[int, int] = {}
    for index in np.flatnonzero(one.beyond.any(axis=1)):
        other = next((r for r in range(len(one.answers.exact[one.output])) if _fits(one, one.got[index], r)), None)
        if other is None:
            return None
        moved[int(one.rows[index])] = other
    if not moved:
        return None
    some = ", ".join(f"row {row} has the answer of row {other}" for row, other in list(moved.items())[:3])
    return f"rows are mixed up: {some}" + (f", and {len(moved) - 3} more" if len(moved) > 3 else "")


def _columns_moved(one: Evidence) -> str | None:
    places, exact, bound = [], one.exact, one.bound
    for column in one.got.T:
        fits = (np.abs(column[:, None] - exact) <= bound).all(axis=0)
        if not fits.any():
            return None
        places.append(np.flatnonzero(fits))
    order = [int(fits[0]) for fits in places]
    if len(set(order)) < len(order) or order == sorted(order):
        return None
    shown = ", ".join(map(str, order[:12])) + (", …" if len(order) > 12 else "")
    return f"the values of '{one.output}' are in another order: those of {shown}"


def _laid_out(one: Evidence) -> str | None:
    turned = one.got.ravel().reshape(one.got.shape[::-1]).T
    if min(one.got.shape) < 2 or not (np.abs(turned - one.exact) <= one.bound).all():
        return None
    return "the values are laid out column by column, and declared row by row"


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": _softmax,
    "log-softmax": lambda x: (
        x - x.max(axis=1, keepdims=True) - np.log(np.exp(x - x.max(axis=1, keepdims=True)).sum(1))[:, None]
    ),
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
}
"""None of them moves two values further apart than they were, but log-softmax, which may double it."""


def _function(one: Evidence) -> str | None:
    exact, allowed = one.exact, 2 * one.bound.max(axis=1, keepdims=True) + 1e-5
    for name, function in _FUNCTIONS.items():
        for words, apart in (("applied to", one.got - function(exact)), ("left out of", function(one.got) - exact)):
            if (np.abs(apart) <= allowed).all() and rms(apart) <= _EXPLAINED * rms(one.got - exact):
                return f"{name} is {words} '{one.output}'"
    return None


def _scale(one: Evidence) -> str | None:
    """One factor and one offset for each column, fitted by least squares."""
    exact, got = one.exact, one.got
    if len(set(one.rows.tolist())) < 6:
        return None
    centred = exact - exact.mean(axis=0)
    spread = np.square(centred).sum(axis=0)
    if not (spread > 0).all():
        return None
    factor = (centred * got).sum(axis=0) / spread
    offset = got.mean(axis=0) - factor * exact.mean(axis=0)
    left, varies = rms(got - factor * exact - offset), rms(got - got.mean(axis=0))
    if left > _EXPLAINED * min(varies, rms(got - exact)) or not factor.all():
        return None

    def shown(values: np.ndarray) -> str:
        return ", ".join(f"{value:.4g}" for value in values[:4]) + (", …" if len(values) > 4 else "")

    words = "a transformation of the outputs that is applied or left out, or another last layer"
    return f"the answers are the right ones times ({shown(factor)}) plus ({shown(offset)}): {words}"


def _rounded(one: Evidence) -> str | None:
    for decimals in range(7):
        step = 10.0**-decimals
        if step < USEFUL * np.spacing(np.float32(np.abs(one.got).max(initial=0))):
            return None
        whole = np.abs(one.got - np.round(one.got, decimals)) <= 2.0**-23 * np.abs(one.got)
        if whole.all() and (np.abs(one.got - one.exact) <= one.bound + 0.5001 * step).all():
            return f"the server rounds its answers to {decimals} decimals"
    return None


USEFUL = 8
"""Decimals below so many steps of float32 would be met by any answer."""


def _precision(one: Evidence) -> str | None:
    name = one.explained_by()
    return None if name is None else f"{name}: {_HINTS[name.partition(',')[0]]}"


_HINTS = {
    "TF32": "switch it off where the server runs (CUDA provider: use_tf32=0; or NVIDIA_TF32_OVERRIDE=0)",
    "bfloat16": "the server or its backend converts the file, or was given another one",
    "float16": "the server or its backend (TensorRT, OpenVINO) converts the file, or was given another one",
}


def _alike(one: Evidence) -> str | None:
    likeness = _correlation(one)
    if likeness is None or likeness < 0.9:
        return None
    own = rms(one.got - one.exact)
    sizes = {name: rms(one.expected(one.answers.reduced[name]) - one.exact) for name in one.answers.reduced}
    as_far = dict.fromkeys(name.partition(",")[0] for name, size in sizes.items() if size / 4 < own < size * 4)
    words = f"the answers are like the right ones (correlation {likeness:.6f}, {own:.2g} off"
    if as_far:
        return f"{words}, as {' or '.join(as_far)} would be about): weights or values in fewer bits, float16 or int8"
    return f"{words}): a quantised file (int8), or a network trained alike; the figures do not tell which"


def _unrelated(one: Evidence) -> str | None:
    likeness = _correlation(one)
    if likeness is None:
        return None
    what = "another file, or another treatment of the inputs"
    return f"{what}: the shapes are right, and the answers are others (correlation {likeness:.2f})"


def _correlation(one: Evidence) -> float | None:
    """Between the answers and the right ones, each column from its mean; None where nothing varies."""
    got, exact = one.got - one.got.mean(axis=0), one.exact - one.exact.mean(axis=0)
    scale = rms(got) * rms(exact)
    return float(np.mean(got * exact)) / scale if scale > 0 and np.isfinite(scale) else None


CAUSES: tuple[tuple[str, Callable[[Evidence], str | None]], ...] = (
    ("not numbers", _not_numbers),
    ("one answer", _one_answer),
    ("another output", _another_output),
    ("rows mixed", _rows_mixed),
    ("columns moved", _columns_moved),
    ("laid out", _laid_out),
    ("a function", _function),
    ("a scale", _scale),
    ("rounded", _rounded),
    ("a precision", _precision),
    ("alike", _alike),
    ("unrelated", _unrelated),
)
"""By name, in the order of this file's docstring."""
