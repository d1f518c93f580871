"""Runs of rl_games, as Isaac Lab, IsaacGymEnvs and OmniIsaacGymEnvs write them: ``nn/NAME.pth`` and its configuration.

The configuration is ``params/agent.yaml`` (Isaac Lab, with ``params:``) or ``config.yaml`` (the hydra configuration of
the others, with ``train: params:``). The library clips observations, normalises them and clips them at 5; a player
clips the action at 1 and stretches it to the environment's limits. Source: ``rl_games/algos_torch/network_builder.py``,
``running_mean_std.py`` and ``players.py`` of 1.6, ``isaaclab_rl/rl_games.py``, IsaacGymEnvs' ``vec_task.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from pathlib import Path

from builder.errors import RecoveryError
from export.recovery.recovered import Step, model_name

from .around import ARGMAX, wrapped
from .facts import Fact, GetInterface, Run, clip_step, scale_step
from .folder import RunFolder, last_by, numbered
from .framework import Framework
from .isaac_lab import interface_of, is_managed, period_of
from .rsl_rl import AGENT, ENV, left_out_note
from .yaml_data import Entry

_CONFIG = "config.yaml"
_LAST = r"last_.*_ep_(\d+)_rew_.*\.pth"
_ACTIVATIONS = {
    **{name: name for name in ("relu", "tanh", "sigmoid", "elu", "gelu", "softplus")},
    "swish": "silu",
    "None": "none",
}
"""The names of ``activations_factory``, and those of the blocks. Its selu is no block."""
_MODELS = ("continuous_a2c", "continuous_a2c_logstd", "discrete_a2c")
_NORMALISER, _TRUNK = "running_mean_std.", "a2c_network.actor_mlp."
_HEADS = {"continuous": "a2c_network.mu.", "discrete": "a2c_network.logits."}
_CODE = "rl_games' RunningMeanStd"
_ALONE = "copy the checkpoint into an empty folder and recover it there, with --prefix and --activations"


def read(folder: RunFolder) -> Run:
    """The facts of a run. Raises RecoveryError: not understood, or the checkpoint contradicts the configuration."""
    config = folder.yaml(AGENT) or folder.yaml(_CONFIG)
    if config is None:
        raise RecoveryError(f"{AGENT} and {_CONFIG} are missing")
    params = config.get("params") or config.get("train", "params")
    if params is None:
        raise config.error("the key params (Isaac Lab) or train.params (IsaacGymEnvs) is missing", _ALONE)
    network, kind = _network(params)
    units = network.need("mlp", "units")
    widths = tuple(item.integer() for item in units.items())
    normalised = _normalised(folder, params)
    parts = ((_NORMALISER,) if normalised else (), (_TRUNK,) if widths else (), (_HEADS[kind],))
    described = f"of {folder.checkpoint.name}, as rl_games writes it"
    env = folder.yaml(ENV)
    name = params.get("config", "name")
    mean = network.get("space", "continuous", "mu_activation") if kind == "continuous" else None
    return Run(
        framework="rl_games",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        name=name.fact(model_name(name.text())) if name is not None else None,
        key=Fact("model", f"the layout {described}"),
        prefix=Fact(tuple(prefix for part in parts for prefix in part), f"the names {described}"),
        activation=_activation(network.need("mlp", "activation")),
        output_activation=_activation(mean) if mean is not None else Fact("none", "rl_games' mu_activation by default"),
        epsilon=Fact(1e-5, _CODE) if normalised else None,
        after_normaliser=Fact("clip:-5:5", _CODE) if normalised else None,
        rounding=Fact("float32", f"{_CODE}, which rounds them before it computes") if normalised else None,
        hidden=units.fact(widths),
        period=period_of(env) if env is not None else None,
        interface=_interface(folder, config, params, env, kind),
        notes=(() if env is not None and is_managed(env) else (left_out_note(env, isaac_lab=config.file == AGENT),))
        + ((ARGMAX.format("logits"),) if kind == "discrete" else ()),
    )


def _network(params: Entry) -> tuple[Entry, str]:
    """The description of the network, and the kind of its actions. Raises RecoveryError: not a dense one."""
    network, model = params.need("network"), params.get("model", "name")
    name = network.get("name")
    if name is not None and name.text() != "actor_critic":
        raise name.error(f"the network {name.text()} is not actor_critic, the dense one of rl_games", _ALONE)
    if model is not None and model.text() not in _MODELS:
        raise model.error(f"the model {model.text()} is none of {', '.join(_MODELS)}", _ALONE)
    for key, what in (("rnn", "a recurrent network"), ("cnn", "a convolutional network")):
        if (entry := network.get(key)) is not None and entry.mapping():
            raise entry.error(f"{what}; only dense networks can be recovered")
    d2rl = network.get("mlp", "d2rl")
    if d2rl is not None and d2rl.flag():
        raise d2rl.error("with d2rl each layer also gets the network's input, which is no chain of layers")
    space = network.get("space")
    kinds = [kind for kind in _HEADS if space is not None and kind in space.mapping()]
    if len(kinds) != 1:
        raise network.error("expected space.continuous or space.discrete", _ALONE)
    return network, kinds[0]


def _activation(entry: Entry) -> Fact[str]:
    name = "None" if entry.value is None else entry.text()
    if name not in _ACTIVATIONS:
        raise entry.error(
            f"the activation {name} is not a block; those of rl_games that are: {', '.join(_ACTIVATIONS)}"
        )
    return entry.fact(_ACTIVATIONS[name])


def _normalised(folder: RunFolder, params: Entry) -> bool:
    """Whether the observations are normalised. Raises RecoveryError: the checkpoint and the configuration differ."""
    names = [name.replace("_orig_mod.", "") for name in folder.contents.under("model")]
    if not any(name.startswith(tuple(_HEADS.values())) for name in names):
        found = ", ".join(list(folder.contents.tensors)[:6])
        message = f"{folder.checkpoint.name}: expected tensors such as model.a2c_network.mu.weight; it holds {found}"
        raise RecoveryError(f"{message}. What to do: {_ALONE}")
    has = any(name.startswith(_NORMALISER) for name in names)
    entry = params.get("config", "normalize_input")
    says = entry.flag() if entry is not None else False
    if says != has:
        place = entry.place if entry is not None else f"{params.need('config').place} (normalize_input by default)"
        wanted = "normalised" if says else "not normalised"
        found = "holds statistics" if has else "holds no statistics"
        message = f"{place} says that the observations are {wanted}, and {folder.checkpoint.name} {found} under model"
        hint = "What to do: take the checkpoint and the configuration of the same run"
        raise RecoveryError(f"{message}.{_NORMALISER} {hint}")
    return has


def _interface(folder: RunFolder, config: Entry, params: Entry, env: Entry | None, kind: str) -> GetInterface:
    """The library's clips and the environment around them."""
    settings, keys = params.get("env"), ("clip_observations", "clip_actions")
    if config.get("task", "env") is not None:
        settings, keys = config.get("task", "env"), ("clipObservations", "clipActions")
    seen, acted = (settings.get(key) if settings is not None else None for key in keys)
    notes: list[str] = []
    before = list[Step]()
    if seen is not None:
        limit = seen.number()
        before = clip_step([-limit], [limit])
        notes.append(seen.fact(limit).note("observations are clipped to plus and minus"))
    managed = env is not None and is_managed(env)
    inner = interface_of(env, _groups(params), None, folder.checkpoint.name) if env is not None and managed else None
    if kind == "discrete":
        return wrapped(inner, before, notes=notes)
    clipped = params.get("config", "clip_actions")
    largest = acted.number() if acted is not None else inf
    after = list[Step]()
    if clipped is None or clipped.flag():
        place = clipped.place if clipped is not None else "rl_games, by default"
        notes.append(f"actions are clipped to plus and minus 1: {place}")
        after = clip_step([-1.0], [1.0])
        if config.get("task", "env") is None:  # IsaacGymEnvs' own space is -1 to 1
            if acted is None or largest == inf:
                where = acted.place if acted is not None else params.place
                message = "the action is stretched to the environment's limits (clip_actions), which are infinite"
                raise RecoveryError(f"{where}: {message}. What to do: {_ALONE}")
            after += scale_step([largest])
            notes += [acted.fact(largest).note("actions are stretched to plus and minus")] if largest != 1 else []
    elif acted is not None:
        after = clip_step([-largest], [largest])
        notes.append(acted.fact(largest).note("actions are clipped to plus and minus"))
    return wrapped(inner, before, lambda _: after, notes)


