"""From a model's outputs to labels and probabilities, and to columns of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port, annotate_ports, threshold
from runtime.session.session import Session

from .dataframes import rows_of_table


@dataclass(frozen=True)
class Scores:
    """The outputs of a model for some rows, interpreted by the metadata of its file.

    Examples:
        >>> from mlpx import Session
        >>> from runtime import score
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     (scores,) = score(session, [[21.0, 45.0]])
        >>> scores.probabilities.shape, scores.port.labels
        ((1, 2), ('poor', 'good'))
    """

    outputs: np.ndarray
    """float32 (rows, ...), as the model gave them."""
    port: Port

    @property
    def _values(self) -> np.ndarray:
        """(rows, features)."""
        return self.outputs.reshape(len(self.outputs), prod(self.outputs.shape[1:]))

    @property
    def probabilities(self) -> np.ndarray | None:
        """(rows, labels), if the model has labels and its outputs are probabilities or logits.

        Logits, which the file gives, become probabilities by softmax or, for a single output, the sigmoid.
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
        """(rows,) the label with the highest output, the first of equal ones; None if an output is NaN."""
        if self.port.labels is None:
            return None
        values = self._values
        if values.shape[1] == 1:
            values = np.hstack([np.full_like(values, threshold(self.port)), values])
        names = np.asarray(self.port.labels, dtype=object)[values.argmax(axis=1)]
        names[np.isnan(values).any(axis=1)] = None
        return names

    def columns(self) -> dict[str, np.ndarray]:
        """Named columns: the label and the probabilities, if there are any, then the outputs.

        Outputs have the names of their features, if the features have names.
        """
        columns: dict[str, np.ndarray] = {}
        labels, probabilities = self.labels, self.probabilities
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


def input_ports(session: Session) -> tuple[Port, ...]:
    """The inputs of a session with what its file says of their features. Raises ModelError."""
    summary = session.summary
    return annotate_ports(summary.inputs if summary is not None else None, session.inputs, session.path)


def score(session: Session, rows: Any, *, dtype: str | None = None) -> tuple[Scores, ...]:
    """Run the model on what ``Session.predict`` takes; the scores of each of its outputs.

    Raises InputError for rows that the model cannot take, ModelError for metadata that describe another output.

    Examples:
        >>> from mlpx import Session
        >>> from runtime import score
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     (scores,) = score(session, [[21.0, 45.0], [30.0, 80.0]])
        >>> scores.outputs.shape, scores.labels.tolist()
        ((2, 2), ['poor', 'poor'])
    """
    summary = session.summary
    ports = annotate_ports(summary.outputs if summary is not None else None, session.outputs, session.path)
    outputs = session.run(rows, dtype=dtype)
    return tuple(Scores(output, port) for output, port in zip(outputs.values(), ports, strict=True))


def score_table(session: Session, table: Any, *, dtype: str | None = None) -> dict[str, np.ndarray]:
    """The columns of results (rows,), as ``columns_of`` gives them, for a table in memory.

    ``table`` is a pandas, polars or Arrow table, or a dict of named numpy arrays (rows,); its columns are matched with
    the model's features as those of files are. Raises InputError and ModelError.

    Examples:
        >>> import numpy as np
        >>> from mlpx import Session
        >>> from runtime import score_table
        >>> table = {"humidity": np.array([45.0, 80.0]), "temperature": np.array([21.0, 30.0])}
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     sorted(score_table(session, table))
        ['label', 'probability_good', 'probability_poor']
    """
    if isinstance(table, Mapping):
        table = rows_of_table(table, input_ports(session), dtype=dtype)
    return columns_of(score(session, table, dtype=dtype))


def columns_of(scores: Sequence[Scores]) -> dict[str, np.ndarray]:
    """The columns (rows,) of all outputs together: what a table of results holds, in order.

    Raises InputError if two outputs would give columns of the same name.

    Examples:
        >>> from mlpx import Session
        >>> from runtime import columns_of, score
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     list(columns_of(score(session, [[21.0, 45.0]])))
        ['label', 'probability_poor', 'probability_good']
    """
    columns: dict[str, np.ndarray] = {}
    for each in scores:
        for name, values in each.columns().items():
            if name in columns:
                raise InputError(f"two outputs would both give a column '{name}'. What to do: write a .npz file")
            columns[name] = values
    return columns
