"""Checkpoints that hold objects of classes beside the tensors: the tensors are read, and nothing is run."""

from __future__ import annotations

import argparse
import functools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from builder import RecoveryError
from export import read_checkpoint
from tests.support.recovering import agree, mlp, recovered


class _Callback:
    """A class that leaves a mark if anything of it runs while a file is read."""

    mark: Path

    def __init__(self, monitor: str = "loss"):
        self.monitor, self.best = monitor, torch.ones(3)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.mark.touch()


class _Settings(dict[str, Any]):
    """A dictionary with a class, as trainers keep their settings."""


class _Program:
    def __init__(self, function: Callable[..., object], *arguments: object):
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def test_a_trainers_checkpoint_with_callbacks_that_are_classes(tmp_path: Path) -> None:
    _Callback.mark = tmp_path / "ran"
    original = mlp(4, 8, 2)
    saved = {
        "epoch": 3,
        "state_dict": {f"model.{key}": value for key, value in original.state_dict().items()},
        "callbacks": {_Callback: {"best_model_score": torch.tensor(1.0)}, "early": _Callback()},
        "hyper_parameters": {"path": tmp_path, "loss": functools.partial(_Callback, monitor="x")},
        "args": argparse.Namespace(lr=1e-3),
    }
    found = recovered(tmp_path, saved, activation="elu")
    agree(found, original)
    (note,) = [note for note in found.notes if note.startswith("not read, and none of their code was run")]
    assert "_Callback" in note
    assert "argparse.Namespace" in note
    assert not _Callback.mark.exists()


def test_settings_that_are_a_dictionary_of_a_class(tmp_path: Path) -> None:
    original = mlp(4, 8, 2)
    saved = {"state_dict": original.state_dict(), "hyper_parameters": _Settings(lr=1e-3)}
    agree(recovered(tmp_path, saved, activation="elu"), original)


def test_a_class_whose_module_is_not_installed_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = types.ModuleType("a_trainer_nobody_has")
    kind = type("Checkpointing", (), {"__module__": module.__name__})
    vars(module)["Checkpointing"] = kind
    original = mlp(4, 8, 2)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": original.state_dict(), "callback": kind()}, tmp_path / "net.ckpt")
    found = read_checkpoint(tmp_path / "net.ckpt", activation="elu")
    agree(found, original)
    assert any("a_trainer_nobody_has.Checkpointing" in note for note in found.notes)


@pytest.mark.parametrize(
    ("function", "code"),
    [(eval, "__import__('pathlib').Path({mark!r}).touch()"), (exec, "open({mark!r}, 'w')")],
)
def test_a_program_beside_the_weights_is_not_run(function: Callable[..., object], code: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    original = mlp(4, 8, 2)
    program = _Program(function, code.format(mark=str(mark)))
    agree(recovered(tmp_path, {"state_dict": original.state_dict(), "callbacks": program}, activation="elu"), original)
    assert not mark.exists()


@pytest.mark.parametrize("beside", [False, True])
def test_a_program_that_is_more_than_one_object_is_refused_and_not_run(beside: bool, tmp_path: Path) -> None:
    """Path.touch is what getattr gives, which is then called."""
    mark = tmp_path / "ran"
    state = mlp(4, 8, 2).state_dict() if beside else {}
    with pytest.raises(RecoveryError, match=r"can run code; nothing was run.*save the weights alone"):
        recovered(tmp_path, {"state_dict": state, "more": _Program(Path.touch, mark)}, activation="elu")
    assert not mark.exists()


def test_an_object_in_place_of_the_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match="can run code; nothing was run"):
        recovered(tmp_path, {"model": _Callback()}, activation="elu")
