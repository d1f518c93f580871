"""From a model's outputs to labels and probabilities, and from a file of rows to a file of results."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .described import described
from .errors import InputError
from .files import write_whole
from .frames import array_columns, rows_of_columns
from .port import Port
from .ranges import Outside, limits, outside, told
from .session import Session
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


def score(session: Session, rows: Any, *, dtype: str | None = None) -> tuple[Scores, ...]:
    """Run the model on what ``Session.predict`` takes; the scores of each of its outputs.

    Raises InputError for rows that the model cannot take, ModelError for metadata that describe another output.
    """
    summary = session.summary
    ports = described(summary.outputs if summary is not None else None, session.outputs, session.path)
    values = session.run(rows, dtype=dtype)
    return tuple(Scores(value, port) for value, port in zip(values.values(), ports, strict=True))


def score_table(session: Session, table: Any, *, dtype: str | None = None) -> dict[str, np.ndarray]:
    """The columns of results (rows,), as ``columns_of`` gives them, for a table in memory.

    ``table`` is a pandas, polars or Arrow table, or a dict of named numpy arrays (rows,); its columns are matched with
    the model's features as those of files are. Raises InputError and ModelError.
    """
    if isinstance(table, Mapping):
        summary = session.summary
        ports = described(summary.inputs if summary is not None else None, session.inputs, session.path)
        table = rows_of_columns(*array_columns(table), ports, dtype=dtype)
    return columns_of(score(session, table, dtype=dtype))


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
    if target is not None and target.suffix.lower() == ".npy" and len(session.outputs) > 1:
        names = ", ".join(port.name for port in session.outputs)
        raise InputError(f"{target}: a .npy file holds one array, and the model has the outputs {names}; write a .npz")
    summary = session.summary
    start = perf_counter()
    ports = described(summary.inputs if summary is not None else None, session.inputs, session.path)
    rows, matched = read_inputs(data, ports, dtype=dtype)
    found = [(port, *outside(rows[port.name], port)) for port in ports]
    count, features = next(((number, listed) for _, number, listed in found if listed), (0, ()))
    words = None
    if features:
        total = len(rows[ports[0].name])
        words = told(count, features, total, Path(data).name, line=Path(data).suffix.lower() == ".csv")
        if strict:
            raise InputError(
                f"{words}. What to do: correct or drop those rows, or score them with strict=False (without --strict)"
            )
    scores = score(session, rows)
    if target is None:
        sys.stdout.write(as_csv(columns_of(scores)).decode())
    else:
        write_whole(target, _ENCODERS[target.suffix.lower()](scores))
    seconds = perf_counter() - start
    declares = any(limits(port) is not None for port in ports)
    total = len(scores[0].outputs)
    return ScoreReport(total, matched, session.device, seconds, target, declares, count, features, words)


def columns_of(scores: Sequence[Scores]) -> dict[str, np.ndarray]:
    """The columns (rows,) of all outputs together: what a table of results holds, in order.

    Raises InputError where two outputs would give columns of one name.
    """
    columns: dict[str, np.ndarray] = {}
    for each in scores:
        found = each.columns()
        both = next((name for name in found if name in columns), None)
        if both is not None:
            raise InputError(f"two outputs would both give a column '{both}'. What to do: write a .npz file")
        columns |= found
    return columns


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
    ".csv": lambda scores: as_csv(columns_of(scores)),
    ".parquet": lambda scores: as_parquet(columns_of(scores)),
}
