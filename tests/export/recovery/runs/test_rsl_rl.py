"""Runs of every release of rsl_rl, and of the frameworks that use it: where the policy is, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builder import RecoveryError
from export import read_network
from tests.support.isaac_yaml import replaced
from tests.support.mjlab_yaml import mjlab_agent, mjlab_env, mjlab_policy
from tests.support.recovering import mlp, named, randomised
from tests.support.run_folders import (
    Trained,
    agent_yaml,
    g1_run,
    run_folder,
    saved_by_2,
    saved_by_3,
    saved_by_5,
    trained,
)

ACTIVATIONS = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "lrelu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "identity": nn.Identity,
}


def recovered(folder: Path, checkpoint: Any, agent: str, **options: Any) -> Any:
    return read_network(run_folder(folder, checkpoint, {"params/agent.yaml": agent}), **options)


def agree(found: Any, policy: Any, inputs: int = 9) -> None:
    rows = torch.randn(64, inputs, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        assert torch.equal(found.module()(rows), policy(rows))


def agent_of(release: str, normalised: bool) -> str:
    text = agent_yaml()
    flag = str(normalised).lower()
    if release == "2":  # the flag is at the top
        lines = [line for line in text.split("\n") if "obs_normalization" not in line and "state_dependent" not in line]
        return replaced("\n".join(lines), {"empirical_normalization": flag})
    if release == "3":
        return replaced(text, {"actor_obs_normalization": flag})
    head, _, rest = text.partition("policy:\n  class_name")
    model = f"""\
  class_name: MLPModel
  hidden_dims: !!python/tuple
  - 32
  - 16
  activation: elu
  obs_normalization: {flag}
  distribution_cfg:
    class_name: GaussianDistribution
    init_std: 1.0
