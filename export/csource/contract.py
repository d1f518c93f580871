"""The header: what goes in and comes out, as comments and as constants, and the functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

from runtime import Port, Summary
from runtime.model.port import format_number, format_range

from .text import array, distinct, in_comment, number, string


@dataclass(frozen=True)
class Argument:
    """An array that the functions take: an input or an output."""

    port: Port
    variable: str
    key: str
    """What its constants are called by: "input", or its own name where there are several."""
    is_input: bool

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of a row."""
        return tuple(size for size in self.port.shape[1:] if isinstance(size, int))

    @property
    def size(self) -> int:
        """The numbers in a row."""
        return prod(self.row)

    def constant(self, prefix: str) -> str:
        """The name of the macro of its size."""
        return f"{prefix.upper()}_{self.key.upper()}{'S' if self.key in ('input', 'output') else '_SIZE'}"


def arguments(inputs: Sequence[Port], outputs: Sequence[Port]) -> list[Argument]:
    """The arrays of the functions, inputs first."""
    made: list[Argument] = []
    keys = [key.lower() for key in distinct(port.name for port in (*inputs, *outputs))]
    for ports, letter, word in ((inputs, "x", "input"), (outputs, "y", "output")):
        for port in ports:
            own = keys[len(made)]
            variable, key = f"{letter}_{own}", own if own[0].isalpha() else f"{word}_{own}"
            if len(ports) == 1:
                variable, key = letter, word
            made.append(Argument(port, variable, key, word == "input"))
    return made


def parameters(made: Sequence[Argument]) -> str:
    """The declaration of the functions' arrays."""
    return ", ".join(f"{'const ' if each.is_input else ''}float *{each.variable}" for each in made)


@dataclass(frozen=True)
class Figures:
    """How much memory a network takes, in float32 numbers."""

    constants: int
    scratch: int
    test: int
    """Of the self-test: rows, answers, and values of functions."""


def header(name: str, made: Sequence[Argument], figures: Figures, summary: Summary | None, sha256: str) -> str:
    """The text of NAME.h."""
    capital = name.upper()
    parts = [
        _head(name, made, figures, summary, sha256),
        f"#ifndef {capital}_H\n#define {capital}_H",
        "#include <stddef.h>",
        '#ifdef __cplusplus\nextern "C" {\n#endif',
        *([f"/* The SHA-256 of the ONNX file. */\n#define {capital}_MODEL_SHA256 {string(sha256)}"] if sha256 else []),
        *_period(capital, summary),
        *(_described(name, each) for each in made),
        _functions(name, made, figures.scratch),
        "#ifdef __cplusplus\n}\n#endif",
        "#endif",
    ]
    return "\n\n".join(parts) + "\n"


def _head(name: str, made: Sequence[Argument], figures: Figures, summary: Summary | None, sha256: str) -> str:
    lines = [f"{name}: a network as C99, without allocation, threads or libraries beyond libm."]
    if summary is not None:
        lines.append(f"Written by mlpx from {summary.name}.onnx, SHA-256 {sha256}.")
    lines += [
        f"Constants: {4 * figures.constants:,} bytes, all const. Stack: {4 * figures.scratch:,} bytes, and some more.",
        f"The self-test has {4 * figures.test:,} bytes of constants more; -D{name.upper()}_NO_SELF_TEST leaves it out.",
        "",
        "Values are passed raw, in the units below: what normalises, clips and scales them is applied in here.",
    ]
    if summary is not None:
        lines += ["Applied, in this order:", *(f"  {words}" for words in _applied(summary))]
    for each in made:
        lines += ["", *_table(each)]
    return "\n".join(["/*", *(f" * {in_comment(line)}".rstrip() for line in lines), " */"])


def _applied(summary: Summary) -> list[str]:
    """The blocks of the network, a line each, with the options that a spec gives them."""
    blocks = (summary.spec or {}).get("blocks")
    if not isinstance(blocks, list):
        return [block.op for block in summary.blocks]
    return [words for block in cast("list[Any]", blocks) if not (words := _block(block)).startswith("dropout")]


def _block(block: Any) -> str:
    """A block in words: ``linear: features 128, bias true``."""
    if not isinstance(block, dict):
        return str(block)
    ((kind, options),) = cast("dict[str, Any]", block).items()
    if kind == "residual":
        return f"residual of ({'; '.join(map(_block, cast('list[Any]', options['blocks'])))})"
    return f"{kind}: {', '.join(f'{key} {json.dumps(value)}' for key, value in options.items())}"


