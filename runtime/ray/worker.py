"""What runs inside a cluster: the workers that score parts, and the job that hands the parts out to them.

Nothing is returned by exception: a receipt says what a part gave, or why it could not be scored, so that a message
arrives as it was written. Ray repeats a part whose worker died. Before a worker scores a part it notes the attempt
beside the results, so that a part which kills its workers is given up and named.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ClusterError, InputError, MissingPackageError, ModelError, OutputError, ProviderError
from runtime.extras import imported
from runtime.session.session import Session
from runtime.version import VERSION

from .part import score_part
from .partition import Part

ATTEMPTS = 3
NOTES = ".attempts"
ERRORS = (InputError, ModelError, OutputError, ProviderError, MissingPackageError, ClusterError)
"""What a receipt may carry; ``raised`` raises it again."""


@dataclass(frozen=True)
class Work:
    """What is to be done, the same for every worker; it travels as JSON."""

    parts: tuple[Part, ...]
    folder: str
    """Of the results, which every machine of the cluster sees under this path."""
    device: str
    threads: int
    options: dict[str, Any]
    """Of ``score_part``."""
    version: str = VERSION


def work_of(record: dict[str, Any]) -> Work:
    """The work that a record of it (``dataclasses.asdict``, through JSON) holds."""
    parts = tuple(Part(**part | {"row_groups": tuple(part["row_groups"])}) for part in record["parts"])
    fields: dict[str, Any] = record | {"parts": parts}
    return Work(**fields)


def told(error: Exception) -> dict[str, Any]:
    """An error as it travels."""
    kind = next((kind for kind in ERRORS if isinstance(error, kind)), None)
    message = str(error) if kind is not None else f"{type(error).__name__}: {error}"
    return {"error": (kind or ClusterError).__name__, "message": message}


def raised(record: dict[str, Any]) -> None:
    """Raise the error that a record holds, where it holds one."""
    if "error" in record:
        raise {kind.__name__: kind for kind in ERRORS}[record["error"]](record["message"])


class Worker:
    """Scores parts. The model is loaded with the first of them."""

    def __init__(self, work: dict[str, Any], model: Any):
        self._work, self._model = work_of(work), model
        self._session: Session | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The receipt of the part with this number."""
        import json

        number = int(row["part"])
        try:
            receipt = self._scored(number)
        except Exception as error:
            receipt = told(error)
        return {"receipt": json.dumps(receipt | {"part": number})}

    def _scored(self, number: int) -> dict[str, Any]:
        work, part = self._work, self._work.parts[number]
        if work.version != VERSION:
            raise ClusterError(
                f"{socket.gethostname()} has mlpx {VERSION}, and this machine {work.version}. "
                "What to do: install the same version on every machine of the cluster"
            )
        attempts = _noted(Path(work.folder) / NOTES / str(number))
        if attempts > ATTEMPTS:
            rows = f"rows {part.first_row + 1:,} to {part.first_row + part.rows:,}"
            hint = "look whether its machine ran out of memory, and score that file alone"
            raise ClusterError(f"{part.source}: {ATTEMPTS} workers died over {rows}. What to do: {hint}")
        if self._session is None:
            model = (
                self._model if isinstance(self._model, bytes) else imported("ray", "scoring on Ray").get(self._model)
            )
            self._session = Session(model, work.device, threads=work.threads, workers=work.threads)
        began = time.time()
        scored = score_part(self._session, part, work.folder, **work.options)
        took = {"began": began, "ended": time.time()}
        who = f"{socket.gethostname()}:{os.getpid()}"
        return asdict(scored) | {"device": self._session.device, "worker": who, "attempts": attempts} | took


def _noted(path: Path) -> int:
    """How often a part has been begun, this time included."""
    try:
        path.parent.mkdir(exist_ok=True)
        with open(path, "ab") as file:
            file.write(b"x")
        return path.stat().st_size
    except OSError as error:
        hint = "give a folder that this machine and every machine of the cluster see under the same path"
        raise OutputError(
            f"{path.parent.parent}: cannot be written on {socket.gethostname()}: {error.strerror}. What to do: {hint}"
        ) from None


class Job:
    """Hands the parts out to workers, by Ray Data. It is an actor in the cluster, since Ray Data runs nowhere else."""

    def __init__(self, work: dict[str, Any], model: list[Any], workers: int, gpu: bool):
        data: Any = imported("ray.data", "scoring on Ray")
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        self._model = model  # its bytes live as long as somebody holds them
        numbers = [{"part": number} for number in range(len(work["parts"]))]
        dataset = data.from_items(numbers, override_num_blocks=len(numbers)).map(
            Worker,
            fn_constructor_args=(work, model[0]),
            compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=work["threads"],
            num_gpus=1 if gpu else 0,
        )
        self._receipts: Iterator[dict[str, Any]] = iter(dataset.iter_rows())

    def next(self) -> str | None:
        """The next receipt, as JSON; None after the last."""
        row = next(self._receipts, None)
        return None if row is None else row["receipt"]
