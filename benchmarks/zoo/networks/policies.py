"""Policies, critics and value networks of libraries for reinforcement learning."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.zoo.entries import Entry, at, floats, of


def _box(*shape: int) -> Any:
    return at("gymnasium.spaces").Box(-1.0, 1.0, shape, np.float32)


def _discrete(actions: int) -> Any:
    return at("gymnasium.spaces").Discrete(actions)


def _extractor(policy: type[nn.Module] = nn.Tanh) -> nn.Module:
    layers = at("stable_baselines3.common.torch_layers")
    return layers.MlpExtractor(8, {"pi": [16, 16], "vf": [16]}, policy)


def _stable(path: str, kind: str, **options: Any) -> nn.Module:
    """An actor or critic of Stable-Baselines3, whose features are the flattened observation."""
    features = at("stable_baselines3.common.torch_layers").FlattenExtractor(_box(8))
    network = {"features_extractor": features, "features_dim": 8, "net_arch": [16, 16]}
    return getattr(at(f"stable_baselines3.{path}"), kind)(_box(8), **network, **options)


def _td3(part: str) -> nn.Module:
    policy = at("stable_baselines3.td3.policies").TD3Policy(_box(8), _box(2), lambda _: 1e-3, net_arch=[16, 16])
    return getattr(policy, part)


def _tianshou(**options: Any) -> nn.Module:
    return at("tianshou.utils.net.common").Net(state_shape=(8,), hidden_sizes=[16, 16], **options)


def _d3rlpy(path: str, kind: str, *args: Any, **options: Any) -> nn.Module:
    return getattr(at(f"d3rlpy.models.torch.{path}"), kind)(*args, **options)


_vector = partial(_d3rlpy, "encoders", "VectorEncoder", (8,), [16, 16])
_with_action = partial(_d3rlpy, "encoders", "VectorEncoderWithAction", (8,), 2, [16, 16])


def _elegant(kind: str) -> nn.Module:
    return getattr(at("elegantrl.agents.net"), kind)([16, 16], 8, 2)


def _rl(kind: str, **options: Any) -> nn.Module:
    return getattr(at("torchrl.modules.models.models" if "Mlp" in kind else "torchrl.modules"), kind)(**options)


_CELLS = {"depth": 2, "num_cells": [16, 16]}
_PFRL = {"n_hidden_channels": 16, "n_hidden_layers": 2}

ENTRIES: list[Entry] = [
    *of(
        "stable-baselines3",
        ("MlpExtractor", _extractor, floats(8)),
        ("MlpExtractor ReLU", lambda: _extractor(nn.ReLU), floats(8)),
        (
            "create_mlp squashed",
            lambda: nn.Sequential(
                *at("stable_baselines3.common.torch_layers").create_mlp(8, 2, [16, 16], squash_output=True)
            ),
            floats(8),
        ),
        ("TD3 actor", lambda: _td3("actor"), floats(8)),
        ("TD3 critic", lambda: _td3("critic"), (floats(8), floats(2))),
        ("DQN q-network", lambda: _stable("dqn.policies", "QNetwork", action_space=_discrete(3)), floats(8)),
    ),
    *of(
        "tianshou",
        (
            "MLP",
            lambda: at("tianshou.utils.net.common").MLP(
                input_dim=8, output_dim=3, hidden_sizes=[16, 16], norm_layer=nn.LayerNorm
            ),
            floats(8),
        ),
        ("Net", lambda: _tianshou(action_shape=3), floats(8)),
        ("Net softmax", lambda: _tianshou(action_shape=3, softmax=True), floats(8)),
        ("Net of 51 atoms", lambda: _tianshou(action_shape=3, num_atoms=51, softmax=True), floats(8)),
        (
            "Net dueling",
            lambda: _tianshou(action_shape=3, dueling_param=({"hidden_sizes": [16]}, {"hidden_sizes": [16]})),
            floats(8),
        ),
        (
            "BranchingNet",
            lambda: at("tianshou.utils.net.common").BranchingNet(
                state_shape=(8,), num_branches=2, action_per_branch=3, common_hidden_sizes=[16]
            ),
            floats(8),
        ),
        (
            "ContinuousActorDeterministic",
            lambda: at("tianshou.utils.net.continuous").ContinuousActorDeterministic(
                preprocess_net=_tianshou(), action_shape=2, hidden_sizes=[16], max_action=2.0
            ),
            floats(8),
        ),
        (
            "ContinuousCritic",
            lambda: at("tianshou.utils.net.continuous").ContinuousCritic(
                preprocess_net=at("tianshou.utils.net.common").Net(
                    state_shape=(8,), action_shape=(2,), hidden_sizes=[16], concat=True
                )
            ),
            (floats(8), floats(2)),
        ),
        (
            "ContinuousActorProbabilistic",
            lambda: at("tianshou.utils.net.continuous").ContinuousActorProbabilistic(
                preprocess_net=_tianshou(), action_shape=2, conditioned_sigma=True
            ),
            floats(8),
        ),
        (
            "DiscreteActor",
            lambda: at("tianshou.utils.net.discrete").DiscreteActor(preprocess_net=_tianshou(), action_shape=3),
            floats(8),
        ),
        (
            "DiscreteCritic",
            lambda: at("tianshou.utils.net.discrete").DiscreteCritic(preprocess_net=_tianshou()),
            floats(8),
        ),
    ),
    *of(
        "torchrl",
        ("MLP", lambda: _rl("MLP", in_features=8, out_features=3, num_cells=[16, 16]), floats(8)),
        (
            "MLP normalised",
            lambda: _rl(
                "MLP",
                in_features=8,
                out_features=(2, 3),
                depth=2,
                num_cells=16,
                activation_class=nn.ELU,
                norm_class=nn.LayerNorm,
                norm_kwargs={"normalized_shape": 16},
            ),
            floats(8),
        ),
        (
            "MLP of two inputs",
            lambda: _rl("MLP", in_features=10, out_features=1, num_cells=[16]),
            (floats(8), floats(2)),
        ),
        (
            "DuelingMlpDQNet",
            lambda: _rl("DuelingMlpDQNet", out_features=3, mlp_kwargs_feature=_CELLS, mlp_kwargs_output=_CELLS),
            floats(8),
        ),
        ("DdpgMlpActor", lambda: _rl("DdpgMlpActor", action_dim=2), floats(8)),
        ("DdpgMlpQNet", lambda: _rl("DdpgMlpQNet"), (floats(8), floats(2))),
        (
            "NormalParamExtractor",
            lambda: nn.Sequential(
                _rl("MLP", in_features=8, out_features=4, num_cells=[16]), _rl("NormalParamExtractor")
            ),
            floats(8),
        ),
    ),
    *of(
        "pfrl",
        ("MLP", lambda: at("pfrl.nn").MLP(8, 3, (16, 16)), floats(8)),
        ("MLPBN", lambda: at("pfrl.nn").MLPBN(8, 3, (16, 16), normalize_output=True), floats(8)),
        ("FCSAQFunction", lambda: at("pfrl.q_functions").FCSAQFunction(8, 2, **_PFRL), (floats(8), floats(2))),
        ("FCBNSAQFunction", lambda: at("pfrl.q_functions").FCBNSAQFunction(8, 2, **_PFRL), (floats(8), floats(2))),
        (
            "FCLateActionSAQFunction",
            lambda: at("pfrl.q_functions").FCLateActionSAQFunction(8, 2, **_PFRL),
            (floats(8), floats(2)),
        ),
        (
            "BoundByTanh",
            lambda: nn.Sequential(
                at("pfrl.nn").MLP(8, 2, (16,)),
                at("pfrl.nn").BoundByTanh(torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 3.0])),
            ),
            floats(8),
        ),
    ),
    *of(
        "d3rlpy",
        ("VectorEncoder", _vector, floats(8)),
        ("VectorEncoder normalised", lambda: _vector(use_batch_norm=True, dropout_rate=0.1), floats(8)),
        ("VectorEncoderWithAction", _with_action, (floats(8), floats(2))),
        ("SimBaEncoder", lambda: _d3rlpy("encoders", "SimBaEncoder", (8,), 16, 16, 2), floats(8)),
        ("DeterministicPolicy", lambda: _d3rlpy("policies", "DeterministicPolicy", _vector(), 16, 2), floats(8)),
        (
            "DeterministicResidualPolicy",
            lambda: _d3rlpy("policies", "DeterministicResidualPolicy", _with_action(), 16, 2, 0.05),
            (floats(8), floats(2)),
        ),
        ("NormalPolicy", lambda: _d3rlpy("policies", "NormalPolicy", _vector(), 16, 2, -4.0, 2.0, False), floats(8)),
        (
            "ContinuousMeanQFunction",
            lambda: _d3rlpy("q_functions.mean_q_function", "ContinuousMeanQFunction", _with_action(), 16),
            (floats(8), floats(2)),
        ),
    ),
    *of(
        "elegantrl",
        ("QNet", lambda: _elegant("QNet"), floats(8)),
        ("QNetDuel", lambda: _elegant("QNetDuel"), floats(8)),
        ("Actor", lambda: _elegant("Actor"), floats(8)),
        ("ActorSAC", lambda: _elegant("ActorSAC"), floats(8)),
        ("ActorPPO", lambda: _elegant("ActorPPO"), floats(8)),
        ("Critic", lambda: _elegant("Critic"), (floats(8), floats(2))),
        ("CriticPPO", lambda: _elegant("CriticPPO"), floats(8)),
    ),
    *of(
        "rsl-rl-lib",
        ("MLP", lambda: at("rsl_rl.modules").MLP(8, 3, [16, 16]), floats(8)),
        ("MLP of a matrix", lambda: at("rsl_rl.modules").MLP(8, (2, 3), [16, 16], "selu", "tanh"), floats(8)),
        (
            "EmpiricalNormalization",
            lambda: nn.Sequential(at("rsl_rl.modules").EmpiricalNormalization(8), at("rsl_rl.modules").MLP(8, 3, [16])),
            floats(8),
        ),
    ),
]
