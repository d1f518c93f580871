"""A process that answers requests: the models, REST on one port and gRPC on another."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingPackageError, OutputError, ProviderError

from .http import limited, sweep
from .logs import Forwarded, Log
from .options import Options
from .repository import Repository
from .rest import Rest
from .worker_sync import Spread

SWEEP_SECONDS = 1.0


def work(
    options: Options, rest: socket.socket, grpc_port: int | None, place: int, tell: Connection, folder: Path
) -> None:
    """Serve until SIGTERM or SIGINT. ``tell`` gets ("ready", models) or ("failed", words)."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to look at again
    _more_files()
    log = Log(requests=options.log_requests)
    for name in ("uvicorn.error", "asyncio", "grpc"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [Forwarded(log)], False
    try:
        import uvloop

        run: Any = uvloop.run
    except ImportError:  # not on Windows
        run = asyncio.run
    try:
        run(_serve(options, rest, grpc_port, place, tell, folder, log))
    except Exception as error:
        known = isinstance(error, InputError | MissingPackageError | OutputError | ProviderError)
        if not known:
            log.failure("start", error)
        with suppress(OSError):
            tell.send(("failed", str(error) if known else f"a worker ended with {type(error).__name__}: {error}"))
        sys.exit(1)


async def _serve(
    options: Options,
    rest: socket.socket,
    grpc_port: int | None,
    place: int,
    tell: Connection,
    folder: Path,
    log: Log,
) -> None:
    import uvicorn

    loop = asyncio.get_running_loop()
    repository = Repository(options, log)
    spread = Spread(repository, folder, place)
    await spread.start()
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked through again: that would hold up requests
    tls = {} if options.certificate is None else {"ssl_certfile": options.certificate, "ssl_keyfile": options.key}
    rest_app = Rest(repository, options, log, spread)
    config = uvicorn.Config(
        rest_app,  # pyright: ignore[reportArgumentType]
        http=limited(options, rest_app),
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
    server.capture_signals = nullcontext  # pyright: ignore[reportAttributeAccessIssue] - they are ours
    grpc = None
    if grpc_port is not None:
        from .grpc_server import start

        grpc = await start(repository, options, log, spread, grpc_port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: background.add(loop.create_task(_refreshed(repository, log))))
    background = {loop.create_task(_sweeping(server, options, log))}
    if options.poll is not None:
        background.add(loop.create_task(_polling(repository, log, options.poll)))
    serving = loop.create_task(server.serve(sockets=[rest]))
    tell.send(("ready", repository.index()))
    log.event("listening", worker=place)
    loop.add_reader(tell.fileno(), stop.set)  # the supervisor is gone
    await asyncio.wait({loop.create_task(stop.wait()), serving}, return_when=asyncio.FIRST_COMPLETED)
    loop.remove_reader(tell.fileno())
    log.event("stopping", grace=options.grace)
    repository.stopping = True
    server.should_exit = True
    await asyncio.gather(serving, *([] if grpc is None else [grpc.stop(options.grace)]))
    for task in background:
        task.cancel()
    await spread.close()
    repository.close()
    log.event("stopped")


async def _refreshed(repository: Repository, log: Log) -> None:
    try:
        await repository.refresh()
    except InputError as error:
        log.event("folder_unreadable", reason=str(error))
    except Exception as error:  # whatever it was, the next look may do better
        log.failure("refresh", error)


async def _polling(repository: Repository, log: Log, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _refreshed(repository, log)


async def _sweeping(server: Any, options: Options, log: Log) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        closed = sweep(server.server_state.connections, asyncio.get_running_loop().time(), options)
        if closed:
            log.event("slow_clients", closed=closed)


def _more_files() -> None:
    """Every connection is a file: as many as the system lets this process have."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
