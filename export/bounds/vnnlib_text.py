"""The text of a query in VNN-LIB: names of values, comparisons, declarations and assertions.

Version 2.0 has a grammar (https://github.com/VNNLIB/VNNLIB-Standard). Its element type ``real`` leaves the arithmetic
to the verifier, and inputs and outputs are the file's by their order. Version 1.0 has no grammar; what is written is
what its readers agree on: ``or`` of ``and``, comments on lines of their own, no line that ends inside a comparison.

Numbers have every digit of a float64: read into float64, or exactly, they are the same. They have no exponents, which
2.0 does not know, and a point, without which 2.0 takes them for integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod

import numpy as np

from export.errors import ExportError

VERSIONS = ("2.0", "1.0")
"""The versions of VNN-LIB that queries are written in."""


@dataclass(frozen=True)
class Tensor:
    """An input or output in a query: the shape of a row, and the names of its values in a batch of one, in C order."""

    shape: tuple[int, ...]
    names: list[str]

    @property
    def span(self) -> str:
        """The first name and the last."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"


def tensors(letter: str, shapes: Sequence[tuple[int, ...]], version: str) -> list[Tensor]:
    """The inputs (``X``) or outputs (``Y``) with rows of these shapes.

    In 2.0 their values are ``X[0, 3]``, or ``X1[0, 3]`` where there are several; in 1.0 ``X_3``, counted through all.

    Raises:
        ExportError: An unknown version, or a shape without values.
    """
    if version not in VERSIONS:
        message = f"expected the VNN-LIB version {' or '.join(VERSIONS)}, received '{version}'"
        raise ExportError(f"{message}. What to do: give one of them")
    if not all(map(prod, shapes)):
        message = f"expected rows with values, received rows of the shapes {list(shapes)}"
        raise ExportError(f"{message}. What to do: leave inputs and outputs without values out of the file")
    found: list[Tensor] = []
    count = 0
    for number, shape in enumerate(shapes, 1):
        name = letter if len(shapes) == 1 else f"{letter}{number}"
        names = [f"{name}[{', '.join(map(str, (0, *index)))}]" for index in np.ndindex(*shape)]
        if version == "1.0":
            names = [f"{letter}_{count + place}" for place in range(len(names))]
        found.append(Tensor(shape, names))
        count += len(names)
    return found


def compare(sign: str, term: str, number: float) -> str:
    """``(<= Y_0 1.5)``: a variable, or a difference of two, beside a number."""
    digits = format(Decimal(float(number) + 0.0), "f")  # + 0.0: zero has no sign
    return f"({sign} {term} {digits if '.' in digits else f'{digits}.0'})"


def query_text(
    comments: Sequence[str],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    box: Sequence[str],
    breaking: Sequence[str],
    version: str,
) -> str:
    """The query for inputs that satisfy all comparisons in ``box``, with outputs that satisfy one of ``breaking``."""
    lines = [*(f"; {comment}" for comment in comments), *_declarations(inputs, outputs, version)]
    lines += [f"(assert {comparison})" for comparison in box]
    if len(breaking) == 1:
        return "\n".join([*lines, f"(assert {breaking[0]})", ""])
    term = "  (and {})" if version == "1.0" else "  {}"
    return "\n".join([*lines, "(assert (or", *map(term.format, breaking), "))", ""])


def _declarations(inputs: Sequence[Tensor], outputs: Sequence[Tensor], version: str) -> list[str]:
    if version == "1.0":
        return [f"(declare-const {name} Real)" for tensor in (*inputs, *outputs) for name in tensor.names]
    lines = [
        f"  (declare-{kind} {tensor.names[0].partition('[')[0]} real [{', '.join(map(str, (1, *tensor.shape)))}])"
        for kind, group in (("input", inputs), ("output", outputs))
        for tensor in group
    ]
    return ["(vnnlib-version <2.0>)", "(declare-network N", *lines, ")"]
