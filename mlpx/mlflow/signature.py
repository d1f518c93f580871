"""What a model takes and gives, in MLflow's words: its signature and its input example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime import Answers, InputError, Port, Summary, imported

from .contents import PURPOSE

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, TensorSpec

_EXAMPLE_ROWS = 2


def takes_columns(summary: Summary, requested: bool | None) -> bool:
    """Whether the model takes a table with a column for each feature; otherwise it takes tensors.

    By default where it has categories, whose words only a table can hold, and every feature a name of its own.
    Raises InputError: requested of a file whose features have no names, or the same ones.
    """
    names = [name for port in summary.inputs for name in port.features or ()]
    problem = "not all features have names" if not all(port.features for port in summary.inputs) else None
    if len(set(names)) < len(names):
        problem = "two features have the same name"
    if requested and problem is not None:
        inputs = ", ".join(f"'{port.name}'" for port in summary.inputs)
        hint = "leave columns out, or name the features in the spec"
        raise InputError(f"columns: {problem}; the model's inputs are {inputs}. What to do: {hint}")
    words = any(port.categories for port in summary.inputs)
    return words and problem is None if requested is None else requested


def signature_of(summary: Summary, *, columns: bool) -> ModelSignature:
    """Tensors by name with dtype and shape, -1 for the batch; with ``columns`` a column for each feature.

    Columns are double for float32, since tables hold that, long for whole numbers, and string for categories.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    inputs = [each for port in summary.inputs for each in (_columns(port) if columns else [_tensor(port)])]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([_tensor(port) for port in summary.outputs]))


def _tensor(port: Port) -> TensorSpec:
    from mlflow.types import TensorSpec

    shape = tuple(size if isinstance(size, int) else -1 for size in port.shape)
    return TensorSpec(np.dtype(port.dtype), shape, port.name)


def _columns(port: Port) -> list[ColSpec]:
    from mlflow.types import ColSpec

    whole = "double" if port.dtype == "float32" else "long"
    categories = port.categories or [None] * len(port.features or ())
    kinds = [whole if vocabulary is None else "string" for vocabulary in categories]
    return [ColSpec(kind, name) for kind, name in zip(kinds, port.features or (), strict=True)]


def example_of(summary: Summary, answers: Answers | None, *, columns: bool) -> Any:
    """Rows of the certificate: arrays by the names of the inputs, or a data frame. None where it has no rows.

    Two, or as many as the file takes, then the same ones again where the certificate has fewer.
    """
    if answers is None or not answers.rows:
        return None
    rows = {port.name: answers.inputs[port.name] for port in summary.inputs}
    fixed = next((port.shape[0] for port in summary.inputs if isinstance(port.shape[0], int)), None)
    chosen = _complete_rows(list(rows.values()))
    chosen = chosen[:_EXAMPLE_ROWS] if fixed is None else np.resize(chosen, fixed)
    rows = {name: values[chosen] for name, values in rows.items()}
    return _frame(summary, rows) if columns else rows


def _complete_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The rows without NaN, which JSON lacks, then the others."""
    gaps = np.any([np.isnan(values.reshape(len(values), -1)).any(axis=1) for values in arrays], axis=0)
    return np.argsort(gaps, kind="stable")


def _frame(summary: Summary, rows: dict[str, np.ndarray]) -> Any:
    pandas = imported("pandas", PURPOSE)
    table: dict[str, Any] = {}
    for port in summary.inputs:
        values = rows[port.name].reshape(len(rows[port.name]), -1)
        values = values.astype(np.float64) if port.dtype == "float32" else values
        categories = port.categories or [None] * values.shape[1]
        for column, (name, vocabulary) in enumerate(zip(port.features or (), categories, strict=True)):
            codes = values[:, column]
            table[name] = codes if vocabulary is None else [vocabulary.words[code] for code in codes]
    return pandas.DataFrame(table)
