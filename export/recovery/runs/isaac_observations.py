"""Observation terms of an environment of Isaac Lab or mjlab: what the inputs of the policy are, in their order.

A group joins its terms in the order of the configuration. Each term is measured, clipped, scaled, and joined with its
own history, the oldest value first. Source: ``isaaclab/managers/observation_manager.py`` (``compute_group``) and
``mjlab/managers/observation_manager.py``. Noise, delays and modifiers are of the training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from builder.values import is_dict, is_list

from .facts import Fact, Joints
from .joints import Group, selected
from .measured import COMMANDS, MEASURED, SENSORS, UNITS, Measured
from .yaml_data import Entry

_SETTINGS = (
    *("enable_corruption", "concatenate_terms", "history_length", "flatten_history_dim", "concatenate_dim"),
    *("nan_policy", "nan_check_per_term"),
)
"""Keys of a group that are no terms."""


@dataclass(frozen=True)
class Term:
    """A term of a group: what it measures, and what is done with it."""

    name: str
    entry: Entry
    measured: Measured
    group: Group | None = None
    """The joints that it is about; its values are one for each."""
    width: int | None = None
    """Values at one time."""
    token: str = ""
    """What is unknown, where the width is: terms with the same token have the same width."""
    history: int = 1
    low: float = -math.inf
    high: float = math.inf
    scale: tuple[float, ...] = (1.0,)
    """One for all values, or one for each."""
    actions: str | None = None
    """The term is the last action: of the action term of this name, or of all of them (an empty name)."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What terms are read with, besides their own entries."""

    env: Entry
    joints: Joints
    widths: Mapping[str, Fact[int]]
    """Widths of terms that another file of the run gives."""
    action_group: Callable[[str | None], Group | None]
    """The joints of an action term, or of all of them; ``None``: a term that is not about joints."""


def terms_of(group: Entry, settings: Settings) -> list[Term]:
    """The terms of a group, in order. Raises RecoveryError: one that is not understood."""
    joined = group.get("concatenate_terms")
    if joined is not None and not joined.flag():
        raise joined.error("the terms of the group are not joined to one input, and a dense network has one")
    listed = group.get("terms")
    entries = (listed if listed is not None else group).mapping()
    return [
        _term(name, entry, group, settings)
        for name, entry in entries.items()
        if is_dict(entry.value) and (listed is not None or name not in _SETTINGS)
    ]


def _term(name: str, entry: Entry, group: Entry, settings: Settings) -> Term:
    function = entry.get("func")
    called = re.split(r"[.:]", function.text())[-1] if function is not None else name
    params = entry.get("params") or Entry({}, entry.file, entry.line, entry.path)
    term = _measuring(name, called, entry, params, settings)
    scale, clip = entry.get("scale"), entry.get("clip")
    factors = tuple(scale.numbers() if is_list(scale.value) else [scale.number()]) if scale is not None else (1.0,)
    if len(factors) > 1 and term.width is None:
        term = replace(term, width=len(factors))
    if term.width is None and name in settings.widths:
        term = replace(term, width=settings.widths[name].value)
    if scale is not None and term.width is not None and len(factors) not in (1, term.width):
        raise scale.error(f"{len(factors)} scales, and the term has {term.width} values")
    low, high = (-math.inf, math.inf)
    if clip is not None and clip.items():
        limits = clip.numbers()
        if len(limits) != 2 or not limits[0] < limits[1]:
            raise clip.error(f"expected a lowest and a highest value, found {limits}")
        low, high = limits
    modifiers = entry.get("modifiers")
    notes = term.notes
    if modifiers is not None and modifiers.items():
        message = (
            f"MODIFIERS LEFT OUT: {name} is changed by {len(modifiers.items())} functions before its clip and scale"
        )
        notes = (*notes, f"{message} ({modifiers.place}); the file takes it as they leave it")
    return replace(term, history=_history(entry, group), low=low, high=high, scale=factors, notes=notes)


def _history(entry: Entry, group: Entry) -> int:
    """How many values, the newest included. Raises RecoveryError: values that are not joined to one list."""
    whole = group.get("history_length")
    length, flat = (
        group.get(key) if whole is not None else entry.get(key) for key in ("history_length", "flatten_history_dim")
    )
    count = length.integer() if length is not None else 0
    if count > 0 and flat is not None and not flat.flag():
        raise flat.error("a history that is not flattened is a table for each row, and a dense network takes lists")
    return max(count, 1)


