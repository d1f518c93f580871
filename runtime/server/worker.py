"""A process that answers requests: the models, REST on one port and gRPC on another."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputError, MissingPackageError, OutputError, ProviderError

from .http import close_slow_connections, protocol_class
from .logs import ForwardingHandler, Log
from .options import Options
from .repository import Repository
from .rest import Rest
from .tracing import tracing
from .worker_sync import WorkerSync

SWEEP_SECONDS = 1.0
_START_SECONDS = 5.0
"""After these a worker takes requests, even if files are still being tried."""


@dataclass(frozen=True)
class Sockets:
    """What the workers share."""

    rest: socket.socket
    grpc_port: int | None
    """On which each worker listens itself; None: no gRPC."""
    local: tuple[socket.socket, ...] = ()
    """Unix sockets for REST and for gRPC."""


def work(
    options: Options,
    sockets: Sockets,
    number: int,
    supervisor: socket.socket,
    unloaded: frozenset[str],
) -> None:
    """Serve until SIGTERM, SIGINT or the end of the supervisor, which is told "ready" or "failed" (``WorkerSync``).

    ``number`` tells the workers apart; ``unloaded`` are the models that clients unloaded before.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # the supervisor passes on what they mean
    _allow_many_files()
    log = Log(requests=options.log_requests)
    for name in ("uvicorn.error", "asyncio", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [ForwardingHandler(log)], False
    try:
        import uvloop

        run: Any = uvloop.run
    except ImportError:  # not on Windows
        run = asyncio.run
    worker = _Worker(options, log, number)
    code = run(worker.run(sockets, supervisor, unloaded))
    late = threading.Timer(options.grace, os._exit, (1,))  # a thread that hangs in a call would keep the process
    late.daemon = True
    late.start()
    sys.exit(code)


class _Worker:
    def __init__(self, options: Options, log: Log, number: int):
        self._options, self._log, self._number = options, log, number

    async def run(self, sockets: Sockets, supervisor: socket.socket, unloaded: frozenset[str]) -> int:
        """The exit code of the process: 1 where it could not start."""
        self._repository = Repository(self._options, self._log)
        self._sync = WorkerSync(self._repository, self._log)
        await self._sync.connect(supervisor)
        try:
            loading = asyncio.create_task(self._repository.refresh(unloaded))
            await asyncio.wait({loading}, timeout=_START_SECONDS)
            if loading.done():
                loading.result()
            await self._serve(sockets)
        except Exception as error:
            known = isinstance(error, InputError | MissingPackageError | OutputError | ProviderError)
            if not known:
                self._log.failure("start", error)
            message = str(error) if known else f"a worker ended with {type(error).__name__}: {error}"
            self._sync.channel.tell("failed", message)
            return 1
        finally:
            await self._sync.channel.close()
        return 0

    async def _serve(self, sockets: Sockets) -> None:
        loop, options, repository = asyncio.get_running_loop(), self._options, self._repository
        gc.collect()
        gc.freeze()  # objects that live as long as the process: looking through them again would delay requests
        server = self._uvicorn_server()
        grpc = None
        if sockets.grpc_port is not None:
            from .grpc_server import start

            local = sockets.local[1] if sockets.local else None
            grpc = await start(repository, options, self._log, self._sync, sockets.grpc_port, local)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        background = [loop.create_task(self._close_slow_clients(server))]
        if options.poll is not None:
            background.append(loop.create_task(self._poll(options.poll)))
        if options.verify_every:
            background.append(loop.create_task(self._verify(options.verify_every)))
        serving = loop.create_task(server.serve(sockets=[sockets.rest, *sockets.local[:1]]))
        self._sync.channel.tell("ready", repository.index())
        self._log.event("listening", worker=self._number)
        supervisor = loop.create_task(self._sync.channel.listen())  # ends with the supervisor
        stopped = loop.create_task(stop.wait())
        await asyncio.wait({stopped, serving, supervisor}, return_when=asyncio.FIRST_COMPLETED)
        self._log.event("stopping", grace=options.grace)
        repository.stopping = True
        server.should_exit = True
        await asyncio.gather(serving, *([] if grpc is None else [grpc.stop(options.grace)]))
        for task in (*background, stopped, supervisor):
            task.cancel()
        repository.close()
        self._rest.close()
        if (traces := tracing(options)) is not None:
            await asyncio.to_thread(traces.close)
        self._log.event("stopped")

    def _uvicorn_server(self) -> Any:
        import uvicorn

        options = self._options
        tls: dict[str, Any] = {}
        if options.certificate is not None:
            tls = {"ssl_certfile": options.certificate, "ssl_keyfile": options.key}
        rest = self._rest = Rest(self._repository, options, self._log, self._sync)
        config = uvicorn.Config(
            rest,
            http=protocol_class(options, rest),
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(options.keep_alive),
            timeout_graceful_shutdown=max(1, int(options.grace)),
            backlog=4096,
            **tls,
        )
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # pyright: ignore[reportAttributeAccessIssue] - we handle them
        return server

    async def _poll(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._repository.refresh_or_log()

    async def _verify(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._repository.verify()

    async def _close_slow_clients(self, server: Any) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            if closed := close_slow_connections(server.server_state.connections, now, self._options):
                self._log.event("slow_clients", closed=closed)


def _allow_many_files() -> None:
    """Every connection is an open file: raise the limit to what the system allows this process."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
