"""The process that the user starts: it holds the ports, starts the workers and starts one anew where it dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from runtime.errors import InputError, OutputError

from .layout import found
from .logs import Log
from .options import Options
from .worker import work

PAUSE_SECONDS = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Before a worker that died soon after its start is started again, one after the other."""
_SOON_SECONDS = 30.0
_VAIN = 5
"""Starts, before the server gives up that never was ready."""
_LONGEST_PLACE = 60
"""Of the folder of temporary files: the name of a Unix socket ends at about 100 bytes."""


@dataclass(frozen=True)
class Started:
    """What is served, and where."""

    url: str
    grpc: str | None
    models: list[dict[str, str]]


@dataclass
class _Worker:
    place: int
    process: Any = None
    tell: Connection | None = None
    since: float = 0.0
    deaths: int = 0
    again: float | None = None
    """When it is started anew."""


def serve(options: Options, started: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``started`` is called once, when the first requests can come.

    Raises InputError: the folder or an option is no use; OutputError: a port cannot be had.
    """
    layout = found(options.folder)
    if not layout:
        hint = "What to do: put NAME.onnx files there, or folders NAME/VERSION/model.onnx"
        raise InputError(f"{options.folder}: no model is in this folder. {hint}")
    _check_tls(options)
    with contextlib.ExitStack() as held:
        rest = held.enter_context(_listening(options.host, options.port))
        reserved = None
        if options.grpc_port is not None:
            reserved = held.enter_context(_reserved(options.host, options.grpc_port))
        short = len(tempfile.gettempdir()) <= _LONGEST_PLACE
        folder = Path(tempfile.mkdtemp(prefix="mlpx-serve-", dir=None if short else "/tmp"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        _Supervisor(options, rest, reserved, folder, started).run()


class _Supervisor:
    def __init__(
        self,
        options: Options,
        rest: socket.socket,
        reserved: socket.socket | None,
        folder: Path,
        started: Callable[[Started], None],
    ):
        self._options, self._rest, self._folder = options, rest, folder
        self._grpc_port = None if reserved is None else reserved.getsockname()[1]
        self._started: Callable[[Started], None] | None = started
        self._log = Log()
        self._workers = [_Worker(place) for place in range(options.workers)]
        self._stopping = False
        self._context = multiprocessing.get_context("spawn")

    def run(self) -> None:
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        before = {
            number: signal.signal(number, lambda number, _: os.write(woken, bytes([number])))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            for worker in self._workers:
                self._start(worker)
            while any(worker.process is not None or worker.again is not None for worker in self._workers):
                self._turn(wake)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake)
            os.close(woken)

    def _turn(self, wake: int) -> None:
        """Wait for a signal, a worker's word or its end, or for the time to start one again."""
        watched: dict[Any, _Worker] = {}
        for worker in self._workers:
            if worker.process is not None:
                watched[worker.process.sentinel] = worker
                if worker.tell is not None and not worker.tell.closed:
                    watched[worker.tell] = worker
        times = [worker.again - monotonic() for worker in self._workers if worker.again is not None]
        for ready in wait([wake, *watched], max(0.0, min(times)) if times else None):
            if ready == wake:
                for number in os.read(wake, 64):
                    self._signal(number)
            elif isinstance(ready, Connection):
                self._word(watched[ready])
            elif watched[ready].process is not None:
                self._died(watched[ready])
        for worker in self._workers:
            if worker.again is not None and worker.again <= monotonic():
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        worker.again, worker.since = None, monotonic()
        worker.tell, child = self._context.Pipe()
        arguments = (self._options, self._rest, self._grpc_port, worker.place, child, self._folder)
        worker.process = self._context.Process(target=work, args=arguments, name=f"mlpx-worker-{worker.place}")
        worker.process.start()
        child.close()

    def _word(self, worker: _Worker) -> None:
        assert worker.tell is not None
        try:
            word, value = worker.tell.recv()
        except (EOFError, OSError):
            worker.tell.close()
            return
        if word == "failed":
            if self._started is not None:
                raise InputError(value)
            self._log.event("worker_failed", worker=worker.place, reason=value)
            return
        if self._started is not None:
            if not any(model["state"] == "READY" for model in value):
                reasons = "; ".join(f"{model['name']}: {model['reason']}" for model in value)
                raise InputError(f"{self._options.folder}: no model of it can be served: {reasons}")
            started, self._started = self._started, None
            started(self._where(value))

    def _where(self, models: list[dict[str, str]]) -> Started:
        host, port = self._rest.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        secure = self._options.certificate is not None
        grpc = None if self._grpc_port is None else f"grpc{'s' if secure else ''}://{shown}:{self._grpc_port}"
        return Started(f"http{'s' if secure else ''}://{shown}:{port}", grpc, models)

    def _died(self, worker: _Worker) -> None:
        process, worker.process = worker.process, None
        process.join()
        if worker.tell is not None:
            worker.tell.close()
        if self._stopping:
            return
        soon = monotonic() - worker.since < _SOON_SECONDS
        worker.deaths = worker.deaths + 1 if soon else 0
        if self._started is not None and worker.deaths >= _VAIN:
            raise OutputError(
                f"no worker could be started, the last one ended with {process.exitcode}; the log has more"
            )
        pause = PAUSE_SECONDS[min(worker.deaths, len(PAUSE_SECONDS) - 1)]
        worker.again = monotonic() + pause
        self._log.event("worker_died", worker=process.pid, exit=process.exitcode, started_again_in=pause)

    def _signal(self, number: int) -> None:
        if number != signal.SIGHUP:
            self._stopping = True
            for worker in self._workers:
                worker.again = None
        for worker in self._workers:
            if worker.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number if number == signal.SIGHUP else signal.SIGTERM)

    def _end(self) -> None:
        """No worker outlives the supervisor, whatever ended it."""
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.join(self._options.grace + 5)
                worker.process.kill()
                worker.process.join()


def _check_tls(options: Options) -> None:
    """Raises InputError: before any work, and not at the first handshake."""
    if options.certificate is None or options.key is None:
        return
    pair = f"{options.certificate} and {options.key}"
    hint = "What to do: --tls-cert takes a certificate chain and --tls-key its private key, both PEM"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key, password="")
    except ssl.SSLError as error:
        raise InputError(f"{pair}: no certificate with its key: {error.reason or error}. {hint}") from None
    except OSError as error:
        raise InputError(f"{pair}: cannot be read: {error.strerror}. {hint}") from None


def _listening(host: str, port: int) -> socket.socket:
    found = _bound(host, port)
    found.listen(4096)
    found.set_inheritable(True)
    return found


def _reserved(host: str, port: int) -> socket.socket:
    """A port that the workers share for gRPC: held, not listened to."""
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool = False) -> socket.socket:
    hint = "What to do: give another (--port, --grpc-port), or 0 for any free one; --host for another address"
    found = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            if port:  # whoever else shares its port would share this one's requests
                with socket.socket(family, kind) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
                    probe.listen(1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        if found is not None:
            found.close()
        why = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"port {port} of {host} cannot be had: {why}. {hint}") from None
    return found
