"""Runs of CleanRL: ``runs/NAME/EXP.cleanrl_model``, a state dict, with no configuration beside it.

The scripts are single files with networks of fixed layout, so the names of the tensors say which network it is, and
the network's forward is known. Source: ``ppo_continuous_action.py``, ``ppo.py``, ``dqn.py``,
``ddpg_continuous_action.py``, ``td3_continuous_action.py`` and ``sac_continuous_action.py`` of CleanRL 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from builder.errors import RecoveryError
from export.recovery.recovered import model_name

from .around import ARGMAX
from .facts import Fact, Run
from .folder import RunFolder
from .framework import Framework

_PPO_WRAPPERS = (
    "ACTION CLIP LEFT OUT: gym.wrappers.ClipAction of ppo_continuous_action.py clips the action to the limits of the"
    " environment's action space, which are not in the checkpoint. What to do: add a clip block to the end of spec.yaml"
)
_PPO_NORMALISER = (
    "NORMALISER LEFT OUT: ppo_continuous_action.py normalises observations with gym.wrappers.NormalizeObservation and"
    " clips them at 10, and the checkpoint does not hold the statistics"
)


@dataclass(frozen=True)
class _Layout:
    """A network of CleanRL: all its tensors' names are known."""

    script: str
    prefix: tuple[str, ...]
    """In the order of execution."""
    others: str
    """A pattern for the names of tensors beside these, in the same state dict."""
    activation: str
    output_activation: str
    notes: tuple[str, ...] = ()
    normaliser: str = ""


_SEQUENTIAL = r"\d+\.(weight|bias)"
_LAYOUTS = (
    _Layout(
        "ppo_continuous_action.py",
        ("actor_mean.",),
        rf"critic\.{_SEQUENTIAL}|actor_logstd",
        "tanh",
        "none",
        (_PPO_WRAPPERS,),
        _PPO_NORMALISER,
    ),
    _Layout("ppo.py", ("actor.",), rf"critic\.{_SEQUENTIAL}", "tanh", "none", (ARGMAX.format("logits"),)),
    _Layout("dqn.py", ("network.",), "", "relu", "none", (ARGMAX.format("values"),)),
    _Layout("td3_continuous_action.py", ("fc1.", "fc2.", "fc_mu.", "action_scale"), "action_bias", "relu", "tanh"),
    _Layout(
        "sac_continuous_action.py",
        ("fc1.", "fc2.", "fc_mean.", "action_scale"),
        r"action_bias|fc_logstd\.(weight|bias)",
        "relu",
        "tanh",
    ),
)
_STARTS = ("", "0.", "model_weights.", "actor.")
"""What comes before the names: nothing, the first of the networks that ddpg and td3 save together, a dict's key."""


def read(folder: RunFolder) -> Run:
    """The facts of a run. Raises RecoveryError: the tensors are those of no network of CleanRL."""
    found = _layout(folder)
    if found is None:
        names = ", ".join(list(folder.contents.tensors)[:6])
        known = ", ".join(layout.script for layout in _LAYOUTS)
        message = f"{folder.checkpoint.name}: its tensors ({names}) are of no dense network of CleanRL ({known})"
        hint = "copy it to a name that ends in .pt and recover it there, with --prefix and --activation"
        raise RecoveryError(f"{message}. What to do: {hint}")
    layout, start = found
    place = f"{layout.script} of CleanRL, whose network has exactly these tensors"
    return Run(
        framework="CleanRL",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        name=Fact(model_name(folder.checkpoint.stem), f"the name of {folder.checkpoint.name}"),
        prefix=Fact(tuple(start + each for each in layout.prefix), f"the names of {folder.checkpoint.name}"),
        activation=Fact(layout.activation, place),
        output_activation=Fact(layout.output_activation, place),
        notes=layout.notes,
        normaliser=layout.normaliser,
    )


def _layout(folder: RunFolder) -> tuple[_Layout, str] | None:
    """The network that has exactly the checkpoint's tensors, and what their names begin with."""
    for layout in _LAYOUTS:
        for start in _STARTS:
            names = [name.removeprefix(start) for name in folder.contents.tensors if name.startswith(start)]
            parts = [rf"{re.escape(part)}({_SEQUENTIAL}|weight|bias)?" for part in layout.prefix]
            known = re.compile("|".join([*parts, *([layout.others] if layout.others else [])]))
            complete = all(any(name.startswith(part) for name in names) for part in layout.prefix)
            if complete and all(known.fullmatch(name) for name in names):
                return layout, start
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.cleanrl_model") if path.is_file())


FRAMEWORK = Framework("CleanRL", "EXP.cleanrl_model", _checkpoints, read, chosen=lambda _: "the last by name")
