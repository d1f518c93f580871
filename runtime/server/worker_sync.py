"""Messages between the supervisor and its workers, and what a worker asks of all the others with them.

Workers are processes with the same models; a client's request reaches one of them. Each has one socket, to the
supervisor, which passes requests on: ``statistics`` to the other workers; ``load`` and ``unload`` to all, one change at
a time. It tells each what is wrong with the models of the others (``faults``), so that all give the same readiness.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

from runtime.errors import InputError

from .logs import Log
from .refusals import Defect, Forbidden, Malformed, NotReady, Refusal
from .repository import Faults, Repository
from .statistics import Records, add_up

_KNOWN_PARAMETERS = ("unload_dependents",)
"""Accepted and without effect: no model depends on another."""
_SIZE_BYTES = 8
Handle = Callable[[str, Any], Awaitable[Any]]
"""Answers a request, given its action and argument."""


class Channel:
    """One end of the socket between the supervisor and a worker: requests and their answers, both ways.

    A message is a pickle after its size: a request is (number or None, action, argument), an answer is (number, value)
    or (number, exception). Writing never blocks: what the other end does not read stays in memory.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handle):
        """``handle`` answers the requests of the other end."""
        self._reader, self._writer, self._handle = reader, writer, handle
        self._numbers = count()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, end: socket.socket, handle: Handle) -> Channel:
        """From one end of a ``socket.socketpair()``."""
        return cls(*await asyncio.open_unix_connection(sock=end), handle)

    async def ask(self, action: str, argument: Any = None) -> Any:
        """The answer of the other end. Raises what its handler raised; ConnectionError: it is gone."""
        if self._reader.at_eof():
            raise ConnectionError("the other process has ended")
        number = next(self._numbers)
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(number, action, argument)
            return await answer
        finally:
            del self._pending[number]

    def tell(self, action: str, argument: Any = None) -> None:
        """Send a request that has no answer."""
        self._send(None, action, argument)

    def _send(self, *message: Any) -> None:
        content = pickle.dumps(message)
        if not self._writer.is_closing():
            self._writer.write(len(content).to_bytes(_SIZE_BYTES, "big") + content)

    async def listen(self) -> None:
        """Handle what the other end sends, until it is gone."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await self._reader.readexactly(_SIZE_BYTES), "big")
                self._receive(*pickle.loads(await self._reader.readexactly(size)))
        self._writer.close()
        for future in self._pending.values():
            _resolve(future, ConnectionError("the other process has ended"))

    def _receive(self, number: int | None, content: Any, *argument: Any) -> None:
        if argument:
            task = asyncio.create_task(self._respond(number, content, *argument))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif number in self._pending:
            _resolve(self._pending[number], content)

    async def _respond(self, number: int | None, action: str, argument: Any) -> None:
        try:
            value = await self._handle(action, argument)
        except Exception as error:
            value = error
        if number is not None:
            self._send(number, value)

    async def close(self) -> None:
        """Close this end when what was sent is written."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)


class WorkerSync:
    """This worker among the others."""

    def __init__(self, repository: Repository, log: Log):
        self._repository, self._log = repository, log
        self._faults: Faults = {}
        """As they were told to the supervisor."""
        self.channel: Channel

    async def connect(self, end: socket.socket) -> None:
        """Take this worker's end of the socket to the supervisor."""
        self.channel = await Channel.open(end, self._handle)
        self._repository.report_faults = self._report_faults

    def _report_faults(self, faults: Faults) -> None:
        """Tell the supervisor what is wrong with this worker's models, where that has changed."""
        if faults != self._faults:
            self._faults = faults
            self.channel.tell("faults", faults)

    async def statistics(self, name: str | None = None, version: str | None = None) -> Records:
        """The counters of all workers, of every model or of one; a worker that does not answer is left out.

        Raises Unknown, NotReady: there is no such model or version, or it is not loaded.
        """
        if name is not None:
            self._repository.find(name, version)
        others: list[Records] = []
        with suppress(ConnectionError):
            others = await self.channel.ask("statistics")
        total = add_up([self._records(), *others])
        return {key: total[key] for key in total if name in (None, key[0]) and version in (None, key[1])}

    async def control(self, action: str, name: str, parameters: Any) -> None:
        """Load or unload (the ``action``) a model in every worker, as a client asks.

        Raises Forbidden: clients may not; Malformed: one of the ``parameters`` is unknown; the Refusal of the first
        worker that refuses.
        """
        if not self._repository.options.control:
            raise Forbidden("this server was started with --no-control: clients may not load or unload models")
        if unknown := [str(key)[:80] for key in parameters or () if key not in _KNOWN_PARAMETERS]:
            message = f"{action} takes no parameter {', '.join(unknown)}"
            raise Malformed(f"{message}: this server serves the files of its folder as they are")
        try:
            await self.channel.ask(action, name)
        except ConnectionError:
            raise NotReady("the server is shutting down") from None

    async def register(self, name: str, key: object, offset: object, size: object) -> None:
        """Register shared memory in every worker. Raises Forbidden, Malformed."""
        self._repository.regions.register(name, key, offset, size)
        await self._tell_others("register", (name, key, offset, size))

    async def unregister(self, name: str | None) -> None:
        """Forget a region of shared memory, or all, in every worker."""
        self._repository.regions.unregister(name)
        await self._tell_others("unregister", name)

    async def _tell_others(self, action: str, argument: Any) -> None:
        with suppress(ConnectionError):
            await self.channel.ask(action, argument)

    async def _handle(self, action: str, argument: Any) -> Any:
        """Answer the supervisor."""
        try:
            if action == "statistics":
                return self._records()
            if action == "register":
                self._repository.regions.unregister(argument[0])
                return self._repository.regions.register(*argument)
            if action == "unregister":
                return self._repository.regions.unregister(argument)
            if action == "refresh":
                await self._repository.refresh_or_log()
            elif action == "faults":
                self._repository.faults_elsewhere = argument
            elif action == "load":
                await self._repository.load(argument)
            else:
                await self._repository.unload(argument)
        except Refusal:
            raise
        except InputError as error:
            raise Malformed(str(error)) from None
        except Exception as error:
            self._log.failure(action, error)
            raise Defect("internal error; the log has it") from None

    def _records(self) -> Records:
        return self._repository.statistics()
