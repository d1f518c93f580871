"""Code that is made of a network in C, compiled to a program that runs rows and times itself from inside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np

from export.csource.compilers import Compiler
from export.csource.writing import c_source
from export.errors import TargetError
from runtime.timing.timer import Block

DRIVERS = Path(__file__).resolve().parent / "drivers"
MLPX, EMX, RUNTIME = "mlpx C", "emx-onnx-cgen", "ONNX Runtime's C interface"
_CHUNK = 5e-6
"""Seconds of calls between two looks at the clock, which costs 0.03 µs."""
_NAME = "network"
FUNCTION = f"{_NAME}_infer"
_PLAIN = ("-w", "-std=gnu11", "-pthread")
"""After the strict flags of the proof, which other generators do not compile with."""


@dataclass(frozen=True)
class Program:
    """A contender in C."""

    name: str
    path: Path
    arguments: tuple[str, ...]
    """What the driver gets after the rows."""
    code: int | None = None
    """Bytes of instructions; None where ``size`` is not there, or a library holds them."""
    constants: int | None = None


def mlpx_code(model: Path, folder: Path) -> Path:
    """The file of a network's C code without the self-test's rows, written to a folder."""
    for name, text in c_source(model, _NAME).files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / f"{_NAME}.c"


def emx_code(model: Path, folder: Path, peers: Path) -> Path:
    """The same by emx-onnx-cgen, with everything in the code and nothing on the heap. Raises TargetError.

    It takes minutes for a million weights, so that what it wrote of the same file is used again.
    """
    path, marker = folder / f"{_NAME}.c", folder / "model.sha256"
    key = sha256(model.read_bytes()).hexdigest()
    if path.exists() and marker.exists() and marker.read_text() == key:
        return path
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", str(model), str(path), "--model-name", FUNCTION]
    command += ["--input-dim", "batch=1", "--large-weight-threshold", "0", "--large-temp-threshold", "0"]
    paths = os.pathsep.join([str(peers), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise TargetError(f"emx-onnx-cgen ended with code {done.returncode}: {lines[-1] if lines else 'no word'}")
    marker.write_text(key)
    return path


def compiled(name: str, code: Path, compiler: Compiler, flags: Sequence[str], sizes: tuple[int, int]) -> Program:
    """The program of some code, compiled once as long as nothing changes. Raises TargetError: it does not compile."""
    stem = f"{compiler.name}{''.join(flags)}".replace(" ", "_").replace("=", "_")
    path, marker = code.parent / stem, code.parent / f"{stem}.key"
    driver = DRIVERS / "rows.c"
    key = sha256(b"".join(map(Path.read_bytes, (code, driver))) + compiler.version.encode()).hexdigest()
    if not path.exists() or not marker.exists() or marker.read_text() != key:
        compiler.compile([code], path.with_suffix(".o"), [*_PLAIN, *flags, "-c"])
        compiler.compile([driver, path.with_suffix(".o")], path, [*_PLAIN, *flags, f"-DINFER={FUNCTION}"])
        marker.write_text(key)
    return Program(name, path, (*map(str, sizes), ""), *_sections(path.with_suffix(".o")))


def library(code: Path, compiler: Compiler, flags: Sequence[str]) -> Path:
    """The code as a library for ctypes."""
    path = code.with_suffix(".so")
    compiler.compile([code], path, [*_PLAIN, *flags, "-shared", "-fPIC"])
    return path


def runtime_program(model: Path, folder: Path, compiler: Compiler, library: Path, sizes: tuple[int, int]) -> Program:
    """ONNX Runtime's C interface, on one thread."""
    path = folder / "onnxruntime"
    compiler.compile([DRIVERS / "rows.c", DRIVERS / "onnxruntime.c"], path, [*_PLAIN, "-O2", "-ldl"])
    return Program(RUNTIME, path, (*map(str, sizes), str(model), str(library)))


def _sections(path: Path) -> tuple[int | None, int | None]:
    """The bytes of instructions and of constants in an object file, by binutils."""
    try:
        done = subprocess.run(["size", "-A", str(path)], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(".")]
    code, constants = (sum(int(n) for name, n, *_ in rows if name.startswith(part)) for part in (".text", ".rodata"))
    return code, constants


class Driver:
    """The process of a program; it waits for requests, without any thread, until it is asked."""

    def __init__(self, program: Program, rows: Path):
        command = [str(program.path), str(rows), *program.arguments]
        pipe = subprocess.PIPE
        self._outputs = int(program.arguments[1])
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)

    def answers(self, count: int) -> np.ndarray:
        """float32 (rows, outputs). Raises ChildProcessError: the program ended."""
        return self._ask("answers", np.float32, count * self._outputs).reshape(count, self._outputs)

    def stack(self) -> int:
        """The bytes of the stack that one call takes, with the functions of libm."""
        return int(self._ask("stack", np.float64, 1)[0])

    def time(self, calls: int, chunk: int) -> Block:
        """Calls back to back, timed in chunks; ``seconds`` has their means. They start on the first core."""
        if hasattr(os, "sched_setaffinity"):
            usable = os.sched_getaffinity(self._process.pid)
            os.sched_setaffinity(self._process.pid, {min(usable)})
            os.sched_setaffinity(self._process.pid, usable)
        found = self._ask(f"time {calls} {chunk}", np.float64, -(-calls // chunk) + 1)
        return Block(found[:-1], float(found[-1]))

    def plan(self, seconds: float) -> tuple[int, int]:
        """The calls that fit into so many seconds, and how many of them to time at once."""
        each = self.time(max(1, round(1e-4 / self.time(1, 1).median)), 1).median
        chunk = max(1, round(_CHUNK / each))
        return chunk * max(1, round(seconds / each / chunk)), chunk

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait()

    def _ask(self, request: str, kind: type[np.generic], count: int) -> np.ndarray:
        requests: IO[bytes] | None = self._process.stdin
        assert requests is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            requests.write(f"{request}\n".encode())
            requests.flush()
        except BrokenPipeError:
            pass  # the answer, which is missing, tells why
        found = self._process.stdout.read(count * np.dtype(kind).itemsize)
        if len(found) < count * np.dtype(kind).itemsize:
            said = self._process.stderr.read().decode(errors="replace").strip()
            raise ChildProcessError(f"it ended with code {self._process.wait()}: {said or 'it said nothing'}")
        return np.frombuffer(found, kind)
