"""Can the proof be fooled? Random faults in files of generated networks: none may be proved and compute something else.

Each network's right file gets one fault after the other (``tests.support.mutants``). A file with a fault is verified,
and run beside the module in float64 and float32: at batches of 1 to 64 rows, with numbers of scales 1e-30 to 1e30, NaN
and infinities. Children forked from a process that has torch loaded do this, so that a crash ends one file only. The
same seed gives the same files. The exit code is 1 where a file was proved and computes something else, and where
verification ended with a signal or a defect, or did not end.

Run it with ``python -m benchmarks.mutants [--files 20000] [--minutes M] [--seed 0] [--processes 2]``. ``--only 0:1234``
makes file 1234 of seed 0 again; ``--keep FOLDER`` keeps files that were found.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from mlpx.exit_codes import UNPROVED, WRONG_USE
from runtime import ModelError
from runtime.session.trial import trial
from tests.support.forking import Ending, forked, without_threads
from tests.support.mutants.faults import FAULTS
from tests.support.mutants.trial import CLEAN, CODE, EACH, NO_FAULT, file_name, folder_of, trials, warm

Record = dict[str, Any]
TOGETHER = 3 * EACH
"""Files that one child tries."""
SECONDS = 60.0
"""How long one file may take."""


def _is(verdict: str) -> Any:
    return lambda record: record.get("verdict") == verdict


COLUMNS: dict[str, Any] = {
    "files": lambda _: True,
    "failed": _is("failed"),
    "not proved": _is("not proved"),
    "refused": lambda record: record.get("verdict") in ("refused", "not written"),
    "equivalent, proved": lambda r: r.get("verdict") == "proved" and r.get("judged") and not r["different"],
    "different": lambda r: bool(r.get("different")),
    "different, proved": lambda r: r.get("verdict") == "proved" and bool(r.get("different")),
    "exit code": lambda r: (
        r.get("code", 0) not in (0, UNPROVED, WRONG_USE) or r.get("command") not in (None, r.get("code"))
    ),
    "crash, found": lambda r: r.get("ended") == "crash",
    "signal": lambda r: r.get("ended") == "signal",
    "no end": lambda r: r.get("ended") == "time",
}
"""What is counted, by kind of fault."""
WRONG = ("different, proved", "exit code", "signal", "no end")
"""What must not be: exit codes are others than 0, 1 and 2, or the command's is not the library's.

