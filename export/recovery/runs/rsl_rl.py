"""Runs of rsl_rl 2 to 5, as Isaac Lab, mjlab and their forks write them: ``params/agent.yaml`` beside ``model_N.pt``.

Up to release 3 a policy is one module (``policy:`` in agent.yaml, ``model_state_dict`` in the checkpoint); from 4 on
actor and critic are two (``actor:``, ``actor_state_dict``). The normaliser of releases before 3 is saved beside the
policy (``obs_norm_state_dict``), later in it. Source: ``rsl_rl/runners/on_policy_runner.py`` and
``rsl_rl/modules/actor_critic.py`` of releases 2.2 to 3.3, ``rsl_rl/models/mlp_model.py`` of 4.0 to 5.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from builder.errors import RecoveryError
from export.recovery.recovered import model_name

from .deploy import DEPLOY
from .facts import Fact, GetInterface, Run
from .folder import RunFolder, numbered
from .framework import Framework
from .isaac_lab import interface_of, is_managed, period_of
from .joint_order import joint_order
from .yaml_data import Entry

AGENT, ENV = "params/agent.yaml", "params/env.yaml"
_EPSILON = Fact(1e-2, "rsl_rl's EmpiricalNormalization, which adds it to the deviation in all releases from 2 to 5")
_ACTIVATIONS = {
    **{name: name for name in ("elu", "relu", "tanh", "sigmoid", "softplus", "gelu")},
    "lrelu": "leaky_relu",
    "swish": "silu",
    "identity": "none",
}
"""``resolve_nn_activation`` of rsl_rl: its names, and those of the blocks. Its selu, crelu and mish are no blocks."""
_DENSE = ("ActorCritic", "StudentTeacher", "MLPModel")
_DISTRIBUTIONS = {"GaussianDistribution": False, "HeteroscedasticGaussianDistribution": True}
"""The distributions whose mean the network's output is, and whether deviations follow the means."""
_ALONE = "copy the checkpoint into an empty folder and recover it there, with --prefix and --activation"


@dataclass(frozen=True)
class _Layout:
    """Where a checkpoint keeps the parts of a policy."""

    key: str
    network: str
    normaliser: str
    """Its prefix, where the checkpoint has one."""


def read(folder: RunFolder) -> Run:
    """The facts of a run. Raises RecoveryError: not understood, or the checkpoint contradicts agent.yaml."""
    agent = folder.yaml(AGENT)
    if agent is None:
        raise RecoveryError(f"{AGENT} is missing")
    role, policy = _policy(agent)
    layout = _layout(folder, role)
    normalised = _normalisation(agent, policy, role)
    has_normaliser = any(name.startswith(layout.normaliser) for name in folder.contents.under(layout.key))
    _check_normaliser(folder, layout, normalised, has_normaliser)
    prefix = (layout.normaliser, layout.network) if has_normaliser else (layout.network,)
    described = f"of {folder.checkpoint.name}, as rsl_rl writes it"
    experiment = agent.get("experiment_name")
    env = folder.yaml(ENV)
    return Run(
        framework="rsl_rl",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        name=experiment.fact(model_name(experiment.text())) if experiment else None,
        key=Fact(layout.key, f"the layout {described}") if layout.key else None,
        prefix=Fact(prefix, f"the names {described}"),
        activation=_activation(policy),
        output_activation=Fact("none", "rsl_rl puts nothing behind the last layer"),
        epsilon=_EPSILON if has_normaliser else None,
        after_normaliser=Fact("none", "rsl_rl puts nothing behind the normaliser") if has_normaliser else None,
        hidden=_hidden(policy, role),
        first_half=_first_half(policy),
        period=period_of(env) if env is not None else None,
        joints=joint_order(folder, env, folder.yaml(DEPLOY)),
        interface=_interface(folder, agent, env, role),
        notes=() if env is not None and is_managed(env) else (left_out_note(env),),
    )


def _interface(folder: RunFolder, agent: Entry, env: Entry | None, role: str) -> GetInterface | None:
    """What the environment does around the network, where env.yaml says it."""
    if env is None or not is_managed(env):
        return None
    clip = _given(agent.get("clip_actions"))
    limit = clip.fact(clip.number()) if clip is not None else None
    return interface_of(env, _groups(agent, env, role), limit, folder.checkpoint.name, folder.yaml(DEPLOY))


def _groups(agent: Entry, env: Entry, role: str) -> list[str]:
    """The observation groups that the policy gets."""
    sets = _given(agent.get("obs_groups"))
    for name in (role, "policy") if sets is not None else ():
        if (listed := _given(agent.get("obs_groups", name))) is not None:
            return [item.text() for item in listed.items()]
    return [role] if env.get("observations", role) is not None else ["policy"]


def left_out_note(env: Entry | None, isaac_lab: bool = True) -> str:
    """The warning where nothing says what the actions are; only runs of Isaac Lab and mjlab have an env.yaml."""
    why = f"{ENV} is missing" if isaac_lab else "no file of the run says what the environment does with the outputs"
    why = f"the environment of {ENV} computes the actions in code of its own" if env is not None else why
    if env is not None and (scale := env.get("action_scale")) is not None and scale.is_number:
        why = f"{why}, with action_scale {scale.number():g} ({scale.place})"
    message = f"ACTION SCALE LEFT OUT: {why}; the outputs are as the network gives them, and the inputs have no names"
    return f"{message}. What to do: add clip and scale blocks to the end of spec.yaml, from the training code"


