"""Runs of rl_games, as Isaac Lab and IsaacGymEnvs write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import Recovered, read_network
from tests.support.isaac_yaml import G1_JOINTS, env_yaml, replaced
from tests.support.recovering import agree, kinds, mlp, named, randomised
from tests.support.run_folders import G1_INPUTS, G1_OUTPUTS, g1_acted, g1_observed


class RunningMeanStd(nn.Module):
    """As ``rl_games/algos_torch/running_mean_std.py`` has it, in evaluation."""

    def __init__(self, size: int, epsilon: float = 1e-5):
        super().__init__()
        self.epsilon, generator = epsilon, torch.Generator().manual_seed(size)
        self.running_mean = nn.Buffer(torch.randn(size, dtype=torch.float64, generator=generator))
        self.running_var = nn.Buffer(torch.rand(size, dtype=torch.float64, generator=generator) + 0.1)
        self.count = nn.Buffer(torch.ones((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x - self.running_mean.float()) / torch.sqrt(self.running_var.float() + self.epsilon)
        return torch.clamp(y, min=-5.0, max=5.0)


def params_yaml(
    indent: int = 0, env: str = "    clip_observations: 4.0\n    clip_actions: 0.5\n", **changes: str
) -> str:
    """``params:`` of Isaac Lab's rl_games tasks, or of IsaacGymEnvs' training configurations."""
    text = f"""\
params:
  seed: 42
{"  env:" + chr(10) + env if env else ""}\
  algo:
    kind: a2c_continuous
  model:
    name: continuous_a2c_logstd
  network:
    builder: actor_critic
    separate: false
    space:
      continuous:
        mu_activation: None
        sigma_activation: None
        mu_init:
          kind: default
        fixed_sigma: true
    mlp:
      units: [16, 8]
      activation: elu
      d2rl: false
      initializer:
        kind: default
  config:
    experiment: cartpole
    normalize_input: true
    normalize_value: true
    learning_rate: 5e-4
