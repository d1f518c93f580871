"""From a model's outputs to labels and probabilities, and from a file of rows to a file of results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .errors import InputError, ModelError
from .files import write_whole
from .port import Port
from .ranges import Outside, limits, outside, told
from .session import Session
from .tables import as_csv, as_parquet, read_rows


@dataclass(frozen=True)
class Scores:
    """The outputs of a model for some rows, read by what its file says of them."""

    outputs: np.ndarray
    """float32 (rows, ...), as the model gave them."""
    port: Port

    @property
    def _values(self) -> np.ndarray:
        """(rows, features)"""
        return self.outputs.reshape(len(self.outputs), prod(self.outputs.shape[1:]))

    @property
    def probabilities(self) -> np.ndarray | None:
        """(rows, labels), where the model has labels and its outputs are probabilities or logits.

        Logits become probabilities here, by softmax or, for a single output, the sigmoid; the file gives logits.
        """
        if self.port.labels is None or self.port.scores == "values":
            return None
        values = self._values.astype(np.float64)
        if self.port.scores == "logits":
            values = np.hstack([np.zeros_like(values), values]) if values.shape[1] == 1 else values
            with np.errstate(invalid="ignore"):  # an infinite logit has no probability: NaN
                values = np.exp(values - values.max(axis=1, keepdims=True))
                values /= values.sum(axis=1, keepdims=True)
        elif values.shape[1] == 1:
            values = np.hstack([1 - values, values])
        return values.astype(np.float32)

    @property
    def labels(self) -> np.ndarray | None:
        """(rows,) the label with the highest output, None where an output is NaN; the first one of equals."""
        if self.port.labels is None:
            return None
        values = self._values
        if values.shape[1] == 1:
            values = np.hstack([np.full_like(values, 0.0 if self.port.scores == "logits" else 0.5), values])
        names = np.asarray(self.port.labels, dtype=object)[values.argmax(axis=1)]
        names[np.isnan(values).any(axis=1)] = None
        return names

    def columns(self) -> dict[str, np.ndarray]:
        """Everything as named columns: the label and its probabilities where there are any, then the outputs.

        Outputs are called by their features' names, where they have them.
        """
        columns, labels, probabilities = {}, self.labels, self.probabilities
        if labels is not None:
            columns["label"] = labels
        if probabilities is not None:
            names = [f"probability_{label}" for label in self.port.labels or ()]
            columns |= dict(zip(names, probabilities.T, strict=True))
        values = self._values
        width = values.shape[1]
        if self.port.features is not None:
            columns |= dict(zip(self.port.features, values.T, strict=True))
        elif width == 1:
            columns[self.port.name] = values[:, 0]
        elif self.port.scores != "probabilities":
            ends = self.port.labels if self.port.labels is not None else range(width)
            columns |= {f"{self.port.name}_{end}": values[:, i] for i, end in enumerate(ends)}
        return columns


@dataclass(frozen=True)
class ScoreReport:
    """What scoring a file did."""

    rows: int
    matched: str
    """How the data's columns were matched with the model's features."""
    device: str
    seconds: float
    output: Path | None
    declares_ranges: bool = False
    """Whether the file declares any range for its input."""
    outside_rows: int = 0
    """How many rows leave a range that the file declares for its input."""
    outside: tuple[Outside, ...] = ()
    """The features that do so."""
    outside_words: str | None = None
    """The same in words, with the first such row."""


def score(session: Session, rows: np.ndarray) -> Scores:
    """Run the model on float32 rows (batch, *row). Raises ModelError for metadata that describe another output."""
    summary = session.summary
    port = _described(summary.outputs if summary is not None else None, session.outputs[0], session)
    return Scores(session.predict(rows), port)


def _described(said: tuple[Port, ...] | None, real: Port, session: Session) -> Port:
    """The port as the file's metadata describes it, where it has any. Raises ModelError where that is of another."""
    if said is None:
        return real
    if not said or not _alike(said[0].shape[1:], real.shape[1:]):
        other = list(said[0].shape[1:]) if said else "nothing"
        message = f"its metadata describes rows of shape {other}, and '{real.name}' has {list(real.shape[1:])}"
        raise ModelError(f"{session.path or 'the model'}: {message}. What to do: export it again")
    return said[0]


def _alike(said: tuple[int | str, ...], real: tuple[int | str, ...]) -> bool:
    """Whether no two sizes that are numbers contradict each other."""
    sizes = [pair for pair in zip(said, real, strict=False) if all(isinstance(size, int) for size in pair)]
    return len(said) == len(real) and all(one == other for one, other in sizes)


def score_file(
    session: Session,
    data: str | Path,
    output: str | Path | None,
    *,
    dtype: str | None = None,
    strict: bool = False,
) -> ScoreReport:
    """Score the rows of ``data`` into ``output``, or as CSV onto standard output where that is None.

    ``.npy`` takes the outputs alone; ``.npz`` the arrays outputs, labels and probabilities; ``.csv`` and ``.parquet``
    the columns of ``Scores.columns``. Rows outside the ranges that the file declares for its input are counted in the
    report; with ``strict`` they are an error. Nothing is written where an error is raised: InputError (see
    ``read_rows``), ModelError, OutputError.
    """
    target = Path(output) if output is not None else None
    if target is not None and target.suffix.lower() not in _ENCODERS:
        raise InputError(f"{target}: results are written to {', '.join(_ENCODERS)} files, not to '{target.suffix}'")
    summary = session.summary
    start = perf_counter()
    port = _described(summary.inputs if summary is not None else None, session.inputs[0], session)
    rows, matched = read_rows(data, port, dtype=dtype)
    count, features = outside(rows, port)
    words = None
    if features:
        words = told(count, features, len(rows), Path(data).name, line=Path(data).suffix.lower() == ".csv")
        if strict:
            raise InputError(
                f"{words}. What to do: correct or drop those rows, or score them with strict=False (without --strict)"
            )
    scores = score(session, rows)
    if target is None:
        sys.stdout.write(as_csv(scores.columns()).decode())
    else:
        write_whole(target, _ENCODERS[target.suffix.lower()](scores))
    seconds = perf_counter() - start
    declares = limits(port) is not None
    return ScoreReport(len(rows), matched, session.device, seconds, target, declares, count, features, words)


def _npy(scores: Scores) -> bytes:
    buffer = BytesIO()
    np.save(buffer, scores.outputs)
    return buffer.getvalue()


def _npz(scores: Scores) -> bytes:
    arrays: dict[str, Any] = {"outputs": scores.outputs}
    labels, probabilities = scores.labels, scores.probabilities
    if labels is not None:
        arrays["labels"] = np.asarray(["" if label is None else label for label in labels], dtype=str)
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


_ENCODERS: dict[str, Callable[[Scores], bytes]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": lambda scores: as_csv(scores.columns()),
    ".parquet": lambda scores: as_parquet(scores.columns()),
}
