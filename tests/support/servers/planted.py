"""Faults planted into what runs a model in a server, turned on and off by a file while the server runs.

A copy of this file lies in the folder of a package, where numpy and ONNX Runtime are all there is; ``prepare`` writes
what it needs beside it. ``FOLDER/fault`` holds the name of a fault, or nothing; behind a "@" the id of the only process
that has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Compute = Callable[[Arrays], Arrays]
REDUCED = ("TF32", "float16")
FILES = {"a stale file": "stale.onnx", "another version": "version.onnx"}
EXCHANGED = "exchanged rows between requests"
FAULTS = (*REDUCED, *FILES, EXCHANGED)


class Planted:
    """What a model computes with the fault that the folder names at the moment."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._sessions: dict[str, Any] = {}

    def compute(self, feed: Arrays, right: Compute) -> Arrays:
        """The outputs by name for a feed; ``right`` is the model itself."""
        fault, _, pid = (self._folder / "fault").read_text().partition("@")
        if not fault or pid not in ("", str(os.getpid())):
            return right(feed)
        if fault in REDUCED:
            return self._reduced(fault, feed, right(feed))
        if fault in FILES:
            return self._other(FILES[fault], feed)
        assert fault == EXCHANGED, fault
        return {name: values[::-1].copy() for name, values in right(feed).items()}

    def _reduced(self, precision: str, feed: Arrays, outputs: Arrays) -> Arrays:
        """What the precision gives, for the rows of the certificate."""
        with np.load(self._folder / "answers.npz") as archive:
            known = dict(archive)
        keys = [_keys({name: known["inputs/" + name] for name in feed}), _keys(feed)]
        places = {key: index for index, key in enumerate(keys[0])}
        outputs = {name: np.array(values) for name, values in outputs.items()}
        for row, key in enumerate(keys[1]):
            if key in places:
                for name, values in outputs.items():
                    values[row] = known[precision + "/" + name][places[key]]
        return outputs

    def _other(self, file: str, feed: Arrays) -> Arrays:
        import onnxruntime

        if file not in self._sessions:
            session: Any = getattr(onnxruntime.InferenceSession, "planted_over", onnxruntime.InferenceSession)
            self._sessions[file] = session(str(self._folder / file), providers=["CPUExecutionProvider"])
        session = self._sessions[file]
        names = [port.name for port in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feed))))  # noqa: B905 - old Pythons run this too


def _keys(feed: Arrays) -> list[bytes]:
    """The bytes of each row."""
    count = len(next(iter(feed.values())))
    return [b"".join(np.ascontiguousarray(feed[name][row]).tobytes() for name in sorted(feed)) for row in range(count)]


def session_class(plain: Any, folder: Path) -> Any:
    """A class of ONNX Runtime's sessions with the faults of a folder, for a copy of a package's code."""
    planted = Planted(folder)

    class PlantedSession(plain):
        planted_over = plain

        def run(self, names: Any, feed: Any, *more: Any) -> Any:
            names = names or [port.name for port in self.get_outputs()]

            def right(feed: Arrays) -> Arrays:
                return dict(zip(names, super(PlantedSession, self).run(names, feed, *more)))  # noqa: B905

            outputs = planted.compute(feed, right)
            return [outputs[name] for name in names]

    return PlantedSession
