"""Features of a table: a spec's inputs and a normaliser's constants from a data frame, and its rows for training.

>>> fitted = fit_features(frame, target="late")
>>> spec = MLPSpec(name="delays", inputs=fitted.inputs, blocks=[{"linear": 1}], output={"labels": fitted.labels})
>>> rows, targets = fitted.rows(frame), fitted.targets(frame)
>>> same = rows_of(spec, frame)  # of any spec, such as one that was written to a file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from runtime.data.categories import texts_of_numbers
from runtime.data.columns import Column
from runtime.data.dataframes import names_of_columns, read_columns, rows_of_table
from runtime.errors import InputError
from runtime.model.port import Port, Vocabulary

if TYPE_CHECKING:
    from builder import MLPSpec

_HINT = "What to do: leave it out with drop=['{0}'], or convert it"


@dataclass(frozen=True)
class Features:
    """What ``fit_features`` found in a table."""

    inputs: list[dict[str, Any]]
    """The ``inputs`` of a spec: of numbers, with impute and standardize, and of words, as far as there are any."""
    labels: list[str] | None
    """The words of the target, sorted; None for a target of numbers, or without one."""
    target: str | None
    _ports: tuple[Port, ...]

    def rows(self, table: Any) -> dict[str, np.ndarray]:
        """The rows of a table for every input by name: float32 numbers, NaN where missing, and int64 codes.

        Raises InputError: a column is missing, or holds a word that is not among the categories.
        """
        return _rows(table, self._ports)

    def targets(self, table: Any) -> np.ndarray:
        """The target of every row: int64 positions of its words in ``labels``, or float32 numbers (rows,).

        Raises InputError: there is no target, it is empty or NaN in a row, or its word is none of the labels.
        """
        if self.target is None:
            raise InputError("there is no target. What to do: name its column, fit_features(table, target='NAME')")
        categories = None if self.labels is None else (Vocabulary(tuple(self.labels)),)
        dtype = "float32" if categories is None else "int64"
        column = _target_of(table, self.target)
        port = Port("target", ("batch", 1), (self.target,), dtype=dtype, categories=categories)
        values = np.ma.masked_array(column.values, column.missing if column.missing is not None else False)
        rows = rows_of_table({self.target: values}, [port], dtype="float32")
        assert rows is not None
        targets = rows["target"][:, 0]
        if (gaps := np.flatnonzero(np.isnan(targets))).size:  # which is a missing value in a pandas frame
            where = f"column '{self.target}' has {gaps.size:,} values that are NaN, the first in row {gaps[0] + 1:,}"
            raise InputError(f"{where}. What to do: correct or drop those rows")
        return targets


def fit_features(
    table: Any,
    *,
    target: str | None = None,
    drop: Sequence[str] = (),
    words: Sequence[str] = (),
    unknown: str = "error",
    embedding: int | None = None,
) -> Features:
    """A spec's inputs for the columns of a pandas, polars or Arrow table of training rows.

    A column of numbers, or of bool, becomes a feature with the range, the mean and the standard deviation of its finite
    values, and with its mean for a missing one where the column has gaps. A column of words becomes a feature with its
    words as categories, the most frequent first, those of the same count in alphabetical order.

    Args:
        table: the training rows; other rows must not be seen here.
        target: the column to predict, which is no feature; its words, or its bool, are the labels.
        drop: columns that are no features.
        words: columns of whole numbers to take as words.
        unknown: for words that the training rows do not have, and empty ones: "error", or "first", the most frequent.
        embedding: the width of each category's embedding; None for one-hot.

    Raises InputError: no such column; one that is neither of numbers nor of words, or without a value; empty words
    where ``unknown`` is "error".
    """
    if unknown not in ("error", "first"):
        raise InputError(f"unknown is 'error' or 'first', not {unknown!r}")
    columns = {column.name: column for column in _columns(_without(table, drop))}
    asked = [*([target] if target is not None else []), *words]
    if absent := [name for name in asked if name not in columns]:
        raise InputError(f"the table has no column '{absent[0]}'; it has {', '.join(map(repr, columns))}")
    labels = None if target is None else _labels(columns.pop(target))
    numbers, categories = list[_Numbers](), list[dict[str, Any]]()
    for name, column in columns.items():
        if name in words or column.values.dtype.kind == "O":
            categories.append(_category(column, unknown, embedding))
        else:
            numbers.append(_numbers(column))
    inputs = [*([_numbers_input(numbers)] if numbers else []), *([_words_input(categories)] if categories else [])]
    return Features(inputs, labels, target, tuple(_port(each, numbers) for each in inputs))


def rows_of(spec: MLPSpec, table: Any) -> dict[str, np.ndarray]:
    """The rows of a table for every input of a spec, as ``Features.rows`` gives them, in the order of the inputs.

    The constants of the spec's blocks, such as those of an impute, do not matter: what is missing stays NaN.
    Raises InputError: a column is missing, or holds a word that is not among the categories.
    """
    from export.declarations import declared, said_by

    said = said_by(spec)
    types = {True: "int64", False: "float32"}
    ports = [
        declared(Port(port.name, ("batch", *port.row_shape), dtype=types[port.is_categories]), said)
        for port in spec.inputs
    ]
    return _rows(table, ports)


def _rows(table: Any, ports: Sequence[Port]) -> dict[str, np.ndarray]:
    rows = rows_of_table(table, ports, dtype="float32")
    if rows is None:
        raise InputError(f"expected a table of pandas, polars or Arrow, not a {type(table).__name__}")
    return rows


@dataclass(frozen=True)
class _Numbers:
    feature: Any
    mean: float
    std: float
    has_gaps: bool


def _columns(table: Any) -> list[Column]:
    try:
        return read_columns(table)
    except InputError as error:
        hint = "" if "What to do" in str(error) else ". What to do: leave it out with drop=[...], or convert it"
        raise InputError(f"{error}{hint}") from None


def _without(table: Any, drop: Sequence[str]) -> Any:
    names = names_of_columns(table)
    if absent := [name for name in drop if name not in names]:
        raise InputError(f"the table has no column '{absent[0]}' to drop; it has {', '.join(map(repr, names))}")
    if not drop:
        return table
    if isinstance(table, Mapping):
        return {name: values for name, values in cast("Mapping[str, Any]", table).items() if name not in drop}
    if type(table).__module__.startswith("pyarrow."):
        return table.drop_columns(list(drop))
    return table[[name for name in table.columns if str(name) not in drop]]


def _target_of(table: Any, target: str) -> Column:
    names = names_of_columns(table)
    if target not in names:
        raise InputError(f"the table has no column '{target}', the target")
    (column,) = read_columns(_without(table, [name for name in names if name != target]))
    return Column(target, *_as_words_of_bool(column))


def _as_words_of_bool(column: Column) -> tuple[np.ndarray, np.ndarray | None]:
    if column.values.dtype.kind != "b":
        return column.values, column.missing
    return np.where(column.values, "true", "false").astype(object), column.missing


def _labels(column: Column) -> list[str] | None:
    values, missing = _as_words_of_bool(column)
    if values.dtype.kind != "O":
        return None
    return sorted({str(word) for word in (values if missing is None else values[~missing]) if word not in (None, "")})


def _numbers(column: Column) -> _Numbers:
    values = column.values.astype(np.float64)
    known = np.isfinite(values) if column.missing is None else np.isfinite(values) & ~column.missing
    if not known.any():
        raise InputError(f"column '{column.name}' has no value. {_HINT.format(column.name)}")
    has_gaps = bool((np.isnan(values) if column.missing is None else np.isnan(values) | column.missing).any())
    with np.errstate(over="ignore"):
        held = values[known].astype(np.float32).astype(np.float64)
    if np.isinf(held).any():
        raise InputError(f"column '{column.name}' has values that float32 cannot hold. {_HINT.format(column.name)}")
    low, high = (float(str(np.float32(end))) for end in (held.min(), held.max()))  # the shortest decimals
    std = float(held.std())
    feature = {"name": column.name, "range": [low, high]} if low < high else column.name
    return _Numbers(feature, float(held.mean()), std if std >= 2.0**-126 else 1.0, has_gaps)


def _category(column: Column, unknown: str, embedding: int | None) -> dict[str, Any]:
    words = column.values
    if words.dtype.kind == "b":
        hint = "What to do: leave it out of words; it is taken as the numbers 0 and 1"
        raise InputError(f"column '{column.name}' holds bool, not words. {hint}")
    if words.dtype.kind != "O":
        words, wrong = texts_of_numbers(words)
        if wrong.any():
            raise InputError(f"column '{column.name}' holds {column.values[wrong][0]}, which is no whole number")
        if column.missing is not None:
            words[column.missing] = None
    listed = [word for word in words.tolist() if word is not None and word == word and word != ""]
    if other := [word for word in listed if not isinstance(word, str)]:
        kind = type(other[0]).__name__
        raise InputError(f"column '{column.name}' holds {kind}, not words. {_HINT.format(column.name)}")
    counts = Counter(listed)
    empty = len(words) - counts.total()
    if not counts:
        raise InputError(f"column '{column.name}' has no word. {_HINT.format(column.name)}")
    if empty and unknown == "error":
        hint = "What to do: fill them, or take them as the most frequent word with unknown='first'"
        raise InputError(f"column '{column.name}' has {empty:,} empty values. {hint}")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    feature: dict[str, Any] = {"name": column.name, "categories": ordered, "unknown": unknown}
    return feature | ({"embedding": embedding} if embedding is not None else {})


def _numbers_input(numbers: Sequence[_Numbers]) -> dict[str, Any]:
    means = [each.mean for each in numbers]
    blocks: list[Any] = [{"standardize": {"mean": means, "std": [each.std for each in numbers]}}]
    if any(each.has_gaps for each in numbers):
        blocks.insert(0, {"impute": {"value": means}})
    return {"name": "numbers", "features": [each.feature for each in numbers], "blocks": blocks}


def _words_input(categories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"name": "words", "features": list(categories)}


def _port(port: dict[str, Any], numbers: Sequence[_Numbers]) -> Port:
    features: list[dict[str, Any]] = [{"name": each} if isinstance(each, str) else each for each in port["features"]]
    names, shape = tuple(each["name"] for each in features), ("batch", len(features))
    if port["name"] == "numbers":
        return Port("numbers", shape, names, missing=any(each.has_gaps for each in numbers))
    vocabularies = tuple(
        Vocabulary(tuple(each["categories"]), 0 if each["unknown"] == "first" else None) for each in features
    )
    return Port("words", shape, names, dtype="int64", categories=vocabularies)
