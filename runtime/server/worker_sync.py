"""What concerns every worker: counters of all, and models that are loaded or taken out in all.

Workers are processes with the same models; a client's request reaches one of them. Each listens on a Unix socket in a
folder that only the server's user can read, and asks the others there, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from runtime.errors import InputError

from .gathered import Record, added, record
from .refusals import Forbidden, Malformed, NotReady, Refusal, Unknown
from .repository import Repository

_SECONDS = 60.0
"""For a worker to load a model."""
_LONGEST = 2**24
_KNOWN = ("unload_dependents",)
"""Parameters that may come; there are no models that depend on others."""
_REFUSALS = {refusal.__name__: refusal for refusal in (Malformed, NotReady, Unknown)}


class Spread:
    """One of the workers, among the others."""

    def __init__(self, repository: Repository, folder: Path, place: int):
        self._repository, self._folder = repository, folder
        self._own = folder / f"{place}.sock"
        self._server: asyncio.Server | None = None
        self._loaded = asyncio.Event()

    async def start(self) -> None:
        """Listen to the others, and load the models but those that clients took out before this worker was started."""
        self._own.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._listen, self._own, limit=_LONGEST)
        await self._repository.refresh(lambda name: self._mark(name).exists())
        self._loaded.set()

    async def statistics(self) -> list[Record]:
        """What all workers counted; a worker that does not answer is left out."""
        found = [record(served) for served in self._repository.served()]
        for answer in await self._ask({"do": "statistics"}):
            found += answer.get("records", [])
        return added(found)

    async def control(self, action: str, name: str, parameters: Any) -> None:
        """ "load" or "unload" a model in every worker, as a client asks.

        Raises Forbidden: clients may not; Malformed: one of the ``parameters`` is not read, or the folder cannot be;
        the Refusal of the first worker that refuses.
        """
        if not self._repository.options.control:
            raise Forbidden("this server was started with --no-control: models are not loaded or unloaded by clients")
        unread = [str(key)[:80] for key in parameters or () if key not in _KNOWN]
        if unread:
            what = f"{action} takes no parameter {', '.join(unread)}"
            raise Malformed(f"{what}: this server serves the files of its folder, as they are")
        async with self._alone():
            if action == "load":
                self._mark(name).unlink(missing_ok=True)
            try:
                await self._do(action, name)
                if action == "unload":
                    self._mark(name).touch()
            except InputError as error:
                raise Malformed(str(error)) from None
            for answer in await self._ask({"do": action, "name": name}):
                if "error" in answer:
                    raise _REFUSALS.get(answer.get("kind", ""), Malformed)(answer["error"])

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One change at a time, whichever worker was asked: else two could reach the workers in different orders."""
        with open(self._folder / "lock", "a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            yield

    def _mark(self, name: str) -> Path:
        """Exists where clients took the model out: for a worker that is started later."""
        return self._folder / f"{sha256(name.encode()).hexdigest()}.out"

    async def _do(self, action: str, name: str) -> None:
        await (self._repository.load(name) if action == "load" else self._repository.unload(name))

    async def _ask(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        others = [path for path in self._folder.glob("*.sock") if path != self._own]
        return [answer for answer in await asyncio.gather(*(_asked(path, message) for path in others)) if answer]

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError):
            message = json.loads(await reader.readline())
            try:
                if message["do"] == "statistics":
                    answer: dict[str, Any] = {"records": [record(served) for served in self._repository.served()]}
                else:
                    await self._loaded.wait()
                    await self._do(message["do"], message["name"])
                    answer = {}
            except (Refusal, InputError) as error:
                answer = {"error": str(error), "kind": type(error).__name__}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)


async def _asked(path: Path, message: dict[str, Any]) -> dict[str, Any] | None:
    """Another worker's answer; None where it is gone."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
            try:
                writer.write(json.dumps(message).encode() + b"\n")
                await writer.drain()
                return json.loads(await reader.readline() or b"null")
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return None
