"""Parses large JSON in a process of its own: neither a JSON parser nor numpy lets other threads run meanwhile."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import socket
from contextlib import suppress
from typing import Any

from .messages import InferRequest, parse_request
from .refusals import Refusal
from .signature import Signature

LARGE_JSON = 2**20
"""Bytes of JSON that are parsed on the event loop, at about 6 ms per MB; more go to the other process."""
_SIZE_BYTES = 8


class ParsingProcess:
    """The process, started for the first body and again when it has died. One body at a time, in the order they came.

    Belongs to the event loop that made it.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: Any = None
        self._end: socket.socket | None = None

    async def parse(self, body: bytes, json_length: int | None, signature: Signature) -> InferRequest:
        """``parse_request`` there; here if that process dies. Raises what ``parse_request`` does."""
        async with self._turn:
            result: InferRequest | Refusal
            try:
                result = await asyncio.to_thread(self._ask, body, json_length, signature)
            except (OSError, EOFError):
                self.close()
                return parse_request(body, json_length, signature)
        if isinstance(result, Refusal):
            raise result
        return result

    def _ask(self, body: bytes, json_length: int | None, signature: Signature) -> InferRequest | Refusal:
        if self._end is None:
            self._end, theirs = socket.socketpair()
            context = multiprocessing.get_context("spawn")
            self._process = context.Process(target=_work, args=(theirs,), name="mlpx-parser", daemon=True)
            self._process.start()
            theirs.close()
        _send(self._end, pickle.dumps((json_length, signature)))
        _send(self._end, body)
        return pickle.loads(_receive(self._end))

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end.close()
            self._process.kill()
            self._process.join()
            self._end = self._process = None


def _send(end: socket.socket, content: bytes) -> None:
    end.sendall(len(content).to_bytes(_SIZE_BYTES, "big"))
    end.sendall(content)


def _receive(end: socket.socket) -> bytearray:
    """Raises EOFError: the other process is gone."""
    size = int.from_bytes(_receive_exactly(end, _SIZE_BYTES), "big")
    return _receive_exactly(end, size)


def _receive_exactly(end: socket.socket, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = end.recv_into(view)
        if not count:
            raise EOFError("the other process has ended")
        view = view[count:]
    return content


def _work(end: socket.socket) -> None:
    """The process: it ends with the one that started it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError, EOFError):
        os.nice(5)  # a small request is never behind a large one
        while True:
            json_length, signature = pickle.loads(_receive(end))
            body = bytes(_receive(end))
            result: InferRequest | Exception
            try:
                result = parse_request(body, json_length, signature)
            except Refusal as refusal:
                result = refusal
            _send(end, pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