"""
    text = replaced(text, changes).replace("kind: a2c", "name: a2c").replace("builder:", "name:")
    text = text.replace("kind: default", "name: default").replace("experiment:", "name:")
    return "".join(f"{' ' * indent}{line}\n" for line in text.splitlines())


def hydra_yaml(clip: str = "clipObservations: 4.0\n    clipActions: 0.5", **changes: str) -> str:
    """``config.yaml`` of IsaacGymEnvs."""
    head = f"task_name: Cartpole\nnum_envs: ''\ntask:\n  name: Cartpole\n  env:\n    numEnvs: 512\n    {clip}\ntrain:\n"
    return head + params_yaml(2, "", **changes)


def saved(layers: nn.Sequential, normalised: bool = True) -> dict[str, Any]:
    parts: dict[str, nn.Module] = {"value_mean_std": RunningMeanStd(1)}
    parts |= {"running_mean_std": RunningMeanStd(6)} if normalised else {}
    parts |= {"a2c_network.actor_mlp": layers[:4], "a2c_network.value": nn.Linear(8, 1), "a2c_network.mu": layers[4]}
    model = named(parts) | {"a2c_network.sigma": torch.zeros(3)}
    return {"model": model, "epoch": 3, "frame": 10, "optimizer": {"state": {}, "param_groups": []}, "env_state": None}


def run_folder(folder: Path, checkpoint: Any, name: str, text: str) -> Path:
    (folder / "nn").mkdir(parents=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    torch.save(checkpoint, folder / "nn" / "cartpole.pth")
    for epoch in (50, 100):
        (folder / "nn" / f"last_cartpole_ep_{epoch}_rew_12.5.pth").write_bytes(b"another one")
    return folder


def noted(found: Recovered, words: str) -> bool:
    return any(words in note for note in found.notes)


AGENT, CONFIG = "params/agent.yaml", "config.yaml"


def test_a_run_of_isaac_lab_is_recovered_with_no_option(tmp_path: Path) -> None:
    layers, normaliser = randomised(mlp(6, 16, 8, 3)), RunningMeanStd(6)
    found = read_network(run_folder(tmp_path / "run", saved(layers), AGENT, params_yaml()))
    agree(found, lambda x: torch.clamp(layers(normaliser(x.clamp(-4.0, 4.0))), -1.0, 1.0) * 0.5)
    assert kinds(found)[:3] == ["clip", "standardize", "clip"]
    assert noted(found, "activation elu: params/agent.yaml line 22")
    assert noted(found, "observations are clipped to plus and minus 4: params/agent.yaml line 4")
    assert noted(found, "actions are stretched to plus and minus 0.5: params/agent.yaml line 5")
    assert noted(found, "nn/cartpole.pth: the best of 3")
    assert found.spec.name == "cartpole"


@pytest.mark.parametrize(
    ("text", "acted"),
    [
        (hydra_yaml(), lambda y: y.clamp(-1.0, 1.0)),
        (hydra_yaml(learning_rate="5e-4\n    clip_actions: false"), lambda y: y.clamp(-0.5, 0.5)),
        (hydra_yaml(mu_activation="tanh"), lambda y: torch.tanh(y).clamp(-1.0, 1.0)),
    ],
)
def test_a_run_of_isaac_gym(text: str, acted: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    layers, normaliser = randomised(mlp(6, 16, 8, 3)), RunningMeanStd(6)
    found = read_network(run_folder(tmp_path / "run", saved(layers), CONFIG, text))
    agree(found, lambda x: acted(layers(normaliser(x.clamp(-4.0, 4.0)))))
    assert noted(found, "ACTION SCALE LEFT OUT: no file of the run says what the environment does with the outputs")
    assert not noted(found, "params/")  # files that this user never had


def test_a_run_without_normalisation(tmp_path: Path) -> None:
    layers = randomised(mlp(6, 16, 8, 3))
    text = hydra_yaml("numObservations: 6", normalize_input="false")
    found = read_network(run_folder(tmp_path / "run", saved(layers, normalised=False), CONFIG, text))
    agree(found, lambda x: layers(x).clamp(-1.0, 1.0))
    assert kinds(found)[0] == "linear"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "selu"}, r"agent\.yaml line 22.*selu is not a block"),
        ({"units": "[16, 9]"}, r"agent\.yaml line 21 says hidden layers of \[16, 9\], and cartpole\.pth has \[16, 8\]"),
        ({"d2rl": "true"}, r"agent\.yaml line 23.*no chain of layers"),
        ({"builder": "soft_actor_critic"}, r"agent\.yaml line 11.*soft_actor_critic is not actor_critic"),
        ({"separate": "false\n    rnn:\n      units: 8"}, r"agent\.yaml line 13.*a recurrent network"),
        ({"separate": "false\n    cnn:\n      type: conv2d"}, r"agent\.yaml line 13.*a convolutional network"),
        ({"normalize_input": "false"}, r"agent\.yaml line 28.*not normalised.*holds statistics under model"),
        ({"env": "    clip_observations: 4.0\n"}, r"stretched to the environment's limits .* infinite"),
        ({"env": "    clip_actions: .inf\n"}, r"agent\.yaml line 4.*infinite"),
    ],
)
def test_what_does_not_fit_says_which_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    env = changes.pop("env", "    clip_observations: 4.0\n    clip_actions: 0.5\n")
    text = params_yaml(env=env, **changes)
    folder = run_folder(tmp_path / "run", saved(randomised(mlp(6, 16, 8, 3))), AGENT, text)
    with pytest.raises(RecoveryError, match=words):
        read_network(folder)


def test_a_checkpoint_of_another_library_and_a_pickle_in_place_of_the_yaml(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", {"model": mlp(6, 8, 3).state_dict()}, AGENT, params_yaml())
    with pytest.raises(RecoveryError, match=r"cartpole\.pth: expected tensors such as model\.a2c_network\.mu\.weight"):
        read_network(folder)
    (folder / "params" / "agent.pkl").write_bytes(b"\x80\x04.")
    (folder / "params" / "agent.yaml").unlink()
    with pytest.raises(RecoveryError, match=r"agent\.pkl is a pickle, which can run code"):
        read_network(folder)


def test_the_environment_of_isaac_lab_is_around_the_librarys_clips(tmp_path: Path) -> None:
    layers = randomised(mlp(G1_INPUTS, 16, 8, G1_OUTPUTS))
    checkpoint = saved(layers)
    normaliser = RunningMeanStd(G1_INPUTS)
    checkpoint["model"] |= named({"running_mean_std": normaliser})
    folder = run_folder(tmp_path / "run", checkpoint, AGENT, params_yaml())
    (folder / "params" / "env.yaml").write_text(env_yaml())
    found = read_network(folder, joints=list(G1_JOINTS))

    def policy(x: torch.Tensor) -> torch.Tensor:
        observed = g1_observed(x).clamp(-4.0, 4.0)
        return g1_acted(torch.clamp(layers(normaliser(observed)), -1.0, 1.0) * 0.5)

    agree(found, policy)
    assert found.spec.period is not None
    assert isinstance(found.spec.input.features, list | tuple)


def test_the_choice_of_the_checkpoint_is_said_as_it_is(tmp_path: Path) -> None:
    checkpoint = saved(mlp(6, 16, 8, 3))
    folder = run_folder(tmp_path / "run", checkpoint, AGENT, params_yaml())
    assert noted(read_network(folder), "checkpoint nn/cartpole.pth: the best of 3")
    torch.save(checkpoint, folder / "nn" / "other.pth")
    assert noted(read_network(folder), "nn/other.pth: the last by name, after those with numbers, of 4")
    for name in ("cartpole", "other"):
        (folder / "nn" / f"{name}.pth").unlink()
    torch.save(checkpoint, folder / "nn" / "last_cartpole_ep_100_rew_12.5.pth")
    assert noted(read_network(folder), "nn/last_cartpole_ep_100_rew_12.5.pth: the newest of 2")


def test_an_experiment_without_a_letter_of_ascii_gives_a_model_without_a_name(tmp_path: Path) -> None:
    text = params_yaml(experiment="实验")
    assert read_network(run_folder(tmp_path / "run", saved(mlp(6, 16, 8, 3)), AGENT, text)).spec.name == "model"
