"""How many rows per second do one core, two workers and, by arithmetic, a thousand machines score?

``python -m benchmarks.scale`` scores Parquet files with the network 64-256-256-10 and with models/digits. First a
process that may use one core does what a worker does (``per core``), then one and two workers of ``mlpx predict
--engine ray`` do on this machine, from the beginning of the first part to the end of the last. ``efficiency`` is what
two workers do over twice what one core does. The rest is arithmetic on these figures: the rows per second that a
network link carries, how many cores that feeds, the price of a billion rows.
Options: ``[--rows 4000000] [--rounds 3] [--price 0.04] [--machines 1000] [--cores 16] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.machine import in_process, print_machine, write_results
from benchmarks.memory import Peak

ROOT = Path(__file__).resolve().parent.parent
CASES = ("64-256-256-10", "digits")
LINKS = (10, 25, 100)
"""Gbit/s of a machine, each way."""
_GROUP, _PART_ROWS = 1 << 16, 1 << 17


def write_case(name: str, folder: Path, rows: int) -> None:
    """The model and its data, each file under its usual name."""
    import polars

    from benchmarks.networks import network
    from builder import MLPSpec, assemble
    from export import export

    if name == "digits":
        spec, module = network("digits")
        heldout = polars.read_parquet(ROOT / "models" / "digits" / "heldout.parquet")
        frame = heldout[np.random.default_rng(0).integers(len(heldout), size=rows)]
    else:
        features = [f"f{i}" for i in range(64)]
        blocks = [{"linear": 256}, "relu", {"linear": 256}, "relu", {"linear": 10}]
        spec = MLPSpec(name="small", input={"name": "x", "features": features}, blocks=blocks)
        module = assemble(spec, seed=0)
        part = np.random.default_rng(0).standard_normal((rows, 64), np.float32)
        frame = polars.DataFrame({feature: part[:, i] for i, feature in enumerate(features)})
    export(module.eval(), folder / "model.onnx", spec=spec)
    frame.write_parquet(folder / "data.parquet", row_group_size=_GROUP)


def on_one_core(folder: Path) -> dict[str, float]:
    """In this process: what a worker does with all parts of the data."""
    from runtime import Session
    from runtime.data.scoring import input_ports
    from runtime.ray.partition import partition
    from runtime.ray.worker import score_part

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with Session(folder / "model.onnx", "cpu", threads=1, workers=1) as session, tempfile.TemporaryDirectory() as out:
        parts, _ = partition(folder / "data.parquet", input_ports(session), max_rows=_PART_ROWS)
        with Peak() as peak:
            score_part(session, parts[0], out)
        wall, processor = perf_counter(), process_time()
        size = sum(score_part(session, part, out).size for part in parts)
        times = {"seconds": perf_counter() - wall, "cpu_seconds": process_time() - processor}
    return times | {"bytes_out": size, "memory": peak.largest}


def on_ray(folder: Path, workers: int) -> dict[str, float]:
    """In this process: seconds that the parts took, and of the whole."""
    from runtime import score_folder

    with tempfile.TemporaryDirectory() as out:
        report = score_folder(
            folder / "model.onnx",
            folder / "data.parquet",
            Path(out) / "results",
            workers=workers,
            device="cpu",
            part_rows=_PART_ROWS,
        )
    return {"scoring": report.scoring_seconds, "seconds": report.seconds}


def measured(name: str, rows: int, rounds: int) -> dict[str, Any]:
    """One case, in processes of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_case(name, folder, rows)
        core = [_apart("core", folder) for _ in range(rounds)]
        pairs = [(_apart("1", folder), _apart("2", folder)) for _ in range(rounds)]
        bytes_in = (folder / "data.parquet").stat().st_size / rows
    seconds = median(each["seconds"] for each in core)
    one_worker, two_workers = (median(pair[i]["scoring"] for pair in pairs) for i in (0, 1))
    return {
        "rows_per_second_per_core": rows / seconds,
        "rows_per_cpu_second": rows / median(each["cpu_seconds"] for each in core),
        "bytes_in_per_row": bytes_in,
        "bytes_out_per_row": core[0]["bytes_out"] / rows,
        "megabytes_of_a_process": max(each["memory"] for each in core) / 1e6,
        "one_worker_rows_per_second": rows / one_worker,
        "two_workers_rows_per_second": rows / two_workers,
        "efficiency": seconds / two_workers / 2,
        "ray_start_and_end_s": median(both["seconds"] - both["scoring"] for pair in pairs for both in pair),
    }


def _apart(what: str, folder: Path) -> dict[str, float]:
    return in_process("benchmarks.scale", "--one", what, folder)


def at_scale(case: dict[str, Any], machines: int, cores: int, price: float) -> dict[str, Any]:
    """Arithmetic on what was measured: no figure of its own."""
    core = case["rows_per_second_per_core"] * case["efficiency"]
    widest = max(case["bytes_in_per_row"], case["bytes_out_per_row"])
    links = {f"{link} Gbit/s": link * 1e9 / 8 / widest for link in LINKS}
    return {
        "rows_per_second_of_all": machines * cores * core,
        "gigabytes_per_second_read": machines * cores * core * case["bytes_in_per_row"] / 1e9,
        "gigabytes_per_second_written": machines * cores * core * case["bytes_out_per_row"] / 1e9,
        "seconds_per_billion_rows": 1e9 / (machines * cores * core),
        "core_hours_per_billion_rows": 1e9 / core / 3600,
        "price_per_billion_rows": 1e9 / core / 3600 * price,
        "rows_per_second_of_a_link": links,
        "cores_that_a_link_feeds": {name: rows / core for name, rows in links.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour")
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=16, help="of a machine")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, folder = options.one[0], Path(options.one[1])
        print(json.dumps(on_one_core(folder) if what == "core" else on_ray(folder, int(what))))
        return
    results: dict[str, Any] = {}
    print_machine()
    for name in CASES:
        case = measured(name, options.rows, options.rounds)
        results[name] = {"measured": case, "computed": at_scale(case, options.machines, options.cores, options.price)}
        print(f"\n{name}, {options.rows:,} rows, measured")
        _tell(case)
        print(f"computed, {options.machines:,} machines of {options.cores} cores, {options.price} per core and hour")
        _tell(results[name]["computed"])
    write_results(options.json, results=results)


def _tell(figures: dict[str, Any]) -> None:
    for key, value in figures.items():
        many = value if isinstance(value, dict) else {"": value}
        texts = [
            f"{figure:,.0f} {name}" if figure >= 1000 else f"{figure:,.3g} {name}" for name, figure in many.items()
        ]
        print(f"  {key.replace('_', ' '):<32} {'; '.join(text.strip() for text in texts)}", flush=True)


if __name__ == "__main__":
    main()
