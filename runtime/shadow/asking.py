"""Asks the new server what the old one has answered, and compares."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from threading import Lock
from time import monotonic, perf_counter
from typing import Any

from runtime.live.protocol import ServerError
from runtime.live.rest_client import RestClient

from .bounds import MAX_ANSWER, Known, connected, known_of
from .comparing import Answered, compare
from .options import Options
from .outcomes import BEYOND, LATE, LOST, OTHER, REFUSED, Outcome

_PASSED_ON = ("content-type", "content-encoding", "inference-header-content-length", "x-request-id", "traceparent")
"""Headers that the new server gets as the client sent them. Neither tokens nor cookies are among them."""
_BUSY, _FAILED, _DENIED = 429, 500, (401, 403, 407)
_FRESH, _AT_LEAST = 60.0, 1.0
"""Seconds after which a bound is asked for again: always, and before a difference is told."""


@dataclass(frozen=True)
class Job:
    """A request, and the old server's answer to it."""

    target: str
    request: Answered
    status: int
    answer: Answered
    seconds: float
    """That the old server took."""


class Bounds:
    """The bounds of both sides by model, asked for again now and then. Safe for several threads."""

    def __init__(self, options: Options):
        self._options = options
        self._lock = Lock()
        self._known: dict[tuple[str, str | None], tuple[float, tuple[Known, Known]]] = {}

    def of(self, model: str, version: str | None, oldest: float = _FRESH) -> tuple[Known, Known]:
        """Of the old and of the new side, not asked for longer ago than ``oldest`` seconds."""
        options = self._options
        with self._lock:
            at, known = self._known.get((model, version), (-1.0, None))
            if known is None or monotonic() - at > oldest:
                old, new = (known_of(side, options, model, version) for side in (options.old, options.new))
                known = old, new
                self._known[model, version] = monotonic(), known
            return known

    def words(self) -> dict[str, str]:
        """What is known, by model."""
        with self._lock:
            return {
                model: f"bound of the old model {old.words}; of the new one {new.words}"
                for (model, _), (_, (old, new)) in self._known.items()
            }


class Asker:
    """One connection to the new server, for one thread. Raises InputError: the CA file cannot be used."""

    def __init__(self, options: Options, bounds: Bounds):
        self._options, self._bounds = options, bounds
        self._client: RestClient = connected(options.new, options)

    def outcome(self, job: Job) -> Outcome:
        """Ask the new server, and compare."""
        model, version = self._options.old.asked(job.target) or ("", None)
        headers = {name: job.request.headers[name] for name in _PASSED_ON if name in job.request.headers}
        path = f"{self._options.new.model_path(model, version)}/infer"
        identity = job.answer.headers.get("x-request-id", "")
        start = perf_counter()
        answer: Answered | None = None
        error: ServerError | None = None
        try:
            answer = Answered(*self._client.request("POST", path, job.request.body, headers, MAX_ANSWER))
        except ServerError as raised:
            error = raised
        seconds = perf_counter() - start
        common: dict[str, Any] = {"model": model, "request": identity, "old_seconds": job.seconds}
        if error is not None and (kind := _lost(error)) is not None:
            return Outcome(kind, words=str(error), **common)
        common["new_seconds"] = seconds
        if answer is None or job.status != 200:
            kind, words = _refused(job, error)
            return Outcome(kind, words=words, **common)
        found = compare(job.request, job.answer, answer, self._bounds.of(model, version))
        if found.kind == BEYOND:  # perhaps a file was replaced, and with it its bound
            found = compare(job.request, job.answer, answer, self._bounds.of(model, version, _AT_LEAST))
        return Outcome(**asdict(found), **common)


def _lost(error: ServerError) -> str | None:
    """The kind of outcome where the new server gave no answer to the request itself."""
    if error.status == 504:
        return LATE
    failed = error.status is None or error.status == _BUSY or error.status >= _FAILED or error.status in _DENIED
    return LOST if failed else None


def _refused(job: Job, error: ServerError | None) -> tuple[str, str]:
    """The kind of outcome where a side refuses, and the words for it."""
    if error is None:
        return OTHER, f"the old server refuses with HTTP {job.status}, the new one answers"
    if job.status == 200:
        return OTHER, f"the old server answers, the new one refuses with {error}"
    return REFUSED, ""
