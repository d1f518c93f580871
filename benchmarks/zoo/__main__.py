"""Which dense networks of published packages, as their authors wrote them, does mlpx export, and which torch.onnx?

Each network has seeded weights and is in evaluation mode. mlpx publishes it, proved or not at all;
``torch.onnx.export(dynamo=True)`` writes it with a free batch. Each file is then run by ONNX Runtime at batches 1 and 7
and compared with eager PyTorch. The packages are in ``.zoo``, where ``make zoo`` installs them.
Run it with ``python -m benchmarks.zoo [--package NAME] [--only NAME] [--mlpx-only] [--jobs 2] [--json FILE]
[--markdown FILE]``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import described
from benchmarks.zoo.entries import Entry
from benchmarks.zoo.networks import ABSENT, ENTRIES
from benchmarks.zoo.running import tried, versions
from benchmarks.zoo.table import markdown, operators, totals


def chosen(packages: list[str], names: list[str]) -> dict[str, list[Entry]]:
    """The entries that were asked for, by package."""
    entries: dict[str, list[Entry]] = {}
    for entry in ENTRIES:
        if (not packages or entry.package in packages) and (not names or entry.name in names):
            entries.setdefault(entry.package, []).append(entry)
    return entries


def said(record: dict[str, Any], steps: list[str]) -> str:
    """A record on one line."""
    name = f"{record['package']} {record['network']}"
    if "failed" in record:
        return f"{name:<58} not built: {record['failed']}"
    parts = [f"{step} {record[step]['outcome']} {record[step]['seconds']:.1f} s" for step in steps]
    return f"{name:<58} {', '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", action="append", default=[], help="only networks of this package")
    parser.add_argument("--only", action="append", default=[], help="only networks of this name")
    parser.add_argument("--mlpx-only", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120, help="seconds for one step of one network")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--operators", type=Path, help="which operators the networks call, counted")
    options = parser.parse_args()
    steps = ["mlpx"] if options.mlpx_only else ["mlpx", "torch"]
    asked, installed, start = chosen(options.package, options.only), versions(), perf_counter()
    if not asked:
        parser.error("no network has these names")

    def work(package: str) -> list[dict[str, Any]]:
        if (version := installed.get(package.lower())) is None:
            reason = "the package is not installed"
            return [{"package": package, "network": entry.name, "failed": reason} for entry in asked[package]]
        found = tried(package, asked[package], steps, options.limit)
        found = [record | {"version": version} for record in found]
        print("\n".join(said(record, steps) for record in found), flush=True)
        return found

    with ThreadPoolExecutor(options.jobs) as pool:
        records = [record for found in pool.map(work, asked) for record in found]
    results = {
        "machine": described(),
        "command": shlex.join(["python", "-m", "benchmarks.zoo", *sys.argv[1:]]),
        "minutes": round((perf_counter() - start) / 60, 1),
        "steps": steps,
        "absent": [list(each) for each in ABSENT.items()],
        "networks": records,
    }
    print(totals(records, steps))
    written = {
        options.json: lambda: json.dumps(results, indent=1),
        options.markdown: lambda: markdown(results),
        options.operators: lambda: operators(records) + "\n",
    }
    for path, text in written.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text())


if __name__ == "__main__":
    main()
