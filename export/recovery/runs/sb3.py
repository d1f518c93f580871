"""Archives of Stable-Baselines3 (PPO, A2C, SAC, TD3, DDPG, DQN): the zip that ``model.save`` writes.

What ``model.predict(observation, deterministic=True)`` computes is the network, then a clip to the limits of the action
space (PPO, A2C), or tanh and a stretch to these limits (SAC, TD3, DDPG). Observations that ``VecNormalize`` normalises
are normalised outside of it, with statistics in a pickle of their own. Source: ``common/policies.py``,
``sac/policies.py``, ``td3/policies.py`` and ``dqn/policies.py`` of 2.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import RecoveryError
from builder.values import is_dict, is_list
from export.recovery.activation_slots import parse
from export.recovery.recovered import Step

from .around import ARGMAX, BITS, PARTS_ARGMAX, wrapped
from .facts import Fact, Run, clip_step, scale_step
from .folder import RunFolder, last_by, numbered
from .framework import Framework
from .sb3_archive import Data, is_archive, printed_numbers, read_data, read_system

_CLASS = re.compile(r"<(?:class|function) '?([\w.]+?)(?:\.__init__)?[' ].*>", re.DOTALL)
"""A class, or its first method, as Python prints it."""
_STEPS, _BEST = r".*_(\d+)_steps\.zip", "best_model.zip"
"""The names that its callbacks give to checkpoints."""
_ALONE = "unzip policy.pth and recover it, with --prefix and --activation"
_SPACES = {"MultiDiscrete": PARTS_ARGMAX, "MultiBinary": BITS}
"""What the outputs are for action spaces other than Box and Discrete."""


@dataclass(frozen=True)
class _Policy:
    """A policy class: where its actor is, and what it does by default."""

    prefix: tuple[str, ...]
    activation: str
    squashed: bool
    """Whether the network ends with tanh, and the action is stretched to its limits."""
    role: str
    """Of the actor in ``net_arch``, where that is a dict."""


_POLICIES = {
    "ActorCriticPolicy": _Policy(("mlp_extractor.policy_net.", "action_net."), "tanh", False, "pi"),
    "SACPolicy": _Policy(("actor.latent_pi.", "actor.mu."), "relu", True, "pi"),
    "TD3Policy": _Policy(("actor.mu.",), "relu", True, "pi"),
    "DQNPolicy": _Policy(("q_net.q_net.",), "relu", False, ""),
}
"""By the classes of ``MlpPolicy`` of PPO and A2C, of SAC, of TD3 and DDPG, and of DQN."""


def read(folder: RunFolder) -> Run:
    """The facts of an archive. Raises RecoveryError: not understood, or its tensors are of another policy."""
    data = read_data(folder.checkpoint)
    kind, policy = _policy(data)
    names = list(folder.contents.tensors)
    foreign = next((name for name in names if "features_extractor." in name), None)
    if foreign is not None:
        message = f"{folder.checkpoint.name}: {foreign} is of a features extractor with weights of its own"
        raise RecoveryError(f"{message}, such as one for images; Flatten alone can be recovered. What to do: {_ALONE}")
    prefix = tuple(part for part in policy.prefix if any(name.startswith(part) for name in names))
    if policy.prefix[-1] not in prefix:
        message = f"{folder.checkpoint.name}: expected tensors such as {policy.prefix[-1]}weight in policy.pth"
        raise RecoveryError(f"{message}; it holds {', '.join(names[:6])}. What to do: {_ALONE}")
    squashed = policy.squashed or data.get("policy_kwargs", "squash_output") is True
    end, after, notes = _action(data, kind, squashed, noisy=any(name.startswith("actor.mu.0.") for name in names))
    _refuse_other_observations(data)
    return Run(
        framework="Stable-Baselines3",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        prefix=Fact(prefix, f"the names of policy.pth, as {kind} has them"),
        activation=_activation(data, kind, policy),
        output_activation=end,
        hidden=_hidden(data, policy),
        interface=wrapped(None, after=after),
        notes=(*_system(folder.checkpoint), *notes),
        normaliser=_normaliser(folder),
    )


def _policy(data: Data) -> tuple[str, _Policy]:
    """Raises RecoveryError: another policy than the dense ones of the library."""
    text = data.get("policy_class", "__init__")
    match = _CLASS.fullmatch(text) if isinstance(text, str) else None
    kind = match[1].rpartition(".")[2] if match else ""
    if kind not in _POLICIES:
        found = f"is {kind}" if kind else "is not named"
        message = f"{data.place('policy_class')}: the policy {found}; those that are read are {', '.join(_POLICIES)}"
        raise RecoveryError(f"{message}. What to do: {_ALONE}")
    return kind, _POLICIES[kind]


def _activation(data: Data, kind: str, policy: _Policy) -> Fact[str]:
    text = data.get("policy_kwargs", "activation_fn")
    if text is None:
        return Fact(policy.activation, f"the default of {kind}, {data.place('policy_class')}")
    place = data.place("policy_kwargs", "activation_fn")
    match = _CLASS.fullmatch(text) if isinstance(text, str) else None
    try:
        (step,) = parse(match[1].rpartition(".")[2] if match else "?", place)
    except (RecoveryError, ValueError):
        raise RecoveryError(f"{place}: {text!r} is no activation that is a block. What to do: {_ALONE}") from None
    return Fact(step.kind, place)


def _hidden(data: Data, policy: _Policy) -> Fact[tuple[int, ...]] | None:
    """The widths of the actor's hidden layers, where ``net_arch`` gives them in one of its forms."""
    value: Any = data.get("policy_kwargs", "net_arch")
    value = value[0] if is_list(value) and len(value) == 1 and is_dict(value[0]) else value
    value = value.get(policy.role) if is_dict(value) else value
    if not is_list(value) or not all(isinstance(width, int) for width in value):
        return None
    return Fact(tuple(value), data.place("policy_kwargs", "net_arch"))


