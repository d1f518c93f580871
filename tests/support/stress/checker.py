"""Clients that ask again and again while something happens to the server, and hold every answer to the proof."""

from __future__ import annotations

import random
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from types import TracebackType

from runtime import Answers
from tests.support.serving import PATIENCE, read, until

from .requests import asked, why_wrong


class Checker:
    """Clients in threads, each on a connection that is kept open; as a context manager, it fails at the end.

    ``may_break`` is for what takes connections down: a request then may end without an answer, and is counted in
    ``broken``; no answer may ever be wrong. ``statuses`` are those of the answers.
    """

    def __init__(
        self,
        address: tuple[str, int],
        model: str,
        answers: Answers,
        *,
        clients: int = 2,
        may_break: bool = False,
        allowed: frozenset[int] = frozenset({200}),
    ):
        self._address, self._path, self._answers = address, f"/v2/models/{model}/infer", answers
        self._may_break, self._allowed = may_break, allowed
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(clients)]
        self._lock, self._ending = threading.Lock(), threading.Event()
        self.wrong: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.broken = 0

    @property
    def right(self) -> int:
        """How many right answers came so far."""
        return self.statuses[200]

    def progress(self, more: int = 20) -> None:
        """Wait until so many more right answers came."""
        wanted = self.right + more
        until(lambda: self.right >= wanted or self.wrong, f"{more} more right answers")

    def __enter__(self) -> Checker:
        for thread in self._threads:
            thread.start()
        self.progress(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        if error is None:
            assert not self.wrong, self.wrong[:3]
            assert not any(thread.is_alive() for thread in self._threads), "a request hangs"

    def end(self) -> None:
        """Ask no more; what is on its way is still judged."""
        self._ending.set()

    def _ask(self, place: int) -> None:
        order, number = random.Random(place), 0
        connection = HTTPConnection(*self._address, timeout=PATIENCE)
        while not self._ending.is_set() and not self.wrong:
            first = order.randrange(self._answers.rows)
            count = order.randint(1, self._answers.rows - first)
            number += 1
            one = asked(self._answers, first, count, binary=order.random() < 0.5, name=f"{place}-{number}")
            try:
                connection.request("POST", self._path, one.body, one.headers)
                status, body, headers = read(connection.getresponse())
            except (OSError, HTTPException) as problem:
                connection.close()
                if not self._may_break:
                    self.wrong.append(f"no answer: {type(problem).__name__}: {problem}")
                with self._lock:
                    self.broken += 1
                continue
            reason = None
            if status == 200:
                try:
                    reason = why_wrong(self._answers, one, body, headers)
                except (KeyError, ValueError) as problem:
                    reason = f"the answer cannot be read: {problem!r}: {body[:200]!r}"
            elif status not in self._allowed:
                reason = f"status {status}: {body[:200]!r}"
            if reason is not None:
                self.wrong.append(reason)
            with self._lock:
                self.statuses[status] += 1
        connection.close()
