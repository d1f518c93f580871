"""The process that the user starts: it holds the ports, starts the workers, and starts a worker again when it dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from runtime.errors import InputError, OutputError
from runtime.model.signing import public_key

from .layout import scan_models
from .logs import Log
from .options import Options
from .refusals import NotReady, Refusal
from .repository import LOADING, READY, WRONG, Faults
from .tracing import exporters
from .unix_sockets import grpc_path, listening
from .worker import Sockets, work
from .worker_sync import Channel

PAUSE_SECONDS = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Before a worker that died soon after its start is started again: after its first death, its second, ..."""
_SOON_SECONDS = 30.0
_START_ATTEMPTS = 5
"""Deaths of a worker before a server gives up that was never ready."""
_KILL_SECONDS = 5.0
"""Beyond ``grace``, before a worker that does not end is killed."""
_ANSWER_SECONDS = 60.0
"""For a worker to load a model."""


@dataclass(frozen=True)
class Started:
    """What is served, and where."""

    url: str
    grpc: str | None
    models: list[dict[str, Any]]
    """Each version: "name", "version", "state", "reason", and "proved", which is null where it is not loaded."""


@dataclass
class _WorkerProcess:
    number: int
    process: Any = None
    """None while it is not running."""
    channel: Channel | None = None
    ready: bool = False
    faults: Faults = field(default_factory=dict[tuple[str, str], str])
    """What it found wrong with its models."""
    error: Exception | None = None
    """Why the server cannot start, by what this worker says."""


