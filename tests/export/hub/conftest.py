"""What the tests of the Hub share: a proved file with its spec and weights, and a stand-in for the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from builder import MLPSpec, assemble
from export import publish
from tests.support.hub import Hub, connected

SPEC = {
    "name": "pump",
    "input": {
        "name": "x",
        "features": [
            {"name": "flow", "unit": "l/min", "range": [0, 9], "description": "a | b, in *stars*"},
            {"name": "heat", "unit": "°C", "range": [-20, 60]},
        ],
    },
    "blocks": [{"linear": 5}, "tanh", {"linear": 3}],
    "output": {"name": "state", "labels": ["idle", "no", "worn out"]},
}


@pytest.fixture(scope="session")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``mlpx build`` and ``mlpx recover`` write it: file, certificate, weights. It is not to be changed."""
    folder = tmp_path_factory.mktemp("pump")
    spec = MLPSpec(**SPEC)
    module = assemble(spec, seed=1)
    publish(module, folder / "pump.onnx", spec=spec, device="cpu", page=False)
    save_file(module.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture
def folder(pump: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(pump, tmp_path / "pump"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    with connected(monkeypatch) as hub:
        yield hub
