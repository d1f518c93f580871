"""The rows of a certificate, sent to a server in every way that a server may treat differently.

All at once; one by one; in batches of several sizes, in which each row lies elsewhere; and from several connections at
the same time, so that a server that puts requests together does. One that only takes batches of a fixed size gets
those, filled up with the rows that come next.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Barrier

from runtime.errors import InputError
from runtime.model.certificate import Answers

from .judge import Heard
from .protocol import Client, Fault, Question, Reply
from .url import Address

_SIZES = 2, 3, 5, 8, 16
_CONNECTIONS = 4
_ATTEMPTS = 4
"""At a request that a busy server turns away (429, 503)."""
_LONGEST_WAIT = 5.0

Rows = tuple[int, ...]


@dataclass(frozen=True)
class Line:
    """How clients are made: all that a connection needs."""

    address: Address
    timeout: float
    token: str | None
    ca_file: Path | None
    most: int
    """Bytes of an answer."""

    def client(self) -> Client:
        """A connection of its own. Raises InputError: the file of the authority cannot be used."""
        authority = None if self.ca_file is None else _authority(self.ca_file)
        if self.address.grpc:
            from .grpc_client import GrpcClient

            return GrpcClient(self.address, self.timeout, self.token, authority, self.most)
        from .rest_client import RestClient

        context = None
        if self.address.encrypted:
            try:
                context = ssl.create_default_context(cadata=None if authority is None else authority.decode("ascii"))
            except (ssl.SSLError, ValueError):
                raise InputError(f"{self.ca_file}: not a certificate in PEM. {_CA_HINT}") from None
        return RestClient(self.address, self.timeout, self.token, context)


_CA_HINT = "What to do: name the PEM file of the authority that signed the server's certificate"


def _authority(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. {_CA_HINT}") from None


@dataclass
class Asking:
    """Questions about one model over one line. Broken off at the first request that gets no answer at all."""

    answers: Answers
    line: Line
    client: Client
    version: str | None
    fixed: int | None = None
    """The size of every batch, where the server takes no other."""
    largest: int | None = None
    """The most rows of a batch that the server takes, where it has refused more; found by ``whole``."""
    refused: str = ""
    """What it said then."""

    def __post_init__(self) -> None:
        self._identities = count(1)
        self.broken = False

    def whole(self, tensors: str) -> list[Heard]:
        """All rows at once. Where the server refuses that many, fewer: half of them, down to one."""
        heard = self._in_order("all at once", tensors, self._batches(self.answers.rows))
        while _all_refused(heard) and self.fixed is None and (self.largest or self.answers.rows) > 1:
            self.refused = self.refused or str(heard[0].came)
            self.largest = (self.largest or self.answers.rows) // 2
            heard = self._in_order("all at once", tensors, self._batches(self.answers.rows)[:1])
        if self.refused and not _all_refused(heard):
            heard = self._in_order("all at once", tensors, self._batches(self.answers.rows))
        if all(isinstance(one.came, Fault) for one in heard):
            heard += self._in_order("one by one", tensors, self._batches(1)[:1])  # is it the size?
        return heard

    def every_way(self, tensors: str) -> Iterator[Heard]:
        """The other ways, after ``whole``."""
        yield from self._in_order("one by one", tensors, self._batches(1))
        mixed = [batch for size in _SIZES if size < self.answers.rows for batch in self._batches(size, turned=size)]
        yield from self._in_order("in batches", tensors, mixed)
        together = [*self._batches(1), *(batch for size in (2, 5, 3) for batch in self._batches(size, turned=size))]
        yield from self._together("at the same time", tensors, together * 2)

    def _batches(self, size: int, turned: int = 0) -> list[Rows]:
        """Every row once, in batches; ``turned``: backwards, from another row on."""
        rows = self.answers.rows
        order = [(turned - index) % rows for index in range(rows)] if turned else list(range(rows))
        if self.fixed is None:
            size = min(size, self.largest or size)
            return [tuple(order[start : start + size]) for start in range(0, rows, size)]
        step = min(size, self.fixed)
        return [tuple(order[(start + i) % rows] for i in range(self.fixed)) for start in range(0, rows, step)]

    def _in_order(self, how: str, tensors: str, batches: Sequence[Rows]) -> list[Heard]:
        heard = []
        for rows in batches:
            if self.broken:
                break
            heard.append(self._ask(self.client, how, tensors, rows))
        return heard

    def _together(self, how: str, tensors: str, batches: Sequence[Rows]) -> list[Heard]:
        if self.broken:
            return []
        barrier = Barrier(_CONNECTIONS)

        def one(share: Sequence[Rows]) -> list[Heard]:
            client = self.line.client()
            try:
                barrier.wait()
                heard = []
                for rows in share:
                    if self.broken:
                        break
                    heard.append(self._ask(client, how, tensors, rows))
                return heard
            finally:
                client.close()

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            shares = pool.map(one, [batches[index::_CONNECTIONS] for index in range(_CONNECTIONS)])
            return [heard for share in shares for heard in share]

    def _ask(self, client: Client, how: str, tensors: str, rows: Rows) -> Heard:
        request = f"mlpx-verify-{next(self._identities)}"
        inputs = {name: held[list(rows)] for name, held in self.answers.inputs.items()}
        question = Question(inputs, request, self.version, tensors == "bytes", self.line.most)
        came = patiently(lambda: client.infer(question))
        if isinstance(came, Fault) and (came.where == "way" or came.status == 504):
            self.broken = True  # the next hundred requests would each wait as long
        return Heard(how, tensors, rows, request, came)


def patiently(ask: Callable[[], Reply]) -> Reply | Fault:
    """An answer, asked for again where the server is busy and says so."""
    for attempt in range(_ATTEMPTS):
        try:
            return ask()
        except Fault as fault:
            if fault.status not in (429, 503) or fault.where == "way" or attempt == _ATTEMPTS - 1:
                return fault
            time.sleep(min(fault.wait, _LONGEST_WAIT))
    raise AssertionError


def _all_refused(heard: Sequence[Heard]) -> bool:
    """Whether every request was answered with a 4xx of the client's fault."""
    return bool(heard) and all(isinstance(h.came, Fault) and h.came.status in (400, 413, 422) for h in heard)
