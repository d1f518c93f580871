"""A reader of queries in VNN-LIB 1.0, which has no reader that is maintained: it evaluates a query on exact numbers.

It takes what readers in use have in common, and the difference of two outputs beside a number. Lines are put together
without a space between them, as Marabou does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_NUMBER = re.compile(r"-?\d+\.\d+")
_NAME = re.compile(r"([XY])_(\d+)")


@dataclass(frozen=True)
class Query:
    """The names that a query declares, in order, and its assertions."""

    names: list[str]
    assertions: list[Any]

    def holds(self, x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
        """Whether these inputs and outputs satisfy all assertions: whether they are a counterexample."""
        values = {f"X_{k}": value for k, value in enumerate(x)} | {f"Y_{k}": value for k, value in enumerate(y)}
        assert sorted(values) == sorted(self.names)
        return all(_true(assertion, values) for assertion in self.assertions)


def read(text: str) -> Query:
    joined = "".join(line.strip() for line in text.splitlines() if not line.startswith(";"))
    tokens = _TOKEN.findall(joined)
    statements: list[Any] = []
    while tokens:
        statements.append(_tree(tokens))
    declared = [statement for statement in statements if statement[0] == "declare-const"]
    assert statements[: len(declared)] == declared, "a declaration follows an assertion"
    assert all(_NAME.fullmatch(name) and kind == "Real" for _, name, kind in declared)
    assert all(statement[0] == "assert" for statement in statements[len(declared) :])
    return Query([name for _, name, _ in declared], [condition for _, condition in statements[len(declared) :]])


def _tree(tokens: list[str]) -> Any:
    token = tokens.pop(0)
    if token != "(":
        assert token != ")"
        return token
    items: list[Any] = []
    while tokens[0] != ")":
        items.append(_tree(tokens))
    tokens.pop(0)
    return items


def _true(condition: list[Any], values: dict[str, Fraction]) -> bool:
    sign, *parts = condition
    if sign in ("and", "or"):
        found = [_true(part, values) for part in parts]
        return all(found) if sign == "and" else any(found)
    term, number = parts
    assert sign in ("<=", ">=")
    assert _NUMBER.fullmatch(number), f"{number} is not a decimal"
    if isinstance(term, str):
        value = values[term]
    else:
        minus, first, second = term
        assert minus == "-"
        value = values[first] - values[second]
    return value <= Fraction(number) if sign == "<=" else value >= Fraction(number)