def serve(options: Options, started: Callable[[Started], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; ``started`` is called once, when the server takes requests.

    Raises InputError: the folder or an option cannot be used; OutputError: a port cannot be bound.
    """
    if not scan_models(options.folder):
        hint = "What to do: put NAME.onnx files there, or folders NAME/VERSION/model.onnx"
        raise InputError(f"{options.folder}: no model is in this folder. {hint}")
    _check_tls(options)
    if options.otel:
        exporters()  # before any work
    for key in options.trusted_keys:
        public_key(key)  # before any work
    with ExitStack() as sockets:
        rest = sockets.enter_context(_bind(options.host, options.port))
        rest.listen(4096)
        rest.set_inheritable(True)
        grpc_port = None
        if options.grpc_port is not None:  # bound here, so that it stays ours; the workers listen
            reserved = sockets.enter_context(_bind(options.host, options.grpc_port, shared=True))
            grpc_port = reserved.getsockname()[1]
        local: list[socket.socket] = []
        if options.uds is not None:
            paths = [options.uds, *([grpc_path(options.uds)] if grpc_port is not None else [])]
            local = [sockets.enter_context(listening(path)) for path in paths]
        asyncio.run(_Supervisor(options, Sockets(rest, grpc_port, tuple(local)), started).run())


class _Supervisor:
    def __init__(self, options: Options, sockets: Sockets, started: Callable[[Started], None]):
        self._options, self._sockets = options, sockets
        self._started: Callable[[Started], None] | None = started
        """None once it was called."""
        self._log = Log()
        self._workers = [_WorkerProcess(number) for number in range(options.workers)]
        self._context = multiprocessing.get_context("spawn")
        self._stopping = asyncio.Event()
        self._deadline = 0.0
        """When workers that have not ended are killed, once the server stops."""
        self._changing = asyncio.Lock()
        self._unloaded: set[str] = set()
        """Models that clients unloaded: workers that are started later do not load them."""

        self._regions: dict[str, tuple[Any, ...]] = {}
        """Shared memory that clients registered, by name."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
            loop.add_signal_handler(signal.SIGHUP, self._stop)  # its terminal is closed
        loop.add_signal_handler(signal.SIGUSR1, self._refresh)
        try:
            tasks = [loop.create_task(self._keep_running(worker)) for worker in self._workers]
            ended = loop.create_task(asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))
            stopped = loop.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await asyncio.wait({ended}, timeout=max(0.0, self._deadline - monotonic()))
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            self._end()

    async def _keep_running(self, worker: _WorkerProcess) -> None:
        """Run a worker's process, and start it again when it dies, until the server stops."""
        deaths = 0
        while not self._stopping.is_set():
            start = monotonic()
            process = await self._run_process(worker)
            if worker.error is not None:
                raise worker.error
            if self._stopping.is_set():
                return
            deaths = deaths + 1 if monotonic() - start < _SOON_SECONDS else 0
            if self._started is not None and deaths >= _START_ATTEMPTS:
                message = f"no worker could be started: the last one ended with {process.exitcode}; the log has more"
                raise OutputError(message)
            pause = PAUSE_SECONDS[min(deaths, len(PAUSE_SECONDS) - 1)]
            self._log.event("worker_died", worker=process.pid, exit=process.exitcode, started_again_in=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_process(self, worker: _WorkerProcess) -> Any:
        """Start a worker's process and answer its requests until it has ended; the process."""
        ours, theirs = socket.socketpair()
        arguments = (self._options, self._sockets, worker.number, theirs, frozenset(self._unloaded))
        process = self._context.Process(target=work, args=arguments, name=f"mlpx-worker-{worker.number}")
        process.start()
        worker.process = process
        theirs.close()
        worker.channel = await Channel.open(ours, partial(self._answer, worker))
        await worker.channel.listen()
        worker.channel, worker.ready, worker.faults = None, False, {}
        self._share_faults()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        worker.process = None
        return process

    async def _answer(self, worker: _WorkerProcess, action: str, argument: Any) -> Any:
        """Answer a request of a worker."""
        match action:
            case "ready":
                worker.ready = True
                for region in [*self._regions.values()]:
                    with suppress(Refusal):  # its client has removed the memory
                        await self._ask([worker], "register", region)
                self._report_start(worker, argument)
                self._share_faults()
            case "faults":
                worker.faults = argument
                self._share_faults()
            case "failed" if self._started is not None:
                worker.error = InputError(argument)
            case "failed":
                self._log.event("worker_failed", worker=worker.number, reason=argument)
            case "statistics":
                return await self._ask([other for other in self._others(worker) if other.ready], action)
            case "register" | "unregister":
                self._keep_region(action, argument)
                await self._ask(self._others(worker), action, argument)
            case _:  # load or unload
                async with self._changing:
                    await self._change(worker, action, argument)

    def _keep_region(self, action: str, argument: Any) -> None:
        """What workers that are started later are told of shared memory."""
        if action == "register":
            self._regions[argument[0]] = argument
        elif argument is None:
            self._regions.clear()
        else:
            self._regions.pop(argument, None)

    def _report_start(self, worker: _WorkerProcess, models: list[dict[str, Any]]) -> None:
        """Call ``started`` when the first worker is ready; where no model can be served, the server ends."""
        started, self._started = self._started, None
        if started is None:
            return
        try:
            if not any(model["state"] in (READY, LOADING, WRONG) for model in models):
                reasons = "; ".join(f"{model['name']}: {model['reason']}" for model in models)
                raise InputError(f"{self._options.folder}: none of its models can be served: {reasons}")
            started(self._address(models))
        except Exception as error:
            worker.error = error
            worker.process.terminate()

    def _address(self, models: list[dict[str, Any]]) -> Started:
        host, port = self._sockets.rest.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        secure = self._options.certificate is not None
        grpc_port = self._sockets.grpc_port
        grpc = None if grpc_port is None else f"grpc{'s' if secure else ''}://{shown}:{grpc_port}"
        return Started(f"http{'s' if secure else ''}://{shown}:{port}", grpc, models)

    async def _change(self, worker: _WorkerProcess, action: str, name: str) -> None:
        """Load or unload a model in every worker, first in the one that a client asked.

        Raises the Refusal of the first worker that refuses; NotReady: the first does not answer.
        """
        if action == "load":
            self._unloaded.discard(name)
        if not await self._ask([worker], action, name):
            raise NotReady(f"to {action} '{name}' takes longer than {_ANSWER_SECONDS:g} s; it may still be done")
        if action == "unload":
            self._unloaded.add(name)
        await self._ask(self._others(worker), action, name)

    def _others(self, worker: _WorkerProcess) -> list[_WorkerProcess]:
        return [other for other in self._workers if other is not worker]

    async def _ask(self, workers: list[_WorkerProcess], action: str, argument: Any = None) -> list[Any]:
        """The answers of workers; one that ends or takes longer than 60 s is left out. Raises the first Refusal."""

        async def ask(channel: Channel) -> Any:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await channel.ask(action, argument)

        channels = [worker.channel for worker in workers if worker.channel is not None]
        answers = await asyncio.gather(*map(ask, channels), return_exceptions=True)
        answers = [answer for answer in answers if not isinstance(answer, TimeoutError | ConnectionError)]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _share_faults(self) -> None:
        """Tell each worker what the others found wrong with their models."""
        for worker in self._workers:
            if worker.channel is not None:
                faults = [other.faults for other in self._others(worker)]
                worker.channel.tell("faults", {key: fault for each in faults for key, fault in each.items()})

    def _refresh(self) -> None:
        """Have the workers look at the folder."""
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.tell("refresh")

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._deadline = monotonic() + self._options.grace + _KILL_SECONDS
        self._stopping.set()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()

    def _end(self) -> None:
        """No worker outlives the supervisor, whatever ended it: one that ignores SIGTERM is killed."""
        processes = [worker.process for worker in self._workers if worker.process is not None]
        self._stop()
        for process in processes:
            process.join(max(0.0, self._deadline - monotonic()))
            if process.is_alive():
                self._log.event("worker_killed", worker=process.pid)
            process.kill()
            process.join()


def _check_tls(options: Options) -> None:
    """Raises InputError: before any work, and not at the first handshake."""
    if options.certificate is None or options.key is None:
        return
    pair = f"{options.certificate} and {options.key}"
    hint = "What to do: --tls-cert takes a certificate chain and --tls-key its private key, both PEM"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key, password="")
    except ssl.SSLError as error:
        raise InputError(f"{pair}: not a certificate with its key: {error.reason or error}. {hint}") from None
    except OSError as error:
        raise InputError(f"{pair}: cannot be read: {error.strerror}. {hint}") from None


def _bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket; with ``shared`` other sockets of this user may be bound to its port too."""
    hint = "What to do: give another port (--port, --grpc-port), or 0 for any free one; --host for another address"
    bound = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            if port:  # another process that shares its port would take some of our requests
                with socket.socket(family, kind) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
                    probe.listen(1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"cannot bind {host}:{port}: {reason}. {hint}") from None
    return bound
