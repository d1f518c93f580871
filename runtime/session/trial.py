"""A foreign file is first opened and run in a process of its own, under a time and a memory limit.

ONNX Runtime runs in the process of its caller: a file that makes it crash, loop without end or take all memory ends
that process, and no Python code can catch it. So a command or a server has another process open the file first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import numpy as np

from runtime.data.indices import allowed_rows
from runtime.errors import InputError, ModelError
from runtime.files import through_link
from runtime.model.certificate import read_certificate
from runtime.model.port import Port

from .providers import choose, this_machine

_START = "import sys; sys.path[:] = sys.argv[5:]; from runtime.session.trial import main; main(*sys.argv[1:5])"
_SECONDS, _BYTES_A_SECOND = 20, 50 * 2**20
"""The time limit: that, and what the size of the file needs."""
_CUDA_SECONDS = 60
"""CUDA takes seconds to start."""
_MEMORY, _COPIES = 3 * 2**29, 6
"""The memory limit, bytes: that, and so many times the size of the file. None on CUDA, whose driver maps far more."""
_STACK = 2**24
"""Bytes of a thread, of which there is one for each core."""
_OVERRUN = 4
"""The exit code of the process for a memory overrun."""
_OVERRUN_WORDS = "bad_alloc", "bad allocation", "failed to allocate memory", "length_error"
_running: set[subprocess.Popen[bytes]] = set()
_HINT = "What to do: do not run this file; if it is your own, export it again, or report it to ONNX Runtime"


@contextmanager
def trial(path: str | Path, device: str = "auto", *, trusted: bool | None = None) -> Generator[None]:
    """Opens a file in a process of its own while the block runs, and runs it on zeros: batches of 1, 2 and 0 rows.

    A file is ``trusted``, and not tried, if the certificate beside it, NAME.parity.json, says that its very bytes are
    proved. An ordinary error of the trial is none here: the file, opened again, gives it. Raises ModelError at the end
    of the block: the process crashed, did not end in time or took too much memory.
    """
    path = through_link(path)
    if not path.is_file() or (is_proved(path) if trusted is None else trusted):
        yield
        return
    size = sum(part.stat().st_size for part in (path, Path(f"{path}.data")) if part.is_file())
    seconds = _SECONDS + size // _BYTES_A_SECOND
    memory = _MEMORY + _COPIES * size + _STACK * (os.cpu_count() or 1)
    command = [sys.executable, "-c", _START, str(path), device, str(seconds), str(memory), *sys.path]
    start = monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        _running.add(process)
        try:
            yield
            # The process ends itself in time where the system has alarms.
            output, errors = process.communicate(timeout=seconds + 5 + (_CUDA_SECONDS if device != "cpu" else 0))
            code = process.returncode
        except subprocess.TimeoutExpired:
            output, errors, code = b"", b"", _LATE
        finally:
            process.kill()
            _running.discard(process)
    if (fault := _fault(code, monotonic() - start, memory, output.decode(errors="replace"), errors)) is not None:
        raise ModelError(f"{path}: {fault}, tried in a process of its own. {_HINT}")


def end_trials() -> None:
    """End every trial that runs, in whichever thread: it raises ModelError there."""
    for process in list(_running):
        process.kill()


_LATE = -getattr(signal, "SIGALRM", 14)


def _fault(code: int, seconds: float, memory: int, output: str, errors: bytes) -> str | None:
    """What happened to the process of a trial that did not end by itself, within its limits."""
    steps = output.split("\n")[:-1]
    doing = steps[-1] if steps else "starting"
    crashed = code < 0 or code > 255  # Windows has codes such as 0xC0000005 instead of signals
    overrun = crashed and any(words.encode() in errors.lower() for words in _OVERRUN_WORDS)
    if code == _OVERRUN or overrun:
        return f"ONNX Runtime takes more than {memory:,} bytes of memory ({doing})"
    if code == _LATE:
        return f"ONNX Runtime has not ended after {seconds:.0f} s ({doing})"
    if crashed:
        return f"ONNX Runtime crashes ({signal.strsignal(-code) if code < 0 else hex(code)}, {doing})"
    return None


def is_proved(path: Path) -> bool:
    """Whether the certificate beside a file says that its very bytes are proved."""
    with suppress(InputError):
        certificate = read_certificate(path.with_suffix(".parity.json"))
        return certificate.proved and certificate.is_of(path)
    return False


def main(path: str, device: str, seconds: str, memory: str) -> None:
    """Open and run a file, in the process of its trial, which says on its standard output what it does next."""
    from .session import Session

    warnings.simplefilter("ignore")
    try:
        _limit(int(seconds), int(memory), choose(device, this_machine(cuda=device != "cpu")).device)
        print("opening it", flush=True)
        with Session(path, device) as session:
            for rows in (1, 2, 0):
                print(f"running it on {rows} rows", flush=True)
                with suppress(InputError):  # as for a file of a fixed batch
                    session.run({port.name: _zeros(port, rows) for port in session.inputs})
    except Exception as error:  # an ordinary error is none here; the file, opened again, gives it
        overrun = isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OVERRUN_WORDS)
        os._exit(_OVERRUN if overrun else 0)
    os._exit(0)


def _zeros(port: Port, rows: int) -> np.ndarray:
    """So many rows, or as many as the file fixes, of sizes of 1 where it fixes none."""
    count, *row = (size if isinstance(size, int) else 1 for size in port.shape)
    return allowed_rows(port, (count if isinstance(port.shape[0], int) else rows, *row))


def _limit(seconds: int, memory: int, device: str) -> None:
    """The limits of this process, as far as the system has any."""
    if hasattr(signal, "alarm"):  # pragma: no branch - not on Windows
        signal.alarm(seconds if device == "cpu" else seconds + _CUDA_SECONDS)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if device == "cpu":
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
