"""``params/deploy.yaml`` of unitree_rl_lab and unitree_rl_mjlab: what the controller on the robot is told.

Its numbers are rounded to three digits, so the file that is built takes them from env.yaml. What it adds is the order
of the joints, as indices into the names of the robot's interface, and widths of terms. Where it differs from env.yaml,
the robot is told another thing than the policy was trained with. Source: ``unitree_rl_lab/utils/export_deploy_cfg.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder.values import is_list

from .facts import Fact, Joints, shown
from .isaac_actions import Action
from .isaac_observations import Term
from .joints import spread
from .yaml_data import Entry

DEPLOY = "params/deploy.yaml"
_DIGITS = 6e-3
"""The relative difference that rounding to three digits may make."""


def joints_of(deploy: Entry, env: Entry | None) -> Joints:
    """The joints in the order of the simulation. Raises RecoveryError: an index that is none."""
    indices = deploy.get("joint_ids_map")
    names = env.get("scene", "robot", "joint_sdk_names") if env is not None else None
    if indices is None or names is None:
        return None
    known = [name.text() for name in names.items()]
    joints: list[str] = []
    for item in indices.items():
        index = item.integer()
        if not 0 <= index < len(known) or not known[index] or known[index] in joints:
            raise item.error(f"{index} is no joint of its own of the {len(known)} in {names.place}")
        joints.append(known[index])
    return Fact(tuple(joints), f"{indices.place} and {names.place}")


def widths_of(deploy: Entry) -> dict[str, Fact[int]]:
    """The widths of observation terms: they have a scale for each value."""
    observations = deploy.get("observations")
    if observations is None:
        return {}
    scales = {name: term.get("scale") for name, term in observations.mapping().items() if term.value is not None}
    return {name: each.fact(len(each.items())) for name, each in scales.items() if each and is_list(each.value)}


def differences(
    deploy: Entry,
    terms: Sequence[Term],
    widths: Mapping[str, int],
    actions: Sequence[Action],
    counts: Sequence[int],
    period: Fact[float] | None,
) -> list[str]:
    """What deploy.yaml says otherwise than env.yaml, a line each; or that they agree."""
    found = [*_observations(deploy, terms, widths), *_actions(deploy, actions, counts)]
    step = deploy.get("step_dt")
    if step is not None and period is not None and not _equal([step.number()], [period.value]):
        found.append(
            f"step_dt {step.number():g} ({step.place}), and the training has {period.value:g} ({period.place})"
        )
    if not found:
        return [f"{DEPLOY} agrees with the training, to its three digits"]
    return [f"DEPLOY.YAML DIFFERS FROM THE TRAINING: {line}; the file follows the training" for line in found]


def _observations(deploy: Entry, terms: Sequence[Term], widths: Mapping[str, int]) -> list[str]:
    observations = deploy.get("observations")
    if observations is None:
        return []
    told, trained = list(observations.mapping()), [term.name for term in terms]
    if sorted(told) != sorted(trained):
        listed = ", ".join(told)
        return [f"its observations are {listed} ({observations.place}), and those there are {', '.join(trained)}"]
    if told != trained:
        return [f"its observations are in the order {', '.join(told)} ({observations.place}), not {', '.join(trained)}"]
    found: list[str] = []
    for term in terms:
        entry = observations.need(term.name)
        scale, clip, history = entry.get("scale"), entry.get("clip"), entry.get("history_length")
        width = widths[term.name]
        if scale is not None and not _equal(_listed(scale, width), spread(term.scale, width)):
            found.append(
                f"{term.name} times {_range(_listed(scale, width))} ({scale.place}), and {_range(term.scale)} there"
            )
        limits = clip.numbers() if clip is not None else [float("-inf"), float("inf")]
        if not _equal(limits, [term.low, term.high]):
            found.append(
                f"{term.name} clipped to {shown(limits)} ({entry.place}), and to {term.low:g}, {term.high:g} there"
            )
        if history is not None and max(history.integer(), 1) != term.history:
            found.append(f"{term.name} with {history.integer()} values ({history.place}), and {term.history} there")
    return found


def _actions(deploy: Entry, actions: Sequence[Action], counts: Sequence[int]) -> list[str]:
    told = deploy.get("actions")
    if told is None or len(told.mapping()) != len(actions):
        return [] if told is None else [f"it has {len(told.mapping())} action terms ({told.place}), not {len(actions)}"]
    found: list[str] = []
    for entry, action, count in zip(told.mapping().values(), actions, counts, strict=True):
        for key, values in (("scale", action.factor), ("offset", action.offset)):
            value = entry.get(key)
            if value is None or values is None or not action.known:
                continue
            if not _equal(_listed(value, count), spread(values, count)):
                found.append(
                    f"the action's {key} is {_range(_listed(value, count))} ({value.place}), and {_range(values)} there"
                )
    return found


def _listed(entry: Entry, count: int) -> list[float]:
    return entry.numbers() if is_list(entry.value) else spread([entry.number()], count)


def _equal(told: Sequence[float], trained: Sequence[float]) -> bool:
    pairs = list(zip(told, trained, strict=False))
    return len(told) == len(trained) and all(a == b or abs(a - b) <= _DIGITS * max(abs(a), abs(b)) for a, b in pairs)


def _range(values: Sequence[float]) -> str:
    return (
        f"{min(values):g}"
        if len(set(values)) == 1
        else f"{', '.join(f'{value:g}' for value in values[:8])}{' …' if len(values) > 8 else ''}"
    )
