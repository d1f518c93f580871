"""From a model's outputs to labels and probabilities, and from a file of rows to a file of results."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .errors import InputError
from .files import write_whole
from .session import Session
from .summary import Port
from .tables import as_csv, as_parquet, read_inputs


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
        """Everything as named columns: the label and its probabilities where there are any, then the outputs."""
        columns, labels, probabilities = {}, self.labels, self.probabilities
        if labels is not None:
            columns["label"] = labels
        if probabilities is not None:
            names = [f"probability_{label}" for label in self.port.labels or ()]
            columns |= dict(zip(names, probabilities.T, strict=True))
        values = self._values
        width = values.shape[1]
        if width == 1:
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


def score(session: Session, rows: Any) -> tuple[Scores, ...]:
    """Run the model on what ``Session.predict`` takes; the scores of each of its outputs."""
    summary = session.summary
    ports = summary.outputs if summary is not None else session.outputs
    values = session.run(rows)
    return tuple(Scores(values[port.name], port) for port in ports)


def score_file(
    session: Session, data: str | Path, output: str | Path | None, *, dtype: str | None = None
) -> ScoreReport:
    """Score the rows of ``data`` into ``output``, or as CSV onto standard output where that is None.

    ``.npy`` takes the outputs alone; ``.npz`` the arrays outputs, labels and probabilities; ``.csv`` and ``.parquet``
    the columns of ``Scores.columns``. Raises InputError (see ``read_rows``) and OutputError; nothing is written then.
    """
    target = Path(output) if output is not None else None
    if target is not None and target.suffix.lower() not in _ENCODERS:
        raise InputError(f"{target}: results are written to {', '.join(_ENCODERS)} files, not to '{target.suffix}'")
    if target is not None and target.suffix.lower() == ".npy" and len(session.outputs) > 1:
        names = ", ".join(port.name for port in session.outputs)
        raise InputError(f"{target}: a .npy file holds one array, and the model has the outputs {names}; write a .npz")
    summary = session.summary
    start = perf_counter()
    rows, matched = read_inputs(data, summary.inputs if summary is not None else session.inputs, dtype=dtype)
    scores = score(session, rows)
    if target is None:
        sys.stdout.write(as_csv(_columns(scores)).decode())
    else:
        write_whole(target, _ENCODERS[target.suffix.lower()](scores))
    return ScoreReport(len(scores[0].outputs), matched, session.device, perf_counter() - start, target)


def _columns(scores: Sequence[Scores]) -> dict[str, np.ndarray]:
    return {name: column for each in scores for name, column in each.columns().items()}


def _npy(scores: Sequence[Scores]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, scores[0].outputs)
    return buffer.getvalue()


def _npz(scores: Sequence[Scores]) -> bytes:
    if len(scores) > 1:
        arrays: dict[str, Any] = {each.port.name: each.outputs for each in scores}
    else:
        arrays = {"outputs": scores[0].outputs}
    labels, probabilities = scores[0].labels, scores[0].probabilities
    if labels is not None:
        arrays["labels"] = np.asarray(["" if label is None else label for label in labels], dtype=str)
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy's savez takes no array called "file"
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
    return buffer.getvalue()


_ENCODERS: dict[str, Callable[[Sequence[Scores]], bytes]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": lambda scores: as_csv(_columns(scores)),
    ".parquet": lambda scores: as_parquet(_columns(scores)),
}
