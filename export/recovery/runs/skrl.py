"""Runs of skrl: ``checkpoints/agent_N.pt`` and, where Isaac Lab or a runner wrote it, ``params/agent.yaml``.

A checkpoint holds a state dict for each part of the agent. The preprocessor of the observations divides by
sqrt(variance) + epsilon and clips at 5. A network is one or several containers, and its output layer is the last of
them, or a layer of its own where policy and value share the rest. Source: ``skrl/utils/model_instantiators/torch/`` and
``skrl/resources/preprocessors/torch/running_standard_scaler.py`` of 1.4 and 2.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import RecoveryError
from builder.values import is_dict
from export.recovery.recovered import Step

from .around import ARGMAX, PARTS_ARGMAX, wrapped
from .facts import Fact, Run, scale_step
from .folder import RunFolder, numbered
from .framework import Framework
from .isaac_lab import interface_of, is_managed, period_of
from .rsl_rl import AGENT, ENV, left_out_note
from .yaml_data import Entry

_CODE = "skrl's RunningStandardScaler"
_ACTIVATIONS = {name: name for name in ("elu", "leaky_relu", "relu", "sigmoid", "softplus", "softsign", "tanh")}
"""Those of skrl's instantiators that are blocks. Its selu is none."""
_INPUTS = {"STATES": "state_preprocessor", "OBSERVATIONS": "observation_preprocessor"}
"""What a network's first container reads, and the preprocessor of that."""
_OUTPUT = re.compile(
    r"\s*(?:(?P<factor>\d+\.?\d*|\.\d+)\s*\*\s*)?(?:(?P<name>\w+)\()?ACTIONS\)?(?:\s*\*\s*(?P<times>\d+\.?\d*|\.\d+))?\s*"
)
_ALONE = "copy the checkpoint into an empty folder and recover it there, with --prefix and --activations"


@dataclass(frozen=True)
class _Network:
    """What agent.yaml says about the policy's network."""

    containers: tuple[str, ...]
    source: str
    activation: Fact[str] | None
    output_activation: Fact[str]
    after: Sequence[Step]
    hidden: Fact[tuple[int, ...]]
    notes: tuple[str, ...]


def read(folder: RunFolder) -> Run:
    """The facts of a run. Raises RecoveryError: not understood, or the checkpoint contradicts agent.yaml."""
    agent = folder.yaml(AGENT)
    env = folder.yaml(ENV)
    names = list(folder.contents.under("policy"))
    if not names:
        found = ", ".join(list(folder.contents.tensors)[:6])
        message = (
            f"{folder.checkpoint.name}: expected the tensors of a policy, policy.net_container.0.weight for example"
        )
        raise RecoveryError(f"{message}; it holds {found}. What to do: {_ALONE}")
    network = _network(agent) if agent is not None else None
    scaler = _scaler(folder, agent, network)
    shared = [f"policy.{name}." for name in ("policy_layer",) if any(each.startswith(f"{name}.") for each in names)]
    containers = [f"policy.{name}_container." for name in network.containers] if network is not None else []
    containers = containers or list(
        dict.fromkeys(f"policy.{n.partition('.')[0]}." for n in names if "_container." in n)
    )
    described = f"of {folder.checkpoint.name}, as skrl writes it"
    epsilon, threshold = _settings(agent, scaler)
    managed = env is not None and is_managed(env)
    inner = interface_of(env, ["policy"], None, folder.checkpoint.name) if env is not None and managed else None
    after = network.after if network is not None else ()
    return Run(
        framework="skrl",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        prefix=Fact((*([f"{scaler}."] if scaler else []), *containers, *shared), f"the names {described}"),
        activation=network.activation if network is not None else None,
        output_activation=network.output_activation if network is not None else None,
        epsilon=epsilon if scaler else None,
        after_normaliser=threshold if scaler else None,
        rounding=Fact("float32", f"{_CODE}, which rounds them before it computes") if scaler else None,
        hidden=network.hidden if network is not None else None,
        period=period_of(env) if env is not None else None,
        interface=wrapped(inner, after=lambda _: after),
        notes=(
            *(() if managed else (left_out_note(env, isaac_lab=agent is not None),)),
            *(network.notes if network is not None else ()),
        ),
    )