def _groups(params: Entry) -> list[str]:
    """The observation groups that the policy gets."""
    listed = params.get("env", "obs_groups", "obs")
    return [item.text() for item in listed.items()] if listed is not None else ["policy"]


def _checkpoints(folder: Path) -> list[Path]:
    """Those of the run: by their epochs, then the best, which rl_games itself plays."""
    files = (f"{name}.{ending}" for name in (AGENT[: -len(".yaml")], "config") for ending in ("yaml", "pkl"))
    if not any((folder / name).is_file() for name in files):
        return []
    last = numbered(folder / "nn", _LAST)
    rest = [path for path in sorted((folder / "nn").glob("*.pth")) if path not in last and path.is_file()]
    return [*last, *rest]


def _chosen(checkpoints: Sequence[Path]) -> str:
    """The library itself writes one file without an epoch, that of the best."""
    unnumbered = [path for path in checkpoints if re.fullmatch(_LAST, path.name) is None]
    return "the best" if len(unnumbered) == 1 else last_by(checkpoints, _LAST)


FRAMEWORK = Framework(
    "rl_games",
    f"nn/NAME.pth beside {AGENT} (Isaac Lab) or {_CONFIG} (IsaacGymEnvs, OmniIsaacGymEnvs)",
    _checkpoints,
    read,
    chosen=_chosen,
)
