"""Checks the answers of a live server to a few proved rows: python3 smoke/check.py [URL of the model].

It needs Python's standard library only. Set MLPX_TOKEN to a bearer token, and SSL_CERT_FILE to the certificates of an
authority of your own. The exit code is 0 where every answer is within its bound, 1 where one is not or where the
answers are nearer to those of a reduced precision, and 3 where the server gives no answer.
"""

import json
import math
import os
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def numbers(data: "list[Any] | float | None") -> "list[float]":
    """The numbers of an answer, flat; JSON has no NaN, which is sent as null."""
    if isinstance(data, list):
        return [number for part in data for number in numbers(part)]
    return [math.nan if data is None else float32(float(data))]


def float32(number: float) -> float:
    """The nearest float32: a server may write the fewest digits that identify one."""
    try:
        return struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return math.copysign(math.inf, number)


def problems(answer: "dict[str, Any]", expected: "dict[str, Any]") -> "tuple[list[str], float]":
    """What is wrong with an answer, a line each, and the largest error as a share of its bound."""
    lines: list[str] = []
    largest = 0.0
    compared: list[tuple[float, float]] = []
    reduced_answers: dict[str, list[float]] = {}
    outputs: dict[str, dict[str, Any]] = {output["name"]: output for output in answer.get("outputs", [])}
    for name, wanted in expected["outputs"].items():
        if name not in outputs:
            lines.append(f"the output '{name}' is missing")
            continue
        output = outputs[name]
        values = numbers(output.get("data", []))
        if list(output.get("shape", [])) != wanted["shape"] or len(values) != len(wanted["exact"]):
            lines.append(f"'{name}' has shape {output.get('shape')}, not {wanted['shape']}")
            continue
        for index, value in enumerate(values):
            exact, bound = wanted["exact"][index], wanted["bound"][index]
            error = abs(value - exact)
            if not error <= bound:
                row, column = divmod(index, len(values) // wanted["shape"][0])
                lines.append(f"'{name}' [{row}, {column}] is {value!r}; proved is {exact!r} within {bound:.2g}")
            elif error:
                largest = max(largest, error / bound)
        compared += zip(values, wanted["exact"])
        for kind, reduced in wanted["reduced"].items():
            reduced_answers.setdefault(kind, []).extend(reduced)
    lines[:0] = [
        f"the answers are those of {kind}: turn it off at the server" for kind in precisions(compared, reduced_answers)
    ]
    return lines, largest


def precisions(compared: "list[tuple[float, float]]", reduced: "dict[str, list[float]]") -> "list[str]":
    """The reduced precision that the answers are at least twice as near to as to the exact ones, if there is one.

    One that hardly differs from the exact answers here (64 roundings of float32) cannot be distinguished from float32.
    """
    size = sum(exact * exact for _, exact in compared)
    off = sum((value - exact) ** 2 for value, exact in compared)
    nearest: list[tuple[float, str]] = []
    for kind, values in reduced.items():
        if len(values) != len(compared):  # an output is missing, which is reported
            continue
        apart = sum((exact - other) ** 2 for (_, exact), other in zip(compared, values))
        distance = sum((value - other) ** 2 for (value, _), other in zip(compared, values))
        if apart > (64 * 2.0**-24) ** 2 * size and 4 * distance < off:
            nearest.append((distance, kind))
    return [kind for _, kind in sorted(nearest)[:1]]


def main() -> int:
    """Ask the server and print what is wrong; the exit code."""
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    url = (sys.argv[1] if len(sys.argv) > 1 else expected["url"]).rstrip("/")
    body = (HERE / "request.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("MLPX_TOKEN"):
        headers["Authorization"] = "Bearer " + os.environ["MLPX_TOKEN"]
    request = urllib.request.Request(url + "/infer", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"{url}: {error.code} {error.read(2000).decode('utf-8', 'replace')}", file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        print(f"{url}: no answer: {error}", file=sys.stderr)
        return 3
    lines, largest = problems(answer, expected)
    if lines:
        print(f"{url}: not what was proved\n  " + "\n  ".join(lines[:10]), file=sys.stderr)
        return 1
    print(f"{url}: {expected['rows']} rows within their bounds; the largest error is {largest:.2g} of its bound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
