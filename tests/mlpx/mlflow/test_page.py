"""docs/mlflow.md as it stands, and a model from PyTorch to MLflow's folder in one process."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.commands import Run
from tests.support.servers.environments import environment
from tests.support.servers.mlflow import python, served, shell
from website import reference

PAGE = ROOT / "docs" / "mlflow.md"
STARTS = ("pip install", "export", "mlflow server", "mlflow models serve")
"""Commands that the fixtures stand for."""


def _measured(text: str) -> str:
    """Without the figures that differ from machine to machine, and with single spaces."""
    return re.sub(r"-?\d+\.\d+(e-\d+)?|\d+e-\d+", "#", " ".join(text.split()))


def test_the_page_gives_what_it_shows(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    pieces = "".join(block for kind, block in blocks if kind == "py")
    commands = [part for kind, block in blocks if kind == "console" for part in block.split("$ ")[1:]]
    build, *others = [part for part in commands if not part.startswith(STARTS)]
    assert run(*shlex.split(build)[1:]).code == 0
    with python(uri, tmp_path) as mlflow:
        noting = "lines = []\nprint = lambda *words: lines.append(' '.join(map(str, words)))"
        printed = mlflow(f"{noting}\n{pieces}\nresult = lines")
    assert printed == re.findall(r"print\(.*\)  # (.*)", pieces)
    assert len(printed) == 3
    shown = 0
    with served(uri, "models:/digits@champion", tmp_path) as url:
        for part in others:
            command, *lines = part.replace("http://127.0.0.1:5001/invocations", url).splitlines()
            if command.startswith("mlpx"):
                done = run(*shlex.split(command)[1:])
                assert done.code == 0, done.out + done.err
                output = done.out
            else:
                output = shell(uri, command, cwd=tmp_path)
            for line in lines:
                assert _measured(line).removesuffix("#") in _measured(output), (command, line, output)
                shown += 1
    assert shown == 8


def test_the_examples_of_the_reference_run(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [name for topic in reference.TOPICS for name in topic.names if name.startswith("mlpx.mlflow.")]
    names = [name for name in listed if not reference.is_constant(name)]
    page = (ROOT / "website/reference.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(code, {})
    text = "\n\n".join(reference.documented(name).partition("Examples:\n")[2] for name in names)
    with python(uri, tmp_path, MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true") as mlflow:
        attempted, told = mlflow(
            """
            import doctest
            test = doctest.DocTestParser().get_doctest(text, {}, "mlpx.mlflow", None, 0)
            told = []
            done = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
            result = [done.attempted, told]
            """,
            text=text,
        )
    assert told == []
    assert attempted > len(names)


def test_what_publish_returned_is_saved_in_the_same_process(tmp_path: Path) -> None:
    (packages,) = (environment("mlflow") / "lib").glob("python3.*/site-packages")
    code = f"""
import sys
sys.path.append({str(packages)!r})  # after those of torch
from torch import nn
import mlpx.mlflow
made = mlpx.publish(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), "net.onnx", page=False)
mlpx.mlflow.save_model(made[0], "model", report=made[1])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"MLmodel", "net.onnx", "net.parity.json", "net.parity.html"} <= files
    assert (tmp_path / "model" / "net.parity.json").read_bytes() == (tmp_path / "net.parity.json").read_bytes()
