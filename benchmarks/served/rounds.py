"""Rounds of load: every server in random order, restarted, checked for right answers, loaded."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.served.closed import Loaded, load, wrong
from benchmarks.served.running import Server
from benchmarks.served.subjects import Made
from benchmarks.served.targets import Load

Tell = Callable[[str], None]
_WARM = 1.0
"""Seconds of load that are not measured."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 6
    """Of every load in a round."""
    requests: int = 1_000_000
    """Of the row on memory."""


@dataclass
class Table:
    """What was measured, by server and load."""

    loaded: dict[tuple[str, Load], list[Loaded]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[tuple[str, Load], str] = field(default_factory=dict)
    """Why there are no figures."""


def measured(
    loads: Sequence[Load], made: Made, effort: Effort, order: random.Random, folder: Path, tell: Tell
) -> Table:
    """Every load on every server to be measured under it; a server that fails once is left out from then on."""
    table = Table()
    subjects = sorted({(name, case.model) for case in loads for name in case.servers})
    for number in range(effort.rounds):
        for name, model in order.sample(subjects, len(subjects)):
            todo = [case for case in loads if case.model == model and name in case.servers]
            todo = [case for case in todo if (name, case) not in table.left_out]
            if not todo:
                continue
            tell(f"round {number + 1} of {effort.rounds}: {name}, {model}")
            try:
                with made.served(name, model, folder / "server.log") as server:
                    for case in todo:
                        try:
                            table.loaded[name, case].append(under(server, case, made, effort.seconds))
                        except (OSError, RuntimeError, ValueError) as error:
                            table.left_out[name, case] = str(error)
            except (AssertionError, LookupError) as error:
                table.left_out.update({(name, case): str(error) for case in todo})
    return table


def under(server: Server, case: Load, made: Made, seconds: float) -> Loaded:
    """Load a server. Raises RuntimeError: an answer was wrong, or a request failed."""
    requests = made.bodies(case.model, case.batch)
    address, path = server.asked(case.kind, case.model)
    if reason := wrong(address, path, case.kind, requests):
        raise RuntimeError(f"not loaded, since an answer is wrong: {reason}")
    load(address, path, case.kind, requests, case.clients, _WARM)
    loaded = load(address, path, case.kind, requests, case.clients, seconds)
    if loaded.failed:
        raise RuntimeError(f"{loaded.failed:,} of {loaded.requests:,} requests failed")
    return loaded
