"""The proxy: a port, connections to the old server, the comparing process, and what is told of it."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import Full, Queue
from threading import Thread
from typing import Any

from runtime.errors import OutputError
from runtime.extras import imported
from runtime.live.connection import Connection
from runtime.live.rest_client import tls_context
from runtime.monitor.endpoint import endpoint

from .asking import Job
from .comparing import Answered
from .exchanges import PURPOSE, Exchange, Follower
from .mirror import Mirror
from .options import Options, Side
from .outcomes import OLD, SHARE, SIZE, Outcome
from .relay import Relay
from .tally import Tally

_FAILED, _BUSY = 500, 429
_WAITING, _LAST_SECONDS = 1000, 5.0
"""Outcomes that wait to be told, and how long they may at the end."""
_LOOK_SECONDS = 0.05
"""Between two looks at what is still in progress."""


@dataclass(frozen=True)
class Started:
    """Where the proxy listens."""

    url: str
    metrics: str | None
    """The URL of /metrics."""


def shadow(options: Options, started: Callable[[Started], None], told: Callable[[Outcome], None]) -> Tally:
    """Answer from the old server, and compare with the new one, until SIGTERM, SIGINT or SIGHUP; what was counted.

    ``started`` is called once, ``told`` with outcomes that a user should see, at most 100 a second.
    Raises OutputError: a port cannot be bound; InputError: the CA file cannot be used; MissingPackageError.
    """
    imported("httptools", PURPOSE)
    try:
        import uvloop

        run: Any = uvloop.run
    except ImportError:  # not on Windows
        run = asyncio.run
    return run(_run(options, started, told))


async def _run(options: Options, started: Callable[[Started], None], told: Callable[[Outcome], None]) -> Tally:
    return await _Proxy(options, told).run(started)


class _Proxy:
    def __init__(self, options: Options, told: Callable[[Outcome], None]):
        self._options, self._telling = options, _Telling(told)
        self._tally = Tally()
        self._mirror = Mirror(options, self._received)
        tls = _tls(options, options.old)
        _tls(options, options.new)  # before any work: the comparing process could only say it once it is asked
        self._relay = Relay(options.old, tls, self._follower, self._gone)

    async def run(self, started: Callable[[Started], None]) -> Tally:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                loop.add_signal_handler(number, stop.set)
        host, port = self._options.host, self._options.port
        try:
            server = await loop.create_server(self._relay.client, host, port, backlog=4096)
        except (OSError, OverflowError) as error:
            hint = "give another port (--port), or 0 for any free one; --host for another address"
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"cannot bind {host}:{port}: {reason}. What to do: {hint}") from None
        with ExitStack() as stack:
            metrics = None
            if self._options.metrics is not None:
                metrics = stack.enter_context(endpoint(_Shown(self._tally), *self._options.metrics))
            mirroring = loop.create_task(self._mirror.run())
            shown = f"[{host}]" if ":" in host else host
            started(Started(f"http://{shown}:{server.sockets[0].getsockname()[1]}", metrics))
            stopped = loop.create_task(stop.wait())
            await asyncio.wait({stopped, mirroring}, return_when=asyncio.FIRST_COMPLETED)
            server.close()
            await self._finish()
            self._mirror.stop()
            await mirroring
        await asyncio.to_thread(self._telling.end)
        return self._tally

    async def _finish(self) -> None:
        """Close the connections: those with a request in progress when it is answered, or when ``grace`` is over."""
        end = asyncio.get_running_loop().time() + self._options.grace
        while self._relay.open:
            late = asyncio.get_running_loop().time() > end
            for client in list(self._relay.open):
                if late:
                    client.transport.abort()  # to close it would wait until the client takes what is left
                elif not client.follower.in_progress:
                    client.transport.close()
            await asyncio.sleep(_LOOK_SECONDS)

    def _follower(self) -> Follower:
        old = self._options.old
        return Follower(lambda target: old.asked(target) is not None, self._options.max_body, self._found)

    def _gone(self, follower: Follower) -> None:
        self._tally.requests += follower.unanswered
        self._tally.left_out[OLD] += follower.unanswered

    def _found(self, exchange: Exchange) -> None:
        """An inference request was answered: give both to the mirror, or count why not."""
        self._tally.requests += 1
        request, answer = exchange.request, exchange.answer
        if answer.status == _BUSY or answer.status >= _FAILED:
            reason = OLD
        elif not exchange.whole:
            reason = SIZE
        elif self._options.share < 1 and random.random() >= self._options.share:
            reason = SHARE
        else:
            sides = [Answered(message.headers, message.body()) for message in (request, answer)]
            seconds = answer.ended - request.ended
            reason = self._mirror.offer(Job(request.target, sides[0], answer.status, sides[1], seconds))
        if reason is None:
            self._tally.mirrored += 1
        else:
            self._tally.left_out[reason] += 1

    def _received(self, tally: Tally, outcomes: list[Outcome]) -> None:
        self._tally.join(tally)
        for outcome in outcomes:
            self._telling.add(outcome)


class _Telling:
    """Tells outcomes in a thread of its own: output that nobody reads holds up no client."""

    def __init__(self, told: Callable[[Outcome], None]):
        self._told = told
        self._waiting: Queue[Outcome | None] = Queue(_WAITING)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, outcome: Outcome) -> None:
        """Tell it, unless too many wait: it is counted anyway."""
        with suppress(Full):
            self._waiting.put_nowait(outcome)

    def _run(self) -> None:
        while (outcome := self._waiting.get()) is not None:
            try:
                self._told(outcome)
            except OSError:  # nobody reads it any more
                return

    def end(self) -> None:
        """Wait until all are told, for some seconds."""
        with suppress(Full):
            self._waiting.put(None, timeout=_LAST_SECONDS)
        self._thread.join(_LAST_SECONDS)


class _Shown:
    """What /metrics, /ready and /health say: the proxy answers as long as it runs."""

    state: tuple[bool, str] = (True, "running")

    def __init__(self, tally: Tally):
        self._tally = tally

    def metrics(self) -> str:
        """The counters in Prometheus' text format."""
        return self._tally.metrics()


def _tls(options: Options, side: Side) -> ssl.SSLContext | None:
    """For the connections to a server. Raises InputError: the CA file cannot be used."""
    address = side.address
    if not address.encrypted:
        return None
    return tls_context(Connection(address, options.timeout, None, options.ca_file, 0))
