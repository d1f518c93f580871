"""What the tests of the commands share: a spec, its file, and a file of networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Run

SPEC = """name: tiny
input: {name: x, features: [a, b, c]}
blocks: [{linear: 4}, relu, {dropout: 0.5}, {linear: 2}]
output: {name: y, labels: [no, yes]}
"""


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)
    def forward(self, x):
        return torch.relu(self.a(x))

    def act(self, x):
        return torch.tanh(self.a(x))

class Odd(Net):
    def forward(self, x):
        return torch.tan(self.a(x))

class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 2)
    def forward(self, item):
        return self.table(item)

ready, table = Net(), Table()
number = 3
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def model(run: Run, spec: Path, tmp_path: Path) -> Path:
    assert run("build", spec, "--seed", 1, "-o", tmp_path / "out").code == 0
    return tmp_path / "out" / "tiny.onnx"


@pytest.fixture
def digits(run: Run, root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The spec of digits and a folder with its file and certificate."""
    spec = root / "models" / "digits" / "spec.yaml"
    assert run("build", spec, "-o", tmp_path / "digits", "--no-html").code == 0
    return spec, tmp_path / "digits"


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A Python file of hand-written networks."""
    path = tmp_path / "nets.py"
    path.write_text(MODULE)
    return path