def _nothing(_outputs: int) -> Sequence[Step]:
    return ()


def _action(
    data: Data, kind: str, squashed: bool, noisy: bool
) -> tuple[Fact[str], Callable[[int], Sequence[Step]], list[str]]:
    """The activation behind the network, the blocks behind that for a number of outputs, and notes."""
    space = data.get("action_space", ":type:")
    place = data.place("action_space")
    if not isinstance(space, str) or ".Box'" not in space:
        match = _CLASS.fullmatch(space) if isinstance(space, str) else None
        name = match[1].rpartition(".")[2] if match else ""
        note = _SPACES.get(name) or ARGMAX.format("values" if kind == "DQNPolicy" else "logits")
        sizes = data.get("action_space", "nvec") if name == "MultiDiscrete" else None
        note = f"{note}; the sizes of the parts are {sizes}, {place}" if isinstance(sizes, str) else note
        return Fact("none", f"{kind}, {place}"), _nothing, [note]
    end = Fact("tanh" if squashed else "none", f"{kind}, {data.place('policy_class')}")
    if noisy and kind == "SACPolicy":  # gSDE bounds the mean before tanh
        largest = data.get("policy_kwargs", "clip_mean")
        limit = float(largest) if isinstance(largest, int | float) else 2.0
        end = Fact(f"clip:{-limit:g}:{limit:g}+tanh", f"{kind} with gSDE, clip_mean")
    what = "stretched to" if squashed else "clipped to"

    def after(outputs: int) -> Sequence[Step]:
        limits = [_limits(data, bound, outputs) for bound in ("low", "high")]
        low, high = limits
        if low is None or high is None:
            raise RecoveryError(
                f"{place}: the limits of {outputs} actions are not readable there, and the action is {what} them."
                f" What to do: {_ALONE}, and add clip or scale blocks for it to spec.yaml"
            )
        if not squashed:
            return clip_step(low, high)
        return scale_step(
            [(top - bottom) / 2 for bottom, top in zip(low, high, strict=True)],
            [(top + bottom) / 2 for bottom, top in zip(low, high, strict=True)],
        )

    return end, after, [f"actions are {what} the limits of the action space: {place}"]


def _limits(data: Data, bound: str, count: int) -> list[float] | None:
    """The lowest or highest action: the text for all of them is exact, and that of an array may be."""
    for key in (f"{bound}_repr", bound):
        numbers = printed_numbers(data.get("action_space", key), count)
        if numbers is not None:
            return numbers
    return None


def _refuse_other_observations(data: Data) -> None:
    """Raise RecoveryError for observations that are not rows of numbers."""
    space = data.get("observation_space", ":type:")
    if isinstance(space, str) and ".Box'" not in space:
        place = data.place("observation_space")
        raise RecoveryError(f"{place}: {space} is no Box of numbers; only dense networks on rows can be recovered")


def _system(checkpoint: Path) -> list[str]:
    system = read_system(checkpoint)
    return [f"{checkpoint.name} of {system}"] if system else []


def _normaliser(folder: RunFolder) -> str:
    """The warning on VecNormalize, louder where its pickle is there."""
    found = [path for path in (*folder.path.glob("*.pkl"), *folder.path.glob("*/*.pkl")) if "normalize" in path.name]
    if found:
        name = found[0].relative_to(folder.path).as_posix()
        return (
            f"NORMALISER LEFT OUT: {name} is the pickle of VecNormalize, which can run code when it is read, so it is"
            " not read; the policy was trained on observations that it normalises"
        )
    return "NORMALISER UNKNOWN: the archive does not say whether the observations were normalised (VecNormalize)"


def _checkpoints(folder: Path) -> list[Path]:
    """By their numbers of steps, ``rl_model_N_steps.zip``; those without one after them, the best last."""
    archives = [path for path in sorted(folder.glob("*.zip")) if is_archive(path)]
    steps = [path for path in numbered(folder, _STEPS) if path in archives]
    rest = sorted((path for path in archives if path not in steps), key=lambda path: path.name == _BEST)
    return [*steps, *rest]


def _chosen(checkpoints: Sequence[Path]) -> str:
    return "the best" if checkpoints[-1].name == _BEST else last_by(checkpoints, _STEPS)


FRAMEWORK = Framework(
    "Stable-Baselines3", "NAME.zip, with policy.pth and data in it", _checkpoints, read, chosen=_chosen
)
