"""What do plain ONNX Runtime sessions of the same process cost those beside them?

Their idle threads spin for some time after a call. A bulk call of tiny and a single row of medium by ``Session``, each
right after a row through a plain session: none, one with default options, one whose idle threads sleep. Each case in a
process of its own, in turn. Run it with ``python -m benchmarks.beside [--rounds 3] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

from benchmarks.machine import in_process, keep_to_two_cores, print_machine, write_results
from benchmarks.subjects import prepared
from runtime import Session
from tests.support.cases import WIDTHS, normal

NEIGHBOURS = {"none": None, "a plain session": "1", "a plain session that sleeps": "0"}
"""By what is said of it: its ``session.intra_op.allow_spinning``."""
CASES = {"tiny, 1,000,000 rows": ("tiny", 1_000_000, 15), "medium, 1 row, 20 calls": ("medium", 1, 100)}
_CALLS = {1: 20}
_WATCHED = 0.2


def neighbour(path: Path, spinning: str | None) -> Callable[[], object]:
    """A call of a plain session, or nothing."""
    if spinning is None:
        return lambda: None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: normal(1, WIDTHS["medium"][0])}
    return lambda: session.run(None, feed)


def measured(folder: Path, case: str, beside: str) -> dict[str, float]:
    """Seconds of a call, and how long the threads of the neighbour spin after one."""
    name, rows, times = CASES[case]
    call_neighbour, x, found = neighbour(folder / "medium.onnx", NEIGHBOURS[beside]), normal(rows, WIDTHS[name][0]), []
    with Session(folder / f"{name}.onnx", "cpu") as session:
        for _ in range(times):
            call_neighbour()
            start = perf_counter()
            for _ in range(_CALLS.get(rows, 1)):
                session.predict(x)
            found.append(perf_counter() - start)
    sleep(_WATCHED)
    call_neighbour()
    start = process_time()
    sleep(_WATCHED)
    return {"seconds": median(found), "spun": process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        folder, case, beside = options.measure
        print(json.dumps(measured(Path(folder), case, beside)))
        return
    keep_to_two_cores()
    print_machine()
    record: dict[str, dict[str, Any]] = {case: {} for case in CASES}
    with tempfile.TemporaryDirectory(prefix="mlpx-bench-") as folder:
        for name in ("tiny", "medium"):
            prepared(name, Path(folder))
        for case, found in record.items():
            rounds = [
                {one: in_process("benchmarks.beside", "--measure", folder, case, one) for one in NEIGHBOURS}
                for _ in range(options.rounds)
            ]
            for one in NEIGHBOURS:
                ratio = median(each[one]["seconds"] / each["none"]["seconds"] for each in rounds)
                seconds, spun = (median(each[one][key] for each in rounds) for key in ("seconds", "spun"))
                found[one] = {"seconds": seconds, "over_none": ratio, "spun": spun}
                print(f"{case:<24} beside {one:<28} {1e3 * seconds:8.2f} ms  {ratio:.2f}  spins {1e3 * spun:.0f} ms")
    write_results(options.json, cases=record)


if __name__ == "__main__":
    main()
