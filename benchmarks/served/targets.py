"""The targets of serving: every row of the table, with its lower or upper limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.served.closed import GRPC
from runtime.timing.timer import Ratio

OURS, WHOLE, TRITON = "mlpx serve", "mlpx serve --no-coalescing", "Triton"
MLSERVER, KSERVE, RAY = "MLServer", "KServe", "Ray Serve"
PEERS = (TRITON, MLSERVER, KSERVE, RAY)


@dataclass(frozen=True)
class Load:
    """What is asked for, and by how many clients at once."""

    model: str
    kind: str
    """"JSON", "binary" or "gRPC"."""
    batch: int
    clients: int
    servers: tuple[str, ...]
    """Those that it is measured on."""

    @property
    def name(self) -> str:
        """As the table has it."""
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{self.model}, {self.kind}, batch {self.batch}, {clients}"


ALONE = Load("small", "JSON", 1, 1, (OURS, *PEERS))
MANY = Load("small", "JSON", 1, 16, (OURS, WHOLE, *PEERS))
ROWS = Load("small", "JSON", 32, 16, (OURS, *PEERS))
BINARY = Load("small", "binary", 32, 16, (OURS, TRITON, KSERVE))
PROTOBUF = Load("small", GRPC, 1, 16, (OURS, TRITON, MLSERVER, KSERVE))
LARGE = Load("large", "binary", 1, 16, (OURS, WHOLE, TRITON))
LOADS = (ALONE, MANY, ROWS, BINARY, PROTOBUF, LARGE)


@dataclass(frozen=True)
class Target:
    """A row of the table: requests per second of one server over another's, or a figure of a part of its own."""

    name: str
    bound: float | None
    """None: for information."""
    case: Load | str
    over: str = ""
    at_least: bool = True


def _faster(case: Load, over: str, bound: float | None) -> Target:
    return Target(f"{case.name}: requests/s over {over}'s", bound, case, over)


PACE, MEMORY = "pace", "memory"
TARGETS = (
    _faster(MANY, TRITON, 1.1),
    _faster(MANY, MLSERVER, 6),
    _faster(MANY, KSERVE, 10),
    _faster(MANY, RAY, 30),
    _faster(BINARY, TRITON, 1.5),
    _faster(LARGE, WHOLE, 4),
    Target("small, JSON, batch 1, half of the peak rate: p99 over p50", 5, PACE, at_least=False),
    Target("resident memory after 1 M requests over after 100 k", 1.05, MEMORY, at_least=False),
    _faster(PROTOBUF, TRITON, 0.8),
    _faster(LARGE, TRITON, None),
)


@dataclass(frozen=True)
class Outcome:
    """The result of a row: a figure, or why there is none."""

    target: Target
    found: Ratio | None
    why_not: str = ""

    @property
    def verdict(self) -> str:
        """By the median, rounded as it is printed."""
        bound = self.target.bound
        if self.found is None:
            return "not measured"
        if bound is None:
            return ""
        value = round(self.found.median, 2)
        return "met" if (value >= bound if self.target.at_least else value <= bound) else "missed"

    def format(self) -> str:
        """The row of the printed table."""
        bound = "" if self.target.bound is None else f"{'≥' if self.target.at_least else '≤'} {self.target.bound:g}"
        if self.found is None:
            return f"{self.target.name:<84} {bound:>6}  not measured: {self.why_not}"
        spread = f"({self.found.low:.2f} to {self.found.high:.2f})" if self.found.low < self.found.high else ""
        return f"{self.target.name:<84} {bound:>6}  {self.found.median:.2f} {spread:<18} {self.verdict}".rstrip()


def rows_named(text: str) -> Sequence[Target]:
    """The rows with a text in their names."""
    return [target for target in TARGETS if text in target.name]
