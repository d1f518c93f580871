"""Modules named as a file or a package, and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from export import ExportError, load_module

CODE = """
import torch
from torch import nn

class Noted(nn.Linear):
    def get_extra_state(self):
        return {"epoch": 3}
    def set_extra_state(self, state):
        pass

def number():
    return 3

def zeros():
    module = Noted(2, 2)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(torch.nan)
    return module

def random():
    return Noted(2, 2)

def other_names():
    return nn.ModuleDict({f"layer{int(torch.randint(1000, ()))}": nn.Linear(2, 2)})
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "net_of_references.py").write_text(CODE)
    return tmp_path / "net_of_references.py"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("number", "returned a int; expected an nn.Module"),
        ("random", "returns a new network with random weights at every call.*--weights FILE.*--seed 0"),
        ("other_names", "returns a new network with random weights at every call"),
    ],
)
def test_a_function_that_returns_no_network_or_another_one_each_time(name: str, words: str, code: Path) -> None:
    with pytest.raises(ExportError, match=words):
        load_module(f"{code}:{name}")


def test_a_network_that_is_the_same_at_every_call_needs_no_seed(code: Path) -> None:
    """Its NaN are equal, and what is no tensor in its state is not compared."""
    module = load_module(f"{code}:zeros")
    assert isinstance(module, nn.Linear)
    assert not module.weight.any()


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone\.py: no such file"):
        load_module(f"{tmp_path / 'gone.py'}:make")


def test_a_package_is_found_in_the_current_folder(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is on the path once, however often it is asked for."""
    monkeypatch.syspath_prepend("")  # what the calls add is gone after the test
    monkeypatch.chdir(code.parent)
    import sys

    for _ in range(2):
        assert isinstance(load_module("net_of_references:zeros"), nn.Linear)
        assert sys.path.count(str(code.parent)) == 1
