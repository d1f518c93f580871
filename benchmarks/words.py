"""A million generated rows of numbers, gaps and words: what ``predict`` gives beside eager PyTorch, row by row.

    python -m benchmarks.words --rows 1000000

Rows hold words that the file does not know, NaN, empty fields and numbers. Each row is scored by ``score_file`` from
CSV and from Parquet, and by eager PyTorch in float64. The answers must be within the proved bound, each refused row
must have an empty result, and every word its code. Prints JSON; exit code 1 if a difference is not explained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars

from export import publish
from runtime import Session, score_file
from tests.support.words import CARRIERS, ORIGINS, delays, eager

_CHUNK = 1 << 16


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


def expected(frame: polars.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What eager PyTorch gives in float64 (rows,), and which rows are refused, for a word that has no code."""
    numbers = frame.select("distance", "wind").fill_null(float("nan")).to_numpy()
    carriers = np.array([CARRIERS.index(w) if w in CARRIERS else 2 for w in frame["carrier"].to_list()])
    origins = np.array([ORIGINS.index(w) if w in ORIGINS else -1 for w in frame["origin"].to_list()])
    codes, module = np.stack([carriers, np.maximum(origins, 0)], axis=1), delays()[1]
    parts = [eager(module, numbers[i : i + _CHUNK], codes[i : i + _CHUNK]) for i in range(0, len(numbers), _CHUNK)]
    return np.concatenate(parts)[:, 0], origins < 0


def main() -> int:
    """Score, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    spec, module = delays()
    with tempfile.TemporaryDirectory() as folder:
        artifact, report = publish(module, Path(folder) / "d.onnx", spec=spec, device="cpu", page=False)
        assert report.bound is not None
        assert report.bound.largest is not None
        bound = report.bound.largest
        frame = generated(options.rows, options.seed)
        exact, refused = expected(frame)
        records: list[dict[str, Any]] = []
        with Session(artifact.path, "cpu") as session:
            for kind in ("csv", "parquet"):
                data, output = Path(folder) / f"rows.{kind}", Path(folder) / "out.npz"
                frame.write_csv(data) if kind == "csv" else frame.write_parquet(data)
                start = perf_counter()
                score = score_file(session, data, output, on_error="null")
                seconds = perf_counter() - start
                found = np.load(output)["outputs"][:, 0]
                apart = np.abs(found - exact)[~refused]
                other = int((np.isnan(found) != refused).sum()) + int((~(apart <= bound)).sum())
                records.append(
                    {
                        "kind": kind,
                        "rows": options.rows,
                        "refused": int(refused.sum()),
                        "named": score.failed_rows,
                        "first": score.failed[:1],
                        "unexplained": other + abs(score.failed_rows - int(refused.sum())),
                        "largest_difference": float(apart.max()),
                        "bound": bound,
                        "rows_per_second": options.rows / seconds,
                    }
                )
    print(json.dumps(records, indent=1, ensure_ascii=False))
    return int(any(record["unexplained"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
