"""A million generated rows of numbers, gaps and words beside eager PyTorch, row by row, in every way to score them.

    python -m benchmarks.words --rows 1000000

Rows hold words that the file does not know, NaN, empty fields and numbers. Each is scored by ``mlpx predict`` from CSV
and from Parquet, by ``score_table``, by ``mlpx serve`` with JSON and with binary data, and by eager PyTorch in float64.
An answer must be within the proved bound, its label the exact one unless the bound allows another, each word its code,
and each row with a word that has no code refused and named. Prints JSON; exit code 1 if a difference is not explained.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars

from export import publish
from runtime import InputError, Session, read_inputs, score_table
from runtime.data.dataframes import rows_of_table
from runtime.data.scoring import input_ports
from tests.support.serving import Server, ask, serving
from tests.support.words import CARRIERS, ORIGINS, delays, eager

_CHUNK = 1 << 16
_REQUEST = 4096
"""Rows of a request."""
_PATH = "/v2/models/delays/infer"
LABELS = ("on time", "late")


@dataclass(frozen=True)
class Case:
    """Generated rows, the file that scores them, and what is right."""

    file: Path
    folder: Path
    frame: polars.DataFrame
    codes: np.ndarray
    """int64 (rows, 2), 0 where a word has none."""
    exact: np.ndarray
    """What eager PyTorch gives in float64 (rows,); arbitrary in refused rows."""
    refused: np.ndarray
    """bool (rows,): whether a word has no code."""
    bound: float
    """Of the proof, on every row of the declared ranges."""


@dataclass(frozen=True)
class Found:
    """What one way of scoring gave."""

    outputs: np.ndarray
    """(rows,), NaN where a row was refused."""
    named: int
    """How many rows it named as refused, rightly."""
    seconds: float
    labels: np.ndarray | None = None
    """(rows,) texts, where the way gives some."""


def generated(rows: int, seed: int) -> polars.DataFrame:
    """Numbers within the declared ranges, a tenth of them missing or NaN, and words of which a few are unknown."""
    rng = np.random.default_rng(seed)

    def numbers() -> polars.Series:
        values = rng.uniform(-1e4, 1e4, rows).astype(np.float32)
        values[rng.random(rows) < 0.05] = np.nan
        return polars.Series(values).set(polars.Series(rng.random(rows) < 0.05), None)

    def words(known: tuple[str, ...], unknown: float) -> list[str | None]:
        others = np.array([*known, "never seen", 'a, "b"', "Ä", "0", None], object)
        shares = np.array([*[(1 - unknown) / len(known)] * len(known), *[unknown / 5] * 5])
        return others[rng.choice(len(others), rows, p=shares)].tolist()

    columns: dict[str, Any] = {"distance": numbers(), "wind": numbers()}
    return polars.DataFrame(columns | {"carrier": words(CARRIERS, 0.1), "origin": words(ORIGINS, 0.01)})


def case_of(rows: int, seed: int, folder: Path) -> Case:
    """Generated rows, and what eager PyTorch gives for them in float64."""
    spec, module = delays()
    artifact, report = publish(module, folder / "delays.onnx", spec=spec, device="cpu", page=False)
    assert report.bound is not None
    assert report.bound.largest is not None
    frame = generated(rows, seed)
    carriers = [CARRIERS.index(word) if word in CARRIERS else 2 for word in frame["carrier"].to_list()]
    origins = np.array([ORIGINS.index(word) if word in ORIGINS else -1 for word in frame["origin"].to_list()])
    numbers = frame.select("distance", "wind").fill_null(float("nan")).to_numpy()
    codes = np.stack([carriers, np.maximum(origins, 0)], axis=1)
    parts = [eager(module, numbers[i : i + _CHUNK], codes[i : i + _CHUNK]) for i in range(0, rows, _CHUNK)]
    return Case(artifact.path, folder, frame, codes, np.concatenate(parts)[:, 0], origins < 0, report.bound.largest)


def by_shell(case: Case, kind: str) -> Found:
    """``mlpx predict --on-error null``, from a file into Parquet: refused rows are empty there, and counted."""
    data, output = case.folder / f"rows.{kind}", case.folder / "scores.parquet"
    case.frame.write_csv(data) if kind == "csv" else case.frame.write_parquet(data)
    start = perf_counter()
    command = [sys.executable, "-m", "mlpx", "predict", case.file, data, "-o", output, "--on-error", "null", "--json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    seconds = perf_counter() - start
    scores, report = polars.read_parquet(output), json.loads(done.stdout)
    empty = int((scores["label"].is_null().to_numpy() & case.refused).sum())
    named = empty if report["failed_rows"] == empty else -1
    return Found(scores["delay"].fill_null(float("nan")).to_numpy(), named, seconds, scores["label"].to_numpy())


def by_table(case: Case) -> Found:
    """``score_table`` for all rows that are right; and for the others, which it refuses, all at once and one by one."""
    places = np.flatnonzero(case.refused)
    outputs, labels = np.full(len(case.frame), np.nan), np.full(len(case.frame), None, object)
    with Session(case.file, "cpu") as session:
        start = perf_counter()
        found = score_table(session, case.frame.filter(~case.refused))
        seconds = perf_counter() - start
        outputs[~case.refused], labels[~case.refused] = found["delay"], found["label"]
        named = sum(_refusal(session, case.frame[int(row)], 1) for row in places)
        if len(places) and not _refusal(session, case.frame, int(places[0]) + 1):
            named = -1
    return Found(outputs, named, seconds, labels)


def _refusal(session: Session, frame: polars.DataFrame, row: int) -> bool:
    try:
        score_table(session, frame)
    except InputError as error:
        return re.search(rf"column 'origin'.* row {row}\b", str(error)) is not None
    return False


def by_json(case: Case, server: Server) -> Found:
    """Requests of words with null for empty fields: each is refused for its first wrong row, and answered without."""
    outputs, named, right = np.full(len(case.frame), np.nan), 0, True
    start = perf_counter()
    for rows in _requests(case):
        wrong = case.refused[rows]
        right &= not wrong.any() or _refused_by(server, case.frame[rows.tolist()], int(wrong.argmax()) + 1)
        reply = ask(server.url, "POST", _PATH, _body(case.frame[rows[~wrong].tolist()]))
        outputs[rows[~wrong]] = reply.json["outputs"][0]["data"]
    seconds = perf_counter() - start
    named = sum(_refused_by(server, case.frame[int(row)], 1) for row in np.flatnonzero(case.refused))
    return Found(outputs, named if right else -1, seconds)


def _requests(case: Case) -> Iterator[np.ndarray]:
    """The rows of each request."""
    rows = np.arange(len(case.frame))
    return (rows[start : start + _REQUEST] for start in range(0, len(rows), _REQUEST))


def _body(frame: polars.DataFrame) -> str:
    rows = len(frame)
    numbers = [value for row in frame.select("distance", "wind").rows() for value in row]  # None becomes null
    words = [word or "" for row in frame.select("carrier", "origin").rows() for word in row]
    inputs = [
        {"name": "numbers", "datatype": "FP32", "shape": [rows, 2], "data": numbers},
        {"name": "words", "datatype": "BYTES", "shape": [rows, 2], "data": words},
    ]
    return json.dumps({"inputs": inputs})


def _refused_by(server: Server, frame: polars.DataFrame, row: int) -> bool:
    reply = ask(server.url, "POST", _PATH, _body(frame))
    return reply.status == 400 and f"'words', row {row}, feature 'origin'" in reply.error


def by_binary(case: Case, server: Server) -> Found:
    """Requests of NVIDIA's client with words as bytes; only the rows that are right."""
    from tritonclient.http import InferenceServerClient, InferInput

    outputs = np.full(len(case.frame), np.nan)
    start = perf_counter()
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        for rows in _requests(case):
            rows = rows[~case.refused[rows]]
            part = case.frame[rows.tolist()]
            numbers = part.select("distance", "wind").fill_null(float("nan")).to_numpy()
            words = part.select("carrier", "origin").fill_null("").to_numpy().astype(object)
            tensors = [InferInput("numbers", [len(rows), 2], "FP32"), InferInput("words", [len(rows), 2], "BYTES")]
            for tensor, values in zip(tensors, (np.ascontiguousarray(numbers), words), strict=True):
                tensor.set_data_from_numpy(values)
            result: Any = client.infer("delays", tensors)
            outputs[rows] = result.as_numpy("delay")[:, 0]
    return Found(outputs, int(case.refused.sum()), perf_counter() - start)