def _table(each: Argument) -> list[str]:
    """The lines of a comment that say what the places of an array hold."""
    port, kind = each.port, "in" if each.is_input else "out"
    common = "" if port.range is None else f", {format_range(port.range)}"
    lines = [f"{kind:3} {each.variable}[{each.size}]: {port.name}{common}"]
    names = _names(each)
    if port.labels is not None and names is None:
        lines.append(f"    two labels: {port.labels[0]}, and {port.labels[1]} for the higher {port.scores or 'score'}s")
    if names is None:
        return lines
    units, ranges = port.units or [None] * each.size, port.ranges or [None] * each.size
    descriptions = port.descriptions or [None] * each.size
    width, unit_width = max(map(len, names)), max(len(unit or "-") for unit in units)
    for place, (name, unit, limits, words) in enumerate(zip(names, units, ranges, descriptions, strict=True)):
        shown = [f"[{place}]".rjust(len(str(each.size)) + 2), name.ljust(width), (unit or "-").ljust(unit_width)]
        shown += [format_range(limits)] if limits is not None else []
        shown += [words] if words else []
        lines.append("    " + "  ".join(shown).rstrip())
    return lines


def _names(each: Argument) -> tuple[str, ...] | None:
    """The names of the places: features, or labels where there is a score for each."""
    port = each.port
    if port.features is not None:
        return port.features
    return port.labels if port.labels is not None and len(port.labels) == each.size else None


def _period(capital: str, summary: Summary | None) -> list[str]:
    if summary is None or summary.period is None:
        return []
    return [f"/* Seconds between two calls. */\n#define {capital}_PERIOD {format_number(summary.period)}"]


def _described(name: str, each: Argument) -> str:
    """The constants of an input or output: its size, places by name, names, units and ranges."""
    size = each.constant(name)
    lines = [f"#define {size} {each.size}"]
    if (names := _names(each)) is not None:
        prefix = f"{name}_{each.key}".upper()
        places = [f"    {prefix}_{place} = {i}" for i, place in enumerate(distinct(names))]
        lines += [f"enum {name}_{each.key} {{", ",\n".join(places), "};"]
        lines += [f"extern const char *const {name}_{each.key}_names[{size}];"]
    if each.port.units is not None:
        lines += ['/* "" for a value without a unit. */', f"extern const char *const {name}_{each.key}_units[{size}];"]
    if _limits(each) is not None:
        lines += [
            "/* The lowest and the highest value; infinite where none is declared. */",
            f"extern const float {name}_{each.key}_ranges[{size}][2];",
        ]
    return "\n".join(lines)


def _limits(each: Argument) -> list[tuple[float, float]] | None:
    port = each.port
    if port.range is None and port.ranges is None:
        return None
    anything = (float("-inf"), float("inf"))
    return [limits or port.range or anything for limits in port.ranges or [None] * each.size]


def definitions(name: str, made: Sequence[Argument]) -> list[str]:
    """The arrays that the header declares."""
    texts: list[str] = []
    for each in made:
        size, prefix = each.constant(name), f"{name}_{each.key}"
        for suffix, values in (("names", _names(each)), ("units", each.port.units)):
            if values is not None:
                words = map(string, (value or "" for value in values))
                texts.append(array("const char *const", f"{prefix}_{suffix}", words, f"[{size}]"))
        if (limits := _limits(each)) is not None:
            pairs = (f"{{{number(low)}, {number(high)}}}" for low, high in limits)
            texts.append(array("const float", f"{prefix}_ranges", pairs, f"[{size}][2]"))
    return texts


def _functions(name: str, made: Sequence[Argument], scratch: int) -> str:
    capital, taken = name.upper(), parameters(made)
    return f"""\
/* One row. The arrays must not overlap. Nothing is kept between calls, so that any number of threads may call it;
 * {4 * scratch:,} bytes of the stack hold what is computed. */
void {name}_infer({taken});

/* n rows, one after the other in the arrays. */
void {name}_infer_rows(size_t n, {taken});

/* One row, with {capital}_SCRATCH floats of the caller in place of the stack. */
#define {capital}_SCRATCH {max(1, scratch)}
void {name}_infer_in({taken}, float *scratch);

#ifndef {capital}_NO_SELF_TEST
/* Is this build right? It checks how this processor and compiler treat NaN and sums, every bit of every constant, the
 * library's functions, and rows whose answers are proved, each within the proved bound; one of the results below. */
enum {{
    {capital}_PASSED = 0,
    {capital}_WRONG_ARITHMETIC = 1, /* compiled with -ffast-math or alike */
    {capital}_WRONG_CONSTANTS = 2,  /* a constant is not the proved one: the file or the memory was changed */
    {capital}_WRONG_ANSWER = 3,     /* an answer is beyond the proved bound */
    {capital}_LOST_NAN = 4,         /* NaN came in, and a number came out */
    {capital}_WRONG_FUNCTION = 5    /* a function of the mathematics library is not right */
}};
int {name}_self_test(void);
#endif"""
