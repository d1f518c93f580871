"""How long does a full verification take, and how much memory?

Every network is exported and verified in a process of its own, warm, imports excluded: the median of several rounds,
beside one ``Session.predict`` of the same number of rows, since there is no peer that proves. Memory is the peak above
the start of the first verification, as a multiple of the weights.
Run it with ``python -m benchmarks.verify [--rounds 5] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.machine import in_process, print_machine, write_results
from benchmarks.memory import Peak
from benchmarks.networks import network
from export import export, verify
from runtime import Session

TARGETS = {"digits": "at most 2 s", "784-1024-1024-10": "at most 15 s", "1024-4096-4096-1000": "at most 6 x memory"}
NAMES = [*TARGETS, "breast_cancer", "512 sixteen times"]


def measured(name: str, rounds: int) -> dict[str, float]:
    """Measure one network, in this process."""
    spec, module = network(name)
    small_spec, small = network("breast_cancer")
    with tempfile.TemporaryDirectory() as folder:
        verify(small, export(small, Path(folder) / "warm.onnx", spec=small_spec), device="cpu")
        artifact = export(module, Path(folder) / "model.onnx", spec=spec)
        weights = sum(parameter.numel() * 4 for parameter in module.parameters())
        with Peak() as peak:
            report = verify(module, artifact, device="cpu")
        seconds: list[float] = []
        for _ in range(rounds):
            start = perf_counter()
            report = verify(module, artifact, device="cpu")
            seconds.append(perf_counter() - start)
            assert report.proved, report.why
        rows = sum(part.rows for part in report.inputs)
        with Session(artifact.path, "cpu") as session:
            batch = [[0.5] * spec.input.row_shape[0]] * rows
            session.predict(batch)
            start = perf_counter()
            session.predict(batch)
            predicted = perf_counter() - start
    return {
        "verify_s": median(seconds),
        "predict_s": predicted,
        "rows": rows,
        "weights_mb": weights / 2**20,
        "memory": peak.above / weights,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.rounds)))
        return
    results = {name: in_process("benchmarks.verify", "--one", name, "--rounds", options.rounds) for name in NAMES}
    print_machine()
    print(f"{'network':<20} {'weights':>9} {'rows':>6} {'verify':>8} {'predict':>8} {'memory':>9}  target")
    for name, r in results.items():
        times = f"{r['verify_s']:>6.2f} s {r['predict_s']:>6.3f} s {r['memory']:>7.1f} x"
        print(f"{name:<20} {r['weights_mb']:>6.2f} MB {r['rows']:>6} {times}  {TARGETS.get(name, '')}".rstrip())
    write_results(options.json, results=results)


if __name__ == "__main__":
    main()
