"""The process that asks the new server: what it is given waits in a bounded queue, and nobody waits for it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from typing import Any

from .asking import Asker, Bounds, Job
from .options import Options
from .outcomes import LOST, MIRROR, QUEUE, REPORTED, Outcome
from .tally import Tally

_SIZE_BYTES = 8
_NICE = 10
"""Where the system has no class of processes that run only when others do not."""
_TELL_SECONDS = 0.2
_TOLD_AT_ONCE = 4
"""Outcomes of a kind that are told one by one in each of these intervals; the rest are counted."""
_AGAIN_SECONDS = 1.0
_LAST_SECONDS = 5.0
"""For the process to end once it is told to."""


def _framed(message: object) -> bytes:
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(content).to_bytes(_SIZE_BYTES, "big") + content


class Mirror:
    """The comparing process as the event loop sees it: jobs in, counts and outcomes out.

    ``received`` is called with what was counted since the last time, and with outcomes to tell.
    """

    def __init__(self, options: Options, received: Callable[[Tally, list[Outcome]], None]):
        self._options, self._received = options, received
        self._context = multiprocessing.get_context("spawn")
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = False

    async def run(self) -> None:
        """Keep the process running, until ``stop``."""
        while not self._stopping:
            ours, theirs = socket.socketpair()
            process = self._context.Process(target=_work, args=(self._options, theirs), name="mlpx-shadow", daemon=True)
            process.start()
            theirs.close()
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    size = int.from_bytes(await reader.readexactly(_SIZE_BYTES), "big")
                    self._received(*pickle.loads(await reader.readexactly(size)))
            writer, self._writer = self._writer, None
            writer.close()
            await asyncio.to_thread(process.join, _LAST_SECONDS)
            process.kill()
            if not self._stopping:
                await asyncio.sleep(_AGAIN_SECONDS)

    def offer(self, job: Job) -> str | None:
        """Give a job to the process; why it was not, or None. Never waits."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return MIRROR
        if writer.transport.get_write_buffer_size() > self._options.queue_bytes:
            return QUEUE
        writer.write(_framed(job))
        return None

    def stop(self) -> None:
        """Take no more jobs: the process counts what it has, as long as that takes less than 5 s, and ends."""
        self._stopping = True
        if self._writer is not None and self._writer.can_write_eof():
            with suppress(OSError):
                self._writer.write_eof()


def _work(options: Options, end: socket.socket) -> None:
    """The process: a thread reads, some ask, one tells."""
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        signal.signal(number, signal.SIG_IGN)  # it ends with the process that started it
    _step_back()
    teller = _Teller(end)
    bounds = Bounds(options)
    jobs: Queue[Job | None] = Queue(options.queue)
    room = _Room(options.queue_bytes)
    threads = [
        threading.Thread(target=_ask, args=(options, bounds, jobs, room, teller), daemon=True)
        for _ in range(options.parallel)
    ]
    for thread in threads:
        thread.start()
    ended = threading.Event()
    telling = threading.Thread(target=teller.repeat, args=(ended, bounds), daemon=True)
    telling.start()
    with end.makefile("rb") as reader:
        while len(head := reader.read(_SIZE_BYTES)) == _SIZE_BYTES:
            job: Job = pickle.loads(reader.read(int.from_bytes(head, "big")))
            try:
                room.take(job)
                jobs.put_nowait(job)
            except Full:
                teller.left_out(QUEUE)
    _finish(jobs, threads)
    ended.set()
    telling.join(_TELL_SECONDS)
    teller.tell(bounds)


def _step_back() -> None:
    """Run only while nobody else wants the processor: what cannot be compared in time is counted."""
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _finish(jobs: Queue[Job | None], threads: list[threading.Thread]) -> None:
    """Let the threads answer what waits, for some seconds."""
    timer = threading.Timer(_LAST_SECONDS / 2, _drop, (jobs,))
    timer.daemon = True
    timer.start()
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        thread.join(_LAST_SECONDS / 2)
    timer.cancel()


def _drop(jobs: Queue[Any]) -> None:
    with suppress(Exception):
        while True:
            jobs.get_nowait()


class _Room:
    """The bytes that may wait."""

    def __init__(self, limit: int):
        self._limit, self._taken, self._lock = limit, 0, threading.Lock()

    def take(self, job: Job) -> None:
        """Raises Full: there is no room."""
        size = len(job.request.body) + len(job.answer.body)
        with self._lock:
            if self._taken and self._taken + size > self._limit:
                raise Full
            self._taken += size

    def give(self, job: Job) -> None:
        """After the job is done."""
        with self._lock:
            self._taken -= len(job.request.body) + len(job.answer.body)


def _ask(options: Options, bounds: Bounds, jobs: Queue[Job | None], room: _Room, teller: _Teller) -> None:
    asker = Asker(options, bounds)
    while (job := jobs.get()) is not None:
        try:
            outcome = asker.outcome(job)
        except Exception as error:  # whatever a server answers, the thread goes on
            model, _ = options.old.asked(job.target) or ("", None)
            outcome = Outcome(LOST, model, f"{type(error).__name__}: {error}")
        finally:
            room.give(job)
        teller.add(outcome)


class _Teller:
    """Counts, and tells the other process of it now and then."""

    def __init__(self, end: socket.socket):
        self._end, self._lock = end, threading.Lock()
        self._tally, self._outcomes = Tally(), list[Outcome]()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome, and keep it where it is to be told."""
        with self._lock:
            self._tally.add(outcome)
            same = sum(each.kind == outcome.kind for each in self._outcomes)
            if outcome.kind in REPORTED and same < _TOLD_AT_ONCE:
                self._outcomes.append(outcome)

    def left_out(self, reason: str) -> None:
        """Count a job that could not wait."""
        with self._lock:
            self._tally.left_out[reason] += 1
            self._tally.mirrored -= 1

    def repeat(self, ended: threading.Event, bounds: Bounds) -> None:
        """Tell, until the end."""
        while not ended.wait(_TELL_SECONDS):
            self.tell(bounds)

    def tell(self, bounds: Bounds) -> None:
        """Send what was counted since the last time."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
            outcomes, self._outcomes = self._outcomes, []
        tally.bounds = bounds.words()
        with suppress(OSError):
            self._end.sendall(_framed((tally, outcomes)))
