"""Proves a network in C: compiled by every compiler that is there, at every level, and run like any other runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from builder import RecoveryError
from export.errors import ProofError
from export.proof.instrumented import Recording
from export.proof.report import machine
from export.proof.verify import prove
from export.recovery.recovering import read_network
from runtime import Certificate, Session
from runtime.version import VERSION

from .compilers import LEVELS, Compiler, CRunning, Known, c_compiler, compilers, load
from .writing import CSource

_PASSED = 0
"""What ``NAME_self_test`` returns."""


@dataclass(frozen=True)
class SelfTested:
    """One build that passed its self-test."""

    compiler: str
    version: str
    flags: str


@dataclass(frozen=True)
class Build(SelfTested):
    """One build that was proved."""

    rows: int
    """How many rows it was compared on, layer by layer."""
    largest: float
    """The largest difference of an output from the exact one."""
    bits: str
    """The SHA-256 of its answers to the certificate's rows: equal where two builds give the same bits."""


@dataclass(frozen=True)
class CProof:
    """What was proved of a network in C, on this machine."""

    builds: tuple[Build, ...]
    left_out: tuple[str, ...]
    """The compilers that are not there, and why, a line each."""
    unproved: str = ""
    """Why nothing could be proved; "" where every build is."""
    self_tested: tuple[SelfTested, ...] = ()
    """The builds that passed their self-test, where nothing more could be proved."""

    def record(self, source: CSource) -> dict[str, Any]:
        """What is written beside the code."""
        texts = source.files()
        return {
            "format": 1,
            "mlpx": VERSION,
            "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
            "proved": not self.unproved,
            "why": self.unproved,
            "machine": machine(),
            "builds": [asdict(build) for build in self.builds],
            "self_tested": [asdict(build) for build in self.self_tested],
            "left_out": self.left_out,
        }


def prove_c(path: Path, source: CSource, certificate: Certificate) -> CProof:
    """Prove the code of a proved file, with the network that is read from the file's operators and weights.

    Each build runs its self-test, then the whole proof: exact probes of each linear layer, every layer within its
    bound, the same bits with the layers' values as outputs and without. Where the network cannot be read, each build
    runs its self-test alone. Raises ProofError: a build is not proved, or fails its self-test.
    """
    found, left_out = compilers()
    if not found:
        hint = "install gcc or clang, or pip install ziglang, and package it again"
        return CProof((), tuple(left_out), f"no C compiler is here ({'; '.join(left_out)}). What to do: {hint}")
    try:
        module = read_network(path, name=path.stem, keep_shape=True).module()
    except RecoveryError as error:
        reason = str(error).partition(". What to do: ")[0]
        hint = "run the self-test with your compiler; it holds the proved answers"
        why = f"its network cannot be read from the file: {reason}. What to do: {hint}"
        tested = [_self_tested(source, compiler, flags) for compiler in found for flags in LEVELS]
        return CProof((), tuple(left_out), why, tuple(tested))
    recording = Recording()
    known: Known = {path: source}
    builds = [
        prove_build(path, source, module, certificate, compiler, flags, recording, known)
        for compiler in found
        for flags in LEVELS
    ]
    return CProof(tuple(builds), tuple(left_out))


def prove_build(
    path: Path,
    source: CSource,
    module: nn.Module,
    certificate: Certificate,
    compiler: Compiler,
    flags: tuple[str, ...],
    recording: Recording | None = None,
    known: Known | None = None,
) -> Build:
    """Prove one build of the code of a file, which is compiled as it is shipped.

    ``recording`` and ``known`` are those of the proofs of other builds. Raises ProofError.
    """
    running = _passing(source, compiler, flags)
    try:
        assert certificate.answers is not None  # packaging refuses others
        answers = running.run(certificate.answers.inputs)
    finally:
        running.close()
    opener = c_compiler(compiler, flags, known or {path: source})
    report = prove(module, path, device="cpu", opener=opener, recording=recording)
    if not report.proved or report.end_to_end is None:
        message = f"{_named(source, compiler, flags)} is {report.verdict}: {report.why}"
        raise ProofError(f"{message}. What to do: report it with the file", report)
    return Build(
        compiler.name,
        compiler.version,
        " ".join(flags),
        sum(inputs.rows for inputs in report.inputs),
        report.end_to_end.from_float64,
        _digest(answers),
    )


def _self_tested(source: CSource, compiler: Compiler, flags: tuple[str, ...]) -> SelfTested:
    """A build that passes its self-test. Raises ProofError: it does not."""
    _passing(source, compiler, flags).close()
    return SelfTested(compiler.name, compiler.version, " ".join(flags))


def _passing(source: CSource, compiler: Compiler, flags: tuple[str, ...]) -> CRunning:
    """The code, compiled and loaded, after its self-test. Raises ProofError: it fails."""
    running = load(source, compiler, flags)
    if (result := running.self_test()) != _PASSED:
        running.close()
        message = f"{_named(source, compiler, flags)} fails its self-test with {result}"
        raise ProofError(f"{message}. What to do: report it with the file")
    return running


def _named(source: CSource, compiler: Compiler, flags: tuple[str, ...]) -> str:
    return f"{source.name}.c, compiled by {compiler.name} {' '.join(flags)},"


def nan_outputs(path: Path, certificate: Certificate, batch: int = 1) -> dict[str, np.ndarray]:
    """For each output of a file, where NaN comes out if all that comes in is NaN, by ONNX Runtime.

    ``batch`` is the size that the file fixes.
    """
    assert certificate.answers is not None
    inputs = certificate.answers.inputs
    feed = {name: np.full((batch, *rows.shape[1:]), np.nan, np.float32) for name, rows in inputs.items()}
    with Session(path, "cpu") as session:
        return {name: np.isnan(values[:1])[0] for name, values in session.run(feed).items()}


def _digest(answers: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for values in answers.values():
        digest.update(np.ascontiguousarray(values + np.float32(0)).data)  # zeros unsigned
    return digest.hexdigest()


def summed_up(record: Mapping[str, Any]) -> list[str]:
    """What a record says, a line each, for the package's notes."""
    processor = record["machine"]["processor"]
    if not record["proved"]:
        tested = _listed(record["self_tested"])
        passed = f"the self-test passed as compiled by {tested}, on {processor}"
        return [f"THE C CODE IS NOT PROVED: {record['why']}", *([passed] if tested else [])]
    alike = len({build["bits"] for build in record["builds"]}) == 1
    bits = "all builds give the same bits" if alike else "builds differ in bits, each within the bounds"
    return [
        f"proved as compiled by {_listed(record['builds'])}, on {processor}; {bits}",
        *(f"not proved with {line}" for line in record["left_out"]),
    ]


def _listed(builds: Sequence[Mapping[str, Any]]) -> str:
    """The compilers of builds, each with its options."""
    by_compiler: dict[str, list[str]] = {}
    for build in builds:
        version = build["version"]
        named = version if version.startswith(build["compiler"]) else f"{build['compiler']}, {version},"
        by_compiler.setdefault(named, []).append(build["flags"])
    return " and by ".join(f"{compiler} at {', '.join(flags)}" for compiler, flags in by_compiler.items())
