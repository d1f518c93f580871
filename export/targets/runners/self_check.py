"""Whether a model in a server still answers as was proved: asked at its start, and again and again later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from .proved import Proved

_PATIENCE = 60.0
"""Seconds in which a model answers, or is not right."""
_log = logging.getLogger("mlpx")


class SelfCheck:
    """Asks a model for the rows of its certificate, by the way that requests take."""

    fault: str
    """What the last check found wrong, in words; "" for nothing."""

    def __init__(
        self,
        proved: Proved | None,
        run: Callable[[Mapping[str, np.ndarray]], Awaitable[Mapping[str, np.ndarray]]],
        every: float,
        report: Callable[[bool], object] = lambda _: None,
    ):
        """``run`` answers a request for arrays, ``every`` is in seconds, 0 for never.

        ``report`` is told after each check whether the model is right. Without ``proved`` nothing is checked.
        """
        self._proved, self._run, self._every, self._report = proved, run, every, report
        self.fault = ""
        self._turns = count()
        self._task: asyncio.Task[None] | None = None
        if proved is None:
            _log.warning("no certificate NAME.parity.json is beside the model: its answers are not checked")

    async def check(self) -> None:
        """Ask once; the log says when the model leaves what was proved, and when it is back."""
        if self._proved is None or not self._every:
            return
        try:
            fault = await asyncio.wait_for(self._ask(self._proved), _PATIENCE)
        except TimeoutError:
            fault = f"no answer to the rows of the certificate within {_PATIENCE:g} s"
        except Exception as error:  # a model that fails
            fault = f"no answer to the rows of the certificate: {type(error).__name__}: {error}"
        if fault and not self.fault:
            _log.warning("the model does not compute what was proved: %s", fault)
        elif self.fault and not fault:
            _log.warning("the model computes what was proved again")
        self.fault = fault
        self._report(not fault)

    async def _ask(self, proved: Proved) -> str:
        asked: list[tuple[np.ndarray, Mapping[str, np.ndarray]]] = []
        for requests in proved.requests(next(self._turns)):
            answers = await asyncio.gather(*(self._run(proved.feed(rows)) for rows in requests))
            asked += zip(requests, answers, strict=True)
        return await asyncio.to_thread(proved.fault, asked)

    def keep_checking(self) -> None:
        """Check every so many seconds on the running event loop, unless that goes on already."""
        if self._task is None and self._proved is not None and self._every:
            self._task = asyncio.get_running_loop().create_task(self._repeat())

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.check()

    def end(self) -> None:
        """Check no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