"""
    return f"{head}policy: {{}}\nactor:\n{model}critic:\n{model}algorithm:{rest.partition('algorithm:')[2]}"


SAVED = {"2": saved_by_2, "3": saved_by_3, "5": saved_by_5}


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("release", SAVED)
def test_the_layout_of_every_release(release: str, normalised: bool, tmp_path: Path) -> None:
    policy = trained(9, 4, normalised=normalised)
    found = recovered(tmp_path / "run", SAVED[release](policy), agent_of(release, normalised))
    agree(found, policy)
    assert found.spec.blocks[0].kind == ("standardize" if normalised else "linear")


@pytest.mark.parametrize("release", SAVED)
def test_a_normaliser_that_is_missing_or_surplus_is_an_error(release: str, tmp_path: Path) -> None:
    for has in (True, False):
        checkpoint = SAVED[release](trained(9, 4, normalised=has))
        says, found = ("not normalised", "holds statistics") if has else ("normalised", "holds no statistics")
        with pytest.raises(
            RecoveryError,
            match=rf"params/agent.yaml line \d+ says that the observations are {says}, and model_1500.pt {found}",
        ):
            recovered(tmp_path / f"run {has}", checkpoint, agent_of(release, not has))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_the_names_of_rsl_rl(name: str, tmp_path: Path) -> None:
    policy = Trained(randomised(mlp(9, 32, 16, 4, act=ACTIVATIONS[name])), nn.Identity())
    agent = replaced(agent_of("3", False), {"activation": name})
    agree(recovered(tmp_path / "run", saved_by_3(policy), agent), policy)


@pytest.mark.parametrize("name", ["selu", "mish", "crelu"])
def test_an_activation_that_is_no_block_is_an_error_with_its_line(name: str, tmp_path: Path) -> None:
    agent = replaced(agent_yaml(), {"activation": name})
    with pytest.raises(
        RecoveryError, match=rf"params/agent.yaml line 33, policy.activation: the activation {name} is not a block"
    ):
        recovered(tmp_path / "run", saved_by_3(trained(9, 4)), agent)


WIDTHS = "  actor_hidden_dims:\n  - 32\n  - 16\n"
NAME = "  class_name: ActorCritic\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            NAME,
            "  class_name: ActorCriticRecurrent\n",
            "policy.class_name: ActorCriticRecurrent is a recurrent network",
        ),
        (
            NAME,
            "  class_name: my_task.nets:ActorCriticCNN\n",
            "policy.class_name: ActorCriticCNN is a convolutional netw",
        ),
        (
            NAME,
            "  class_name: ActorCriticMoE\n",
            "policy.class_name: ActorCriticMoE is not a class of rsl_rl; only dense",
        ),
        (
            WIDTHS,
            "  actor_hidden_dims: [64, 16]\n",
            r" says hidden layers of \[64, 16\], and model_1500.pt has \[32, 16\]",
        ),
        (WIDTHS, "  actor_hidden_dims: 64\n", "policy.actor_hidden_dims: expected a list, found 64"),
        ("  activation: elu\n", "  activation: [elu]\n", "policy.activation: expected a text, found a list"),
    ],
)
def test_what_is_no_dense_network_or_another_one_is_an_error(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = agent_yaml()
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(RecoveryError, match=rf"run: params/agent.yaml line {line},? ?{message}"):
        recovered(tmp_path / "run", saved_by_3(trained(9, 4)), text.replace(old, new))


def test_an_agent_without_a_policy_is_an_error(tmp_path: Path) -> None:
    text = agent_yaml().partition("policy:\n  class_name")[0]
    with pytest.raises(RecoveryError, match=r"agent.yaml line 1: the key policy .* or actor .* is missing"):
        recovered(tmp_path / "run", saved_by_3(trained(9, 4)), text)


def test_deviations_behind_the_means_are_left_out(tmp_path: Path) -> None:
    """``state_dependent_std``: the last layer gives [2, actions], of which the first row is the action."""
    both = trained(9, 8)
    policy = Trained(
        nn.Sequential(both.actor, nn.Unflatten(-1, [2, 4])), both.normaliser, acted=lambda out: out[..., 0, :]
    )
    agent = replaced(agent_yaml(), {"state_dependent_std": "true"})
    found = recovered(tmp_path / "run", saved_by_3(both), agent)
    agree(found, policy)
    assert found.spec.output_shape == (4,)
    assert any("4 means and as many deviations (params/agent.yaml line 24)" in note for note in found.notes)
    with pytest.raises(RecoveryError, match="an even number of outputs, and the checkpoint has 5"):
        recovered(tmp_path / "odd", saved_by_3(trained(9, 5)), agent)


def test_a_distribution_whose_mean_is_computed_is_an_error(tmp_path: Path) -> None:
    agent = agent_of("5", True).replace("GaussianDistribution", "BetaDistribution")
    with pytest.raises(RecoveryError, match=r"actor.distribution_cfg.class_name: BetaDistribution does more"):
        recovered(tmp_path / "run", saved_by_5(trained(9, 4)), agent)


def test_a_student_is_the_policy_of_a_distillation(tmp_path: Path) -> None:
    policy = trained(9, 4)
    parts = {"student": policy.actor, "student_obs_normalizer": policy.normaliser, "teacher": randomised(mlp(12, 8, 4))}
    checkpoint = {"model_state_dict": {"std": torch.ones(4), **named(parts)}, "iter": 3}
    agent = agent_yaml().replace("actor_", "student_").replace("critic_", "teacher_")
    agent = agent.replace("  class_name: ActorCritic\n", "  class_name: StudentTeacher\n")
    agree(recovered(tmp_path / "run", checkpoint, agent), policy)


def test_a_run_of_mjlab(tmp_path: Path) -> None:
    """Its terms are under ``terms``, their functions are Python names, and its robot's expressions match beginnings."""
    policy = mjlab_policy()
    files = {"params/agent.yaml": mjlab_agent(), "params/env.yaml": mjlab_env()}
    folder = run_folder(tmp_path / "run", saved_by_5(policy), files)
    found = read_network(folder, joints="hip,knee,ankle")
    rows = torch.randn(64, 15, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad():
        assert torch.equal(found.module()(rows), policy(rows))
    spec = found.spec
    assert spec.period == 0.02
    assert [feature.name for feature in spec.output.listed or ()] == [
        "joint_pos:hip",
        "joint_pos:knee",
        "joint_pos:ankle",
    ]
    listed = list(spec.input.listed or ())
    assert [feature.name for feature in listed][:4] == [
        "base_ang_vel[0]",
        "base_ang_vel[1]",
        "base_ang_vel[2]",
        "joint_pos:hip",
    ]
    assert listed[0].unit == "rad/s"
    assert listed[4].description == "relative to the default position 0.4"


def test_a_checkpoint_of_another_framework_is_an_error(tmp_path: Path) -> None:
    state = {"policy": named({"net": mlp(9, 32, 16, 4)})}
    with pytest.raises(
        RecoveryError,
        match=r"model_1500.pt: expected tensors such as model_state_dict.actor.0.weight .*holds policy.net.0.weight",
    ):
        recovered(tmp_path / "run", state, agent_yaml())


def test_an_option_that_agrees_is_fine_and_one_that_contradicts_is_an_error_with_both(tmp_path: Path) -> None:
    folder = g1_run(tmp_path / "run")
    plain = read_network(folder)
    agreeing: dict[str, Any] = {
        "key": "model_state_dict",
        "prefix": ("actor_obs_normalizer", "actor."),
        "activation": "ELU",
        "output_activation": "none",
        "epsilon": 0.01,
    }
    several: list[dict[str, Any]] = [{}, agreeing, {"activations": ["none", "elu", "elu"]}]
    for options in several:
        found = read_network(folder, **options)
        assert found.spec == plain.spec
        assert all(torch.equal(found.weights[key], value) for key, value in plain.weights.items())
    contradicting: dict[str, tuple[Any, str]] = {
        "key": ("optimizer_state_dict", "--key optimizer_state_dict contradicts model_state_dict, from the layout of"),
        "prefix": (("actor.",), "--prefix actor. contradicts actor_obs_normalizer., actor., from the names of model_1"),
        "activation": ("relu", "--activation relu contradicts elu, from params/agent.yaml line 33. What to do: leave"),
        "activations": (["clip:-5:5", "elu", "elu"], "--activations clip:-5:5,elu,elu contradicts elu, from params"),
        "output_activation": ("tanh", "--output-activation tanh contradicts none, from rsl_rl puts nothing"),
        "epsilon": (1e-5, "--epsilon 1e-05 contradicts 0.01, from rsl_rl's EmpiricalNormalization"),
    }
    for option, (value, message) in contradicting.items():
        with pytest.raises(RecoveryError, match=message):
            read_network(folder, **{option: value})


def test_the_name_of_the_experiment_may_be_no_name_of_a_file(tmp_path: Path) -> None:
    agent = replaced(agent_yaml(), {"experiment_name": "'G1 flat / v2'"})
    found = recovered(tmp_path / "run", saved_by_3(trained(9, 4)), agent)
    assert found.spec.name == "G1-flat-v2"
    assert read_network(tmp_path / "run", name="mine").spec.name == "mine"
