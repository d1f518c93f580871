"""How fast are files scored, and in how much memory?

``python -m benchmarks.files`` scores a million rows of 64 features through 64-256-256-10, from CSV, Parquet, Arrow
and ``.npy``, beside what a user would write by hand: ``pandas.read_csv`` (or ``read_parquet``, ``read_feather``,
``numpy.load``), an eager PyTorch module in inference mode, and the results written; into ``.npy``, which costs nearly
nothing, and into the data's own format. Rounds are interleaved, each in a process of its own; imports and opening
the model are left out, and the files are in the page cache.

``python -m benchmarks.files --gigabytes 10`` scores files of that size, one after the other, and prints the largest
resident memory of the process. Options: ``[--rows 1000000] [--rounds 5] [--folder DIR] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.machine import in_process, print_machine, write_results
from benchmarks.memory import largest_resident

WIDTHS = (64, 256, 256, 10)
SPEED_TARGETS = {"csv": 0.2, "parquet": 0.35}
MEMORY_TARGET = 1.0
"""GB"""
KINDS = ("csv", "parquet", "arrow", "npy")
_PART = 100_000


def module() -> Any:
    """The network, with the same weights every time."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers: list[Any] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def write_data(path: Path, rows: int) -> None:
    """Normally distributed float32 values with every digit, the same 100,000 rows repeated."""
    import polars
    import pyarrow
    import pyarrow.parquet

    part = np.random.default_rng(0).standard_normal((min(rows, _PART), WIDTHS[0]), np.float32)
    names = [f"f{i}" for i in range(WIDTHS[0])]
    frame = polars.DataFrame({name: part[:, i] for i, name in enumerate(names)})
    table = pyarrow.table({name: np.ascontiguousarray(part[:, i]) for i, name in enumerate(names)})
    text = frame.write_csv(include_header=False).encode()
    with open(path, "wb") as file:
        if path.suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, WIDTHS[0])}
            np.lib.format.write_array_header_1_0(file, header)
        elif path.suffix == ".csv":
            file.write((",".join(names) + "\n").encode())
        writer = None
        if path.suffix == ".parquet":
            writer = pyarrow.parquet.ParquetWriter(file, table.schema, use_dictionary=False)
        elif path.suffix == ".arrow":
            writer = pyarrow.ipc.new_file(file, table.schema)
        for done in range(0, rows, len(part)):
            count = min(len(part), rows - done)
            if writer is not None:
                writer.write_table(table.slice(0, count))
            elif path.suffix == ".npy":
                file.write(part[:count].data)
            else:
                file.write(text if count == len(part) else frame[:count].write_csv(include_header=False).encode())
        if writer is not None:
            writer.close()


def by_mlpx(folder: Path, data: Path, output: Path) -> float:
    """Seconds of ``score_file``."""
    import polars  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from runtime import Session, score_file

    with Session(folder / "model.onnx", "cpu") as session:
        session.predict(np.zeros((1, WIDTHS[0]), np.float32))
        start = perf_counter()
        score_file(session, data, output)
        return perf_counter() - start


def by_hand(folder: Path, data: Path, output: Path) -> float:
    """Seconds of pandas (or numpy) and eager PyTorch."""
    del folder
    import pandas
    import torch

    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # as pandas gives it
    network = module()
    read: dict[str, Callable[[Path], Any]] = {
        ".csv": pandas.read_csv,
        ".parquet": pandas.read_parquet,
        ".arrow": pandas.read_feather,
        ".npy": np.load,
    }

    def frame(results: np.ndarray) -> Any:
        return pandas.DataFrame(results, columns=[f"output_{i}" for i in range(results.shape[1])])  # pyright: ignore

    write: dict[str, Callable[[np.ndarray], Any]] = {
        ".csv": lambda results: frame(results).to_csv(output, index=False),
        ".parquet": lambda results: frame(results).to_parquet(output),
        ".arrow": lambda results: frame(results).to_feather(output),
        ".npy": lambda results: np.save(output, results),
    }
    start = perf_counter()
    rows = np.asarray(read[data.suffix](data), np.float32)
    with torch.inference_mode():
        write[output.suffix](network(torch.from_numpy(rows)).numpy())
    return perf_counter() - start