def _measuring(name: str, called: str, entry: Entry, params: Entry, settings: Settings) -> Term:
    """What a term measures: a term with its joints and width, where they are known."""
    unknown = Term(name, entry, Measured(), token=f"the term {name}")
    if called == "last_action":
        action = params.get("action_name")
        chosen = action.text() if action is not None else None
        group = settings.action_group(chosen)
        found = Term(name, entry, Measured(joints="action"), group, actions=chosen or "")
        return _sized(found) if group is not None else replace(found, token=f"the term {name}")
    if called == "generated_commands":
        return _command(unknown, params, settings.env)
    if called == "builtin_sensor":
        sensor = params.need("sensor_name").text()
        measured = next((found for part, found in SENSORS.items() if part in sensor), None)
        return _sized(replace(unknown, measured=measured)) if measured is not None else unknown
    if called == "height_scan":
        return _heights(unknown, params, settings.env)
    measured = MEASURED.get(called)
    if measured is None:
        return unknown
    if not measured.joints:
        return _sized(replace(unknown, measured=measured))
    asset = params.get("asset_cfg")
    expressions = asset.get("joint_names") if asset is not None else None
    order = asset.get("preserve_order") if asset is not None else None
    group = selected(expressions, order is not None and order.flag(), settings.joints)
    return _sized(replace(unknown, measured=measured, group=group))


def _sized(term: Term) -> Term:
    """The term with its width, or with the token of its joints."""
    if term.group is None:
        return replace(term, width=len(term.measured.parts))
    return replace(term, width=term.group.count, token=term.group.token if term.group.count is None else "")


def _command(term: Term, params: Entry, env: Entry) -> Term:
    """A command: its parts, with the ranges of the training in their descriptions."""
    name = params.get("command_name")
    command = env.get("commands", name.text()) if name is not None else None
    if command is None:
        return term
    kind, ranges = command.get("class_type"), command.get("ranges")
    parts = COMMANDS["UniformVelocityCommand"].parts
    if kind is not None and not (ranges is not None and set(parts) <= ranges.mapping().keys()):
        known = COMMANDS.get(re.split(r"[.:]", kind.text())[-1])
        return _sized(replace(term, measured=known)) if known is not None else term
    if ranges is None or not set(parts) <= ranges.mapping().keys():
        return term
    described: list[str] = []
    for part in parts:
        limits = ranges.need(part)
        low, high = limits.numbers() if is_list(limits.value) and len(limits.items()) == 2 else (0.0, 0.0)
        described.append(f"{part}, trained from {low:g} to {high:g}" if low < high else part)
    return _sized(replace(term, measured=Measured(tuple(described))))


def _heights(term: Term, params: Entry, env: Entry) -> Term:
    """A height scan, whose width is the number of rays of its grid."""
    name = params.get("sensor_cfg", "name") or params.get("sensor_name")
    pattern = env.get("scene", name.text(), "pattern_cfg") if name is not None else None
    size, step = (pattern.get("size"), pattern.get("resolution")) if pattern is not None else (None, None)
    term = replace(term, measured=Measured(unit="m"))
    if size is None or step is None or step.number() <= 0:
        return term
    rays = [math.ceil((side + 1e-9) / step.number()) for side in size.numbers()]
    return replace(term, width=math.prod(rays))


def unit_of(term: Term, part: int) -> str | None:
    """The unit of a value of a term, where its function says it."""
    if term.measured.unit is not None or not term.measured.parts:
        return term.measured.unit
    return UNITS.get(term.measured.parts[part].partition(",")[0])


def named(term: Term, width: int) -> list[str]:
    """The names of a term's values at one time: by joints where they are known, else by numbers."""
    group = term.group
    if group is not None and group.names is not None and len(group.names) == width:
        return [f"{term.name}:{joint}" for joint in group.names]
    return [term.name] if width == 1 else [f"{term.name}[{index}]" for index in range(width)]


def solved(tokens: Mapping[str, int], total: int) -> dict[str, int] | None:
    """The size of the one thing that is unknown, which is there so many times; ``None`` where there are several."""
    if len(tokens) != 1:
        return None
    ((token, times),) = tokens.items()
    return {token: total // times} if total > 0 and total % times == 0 else None