def _network(agent: Entry) -> _Network:
    """Raises RecoveryError: the policy's network is not one dense chain."""
    policy = agent.need("models", "policy")
    containers = policy.need("network").items()
    names, activations, hidden = list[str](), list[Entry](), list[int]()
    source = ""
    for at, container in enumerate(containers):
        read_from = container.need("input")
        if (at == 0 and read_from.text() not in _INPUTS) or (at > 0 and read_from.text() != names[-1]):
            expected = f"expected {names[-1]}" if names else f"expected {' or '.join(_INPUTS)}"
            raise read_from.error(f"the network reads {read_from.text()}; {expected}, a chain of layers", _ALONE)
        source = source or read_from.text()
        names.append(container.need("name").text())
        layers = container.need("layers").items()
        hidden += [_width(layer) for layer in layers]
        entry = container.get("activations")
        listed = [] if entry is None else entry.items() if isinstance(entry.value, list) else [entry]
        activations += listed
    texts = {None if entry.value is None else entry.text() for entry in activations}
    activation = None
    if len(texts) == 1:
        activation = _activation(activations[0])
    elif not texts:
        activation = Fact("none", f"{policy.place}: no activations are named")
    output = policy.need("output")
    match = _OUTPUT.fullmatch(output.text())
    if match is None:
        raise output.error(f"the output {output.text()} is not read; ACTIONS and tanh(ACTIONS) are", _ALONE)
    name = match["name"]
    end = output.fact("none") if name is None else output.fact(_known(output, name))
    factor = float(match["factor"] or match["times"] or 1)
    clips = "clip_actions" if policy.need("class").text().startswith("Deterministic") else "clip_mean_actions"
    notes: list[str] = []
    clip = policy.get(clips)
    if clip is not None and clip.flag():
        message = f"ACTION CLIP LEFT OUT: {clip.place} clips the action to the limits of the action space"
        notes.append(f"{message}, which are not in the folder. What to do: add a clip block to the end of spec.yaml")
    if policy.need("class").text().startswith("Categorical"):
        notes.append(ARGMAX.format("logits"))
    elif policy.need("class").text().startswith("MultiCategorical"):
        notes.append(PARTS_ARGMAX)
    return _Network(
        tuple(names),
        source,
        activation,
        end,
        scale_step([factor]),
        policy.need("network").fact(tuple(hidden)),
        tuple(notes),
    )


def _width(layer: Entry) -> int:
    """The number of outputs of a hidden layer. Raises RecoveryError: not a linear layer."""
    if is_dict(layer.value):
        kinds = layer.mapping()
        inner = kinds.get("linear") if len(kinds) == 1 else None
        if inner is None:
            raise layer.error(f"the layer {', '.join(kinds)} is not linear; only dense networks can be recovered")
        if is_dict(inner.value):
            inner = inner.get("out_features") or inner.need("features")
        elif isinstance(inner.value, list):
            if not inner.items():
                raise inner.error("expected the number of outputs, found an empty list")
            inner = inner.items()[0]
        return inner.integer()
    return layer.integer()


def _known(entry: Entry, name: str) -> str:
    if name.lower() not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise entry.error(f"the activation {name} is not a block; those of skrl that are: {known}")
    return _ACTIVATIONS[name.lower()]


def _activation(entry: Entry) -> Fact[str]:
    return entry.fact("none" if entry.value in (None, "") else _known(entry, entry.text()))


def _scaler(folder: RunFolder, agent: Entry | None, network: _Network | None) -> str:
    """The name of the preprocessor of what the policy reads; empty if there is none.

    Raises RecoveryError: agent.yaml and the checkpoint differ, or it is of another class.
    """
    sources = (_INPUTS[network.source],) if network is not None else tuple(_INPUTS.values())
    has = next((name for name in sources if folder.contents.under(name)), "")
    if agent is None:
        return has
    entry = agent.get("agent", sources[0])
    if entry is not None and entry.text() != "RunningStandardScaler":
        raise entry.error(f"the preprocessor {entry.text()} is not read; RunningStandardScaler is", _ALONE)
    if (entry is not None) != bool(has):
        place = entry.place if entry is not None else agent.need("agent").place
        wanted = "normalised" if entry is not None else "not normalised"
        found = f"holds {'' if has else 'no '}statistics under {sources[0]}"
        hint = "What to do: take the checkpoint and agent.yaml of the same run"
        message = f"{place} says that the observations are {wanted}, and {folder.checkpoint.name} {found}"
        raise RecoveryError(f"{message}. {hint}")
    return has


def _settings(agent: Entry | None, scaler: str) -> tuple[Fact[float], Fact[str]]:
    """The scaler's epsilon, and the clip behind it."""
    given = agent.get("agent", f"{scaler}_kwargs") if agent is not None and scaler else None
    epsilon, threshold = (given.get(key) if given is not None else None for key in ("epsilon", "clip_threshold"))
    limit = threshold.number() if threshold is not None else 5.0
    clip = f"clip:{-limit:g}:{limit:g}"
    return (
        epsilon.fact(epsilon.number()) if epsilon is not None else Fact(1e-8, f"{_CODE}, by default"),
        threshold.fact(clip) if threshold is not None else Fact(clip, f"{_CODE}, by default"),
    )


def _checkpoints(folder: Path) -> list[Path]:
    """By their numbers; the best agent before them, or alone."""
    best = folder / "checkpoints" / "best_agent.pt"
    return [*([best] if best.is_file() else []), *numbered(folder / "checkpoints", r"agent_(\d+)\.pt")]


FRAMEWORK = Framework("skrl", f"checkpoints/agent_N.pt beside {AGENT} (Isaac Lab) or alone", _checkpoints, read)
