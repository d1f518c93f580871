"""Sends the rows of a certificate to a server in every pattern that a server may treat differently.

All at once; one by one; in batches of several sizes, in which each row is at different positions; and over several
connections at the same time, so that a server with dynamic batching combines requests. A server that only takes
batches of a fixed size gets those, filled up with the rows that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Barrier
from typing import NamedTuple

from runtime.model.certificate import Answers

from .connection import Connection
from .grpc_client import GrpcClient
from .protocol import Client, Response, ServerError
from .rest_client import RestClient

_BATCH_SIZES = 2, 3, 5, 8, 16
_CONNECTIONS = 4
_RETRIES = 3
"""Of a request that a busy server rejects (429, 503)."""
_MAX_RETRY_WAIT = 5.0

Rows = tuple[int, ...]


class Method(NamedTuple):
    """How rows are sent."""

    how: str
    """The pattern: "all at once", "one by one", "in batches" or "at the same time"."""
    tensors: str
    """"JSON" or "bytes"."""

    def __str__(self) -> str:
        return f"{self.how} ({self.tensors})"


def connect(connection: Connection) -> Client:
    """A client of its own. Raises InputError: the CA file cannot be used."""
    return GrpcClient(connection) if connection.address.grpc else RestClient(connection)


@dataclass(frozen=True)
class Exchange:
    """A request for rows of the certificate, and its response."""

    method: Method
    rows: Rows
    request_id: str
    response: Response | ServerError


@dataclass
class Probe:
    """The requests to one version of a model. It stops at the first request that gets no answer at all."""

    answers: Answers
    connection: Connection
    client: Client
    version: str | None
    fixed_batch: int | None = None
    """The size of every batch, where the server takes no other."""
    max_batch: int | None = None
    """The most rows in a batch that the server accepts, once it has refused more."""
    refusal: str = ""
    """Its first error then."""
    stopped: bool = False
    _request_ids: Iterator[int] = field(default_factory=lambda: count(1))

    def all_at_once(self, tensors: str) -> list[Exchange]:
        """All rows in one batch. If the server refuses so many: half as many, again and again, down to one."""
        method, rows = Method("all at once", tensors), self.answers.rows
        exchanges = self._send(method, self._batches(rows))
        while _all_refused(exchanges) and self.fixed_batch is None and (self.max_batch or rows) > 1:
            self.refusal = self.refusal or str(exchanges[0].response)
            self.max_batch = (self.max_batch or rows) // 2
            exchanges = self._send(method, self._batches(rows)[:1])
        if self.refusal and not _all_refused(exchanges):
            exchanges = self._send(method, self._batches(rows))
        if all(isinstance(exchange.response, ServerError) for exchange in exchanges):  # is it the size?
            exchanges += self._send(Method("one by one", tensors), self._batches(1)[:1])
        return exchanges

    def other_patterns(self, tensors: str) -> Iterator[Exchange]:
        """All patterns but ``all_at_once``, which comes first."""
        yield from self._send(Method("one by one", tensors), self._batches(1))
        sizes = [size for size in _BATCH_SIZES if size < self.answers.rows]
        yield from self._send(Method("in batches", tensors), self._mixed_batches(sizes))
        concurrent = [*self._batches(1), *self._mixed_batches((2, 5, 3))] * 2
        yield from self._send_concurrently(Method("at the same time", tensors), concurrent)

    def _mixed_batches(self, sizes: Sequence[int]) -> list[Rows]:
        return [batch for size in sizes for batch in self._batches(size, reversed_from=size)]

    def _batches(self, size: int, reversed_from: int | None = None) -> list[Rows]:
        """Every row once, in batches: in order, or in reverse order from a certain row on."""
        rows = self.answers.rows
        order = [index if reversed_from is None else (reversed_from - index) % rows for index in range(rows)]
        if self.fixed_batch is None:
            size = min(size, self.max_batch or size)
            return [tuple(order[start : start + size]) for start in range(0, rows, size)]
        step, batch = min(size, self.fixed_batch), range(self.fixed_batch)
        return [tuple(order[(start + offset) % rows] for offset in batch) for start in range(0, rows, step)]

    def _send(self, method: Method, batches: Sequence[Rows], client: Client | None = None) -> list[Exchange]:
        exchanges: list[Exchange] = []
        for rows in batches:
            if self.stopped:
                break
            request_id = f"mlpx-verify-{next(self._request_ids)}"
            inputs = {name: values[list(rows)] for name, values in self.answers.inputs.items()}
            infer = partial((client or self.client).infer, inputs, request_id, self.version, method.tensors == "bytes")
            response = _with_retries(infer)
            if isinstance(response, ServerError) and response.no_answer:
                self.stopped = True  # the next hundred requests would each wait as long
            exchanges.append(Exchange(method, rows, request_id, response))
        return exchanges

    def _send_concurrently(self, method: Method, batches: Sequence[Rows]) -> list[Exchange]:
        if self.stopped:
            return []
        barrier = Barrier(_CONNECTIONS)

        def send(client: Client, share: Sequence[Rows]) -> list[Exchange]:
            barrier.wait()
            return self._send(method, share, client)

        with ExitStack() as stack, ThreadPoolExecutor(_CONNECTIONS) as pool:
            clients = [stack.enter_context(closing(connect(self.connection))) for _ in range(_CONNECTIONS)]
            shares = [batches[index::_CONNECTIONS] for index in range(_CONNECTIONS)]
            return [exchange for exchanges in pool.map(send, clients, shares) for exchange in exchanges]


def _with_retries(infer: Callable[[], Response]) -> Response | ServerError:
    """The response; a busy server is asked again after the time that it names."""
    retries = 0
    while True:
        try:
            return infer()
        except ServerError as error:
            if error.status not in (429, 503) or error.unreachable or retries == _RETRIES:
                return error
            retries += 1
            time.sleep(min(error.wait, _MAX_RETRY_WAIT))


def _all_refused(exchanges: Sequence[Exchange]) -> bool:
    """Whether the server blames every request."""
    return bool(exchanges) and all(
        isinstance(exchange.response, ServerError) and exchange.response.status in (400, 413, 422)
        for exchange in exchanges
    )
