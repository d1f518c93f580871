"""``mlpx verify FILE --certificate``, and repeated: what is printed, exit codes, signals."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from mlpx.cli import repeating
from mlpx.cli.repeating import RepeatOptions, repeat
from runtime import sha256
from tests.support.commands import Run

WAIT = 60
"""Seconds after which a command that should have ended is given up."""


def certificate_of(path: Path) -> Path:
    return path.with_suffix(".parity.json")


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_file_that_holds(run: Run, model: Path) -> None:
    done = run("verify", model, "--certificate", certificate_of(model))
    assert done.code == 0, done.err
    assert done.err == ""
    first, *others = done.out.splitlines()
    assert first.startswith(f"proved    {model} on cpu, ONNX Runtime ")
    assert "rows in " in first
    assert first.endswith("2 linear layers alone")
    labels = [line[:9].strip() for line in others]
    assert labels == ["", "", "", "proved", "limits"]
    assert "results of exact probes right, bit for bit" in done.out
    assert "the certificate is believed, and the file not proved anew" in others[-1]


def test_as_json(run: Run, model: Path) -> None:
    done = run("verify", model, "--certificate", certificate_of(model), "--json", "--device", "cpu")
    record = json.loads(done.out)
    assert done.code == 0
    assert record["proved"]
    assert record["unchanged"]
    assert record["device"] == "cpu"
    assert record["sha256"] == sha256(model)
    model.write_bytes(model.read_bytes() + b"\x7a\x00")
    done = run("verify", model, "--certificate", certificate_of(model), "--json")
    record = json.loads(done.out)
    assert done.code == 1
    assert not record["proved"]
    assert [finding["kind"] for finding in record["findings"]] == ["file"]


def test_a_stale_file(run: Run, model: Path) -> None:
    model.write_bytes(model.read_bytes() + b"\x7a\x00")
    done = run("verify", model, "--certificate", certificate_of(model))
    assert done.code == 1
    first, second, *_ = done.out.splitlines()
    assert first == f"failed    {model}: not run"
    assert second.startswith(f"finding   {model} is not the file that tiny.parity.json was made of: its SHA-256 is ")
    assert "\ncause     the file says that it has the same weights: it was written anew" in done.out
    assert "limits" not in done.out


def test_wrong_rows(run: Run, model: Path) -> None:
    record = json.loads(certificate_of(model).read_text())
    for tensor in record["answers"]["exact"].values():
        values = np.frombuffer(base64.b64decode(tensor["base64"])) + 1
        tensor["base64"] = base64.b64encode(values.tobytes()).decode()
    certificate_of(model).write_text(json.dumps(record))
    done = run("verify", model, "--certificate", certificate_of(model))
    assert done.code == 1, done.err
    assert "finding   'y': " in done.out
    assert "values beyond the bound, the furthest" in done.out
    assert "cause     the linear layers multiply the file's weights exactly, so either" in done.out


def test_certificates_without_rows_and_without_a_proof(run: Run, model: Path) -> None:
    edit(certificate_of(model), answers=None)
    done = run("verify", model, "--certificate", certificate_of(model))
    assert done.code == 0
    assert done.out.startswith(f"unchanged {model} on cpu")
    assert "\nwarning   tiny.parity.json holds no rows, so only the file and its linear layers were checked" in done.out
    edit(certificate_of(model), verdict="failed", why="a weight differs")
    done = run("verify", model, "--certificate", certificate_of(model))
    assert done.code == 1
    assert "gives tiny.onnx the verdict 'failed': a weight differs" in done.out


def test_with_a_spec_only_the_hash_is_compared_first(run: Run, spec: Path, model: Path) -> None:
    proof = certificate_of(model)
    edit(proof, verdict="failed", why="a weight differs")
    done = run("verify", model, "--spec", spec, "--certificate", proof)
    assert done.code == 1
    assert "gives tiny.onnx the verdict 'failed': a weight differs" in done.err
    model.write_bytes(model.read_bytes() + b"\x7a\x00")
    done = run("verify", model, "--spec", spec, "--certificate", proof, "--json")
    assert done.code == 1
    assert "is not the file that tiny.parity.json was made of" in json.loads(done.out)["why"]


def test_it_needs_neither_torch_nor_onnx(model: Path, root: Path) -> None:
    code = "import sys; sys.modules |= {'torch': None, 'onnx': None}; from mlpx.cli.ending import run;"
    code += (
        "code = run(sys.argv[1:]); print([name for name in ('export.proof', 'pandas') if name in sys.modules], code)"
    )
    command = [sys.executable, "-c", code, "verify", str(model), "--certificate", str(certificate_of(model))]

    def last_line() -> str:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert last_line() == "[] 0"
    model.write_bytes(model.read_bytes() + b"\x7a\x00")  # a stale file, or a stale certificate
    assert last_line() == "[] 1"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--every", "10"], "--every takes an interval such as 30s, 10m or 1h"),
        (["--every", "0s"], "not '0s'"),
        (["--every", "800h"], "up to 31 days"),
        (["--every", "1h", "--metrics", "x"], "--metrics takes PORT or ADDRESS:PORT"),
        (["--every", "1h", "--metrics", "127.0.0.1:65536"], "--metrics takes PORT or ADDRESS:PORT"),
        (["--metrics", "0"], "--metrics goes with --every"),
        (["--every", "1h", "--spec", "spec.yaml"], "--every repeats a check by a certificate"),
    ],
)
def test_repeating_is_asked_wrongly(arguments: list[str], part: str, run: Run, model: Path) -> None:
    done = run("verify", model, "--certificate", certificate_of(model), *arguments)
    assert done.code == 2
    assert part in done.err


def turns(number: int, waited: list[float], between: Any = lambda _: None) -> Any:
    """What waits, and ends the command after so many turns."""

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        between(len(waited))
        return len(waited) == number

    return wait


def test_a_failed_check_is_printed_and_does_not_end_it(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from runtime import check_device

    content, waited = model.read_bytes(), list[float]()

    def between(turn: int) -> None:
        if turn in (2, 4):
            model.write_bytes(content + b"\x7a\x00" if turn == 2 else content)

    check = partial(check_device, model, certificate_of(model), "cpu")
    repeat(check, "tiny.onnx", RepeatOptions("10m"), False, turns(6, waited, between))
    first, *lines = capfd.readouterr().out.splitlines()
    assert first == "watching  tiny.onnx, every 10m"
    assert waited == [600] * 6
    words = [line.split(" ", 1)[1] for line in lines]
    assert [each.split()[0] for each in words] == ["proved", "failed", "failed", "failed", "failed", "proved"]
    assert "is not the file that tiny.parity.json was made of" in words[1]
    assert ": cause: " in words[2]


def test_turns_as_json_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    def check() -> Any:
        raise OSError("the disk is gone")

    repeat(check, "tiny.onnx", RepeatOptions("1h", "0"), True, turns(2, []))
    first, *records = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["watching"] == "tiny.onnx"
    assert first["url"].startswith("http://127.0.0.1:")
    assert [record["result"] for record in records] == ["error", "error"]
    assert records[0]["words"] == ["the disk is gone"]


@contextmanager
def started(root: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mlpx", "verify", *map(str, arguments)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(number: signal.Signals, root: Path, model: Path) -> None:
    asked = (model, "--certificate", certificate_of(model), "--every", "1h", "--metrics", "0", "--json")
    with started(root, *asked) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert json.loads(process.stdout.readline())["result"] == "proved"
        with urlopen(f"{url}/ready", timeout=WAIT) as answer:
            assert answer.status == 200
        process.send_signal(number)
        assert process.wait(WAIT) == 0


def test_a_server_is_asked_again(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be reached yet is an error of the turn, not of the command."""
    waited: list[float] = []
    monkeypatch.setattr(repeating, "pause", turns(3, waited))
    url = "http://127.0.0.1:9/v2/models/m"
    done = run("verify", "--url", url, "--certificate", certificate_of(model), "--every", "30s")
    assert done.code == 0
    first, *lines = done.out.splitlines()
    assert first == f"watching  {url}, every 30s"
    assert waited == [15] * 3  # soon, since a server may be starting
    assert len(lines) == 1  # the same words are printed once
    assert f" error  {url}: http://127.0.0.1:9 cannot be reached" in lines[0]
    waited.clear()
    model.write_bytes(model.read_bytes() + b"\x7a\x00")
    done = run("verify", model, "--url", url, "--every", "30s")
    assert f" failed {url}: {model} is not the file that" in done.out
    assert waited == [30] * 3
    assert run("verify", "--url", "http://x", "--certificate", certificate_of(model), "--every", "30s").code == 2


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), SystemExit(143), SystemExit(130)])
def test_a_check_that_is_ended_by_a_signal_ends_it(ended: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    """As the check of a server, which has handlers of its own."""

    def check() -> Any:
        raise ended

    repeat(check, "tiny.onnx", RepeatOptions("1h"), False)
    assert capfd.readouterr().out == "watching  tiny.onnx, every 1h\n"
    with pytest.raises(SystemExit):
        repeat(lambda: sys.exit(3), "tiny.onnx", RepeatOptions("1h"), False)
