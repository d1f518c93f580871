"""Words as the codes that a model takes: of a column of a table, or of an array."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from math import prod
from re import fullmatch
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port, Vocabulary, format_feature

from .flaws import CORRECT_OR_DROP, Flaw, RowNumbers, first_of, flaw_of_values, location

_MOST_NAMED = 6
_UNKNOWN, _MISSING = -1, -2
"""In place of a code, of a word that has none and of one that is missing."""


def holds_numbers(vocabulary: Vocabulary) -> bool:
    """Whether a word is a whole number, so that whole numbers in a table are words and not codes."""
    return any(fullmatch(r"-?[0-9]+", word) for word in vocabulary.words)


def codes_of(words: Sequence[Any], vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The codes of words, int64 (rows,), which are none of the vocabulary's, and which are missing, bool (rows,).

    None, NaN and empty texts are missing. Where a vocabulary has a code for unknown words, it is theirs and that of
    missing ones, and neither is marked; else the code is 0.
    """
    codes_by_word = {word: code for code, word in enumerate(vocabulary.words)}
    found = np.fromiter((_code(word, codes_by_word) for word in words), np.int64, len(words))
    unknown, missing = found == _UNKNOWN, found == _MISSING
    codes = np.where(found < 0, vocabulary.unknown or 0, found)
    if vocabulary.unknown is not None:
        return codes, np.zeros_like(unknown), np.zeros_like(missing)
    return codes, unknown, missing


def _code(word: Any, codes: dict[str, int]) -> int:
    if type(word) is int:  # a whole number among words is the word of its digits, as in a column of whole numbers
        word = str(word)
    if isinstance(word, str):
        return codes.get(word, _UNKNOWN if word else _MISSING)
    return _MISSING if word is None or word != word else _UNKNOWN  # NaN is not itself


def unknown_words(label: str, words: Sequence[Any], unknown: np.ndarray, vocabulary: Vocabulary) -> Flaw:
    """The flaw of the words that are none of the vocabulary's; ``label`` is what messages call the column."""

    def describe(row: int, _: int, number: str) -> str:
        return f"{location(label, number)}: {describe_unknown(words[row], vocabulary)}"

    return flaw_of_values(unknown, describe, "correct or drop those rows, or name a category for unknown words")


def describe_unknown(word: Any, vocabulary: Vocabulary) -> str:
    """``'Olso' is none of its 3 categories (did you mean 'Oslo'?)``."""
    near = [f"'{each}'" for each in get_close_matches(str(word), vocabulary.words, n=3, cutoff=0.6)]
    named, more = [f"'{each}'" for each in vocabulary.words[:_MOST_NAMED]], len(vocabulary.words) - _MOST_NAMED
    guess = f"did you mean {' or '.join(near)}?" if near else f"they are {', '.join(named)}"
    guess += f" and {more:,} more" if more > 0 and not near else ""
    return f"{str(word)[:80]!r} is none of its {len(vocabulary.words):,} categories ({guess})"


def texts_of_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers (rows,) as the texts of their digits, None for NaN; and which values are no whole numbers."""
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    wrong = np.zeros(len(values), bool)
    if values.dtype.kind == "f":
        wrong = ~missing & ~(np.isfinite(values) & (np.floor(values) == values))
        values = np.where(missing | wrong, 0, values).astype(np.int64)
    distinct, places = np.unique(values, return_inverse=True)
    texts = np.array([str(number) for number in distinct.tolist()], object)[places]
    texts[missing | wrong] = None
    return texts, wrong


def encode_rows(rows: np.ndarray, port: Port) -> np.ndarray:
    """Words (batch, *row) of an input of categories as its codes.

    Raises InputError naming the first row with a word that has no code, or with one that is missing.
    """
    flat = rows.reshape(len(rows), prod(rows.shape[1:]))
    codes, wrong = np.zeros(flat.shape, np.int64), np.zeros(flat.shape, bool)
    for column, vocabulary in enumerate(port.categories or ()):
        if vocabulary is None:
            feature = format_feature(port, column, rows.shape[1:])
            raise InputError(f"'{port.name}' holds words, and {feature} is a whole number")
        codes[:, column], unknown, missing = codes_of(flat[:, column].tolist(), vocabulary)
        wrong[:, column] = unknown | missing
    if wrong.any():
        row, column = first_of(wrong)
        word, vocabulary = flat[row, column], (port.categories or ())[column]
        where = location(f"'{port.name}'", RowNumbers()(row), format_feature(port, column, rows.shape[1:]))
        if vocabulary is None or _code(word, {}) == _MISSING:
            raise InputError(f"{where} is empty. What to do: {CORRECT_OR_DROP}")
        raise InputError(f"{where}: {describe_unknown(word, vocabulary)}")
    return codes.reshape(rows.shape)
