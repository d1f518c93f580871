"""C as text: numbers with every bit, identifiers, strings and comments that no name of a file can break out of."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

_NOT_FIRST = "m_"
"""What is put before a name that no identifier can begin with."""
_WIDTH = 116


def number(value: float) -> str:
    """A float32 in hexadecimal: the same bits with every compiler."""
    value = float(np.float32(value))
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "-INFINITY"
    mantissa, _, exponent = value.hex().partition("p")
    if value == 0:
        return "-0.0f" if mantissa.startswith("-") else "0.0f"
    return f"{mantissa.rstrip('0').rstrip('.')}p{int(exponent)}f"


def array(kind: str, name: str, values: Iterable[str], sizes: str, comment: str = "") -> str:
    """The definition of a constant array, in lines of the usual width."""
    lines: list[str] = []
    line = "   "
    for value in values:
        if len(line) + len(value) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {value},"
    lines.append(line.removesuffix(","))
    head = [f"/* {in_comment(comment)} */"] if comment else []
    return "\n".join([*head, f"{kind} {name}{sizes} = {{", *lines, "};"])


def floats(name: str, values: np.ndarray, comment: str = "") -> str:
    """The definition of an array of float32 numbers."""
    flat = values.astype(np.float32, copy=False).reshape(-1)
    return array("static const float", name, map(number, flat.tolist()), f"[{flat.size}]", comment)


def identifier(text: str) -> str:
    """A C identifier like a text: letters, digits and "_", the first a letter.

    It is the beginning of longer names, so that it may be a word of C's own.
    """
    plain = re.sub("[^0-9A-Za-z]+", "_", text).strip("_") or "model"
    return plain if plain[0].isalpha() else f"{_NOT_FIRST}{plain}"


def distinct(texts: Iterable[str]) -> list[str]:
    """Identifiers in capitals for several texts, with numbers where two would be equal."""
    made: list[str] = []
    for text in texts:
        plain = re.sub("[^0-9A-Za-z]+", "_", text).strip("_").upper() or "_"
        name, count = plain, 1
        while name in made:
            count += 1
            name = f"{plain}_{count}"
        made.append(name)
    return made


def in_comment(text: str) -> str:
    """A text as part of a comment: on one line, and without what would end the comment or change its meaning."""
    shown = "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in text)
    for pair in ("*/", "/*", "??"):
        shown = shown.replace(pair, f"{pair[0]} {pair[1]}")
    return shown.replace("\\", "<U+005C>")


def string(text: str) -> str:
    """A string literal of the text's UTF-8 bytes."""

    def escaped(byte: int) -> str:
        plain = 32 <= byte < 127 and chr(byte) not in '"\\?'
        return chr(byte) if plain else f"\\{byte:03o}"

    return '"' + "".join(map(escaped, text.encode("utf-8", "replace"))) + '"'
