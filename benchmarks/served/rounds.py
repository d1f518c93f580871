"""Rounds of load: every server in random order, started anew, asked for right answers, loaded."""

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
    """Of the row about memory."""


@dataclass
class Table:
    """What was measured, by server and load."""

    loaded: dict[tuple[str, Load], list[Loaded]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[tuple[str, Load], str] = field(default_factory=dict)
    """Why there are no figures."""


def measured(
    loads: Sequence[Load], made: Made, effort: Effort, order: random.Random, folder: Path, tell: Tell
) -> Table:
    """Every load on every server that is to be measured under it; one that fails once is left out from then on."""
    table = Table()
    subjects = sorted({(name, one.model) for one in loads for name in one.servers})
    for number in range(effort.rounds):
        for name, model in order.sample(subjects, len(subjects)):
            todo = [one for one in loads if one.model == model and name in one.servers]
            todo = [one for one in todo if (name, one) not in table.left_out]
            if not todo:
                continue
            tell(f"round {number + 1} of {effort.rounds}: {name}, {model}")
            try:
                with made.served(name, model, folder / "server.log") as server:
                    for one in todo:
                        try:
                            table.loaded[name, one].append(under(server, one, made, effort.seconds))
                        except (OSError, RuntimeError, ValueError) as error:
                            table.left_out[name, one] = str(error)
            except (AssertionError, LookupError) as error:
                table.left_out.update({(name, one): str(error) for one in todo})
    return table


def under(server: Server, one: Load, made: Made, seconds: float) -> Loaded:
    """A server under a load. Raises RuntimeError: an answer was wrong, or a request failed."""
    asked = made.bodies(one.model, one.batch)
    address, path = server.asked(one.kind, one.model)
    if reason := wrong(address, path, one.kind, asked):
        raise RuntimeError(f"not loaded, since an answer is wrong: {reason}")
    load(address, path, one.kind, asked, one.clients, _WARM)
    found = load(address, path, one.kind, asked, one.clients, seconds)
    if found.failed:
        raise RuntimeError(f"{found.failed:,} of {found.requests:,} requests failed")
    return found