def _policy(agent: Entry) -> tuple[str, Entry]:
    """The role of the network that acts, and its description. Raises RecoveryError: none, or not a dense one."""
    for role in ("actor", "student", "policy"):  # a configuration that is left open is dumped as an empty mapping
        policy = agent.get(role)
        if policy is not None and policy.mapping():
            break
    else:
        raise agent.error("the key policy (rsl_rl up to 3) or actor (from 4 on) is missing")
    name = policy.get("class_name")
    kind = re.split(r"[.:]", name.text())[-1] if name is not None else ""
    if name is not None and kind not in _DENSE:
        what = next((what for part, what in _OTHERS.items() if part in kind), "not a class of rsl_rl")
        raise name.error(f"{kind} is {what}; only dense networks ({', '.join(_DENSE)}) can be recovered", _ALONE)
    return ("student" if kind == "StudentTeacher" else "actor") if role == "policy" else role, policy


_OTHERS = {"Recurrent": "a recurrent network", "RNN": "a recurrent network", "CNN": "a convolutional network"}


def _layout(folder: RunFolder, role: str) -> _Layout:
    """Raises RecoveryError: the checkpoint has no such layout."""
    names = folder.contents.tensors
    if any(name.startswith(f"{role}_state_dict.mlp.") for name in names):
        return _Layout(f"{role}_state_dict", "mlp.", "obs_normalizer.")
    if any(name.startswith(f"model_state_dict.{role}.") for name in names):
        if any(name.startswith("obs_norm_state_dict.") for name in names):
            return _Layout("", f"model_state_dict.{role}.", "obs_norm_state_dict.")
        return _Layout("model_state_dict", f"{role}.", f"{role}_obs_normalizer.")
    expected = f"model_state_dict.{role}.0.weight (rsl_rl up to 3) or {role}_state_dict.mlp.0.weight (from 4 on)"
    found = ", ".join(list(names)[:6])
    message = f"{folder.checkpoint.name}: expected tensors such as {expected}; it holds {found}"
    raise RecoveryError(f"{message}. What to do: {_ALONE}")


def _given(entry: Entry | None) -> Entry | None:
    """None for a value that the configuration left open, which is dumped as an empty mapping."""
    return None if entry is None or entry.value == {} else entry


def _normalisation(agent: Entry, policy: Entry, role: str) -> Fact[bool] | None:
    """Whether the observations are normalised, where agent.yaml says it; releases before 3 say it at the top."""
    keys = (f"{role}_obs_normalization", "obs_normalization")
    entries = [*(_given(policy.get(key)) for key in keys), _given(agent.get("empirical_normalization"))]
    entry = next((entry for entry in entries if entry is not None), None)
    return entry.fact(entry.flag()) if entry is not None else None


def _check_normaliser(folder: RunFolder, layout: _Layout, says: Fact[bool] | None, has: bool) -> None:
    if says is None or says.value == has:
        return
    name = f"{layout.key}.{layout.normaliser}".removeprefix(".")
    hint = "What to do: take the checkpoint and agent.yaml of the same run"
    wanted = "the observations are normalised" if says.value else "the observations are not normalised"
    found = f"holds {'no statistics' if says.value else 'statistics'} under {name}"
    problem = "the policy would be wrong without them" if says.value else "one of the two is of another run"
    raise RecoveryError(f"{says.place} says that {wanted}, and {folder.checkpoint.name} {found}; {problem}. {hint}")


def _activation(policy: Entry) -> Fact[str] | None:
    entry = _given(policy.get("activation"))
    if entry is None:
        return None
    name = entry.text().lower()
    if name not in _ACTIVATIONS:
        raise entry.error(f"the activation {name} is not a block; those of rsl_rl that are: {', '.join(_ACTIVATIONS)}")
    return entry.fact(_ACTIVATIONS[name])


def _hidden(policy: Entry, role: str) -> Fact[tuple[int, ...]] | None:
    entry = _given(policy.get("hidden_dims")) or _given(policy.get(f"{role}_hidden_dims"))
    return entry.fact(tuple(item.integer() for item in entry.items())) if entry is not None else None


def _first_half(policy: Entry) -> Fact[bool] | None:
    """Whether deviations follow the means. Raises RecoveryError: a distribution whose mean is not the output."""
    kind = policy.get("distribution_cfg", "class_name")
    if kind is not None:
        name = re.split(r"[.:]", kind.text())[-1]
        if name not in _DISTRIBUTIONS:
            raise kind.error(f"{name} does more with the output than to take its mean, which is no dense network")
        return kind.fact(_DISTRIBUTIONS[name])
    entry = _given(policy.get("state_dependent_std"))
    return entry.fact(entry.flag()) if entry is not None else None


def _checkpoints(folder: Path) -> list[Path]:
    if not any((folder / "params" / f"agent.{ending}").is_file() for ending in ("yaml", "pkl")):
        return []
    return numbered(folder, r"model_(\d+)\.pt")


FRAMEWORK = Framework(
    "rsl_rl", f"model_N.pt beside {AGENT} and {ENV} (Isaac Lab, mjlab, unitree_rl_lab)", _checkpoints, read
)
