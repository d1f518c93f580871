"""One fault in one file: the verdict on it, and whether it computes something else."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from onnx import ModelProto
from torch import Tensor, nn

from export.proof.instrumented import Recording
from export.proof.verify import prove
from export.trace import signature_of, trace
from mlpx.cli.ending import run
from mlpx.errors import EXIT_CODES
from mlpx.exit_codes import DEFECT

from .faults import FAULTS, faulty
from .oracle import Oracle
from .subjects import Subject, subject

EACH = 20
"""Mutants of one network, whose clean file and exact outputs are made once."""
COMMAND_EVERY = 40
"""One mutant of so many goes through the command too."""
NO_FAULT = "(no fault)"
CLEAN, CODE = "clean.onnx", "net.py"
Verdict = tuple[str, int, str]
"""In a word, as an exit code, and why."""


def file_name(number: int) -> str:
    """Of the file of a mutant."""
    return f"mutant-{number}.onnx"


def folder_of(number: int, run: Path) -> Path:
    """Where the network of a mutant and its files are."""
    return run / str(number // EACH)


def warm() -> None:
    """Import what trials import late, so that each forked child need not; no session and no thread is made."""
    import mlpx.cli.proving

    assert mlpx.cli.proving
    layer = nn.Linear(2, 2)
    trace(layer, signature_of(layer, input_shape=(2,)))


@dataclass(frozen=True)
class Mutant:
    """A file with a fault: its number in a run of the seed, and the kind of fault."""

    seed: int
    number: int
    kind: str
    proto: ModelProto


def mutant(clean: ModelProto, seed: int, number: int) -> Mutant:
    """The mutant of a number: each kind in turn, and where the file has no place for it, another."""
    names = list(FAULTS)
    others = np.random.default_rng([seed, number]).permutation(len(names))
    for place in [number % len(names), *others]:
        name = names[place]
        proto = faulty(name, clean, [seed, number, crc32(name.encode())])
        if proto is not None:
            return Mutant(seed, number, name, proto)
    raise ValueError(f"no fault has a place in the file of mutant {number}")


@dataclass
class Trial:
    """A network's clean file and what is known of it."""

    subject: Subject
    oracle: Oracle
    folder: Path
    verdict: Verdict
    recording: Recording

    def proof(self, path: Path, *, anew: bool = False) -> Verdict:
        """What ``verify`` says; results of the clean file are used again where the file gives its bits."""
        recording = None if anew else self._known()
        return judged(self.subject, path, recording)

    def _known(self) -> Recording:
        known = copy(self.recording)  # a file whose proof stops empties it
        known.digests, known.searched = list(known.digests), list(known.searched)
        known.checks = list(known.checks)
        return known

    def tried(self, made: Mutant, proof: Callable[[Path], Verdict] | None = None) -> Iterator[dict[str, Any]]:
        """Records of a mutant: first who it is, then the verdict, then whether it computes something else.

        ``proof`` judges in place of ``verify``.
        """
        path = self.folder / file_name(made.number)
        record = {"number": made.number, "kind": made.kind, "network": self.subject.words}
        yield record
        try:
            path.write_bytes(made.proto.SerializeToString())
        except ValueError:  # a text that is not UTF-8
            yield record | {"verdict": "not written", "code": 2, "why": ""}
            return
        judge = proof or self.proof
        verdict, code, why = judge(path)
        if proof is None and code >= DEFECT:  # a file of a fixed batch has no use for what is known of the clean one
            verdict, code, why = self.proof(path, anew=True)
        if proof is None and made.number % COMMAND_EVERY == 0 and self.subject.code is not None:
            record["command"] = self.command(path)
        yield record | {"verdict": verdict, "code": code, "why": why}
        different = self.oracle.difference(path, own_numbers=verdict == "proved")
        if verdict == "proved" and different is not None and proof is None:
            verdict, code, why = judged(self.subject, path, example=self.subject.example or self.subject.own_example)
        yield record | {"verdict": verdict, "code": code, "why": why, "different": different or "", "judged": True}

    def command(self, path: Path) -> int:
        """The exit code of ``mlpx verify``."""
        source = f"{self.folder / CODE}:Net"
        arguments = ["verify", str(path), "--module", source, "--seed", "0", "--device", "cpu"]
        before, sys.argv = sys.argv, ["mlpx", *arguments]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return run(arguments)
        finally:
            sys.argv = before


def judged(
    subject: Subject, path: Path, recording: Recording | None = None, example: Sequence[Tensor] | None = None
) -> Verdict:
    """What the library says of a file, an error as the exit code that the command makes of it."""
    given = subject.example if example is None else tuple(example)
    try:
        report = prove(subject.module, path, device="cpu", example=given, stop_early=True, recording=recording)
    except Exception as error:  # a defect is what is looked for, and counted
        code = next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), DEFECT)
        return ("refused" if code < DEFECT else "defect"), code, f"{type(error).__name__}: {str(error)[:300]}"
    return report.verdict, 0 if report.proved else 1, report.why[:300]


def prepared(number: int, seed: int, folder: Path) -> Trial:
    """The network of a number, with its clean file verified."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subject(number, seed, folder)
    path, recording = folder / CLEAN, Recording()
    path.write_bytes(made.proto.SerializeToString())
    if made.code is not None:
        (folder / CODE).write_text(made.code)
    return Trial(made, Oracle(made, seed), folder, judged(made, path, recording), recording)


def trials(numbers: Sequence[int], seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """The mutants of these numbers, in order; before the first of a network its clean file, with a number below 0."""
    for network, group in groupby(numbers, lambda number: number // EACH):
        listed = list(group)
        about = {"number": -1 - network, "kind": NO_FAULT, "network": ""}
        yield about
        trial = prepared(network, seed, folder_of(listed[0], folder))
        verdict, code, why = trial.verdict
        about |= {"network": trial.subject.words, "verdict": verdict, "code": code, "why": why}
        yield about | {"different": trial.oracle.difference(trial.folder / CLEAN) or "", "judged": True}
        for number in listed:
            yield {"number": number, "kind": "(not made)", "network": trial.subject.words}
            yield from trial.tried(mutant(trial.subject.proto, seed, number))
