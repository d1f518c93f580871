"""The targets of speed: every row of the table, what it is measured on, and its upper limit."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers import EAGER, SKLEARN
from benchmarks.subjects import NAMES
from runtime.timing.contenders import INTO, PLAIN, PREDICT
from runtime.timing.timer import Ratio

BULK_RUN, ONE_THREAD_SESSION = "InferenceSession.run, 2 threads", "Session of 1 thread"
BULK = {"tiny": 1_000_000, "small": 200_000}
LARGE_BATCH = ("small", 16384)
PACED = "medium"
"""The model that is called every 10 ms."""


@dataclass(frozen=True)
class Target:
    """A row of the table."""

    name: str
    at_most: float
    case: tuple[str, int] | str
    """A model and a batch, or the name of the part that measures it."""
    one: str = ""
    over: str = ""
    """The two contenders: ``one``'s time over the other's, or its processor time where it is paced."""
    unit: str = ""


def _rows() -> list[Target]:
    rows: list[Target] = []

    def add(what: str, one: str, over: str, limits: dict[str, float], batch: int = 1) -> None:
        for model, at_most in limits.items():
            rows.append(Target(f"{what}, batch {batch:,}: {model}", at_most, (model, batch), one, over))

    add("predict over run", PREDICT, PLAIN, {"tiny": 0.70, "small": 0.80, "medium": 0.95})
    add("predict_into over run", INTO, PLAIN, {"tiny": 0.60, "small": 0.70})
    add("predict over eager PyTorch", PREDICT, EAGER, {"tiny": 0.25, "small": 0.35, "medium": 0.65, "deep": 0.15})
    add("predict over scikit-learn", PREDICT, SKLEARN, {"small": 0.1})
    add("predict over scikit-learn", PREDICT, SKLEARN, {LARGE_BATCH[0]: 1.0}, LARGE_BATCH[1])
    for (model, batch), at_most in zip(BULK.items(), (0.6, 0.95), strict=True):
        add("predict over one big run of 2 threads", PREDICT, BULK_RUN, {model: at_most}, batch)
    paced = f"CPU per call at one call every 10 ms, over one thread's: {PACED}"
    rows.append(Target(paced, 1.5, "paced", PREDICT, ONE_THREAD_SESSION))
    rows.append(Target("1 M x 64 rows, CSV to CSV, over pandas and eager PyTorch: small", 0.2, "csv"))
    rows.append(Target("1 M x 64 rows, Parquet to Parquet, over pandas and eager PyTorch: small", 0.35, "parquet"))
    rows.append(Target("memory while scoring a 10 GB file", 1.0, "memory", unit="GB"))
    rows.append(Target("int8 variant over float32, batch 1, within its gate: large", 0.4, "int8"))
    add(
        "never slower, predict over run",
        PREDICT,
        PLAIN,
        {n: 1.0 for n in NAMES if n not in ("tiny", "small", "medium")},
    )
    return rows


TARGETS = tuple(_rows())


@dataclass(frozen=True)
class Outcome:
    """The result of a row: a figure, or why there is none."""

    target: Target
    found: Ratio | None
    why_not: str = ""

    @property
    def verdict(self) -> str:
        """By the median, rounded as it is printed."""
        if self.found is None:
            return "not measured"
        return "ok" if round(self.found.median, 2) <= self.target.at_most else "missed"

    def format(self) -> str:
        """The row of the printed table."""
        unit = f" {self.target.unit}" if self.target.unit else ""
        at_most = f"{self.target.at_most:.2f}{unit}"
        if self.found is None:
            return f"{self.target.name:<68} {at_most:>8}  not measured: {self.why_not}"
        spread = f"({self.found.low:.2f} to {self.found.high:.2f})" if self.found.low < self.found.high else ""
        return f"{self.target.name:<68} {at_most:>8}  {self.found.median:.2f}{unit} {spread:<16} {self.verdict}"
