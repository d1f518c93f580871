"""The requests of docs/serving.md, as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

from builder import load_spec
from builder.assembly import assemble, load_weights
from export import export
from runtime import Session
from tests.support import ROOT
from tests.support.serving import serving


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_the_requests_of_the_page_run(tmp_path: Path) -> None:
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8").partition("## Sending requests")[2]
    console, client = re.findall(r"^```(?:console|py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[:2]
    folder = ROOT / "models/digits"
    spec = load_spec(folder / "spec.yaml")
    module = assemble(spec)
    load_weights(module, folder / "weights.safetensors")
    path = export(module, tmp_path / "digits.onnx", spec=spec).path
    with serving(tmp_path) as service, Session(path, "cpu") as session:
        commands = "\n".join(line[2:] for line in console.splitlines() if line.startswith("$ "))
        commands = commands.replace("localhost:8000", service.url.removeprefix("http://"))
        done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, check=True)
        shown = console.splitlines()[-1]
        assert {**json.loads(done.stdout), "outputs": 0} == {**json.loads(shown), "outputs": 0}
        (found,), (expected,) = json.loads(done.stdout)["outputs"], json.loads(shown)["outputs"]
        assert {**found, "data": 0} == {**expected, "data": 0}
        assert found["data"] == pytest.approx(expected["data"], abs=1e-5)
        client = client.replace("127.0.0.1:8000", service.url.removeprefix("http://"))
        done = subprocess.run([sys.executable, "-c", client], capture_output=True, text=True, check=True)
        assert done.stdout == f"{session.predict([[0.0] * 64])}\n"
