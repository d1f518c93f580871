"""Action terms of an environment of Isaac Lab or mjlab: what becomes of the outputs of the policy.

The outputs are cut into the terms in the order of the configuration. A joint term commands raw * scale + offset, then
clipped. Source: ``isaaclab/envs/mdp/actions/joint_actions.py`` and ``mjlab/envs/mdp/actions/actions.py``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from builder.errors import RecoveryError
from builder.values import is_dict

from .facts import Joints
from .joints import Group, by_joint, selected
from .yaml_data import Entry

_KINDS = {
    "JointPositionAction": ("rad", "target position", "joint_pos"),
    "RelativeJointPositionAction": ("rad", "to add to the joint's position", ""),
    "JointVelocityAction": ("rad/s", "target velocity", "joint_vel"),
    "JointEffortAction": ("N·m", "torque", ""),
}
"""Classes of action terms: the unit, what is commanded, and the default that the offset may be."""
UNLIMITED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Action:
    """An action term. Lists have one value for all joints or one for each."""

    name: str
    entry: Entry
    group: Group
    known: bool
    """Whether its class is known; the outputs of another are left as the network gives them."""
    unit: str | None = None
    what: str = ""
    """What is commanded."""
    factor: list[float] | None = None
    """``None``: it depends on the joints' names, which are not known."""
    offset: list[float] | None = None
    limits: list[tuple[float, float]] | None = None
    offset_place: str = ""
    """Where the offset is."""


def defaults_of(env: Entry, asset: str, quantity: str, group: Group) -> tuple[list[float] | None, Entry | None]:
    """The default positions or velocities of joints (``joint_pos``, ``joint_vel``), and where they are.

    ``None`` where the configuration does not have them, or where they depend on the names of the joints.
    """
    mjlab = env.get("scene", "entities") is not None
    state = env.get("scene", *(("entities", asset) if mjlab else (asset,)), "init_state")
    entry = state.get(quantity) if state is not None else None
    if entry is None or entry.value == {}:  # the keyframe of the robot's own file, or a class with other fields
        return None, entry
    return by_joint(entry, group, 0.0, Entry.number, first_match=mjlab), entry


def actions_of(env: Entry, joints: Joints) -> list[Action]:
    """The action terms of an environment, in order. Raises RecoveryError: one that is not understood."""
    terms = env.need("actions").mapping()
    return [_action(name, entry, env, joints) for name, entry in terms.items() if is_dict(entry.value)]


def _action(name: str, entry: Entry, env: Entry, joints: Joints) -> Action:
    kind = entry.get("class_type")
    expressions = entry.get("joint_names") or entry.get("actuator_names")
    ordered = entry.get("preserve_order")
    # mjlab always keeps the order of the robot; an actuator need not be on every joint
    is_mjlab = entry.get("actuator_names") is not None
    keeps_order = ordered is not None and ordered.flag() and not is_mjlab
    group = Group(token=f"the action term {name}")
    if expressions is not None:
        group = selected(expressions, keeps_order, joints, every="the actuated joints" if is_mjlab else ".*")
    called = re.split(r"[.:]", kind.text())[-1] if kind is not None else _mjlab_kind(name, entry)
    if called not in _KINDS or expressions is None:
        return Action(name, entry, group, known=False)
    unit, what, default = _KINDS[called]
    factor = by_joint(entry.get("scale"), group, 1.0, Entry.number)
    use_default = entry.get("use_default_offset")
    if default and (use_default is None or use_default.flag()):
        asset = (entry.get("asset_name") or entry.get("entity_name") or Entry("robot", "", 0)).text()
        offset, defaults = defaults_of(env, asset, default, group)
        offset = [0.0] if defaults is None and default == "joint_vel" else offset
        place = f"the defaults, {defaults.place}" if defaults is not None else entry.place
    else:
        zero = entry.get("use_zero_offset")
        fixed = None if zero is not None and zero.flag() else entry.get("offset")
        offset, place = by_joint(fixed, group, 0.0, Entry.number), (fixed or entry).place
    limits = by_joint(entry.get("clip"), group, UNLIMITED, _limits)
    return Action(name, entry, group, True, unit, what, factor, offset, limits, place)


def _limits(entry: Entry) -> tuple[float, float]:
    numbers = entry.numbers()
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise entry.error(f"expected a lowest and a highest value, found {numbers}")
    return numbers[0], numbers[1]


def _mjlab_kind(name: str, entry: Entry) -> str:
    """The class of a term of mjlab, whose files do not have it: its fields and its name tell."""
    if entry.get("use_default_offset") is None:
        return "JointEffortAction" if "effort" in name or "torque" in name else ""
    kinds = {"pos": "JointPositionAction", "vel": "JointVelocityAction"}
    found = {kind for part, kind in kinds.items() if part in name.lower()}
    return found.pop() if len(found) == 1 else ""


def counted(actions: list[Action], outputs: int, checkpoint: str) -> list[int] | None:
    """The number of outputs of each term; ``None`` where the folder does not say it.

    Raises RecoveryError: they are not as many as the network has.
    """
    known = sum(action.group.count or 0 for action in actions)
    tokens: dict[str, int] = {}
    for action in actions:
        if action.group.count is None:
            tokens[action.group.token] = tokens.get(action.group.token, 0) + 1
    left = outputs - known
    first = actions[0].entry if actions else None
    if first is None or (not tokens and left) or (tokens and left <= 0):
        listed = ", ".join(f"{action.name} {action.group.count or 'some'}" for action in actions) or "none"
        place = f"{first.place}: " if first is not None else ""
        message = f"{place}the actions are {listed}, and the network of {checkpoint} has {outputs} outputs"
        raise RecoveryError(f"{message}. What to do: take the checkpoint and env.yaml of the same run")
    if len(tokens) > 1 or (tokens and left % next(iter(tokens.values()))):
        return None
    return [action.group.count or left // tokens[action.group.token] for action in actions]