ONNX Runtime crashes on some files, and with it ``verify`` in Python; a command has another process try the file first.
"""


@dataclass
class Findings:
    """The last record of every file."""

    seed: int
    keep: Path | None
    records: list[Record] = field(default_factory=list[Record])
    commands: int = 0

    def add(self, record: Record, folder: Path) -> None:
        self.records.append(record)
        self.commands += "command" in record
        if any(COLUMNS[name](record) for name in WRONG):
            print(f"\n{self.seed}:{record['number']} {json.dumps(record)}", file=sys.stderr)
            self._keep(record, folder)

    def _keep(self, record: Record, folder: Path) -> None:
        if self.keep is None:
            return
        folder = folder_of(_begun(record["number"]), folder)
        self.keep.mkdir(parents=True, exist_ok=True)
        name = f"{self.seed}-{record['number']}"
        (self.keep / f"{name}.json").write_text(json.dumps(record, indent=1))
        for source, ending in ((file_name(record["number"]), "onnx"), (CLEAN, "clean.onnx"), (CODE, "py")):
            if (folder / source).exists():
                shutil.copyfile(folder / source, self.keep / f"{name}.{ending}")

    def count(self, column: str, kind: str | None = None) -> int:
        """How many of a kind, or of all faults."""
        of_kind = (r for r in self.records if (r["kind"] == kind if kind else r["kind"] != NO_FAULT))
        return sum(bool(COLUMNS[column](record)) for record in of_kind)

    @property
    def wrong(self) -> int:
        """Files that were proved and are something else, crashed, or did not end; clean ones too."""
        return sum(any(COLUMNS[name](record) for name in WRONG) for record in self.records)

    def table(self) -> str:
        """Every kind of fault with its counts."""
        width = max(map(len, FAULTS))
        lines = ["  ".join(["kind".ljust(width), *COLUMNS])]
        kinds = [NO_FAULT, *sorted(set(FAULTS) & {record["kind"] for record in self.records})]
        for name, kind in [*((kind, kind) for kind in kinds), ("all faults", None)]:
            cells = [f"{self.count(column, kind) or '':>{len(column)}}" for column in COLUMNS]
            lines.append("  ".join([name.ljust(width), *cells]))
        return "\n".join(lines)


def ran(
    numbers: Sequence[int],
    seed: int,
    findings: Findings,
    *,
    processes: int = 2,
    minutes: float | None = None,
    seconds: float = SECONDS,
) -> None:
    """Try the mutants of these numbers, in children, and add what is found."""
    groups = (list(group) for _, group in groupby(numbers, lambda number: number // TOGETHER))
    jobs, open_records, done = deque(groups), dict[int, Record](), 0
    start = monotonic()
    with tempfile.TemporaryDirectory(prefix="mlpx-mutants-") as place:
        folder = Path(place)
        children = forked(jobs, lambda job: trials(job, seed, folder), folder, processes=processes, seconds=seconds)
        for job, came in children:
            last = open_records.pop(job[0], None)
            if isinstance(came, dict):
                if last is not None and last["number"] != came["number"]:
                    findings.add(last, folder)
                    done += 1
                open_records[job[0]] = came
            else:
                if last is not None:
                    findings.add(with_ending(last, came, folder), folder)
                    done += 1
                    following = [number for number in job if number > _begun(last["number"])]
                    if came is not None and following:
                        jobs.append(following)
                for number in job:
                    shutil.rmtree(folder_of(number, folder), ignore_errors=True)
            if minutes is not None and monotonic() - start > 60 * minutes:
                jobs.clear()
            if sys.stderr.isatty():
                rate = done / (monotonic() - start)
                words = f"{done:,} files, {rate:.1f}/s, {findings.wrong} wrong"
                print(f"\r{words:<60}", end="", file=sys.stderr)


def _begun(number: int) -> int:
    """The number up to which a child came whose last record is of ``number``; below 0 it is a clean file's."""
    return number if number >= 0 else (-1 - number) * EACH


def with_ending(record: Record, ending: Ending | None, folder: Path) -> Record:
    """What is known of the file at which a child ended; one that ended while a verdict was judged has its verdict."""
    if ending is None:
        return record
    if record.get("verdict") not in (None, "proved"):
        return record | {"why": f"{record['why']}; running it ended with {ending.words}"}
    path = folder_of(_begun(record["number"]), folder) / file_name(record["number"])
    kind = "time" if ending.timed_out else "crash" if is_found(path) else "signal"
    return record | {"ended": kind, "why": f"{ending.words}: {ending.printed[-300:]}"}


def is_found(path: Path) -> bool:
    """Whether the process that tries a file for a command crashes on it too, so that the command does not."""
    try:
        with trial(path, "cpu", trusted=False):
            return False
    except ModelError:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="how many files with a fault")
    parser.add_argument("--minutes", type=float, help="begin no network after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the number of the first file")
    parser.add_argument("--only", metavar="SEED:NUMBER", help="make one file again, and print its record")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for files that were found, with the clean ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every record")
    options = parser.parse_args()
    without_threads("benchmarks.mutants")
    torch.set_num_threads(1)
    warm()
    seed, numbers = options.seed, list(range(options.first, options.first + options.files))
    if options.only is not None:
        seed, number = map(int, options.only.split(":"))
        numbers = [number]
    findings = Findings(seed, options.keep)
    start = monotonic()
    with suppress(KeyboardInterrupt):  # the table so far
        ran(numbers, seed, findings, processes=options.processes, minutes=options.minutes)
    took = monotonic() - start
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text("\n".join(map(json.dumps, findings.records)) + "\n")
    if options.only is not None:
        print(json.dumps(findings.records, indent=1))
    else:
        print(f"\n{findings.table()}")
        made = findings.count("files")
        rate = f"{made / took:.1f} a second, {made / took / options.processes:.1f} in each of {options.processes}"
        print(f"{made:,} files with a fault of {len(FAULTS)} kinds, {findings.commands:,} of them by the command too,")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        core = made / (used.ru_utime + used.ru_stime)
        print(f"in {took:.0f} s ({rate} processes; {core:.1f} a second of a core's time); {findings.wrong} wrong")
    sys.exit(1 if findings.wrong else 0)


if __name__ == "__main__":
    main()
