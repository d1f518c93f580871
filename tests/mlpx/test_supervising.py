"""A command that runs code of the user's ends with the code that it reports, however its process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from export import export
from tests.attacks.modules import Right
from tests.mlpx.terminal import INVOCATION, environment, piped
from tests.support.commands import Run
from tests.support.repeats import but

ATTACK = """
import torch
from tests.attacks.modules import ENDING
torch.manual_seed({seed})
net = ENDING[{name!r}]()
"""
_ENDED = "before the command was done, so nothing is proved"
ENDS = {
    "os._exit": (0, 2, f"ended with exit code 0 {_ENDED}"),
    "a handler at exit": (1, 1, ""),  # another network, and 0 at the very end
    "exec": (0, 2, f"ended with exit code 0 {_ENDED}"),
    "a signal": (0, 2, f"was ended by SIGSEGV {_ENDED}"),
    "sys.exit": (0, 1, ""),
    "sys.exit while it is traced": (0, 2, "it calls sys.exit(0)"),
    "raise SystemExit": (0, 1, ""),
}


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage traces a process, and one that is traced, as by a debugger, does not start another."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


@pytest.fixture
def right(tmp_path: Path) -> Path:
    """The file of the network that each attack claims to be."""
    torch.manual_seed(0)
    return export(Right(), tmp_path / "right.onnx").path


@pytest.mark.parametrize("name", but(*ENDS))
def test_a_module_that_ends_the_process_is_not_proved(name: str, right: Path, tmp_path: Path) -> None:
    seed, code, words = ENDS[name]
    (tmp_path / "attack.py").write_text(ATTACK.format(name=name, seed=seed))
    done = piped("verify", right, "--module", f"{tmp_path / 'attack.py'}:net", "--device", "cpu")
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert not done.stdout.startswith(b"proved")


@pytest.mark.parametrize("line", ["sys.exit(0)", "raise SystemExit", "import os; os._exit(0)"])
def test_code_that_ends_the_process_when_it_is_imported(line: str, right: Path, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(f"import sys\n{line}")
    done = piped("verify", right, "--module", f"{tmp_path / 'ends.py'}:net")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"What to do" in done.stderr or b"running it raised SystemExit" in done.stderr


def test_what_is_printed_is_as_in_one_process(run: Run, right: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\nfrom tests.attacks.modules import Right\n")
    arguments = ("verify", right, "--module", f"{tmp_path / 'net.py'}:Right", "--seed", 0, "--device", "cpu", "--json")
    there, here = piped(*arguments), run(*arguments)
    records = [json.loads(there.stdout), json.loads(here.out)]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]
    assert (there.returncode, there.stderr.decode()) == (here.code, here.err)


WAITS = """
import os, signal, sys, threading
{first}
print(os.getpid(), flush=True)
while True:
    threading.Event().wait(60)
"""


@contextmanager
def waiting(right: Path, first: str = "") -> Generator[tuple[subprocess.Popen[str], int]]:
    """A command whose module waits for ever, after a line of code, and the process that runs it."""
    (right.parent / "waits.py").write_text(WAITS.format(first=first))
    line = [*INVOCATION, "verify", str(right), "--module", f"{right.parent / 'waits.py'}:net"]
    with subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        assert process.stdout.read() == ""  # which ends with the last process that has it


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_signals_are_passed_on(number: signal.Signals, code: int, right: Path) -> None:
    with waiting(right) as (process, other):
        assert other != process.pid
        process.send_signal(number)
        assert process.wait() == code
        with pytest.raises(ProcessLookupError):
            os.kill(other, 0)


def test_a_second_interrupt_ends_what_does_not_listen(right: Path) -> None:
    with waiting(right, "signal.signal(signal.SIGINT, lambda *_: print('deaf', flush=True))") as (process, _):
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "deaf\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_nothing_is_left_when_the_first_process_is_killed(right: Path) -> None:
    with waiting(right) as (process, _):
        process.kill()


def test_the_process_that_waits_is_light(right: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.attacks.modules import Right\n")
    code = """import sys
from mlpx.cli import main
try:
    main()
finally:
    print([name for name in ("torch", "numpy", "onnx", "typer", "runtime") if name in sys.modules], file=sys.stderr)
"""
    arguments = ["verify", str(right), "--module", f"{tmp_path / 'net.py'}:Right", "--seed", "0"]
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, cwd=root, env=environment(), capture_output=True, text=True)
    assert [len(text.split()) for text in done.stderr.splitlines()[-2:]] == [5, 1], done.stderr