ROADS = {"mlpx": by_mlpx, "by hand": by_hand}


def _apart(road: str, folder: Path, data: Path, output: Path) -> dict[str, float]:
    """The seconds and the largest resident memory in GB, in a process of its own."""
    return in_process("benchmarks.files", "--one", road, folder, data, output)


def _one(road: str, folder: str, data: str, output: str) -> None:
    seconds = ROADS[road](Path(folder), Path(data), Path(output))
    print(json.dumps({"seconds": seconds, "memory_gb": largest_resident() / 1e9}))


def speed(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of both roads for every kind of data, into ``.npy`` and (``"alike"``) into the same kind."""
    results: dict[str, Any] = {}
    for kind in KINDS:
        data = folder / f"rows.{kind}"
        write_data(data, rows)
        results[kind] = _compared(folder, data, "npy", rounds)
        if kind != "npy":
            results[kind]["alike"] = _compared(folder, data, kind, rounds) | {"target": SPEED_TARGETS.get(kind)}
        data.unlink()
    return results


def _compared(folder: Path, data: Path, results: str, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {road: [] for road in ROADS}
    for _ in range(rounds):
        for road in ROADS:
            seconds[road].append(_apart(road, folder, data, folder / f"out.{results}")["seconds"])
    return {
        "mlpx_s": median(seconds["mlpx"]),
        "by_hand_s": median(seconds["by hand"]),
        "ratio": median(own / other for own, other in zip(seconds["mlpx"], seconds["by hand"], strict=True)),
    }


def memory(folder: Path, gigabytes: float) -> dict[str, Any]:
    """The largest resident memory and the seconds of scoring a file of that size, for every kind."""
    results: dict[str, Any] = {}
    trial = folder / "trial"
    for kind in KINDS:
        data = trial.with_suffix(f".{kind}")
        write_data(data, _PART)
        rows = int(_PART * gigabytes * 1e9 / data.stat().st_size)
        write_data(data, rows)
        size = data.stat().st_size / 1e9
        results[kind] = {"gb": size, "rows": rows} | _apart("mlpx", folder, data, folder / "out.npy")
        data.unlink()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(*options.one)
        return
    from export import export

    print_machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        export(module(), folder / "model.onnx")
        if options.gigabytes:
            results = memory(folder, options.gigabytes)
            print(f"{'file':<8} {'size':>9} {'rows':>12} {'time':>9} {'largest':>10}  target")
            for kind, r in results.items():
                row = f"{kind:<8} {r['gb']:>6.1f} GB {r['rows']:>12,} {r['seconds']:>7.1f} s {r['memory_gb']:>7.2f} GB"
                print(f"{row}  at most {MEMORY_TARGET} GB")
        else:
            results = speed(folder, options.rows, options.rounds)
            print(f"{options.rows:,} rows of {WIDTHS[0]} features through {'-'.join(map(str, WIDTHS))}")
            print(f"{'from':<8} {'into':<8} {'mlpx':>8} {'rows/s':>10} {'by hand':>9} {'ratio':>6}  target")
            for kind, into_npy in results.items():
                for into, r in (("npy", into_npy), (kind, into_npy.get("alike"))):
                    if r is None:
                        continue
                    target = f"at most {r['target']}" if r.get("target") else ""
                    figures = f"{r['mlpx_s']:>6.2f} s {options.rows / r['mlpx_s']:>10,.0f} {r['by_hand_s']:>7.2f} s"
                    print(f"{kind:<8} {into:<8} {figures} {r['ratio']:>6.2f}  {target}".rstrip())
    write_results(options.json, results=results)


if __name__ == "__main__":
    main()