def different_codes(case: Case) -> int:
    """How many words of the rows that are right have another code, as a table in memory and from two kinds of file."""
    right, wanted = case.frame.filter(~case.refused), case.codes[~case.refused]
    with Session(case.file, "cpu") as session:
        ports = input_ports(session)
    found = [rows_of_table(right, ports)]
    for kind, write in (("csv", right.write_csv), ("parquet", right.write_parquet)):
        write(case.folder / f"right.{kind}")
        found.append(read_inputs(case.folder / f"right.{kind}", ports)[0])
    return sum(int((rows["words"] != wanted).sum()) for rows in found if rows is not None)


def judged(case: Case, found: Found) -> dict[str, Any]:
    """A record of what one way gave, and how many of its differences are not explained."""
    refused = case.refused
    apart = np.abs(found.outputs - case.exact)[~refused]
    unexplained = int((np.isnan(found.outputs) != refused).sum()) + int((~(apart <= case.bound)).sum())
    if found.labels is not None:
        sure = ~refused & (np.abs(case.exact) > case.bound)
        unexplained += int((found.labels[sure] != np.array(LABELS, object)[(case.exact[sure] > 0).astype(int)]).sum())
    return {
        "rows": len(refused),
        "refused": int(refused.sum()),
        "named": found.named,
        "unexplained": unexplained + abs(found.named - int(refused.sum())),
        "largest_difference": float(apart.max(initial=0)),
        "bound": case.bound,
        "rows_per_second": len(refused) / found.seconds,
    }


def compare(rows: int, seed: int, folder: Path) -> dict[str, Any]:
    """All ways to score the same rows: a record of each, and ``different_codes``."""
    case = case_of(rows, seed, folder)
    with serving(case.file.parent) as server:
        ways: dict[str, Callable[[], Found]] = {
            "shell, CSV": lambda: by_shell(case, "csv"),
            "shell, Parquet": lambda: by_shell(case, "parquet"),
            "Python, polars": lambda: by_table(case),
            "server, JSON": lambda: by_json(case, server),
            "server, binary": lambda: by_binary(case, server),
        }
        records = {name: judged(case, way()) for name, way in ways.items()}
    return {"ways": records, "different_codes": different_codes(case)}


def main() -> int:
    """Score, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options.rows, options.seed, Path(folder))
    print(json.dumps(found, indent=1))
    return int(found["different_codes"] > 0 or any(record["unexplained"] for record in found["ways"].values()))


if __name__ == "__main__":
    sys.exit(main())
