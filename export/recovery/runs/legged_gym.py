"""Runs of legged_gym and its forks: ``model_N.pt`` of rsl_rl, with no configuration beside it.

legged_gym writes its checkpoints to ``logs/EXPERIMENT/DATE_RUN/`` and nothing else; some forks copy their Python
configuration there, which is never run. So the activation is asked for, and what the environment does around the
network is in its code alone. Source: ``legged_gym/utils/task_registry.py``, ``legged_gym/envs/base/legged_robot.py``.
"""

from __future__ import annotations

from pathlib import Path

from builder.errors import RecoveryError

from .facts import Fact, Run
from .folder import RunFolder, numbered
from .framework import Framework

_NETWORK = "actor."
_LEFT_OUT = (
    "ACTION SCALE LEFT OUT: no file of a legged_gym run holds it; the outputs are actions before control.action_scale,"
    " and the joint targets are action * action_scale + default_joint_angles of the robot's configuration, after a clip"
    " to normalization.clip_actions. What to do: add clip and scale blocks to the end of spec.yaml",
    "OBSERVATION SCALES LEFT OUT: the inputs are the observations as legged_robot.py puts them together, times"
    " normalization.obs_scales and clipped to normalization.clip_observations, which no file of the run holds",
)


def read(folder: RunFolder) -> Run:
    """The facts of a run: where the actor is in the checkpoint. Raises RecoveryError: it is not there."""
    if not any(name.startswith(f"model_state_dict.{_NETWORK}") for name in folder.contents.tensors):
        found = ", ".join(list(folder.contents.tensors)[:6])
        raise RecoveryError(f"{folder.checkpoint.name}: expected tensors of model_state_dict.actor.; it holds {found}")
    place = f"the names of {folder.checkpoint.name}, as rsl_rl writes it"
    return Run(
        framework="legged_gym",
        folder=folder.path,
        checkpoint=folder.checkpoint,
        key=Fact("model_state_dict", place),
        prefix=Fact((_NETWORK,), place),
        output_activation=Fact("none", "rsl_rl puts nothing behind the last layer"),
        notes=_LEFT_OUT,
    )


def _checkpoints(folder: Path) -> list[Path]:
    return [] if (folder / "params").is_dir() else numbered(folder, r"model_(\d+)\.pt")


FRAMEWORK = Framework(
    "legged_gym", "model_N.pt alone, of rsl_rl (legged_gym, unitree_rl_gym)", _checkpoints, read, True
)
