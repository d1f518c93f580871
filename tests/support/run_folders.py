"""Folders of training runs, with the files that the frameworks write, and the policies in them as PyTorch runs them.

The configurations are those of the frameworks' own tasks, in the form in which their ``dump_yaml`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.isaac_yaml import G1_DEFAULTS, deploy_yaml, env_yaml, replaced
from tests.support.recovering import mlp, named, randomised

Policy = Callable[[torch.Tensor], torch.Tensor]


class EmpiricalNormalization(nn.Module):
    """As ``rsl_rl/networks/normalization.py`` of release 3.1 has it, in evaluation."""

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, size: int):
        super().__init__()
        self.eps = 1e-2
        self.register_buffer("_mean", torch.zeros(size).unsqueeze(0))
        self.register_buffer("_var", torch.ones(size).unsqueeze(0))
        self.register_buffer("_std", torch.ones(size).unsqueeze(0))
        self.register_buffer("count", torch.tensor(0, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self._mean) / (self._std + self.eps)


def agent_yaml(**changes: str) -> str:
    """``params/agent.yaml`` of Isaac Lab 2.3 with rsl_rl 3; a change replaces the text of a key's value."""
    text = """\
seed: 42
device: cuda:0
num_steps_per_env: 24
max_iterations: 50000
empirical_normalization: null
obs_groups:
  policy:
  - policy
  critic:
  - critic
clip_actions: null
save_interval: 100
experiment_name: unitree_g1
run_name: ''
logger: tensorboard
resume: false
load_run: .*
load_checkpoint: model_.*.pt
class_name: OnPolicyRunner
policy:
  class_name: ActorCritic
  init_noise_std: 1.0
  noise_std_type: scalar
  state_dependent_std: false
  actor_obs_normalization: true
  critic_obs_normalization: true
  actor_hidden_dims:
  - 32
  - 16
  critic_hidden_dims:
  - 32
  - 16
  activation: elu
algorithm:
  class_name: PPO
  learning_rate: 0.001
  schedule: adaptive
  rnd_cfg: null
  symmetry_cfg: null
"""
    return replaced(text, changes)


@dataclass(frozen=True)
class Trained:
    """The modules of a policy of rsl_rl, and what the environment does around it."""

    actor: nn.Sequential
    normaliser: nn.Module
    observed: Policy = field(default=lambda x: x)
    """From the raw observation to what the policy gets."""
    acted: Policy = field(default=lambda x: x)
    """From the policy's output to the command."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.acted(self.actor(self.normaliser(self.observed(rows))))


def trained(inputs: int, outputs: int, *, normalised: bool = True, seed: int = 3, **around: Policy) -> Trained:
    """A policy with random weights."""
    normaliser = randomised(EmpiricalNormalization(inputs), seed) if normalised else nn.Identity()
    return Trained(randomised(mlp(inputs, 32, 16, outputs), seed), normaliser, **around)


def saved_by_3(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 3: everything in one state dict."""
    outputs = list(policy.actor.parameters())[-1].numel()
    parts = {"actor": policy.actor, "actor_obs_normalizer": policy.normaliser}
    critic = randomised(mlp(9, 32, 16, 1), 4)
    parts |= {"critic": critic, "critic_obs_normalizer": randomised(EmpiricalNormalization(9), 5)}
    state = {"std": torch.ones(outputs), **named(parts)}
    return {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "iter": 1,
        "infos": None,
    }


def run_folder(
    folder: Path, checkpoint: Any, files: Mapping[str, str], iterations: Sequence[int] = (0, 900, 1500)
) -> Path:
    """A run's folder; the checkpoint is that of the last iteration, and the others are of other weights."""
    (folder / "params").mkdir(parents=True)
    (folder / "git").mkdir()
    (folder / "events.out.tfevents.1").write_bytes(b"\0")
    for name, text in files.items():
        (folder / name).write_text(text)
    for iteration in iterations[:-1]:
        (folder / f"model_{iteration}.pt").write_bytes(b"another iteration, which is not read")
    torch.save(checkpoint, folder / f"model_{iterations[-1]}.pt")
    return folder


G1_INPUTS, G1_OUTPUTS = 5 * (3 + 3 + 3 + 7 + 7 + 7 + 2), 7


def g1_observed(rows: torch.Tensor) -> torch.Tensor:
    """The terms of ``env_yaml`` with five values each, clipped and scaled as ``ObservationManager.compute_group``."""
    widths = [3, 3, 3, 7, 7, 7, 2]
    parts = list(torch.split(rows, [5 * width for width in widths], dim=1))
    parts[0] = parts[0].clip(min=-100.0, max=100.0).mul(torch.tensor(0.2))
    parts[4] = parts[4].clip(min=-20.0, max=20.0).mul(torch.tensor(0.05))
    return torch.cat(parts, dim=1)


def g1_acted(actions: torch.Tensor) -> torch.Tensor:
    """``JointAction.process_actions`` of ``env_yaml``."""
    targets = actions * 0.25 + torch.tensor(G1_DEFAULTS)
    return torch.clamp(targets, min=torch.full((7,), -1.0), max=torch.full((7,), 1.0))


def g1(normalised: bool = True) -> Trained:
    return trained(G1_INPUTS, G1_OUTPUTS, normalised=normalised, observed=g1_observed, acted=g1_acted)


def g1_run(folder: Path, policy: Trained | None = None, /, **files: str) -> Path:
    """A run of unitree_rl_lab with rsl_rl 3; ``files`` replace ``agent``, ``env`` or ``deploy``."""
    texts = {"agent": agent_yaml(), "env": env_yaml(), "deploy": deploy_yaml()} | files
    named_files = {f"params/{name}.yaml": text for name, text in texts.items() if text}
    return run_folder(folder, saved_by_3(policy or g1()), named_files)


def saved_by_2(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 2: the normalisers beside the policy."""
    parts = {"actor": policy.actor, "critic": randomised(mlp(9, 32, 16, 1), 4)}
    saved: dict[str, Any] = {"model_state_dict": {"std": torch.ones(3), **named(parts)}, "iter": 1, "infos": None}
    if isinstance(policy.normaliser, EmpiricalNormalization):
        saved["obs_norm_state_dict"] = policy.normaliser.state_dict()
        saved["privileged_obs_norm_state_dict"] = randomised(EmpiricalNormalization(9), 5).state_dict()
    return saved


def saved_by_5(policy: Trained) -> dict[str, Any]:
    """A checkpoint of rsl_rl 4 and 5: a state dict for each network."""
    actor = named({"obs_normalizer": policy.normaliser, "mlp": policy.actor})
    actor["distribution.std_param"] = torch.ones(3)
    critic = named(
        {"obs_normalizer": randomised(EmpiricalNormalization(9), 5), "mlp": randomised(mlp(9, 32, 16, 1), 4)}
    )
    return {
        "actor_state_dict": actor,
        "critic_state_dict": critic,
        "optimizer_state_dict": {},
        "iter": 1,
        "infos": None,
    }
