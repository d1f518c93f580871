"""Sends the rows of a certificate to a server in every pattern that a server may treat differently.

All at once; one by one; in batches of every size up to 64, and of powers of two up to 1,024 or what the server takes;
and over several connections at the same time, so that a server with dynamic batching combines requests. Batches are
drawn, with the rows in another order each time, from rows whose answers differ by more than their bounds: of others no
one could see that they are mixed up. All of it may be repeated any number of times, for faults that are rare. A server
that only takes batches of a fixed size gets those, filled up with the rows that follow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count, cycle, islice
from threading import Barrier
from typing import NamedTuple

import numpy as np

from runtime.model.certificate import Answers

from .connection import Connection
from .grpc_client import GrpcClient
from .mlflow_client import MlflowClient
from .protocol import Client, Response, ServerError
from .rest_client import RestClient

_BATCH_SIZES = *range(2, 65), 128, 256, 512, 1024
_FIXED = 8
"""Batches of rows in another order, of a server that takes one size only."""
_MIXED = 1, 2, 1, 5, 1, 3
"""Sizes of requests that are sent at the same time, in turn."""
_REPEATED = 1, 4, 1, 16, 2, 33, 1, 7, 3, 64
"""Sizes of repeated requests, in turn."""
_MAX_NUMBERS = 2**17
"""Of the inputs and outputs of a batch that is larger than the rows of the certificate."""
_CONNECTIONS = 4
_RETRIES = 3
"""Of a request that a busy server rejects (429, 503)."""
_MAX_RETRY_WAIT = 5.0

Rows = tuple[int, ...]


class Method(NamedTuple):
    """How rows are sent."""

    how: str
    """The pattern: "all at once", "one by one", "in batches", "at the same time", "repeatedly" or both of these."""
    tensors: str
    """"JSON" or "bytes"."""

    def __str__(self) -> str:
        return f"{self.how} ({self.tensors})"


def largest_batch(answers: Answers) -> int:
    """The most rows that are sent at a time."""
    tables = *answers.inputs.values(), *answers.exact.values()
    numbers = sum(values[0].size for values in tables)
    return max(answers.rows, min(_BATCH_SIZES[-1], _MAX_NUMBERS // max(1, numbers)))


def connect(connection: Connection) -> Client:
    """A client of its own. Raises InputError: the CA file cannot be used."""
    if connection.address.grpc:
        return GrpcClient(connection)
    return MlflowClient(connection) if connection.address.mlflow else RestClient(connection)


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
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _waiting: list[int] = field(default_factory=list[int])

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
        yield from self._every_size(Method("in batches", tensors))
        concurrent = self._draw(islice(cycle(_MIXED), 2 * self.answers.rows))
        yield from self._send_concurrently(Method("at the same time", tensors), concurrent)

    def repeats(self, tensors: str, requests: int) -> list[Exchange]:
        """So many requests, of different sizes and orders, half of them at the same time."""
        batches = self._draw(islice(cycle(_REPEATED), requests))
        half = len(batches) // 2
        alone = self._send(Method("repeatedly", tensors), batches[:half])
        return alone + self._send_concurrently(Method("repeatedly, at the same time", tensors), batches[half:])

    @cached_property
    def distinct(self) -> list[int]:
        """Rows whose answers all differ, each two of them by more than their bounds in some value."""
        exact, bound = (
            np.concatenate([values.reshape(len(values), -1) for values in table.values()], axis=1)
            for table in (self.answers.exact, self.answers.bound)
        )
        found: list[int] = []
        for row in range(self.answers.rows):
            if (np.abs(exact[row] - exact[found]) > bound[row] + bound[found]).any(axis=1).all():
                found.append(row)
        return found

    def _every_size(self, method: Method) -> Iterator[Exchange]:
        """Batches of every size; that a server refuses more rows than the certificate has is no fault, and the end."""
        if self.fixed_batch is not None:
            yield from self._send(method, self._draw([self.fixed_batch] * _FIXED))
            return
        largest = min(largest_batch(self.answers), self.max_batch or _BATCH_SIZES[-1])
        for size in _BATCH_SIZES:
            if size > largest:
                break
            exchanges = self._send(method, self._draw([size]))
            if size > self.answers.rows and _all_refused(exchanges):
                self.max_batch = size - 1 if size <= 64 else size // 2
                break
            yield from exchanges

    def _draw(self, sizes: Iterable[int]) -> list[Rows]:
        """Batches of these sizes, or of what the server takes, of distinct rows in another order each time."""
        batches: list[Rows] = []
        for size in sizes:
            size = self.fixed_batch or min(size, self.max_batch or size)
            while len(self._waiting) < size:
                rows = self.distinct if len(self.distinct) > 1 else range(self.answers.rows)
                self._waiting += self._random.permutation(rows).tolist()
            batches.append(tuple(self._waiting[:size]))
            del self._waiting[:size]
        return batches

    def _batches(self, size: int) -> list[Rows]:
        """Every row once, in order, in batches."""
        rows = self.answers.rows
        if self.fixed_batch is None:
            size = min(size, self.max_batch or size)
            return [tuple(range(start, min(start + size, rows))) for start in range(0, rows, size)]
        step, batch = min(size, self.fixed_batch), range(self.fixed_batch)
        return [tuple((start + offset) % rows for offset in batch) for start in range(0, rows, step)]

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
