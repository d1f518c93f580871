"""Runs of CleanRL: the tensors say which script wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import Recovered, read_network
from tests.support.recovering import agree, mlp, named, randomised


def run_folder(folder: Path, saved: Any, name: str = "ppo_continuous_action") -> Path:
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").write_bytes(b"\0")
    torch.save(saved, folder / f"{name}.cleanrl_model")
    return folder


def noted(found: Recovered, words: str) -> bool:
    return any(words in note for note in found.notes)


def squashed(last: str, *more: str) -> tuple[dict[str, nn.Linear], dict[str, torch.Tensor]]:
    """The actor of TD3 and DDPG (``fc_mu``), or of SAC (``fc_mean``): its layers and its state."""
    layers = {"fc1": nn.Linear(5, 16), "fc2": nn.Linear(16, 16), last: nn.Linear(16, 2)}
    state = named(layers | {name: nn.Linear(16, 2) for name in more})
    return layers, state | {"action_scale": torch.rand(1, 2), "action_bias": torch.rand(1, 2)}


def test_ppo_for_continuous_actions(tmp_path: Path) -> None:
    actor, critic = randomised(mlp(5, 64, 64, 2, act=nn.Tanh)), mlp(5, 64, 64, 1, act=nn.Tanh)
    saved = named({"critic": critic, "actor_mean": actor}) | {"actor_logstd": torch.zeros(1, 2)}
    folder = run_folder(tmp_path / "runs" / "Hopper-v4__ppo_continuous_action__1__1700000000", saved)
    for given in (folder, folder / "ppo_continuous_action.cleanrl_model", tmp_path / "runs"):
        found = read_network(given)
        agree(found, actor)
        assert noted(found, "activation tanh: ppo_continuous_action.py of CleanRL, whose network has exactly these")
        assert noted(found, "NORMALISER LEFT OUT: ppo_continuous_action.py normalises observations")
        assert noted(found, "ACTION CLIP LEFT OUT")
    mean, var = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)
    np.savez(tmp_path / "n.npz", mean=mean, var=var, clip=np.inf)
    found = read_network(folder, normalizer=tmp_path / "n.npz")
    assert not noted(found, "NORMALISER LEFT OUT")
    std = torch.from_numpy(np.sqrt(var + 1e-8)).float()
    agree(found, lambda x: actor((x - torch.from_numpy(mean).float()) / std))


@pytest.mark.parametrize(("script", "wrapped"), [("td3", True), ("td3", False), ("sac", False)])
def test_squashed_actors(script: str, wrapped: bool, tmp_path: Path) -> None:
    last = "fc_mu" if script == "td3" else "fc_mean"
    layers, state = squashed(last, *(["fc_logstd"] if script == "sac" else []))
    critic = {"fc1.weight": torch.zeros(16, 7), "fc1.bias": torch.zeros(16)}
    found = read_network(run_folder(tmp_path / "run", (state, critic, critic) if wrapped else state, script))
    relu = nn.ReLU()
    trunk = nn.Sequential(layers["fc1"], relu, layers["fc2"], relu, layers[last], nn.Tanh())
    agree(found, lambda x: trunk(x) * state["action_scale"] + state["action_bias"])
    assert not noted(found, "ACTION SCALE LEFT OUT")


def test_discrete_actions(tmp_path: Path) -> None:
    actor = randomised(mlp(4, 64, 64, 2, act=nn.Tanh))
    found = read_network(run_folder(tmp_path / "ppo", named({"critic": mlp(4, 64, 64, 1), "actor": actor}), "ppo"))
    agree(found, actor)
    assert noted(found, "ACTION: the outputs are logits")
    values = randomised(mlp(4, 120, 84, 2, act=nn.ReLU))
    agree(read_network(run_folder(tmp_path / "dqn", named({"network": values}), "dqn")), values)


@pytest.mark.parametrize("more", [{"actor_mean.1.weight": torch.ones(64)}, {"extra": torch.ones(2)}])
def test_tensors_that_no_script_has_are_not_taken_for_one(more: dict[str, torch.Tensor], tmp_path: Path) -> None:
    actor = mlp(5, 64, 64, 2, act=nn.Tanh)
    saved = named({"critic": mlp(5, 64, 64, 1), "actor_mean": actor}) | {"actor_logstd": torch.zeros(1, 2)} | more
    if "extra" in more:
        with pytest.raises(RecoveryError, match="of no dense network of CleanRL"):
            read_network(run_folder(tmp_path / "run", saved))
    else:
        with pytest.raises(RecoveryError, match=r"actor_mean\.1"):
            read_network(run_folder(tmp_path / "run", saved))


def test_options_that_contradict_the_script_are_refused(tmp_path: Path) -> None:
    saved = named({"critic": mlp(4, 8, 1), "actor": mlp(4, 8, 2)})
    with pytest.raises(RecoveryError, match=r"--activation relu contradicts tanh, from ppo\.py of CleanRL"):
        read_network(run_folder(tmp_path / "run", saved), activation="relu")


def test_of_several_checkpoints_the_last_by_name_is_taken(tmp_path: Path) -> None:
    state = named({"network": mlp(5, 8, 2, act=nn.ReLU)})
    folder = run_folder(tmp_path / "run", state, "b")
    torch.save(state, folder / "a.cleanrl_model")
    assert noted(read_network(folder), "checkpoint b.cleanrl_model: the last by name of 2; another")
    assert noted(read_network(folder / "a.cleanrl_model"), "as it was given; the last by name is b.cleanrl_model")


def test_a_script_without_a_letter_of_ascii_gives_a_model_without_a_name(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", named({"network": mlp(5, 8, 2, act=nn.ReLU)}), "实验")
    assert read_network(folder).spec.name == "model"
