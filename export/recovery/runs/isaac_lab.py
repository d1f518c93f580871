"""The interface of a policy that was trained in Isaac Lab or mjlab, from the environment's ``env.yaml``.

The file that is built takes raw observations, as the terms' functions measure them, and gives commands for the joints:
clips, scales and offsets of both are blocks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from builder.errors import RecoveryError

from .deploy import differences, widths_of
from .facts import Fact, Feature, GetInterface, Interface, Joints, clip_step, scale_step, shown
from .isaac_actions import UNLIMITED, Action, actions_of, counted, defaults_of
from .isaac_observations import Settings, Term, named, solved, terms_of, unit_of
from .joints import Group, spread
from .yaml_data import Entry

_LAST_ACTION = (
    "LAST ACTION: the input {} is the network's output before its scale, offset and clip; where a command is at its"
    " limit, it does not follow from the command"
)
_TURNING = ("rad", "rad/s")
_FEW = 3
"""So many keys are in alphabetical order by chance."""
_HINT = "What to do: add --joints with the names of the robot's joints in the order of the simulation"


def period_of(env: Entry) -> Fact[float] | None:
    """Seconds between two actions: the simulation's step times the decimation."""
    step, decimation = env.get("sim", "dt") or env.get("sim", "mujoco", "timestep"), env.get("decimation")
    if step is None or decimation is None:
        return None
    return Fact(step.number() * decimation.integer(), f"{step.place} times {decimation.place}")


def is_managed(env: Entry) -> bool:
    """Whether observations and actions are terms, and not code of the environment's own."""
    return env.get("observations") is not None and env.get("actions") is not None


def interface_of(
    env: Entry,
    groups: Sequence[str],
    clip_actions: Fact[float] | None,
    checkpoint: str,
    deploy: Entry | None = None,
) -> GetInterface:
    """What gives the interface for a number of inputs and outputs.

    ``groups`` are the observation groups that the policy gets, in order; ``clip_actions`` is the largest action that
    the environment's wrapper lets through; ``deploy`` is the run's deploy.yaml, which is compared with it.
    """
    widths = widths_of(deploy) if deploy is not None else {}

    def interface(inputs: int, outputs: int, joints: Joints) -> Interface:
        actions = actions_of(env, joints)
        counts = counted(actions, outputs, checkpoint)
        sized = _Actions(actions, counts, outputs)
        settings = Settings(env, joints, widths, sized.group)
        _refuse_sorted(env)
        terms = [term for name in groups for term in terms_of(env.need("observations").need(name), settings)]
        sizes = _sizes(env, terms, inputs, checkpoint)
        observed = _observations(env, terms, sizes, sized)
        acted = sized.interface(clip_actions)
        notes = [*observed.notes, *acted.notes, *_joint_notes(joints, terms, actions)]
        if deploy is not None and sizes is not None and counts is not None:
            widths_now = {term.name: size for term, size in zip(terms, sizes, strict=True)}
            notes += differences(deploy, terms, widths_now, actions, counts, period_of(env))
        return replace(observed, after=acted.after, outputs=acted.outputs, notes=tuple(notes))

    return interface


class _Actions:
    """The action terms with their numbers of outputs, where these are known."""

    def __init__(self, actions: list[Action], counts: list[int] | None, outputs: int):
        self.actions, self.counts, self.outputs = actions, counts, outputs

    def group(self, name: str | None) -> Group | None:
        """The joints of an action term, or of all of them together."""
        if name is None:
            names = [action.group.names for action in self.actions]
            joined = [joint for each in names for joint in each or ()]
            known = all(each is not None for each in names) and len(set(joined)) == len(joined) == self.outputs
            return Group(tuple(joined) if known else None, self.outputs)
        for action, count in zip(self.actions, self.counts or [None] * len(self.actions), strict=True):
            if action.name == name:
                return replace(action.group, count=count) if count is not None else None
        return None

    def raw(self, name: str) -> list[str]:
        """How the raw output of each joint of a term, or of all (an empty name), follows from the command."""
        texts: list[str] = []
        for action, count in zip(self.actions, self.counts or (), strict=self.counts is not None):
            if name in ("", action.name):
                factors, offsets = action.factor or [1.0], action.offset or [0.0]
                pairs = zip(spread(factors, count), spread(offsets, count), strict=True)
                texts += [f"(output - {offset}) / {factor}" for factor, offset in pairs]
        return texts

    @property
    def limited(self) -> bool:
        """Whether a command is clipped, so that the raw output does not follow from it."""
        whole = [action for action in self.actions if action.factor is not None and action.offset is not None]
        return any(set(action.limits or ()) - {UNLIMITED} for action in whole)

    def interface(self, clip_actions: Fact[float] | None) -> Interface:
        """The blocks behind the network, and its outputs."""
        largest = [clip_actions.value] * self.outputs if clip_actions is not None else []
        after = clip_step([-value for value in largest], largest) if largest else []
        notes = [clip_actions.note("actions are clipped to plus and minus")] if clip_actions is not None else []
        if self.counts is None:
            places = ", ".join(action.entry.place for action in self.actions)
            message = "ACTION SCALE LEFT OUT: how many outputs each action term has is not in the folder"
            return Interface(after=tuple(after), notes=(*notes, f"{message} ({places}). {_HINT}"))
        factor, offset, low, high = list[float](), list[float](), list[float](), list[float]()
        outputs: list[Feature] = []
        for action, count in zip(self.actions, self.counts, strict=True):
            complete = action.factor is not None and action.offset is not None
            factors, offsets = action.factor or [1.0], action.offset or [0.0]
            limits = (action.limits if complete else None) or [UNLIMITED]
            factor += spread(factors, count)
            offset += spread(offsets, count)
            low += [each[0] for each in spread(limits, count)]
            high += [each[1] for each in spread(limits, count)]
            outputs += _outputs(action, count)
            notes += _action_notes(action)
        after += [*scale_step(factor, offset), *clip_step(low, high)]
        return Interface(after=tuple(after), outputs=outputs, notes=tuple(notes))


def _outputs(action: Action, count: int) -> list[Feature]:
    names = _output_names(action, count)
    if not action.known or action.factor is None:
        return [{"name": name, "description": "before the action's scale, which is left out"} for name in names]
    what = action.what
    if action.offset is None:
        what = f"{what}, relative to the joint's default"
    return [{"name": name, "unit": action.unit, "description": what} for name in names]


def _output_names(action: Action, count: int) -> list[str]:
    """The names of an action term's outputs."""
    if action.group.names is not None and len(action.group.names) == count:
        return [f"{action.name}:{joint}" for joint in action.group.names]
    return [action.name] if count == 1 else [f"{action.name}[{index}]" for index in range(count)]


def _action_notes(action: Action) -> list[str]:
    place, name = action.entry.place, action.name
    if not action.known:
        kind = action.entry.get("class_type")
        what = f"the class {kind.text()}" if kind is not None else "a class that the file does not name"
        message = f"ACTION SCALE LEFT OUT: the action term {name} is of {what}, whose commands are not a scale of the"
        return [f"{message} outputs, or not one that is known ({place}); its outputs are as the network gives them"]
    notes: list[str] = []
    if action.factor is None:
        scale = action.entry.need("scale")
        notes.append(f"ACTION SCALE LEFT OUT: {name} has a scale by joint names ({scale.place}). {_HINT}")
    else:
        notes.append(
            f"action {name} times {_shown(action.factor)}: {(action.entry.get('scale') or action.entry).place}"
        )
    if action.offset is None:
        message = f"ACTION OFFSET LEFT OUT: {name} is relative to default positions, which are by joint names or not in"
        notes.append(f"{message} env.yaml; the outputs are without them. {_HINT}")
    elif action.offset != [0.0]:
        notes.append(f"action {name} plus {_shown(action.offset)}: {action.offset_place}")
    clip = action.entry.get("clip")
    if clip is not None and (action.limits is None or action.factor is None or action.offset is None):
        notes.append(f"ACTION CLIP LEFT OUT: {name} is clipped after its scale and offset ({clip.place}). {_HINT}")
    return notes


def _shown(values: Sequence[float]) -> str:
    return (
        shown(values[0]) if len(set(values)) == 1 else f"{len(values)} values from {min(values):g} to {max(values):g}"
    )


def _refuse_sorted(env: Entry) -> None:
    """Raise RecoveryError for a file whose keys were sorted: the order of the terms is lost, and with it the inputs."""
    groups = [group.mapping() for group in env.need("observations").mapping().values() if group.value is not None]
    mappings = [list(each) for each in (env.mapping(), *groups)]
    if all(len(keys) > _FEW and keys == sorted(keys) for keys in mappings):
        message = "all keys are in alphabetical order, and the order of the terms is that of the policy's inputs"
        raise env.error(message, "give the env.yaml that the training wrote, not one that was sorted")


def _sizes(env: Entry, terms: list[Term], inputs: int, checkpoint: str) -> list[int] | None:
    """The number of values of each term at one time; ``None`` where the folder does not say it.

    Raises RecoveryError: they are not as many as the network's inputs.
    """
    known = sum(term.width * term.history for term in terms if term.width is not None)
    tokens: dict[str, int] = {}
    for term in terms:
        if term.width is None:
            tokens[term.token] = tokens.get(term.token, 0) + term.history
    listed = ", ".join(_sized(term) for term in terms)
    sizes = solved(tokens, inputs - known) if tokens else {}
    if not terms or (not tokens and known != inputs) or (len(tokens) == 1 and sizes is None) or known > inputs:
        place = terms[0].entry.place if terms else env.need("observations").place
        total = f"{known} or more" if tokens else str(known)
        message = f"{place}: the observation terms give {total} values ({listed})"
        hint = "What to do: take the checkpoint and env.yaml of the same run"
        raise RecoveryError(f"{message}, and the network of {checkpoint} has {inputs} inputs. {hint}")
    return [term.width or sizes[term.token] for term in terms] if sizes is not None else None


def _observations(env: Entry, terms: list[Term], sizes: list[int] | None, actions: _Actions) -> Interface:
    """The blocks before the network, and its inputs."""
    notes = [note for term in terms for note in term.notes]
    if sizes is None:
        unknown = ", ".join(dict.fromkeys(term.name for term in terms if term.width is None))
        message = f"the inputs have no names: how many values these have is not in the folder: {unknown}"
        if any(term.scale != (1.0,) or (term.low, term.high) != UNLIMITED for term in terms):
            message = f"OBSERVATION SCALES LEFT OUT, and {message}"
        return Interface(notes=(*notes, f"{message}. {_HINT}"))
    features: list[Feature] = []
    low, high, scale = list[float](), list[float](), list[float]()
    for term, width in zip(terms, sizes, strict=True):
        now = _features(env, term, width, actions)
        for age in range(term.history - 1, -1, -1):
            features += [{**feature, "name": f"{feature['name']}@-{age}"} for feature in now] if age else now
        size = width * term.history
        low, high = [*low, *[term.low] * size], [*high, *[term.high] * size]
        scale += spread(term.scale, width) * term.history
        notes.append(f"input {_sized(replace(term, width=width))}: {term.entry.place}")
        if term.actions is not None and actions.limited:
            notes.append(_LAST_ACTION.format(term.name))
    return Interface((*clip_step(low, high), *scale_step(scale)), (), features, None, tuple(notes))


def _sized(term: Term) -> str:
    """``joint_pos 12 x 5, clipped to -1 and 1, times 0.05``."""
    text = f"{term.name} {term.width if term.width is not None else '?'}"
    text += f" x {term.history}, the oldest first" if term.history > 1 else ""
    text += f", clipped to {term.low:g} and {term.high:g}" if (term.low, term.high) != UNLIMITED else ""
    return text + (f", times {_shown(term.scale)}" if set(term.scale) != {1.0} else "")


def _features(env: Entry, term: Term, width: int, actions: _Actions) -> list[Feature]:
    """The values of a term at one time."""
    names = named(term, width)
    descriptions = list[str | None](term.measured.parts) if len(term.measured.parts) == width else [None] * width
    if term.actions is not None:
        raw = actions.raw(term.actions)
        texts = raw if len(raw) == width else [""] * width
        descriptions = [f"the last output before its scale and offset{f', {text}' if text else ''}" for text in texts]
    elif term.measured.relative and term.group is not None:
        quantity = f"joint_{term.measured.joints[:3]}"
        values, _ = defaults_of(env, _asset(term), quantity, term.group)
        if values is not None and any(values):
            descriptions = [f"relative to the default {term.measured.joints} {v}" for v in spread(values, width)]
        elif values is None:
            descriptions = [f"relative to the default {term.measured.joints}"] * width
    units = [unit_of(term, index if term.measured.parts else 0) for index in range(width)]
    return [
        {"name": name, **({"unit": unit} if unit else {}), **({"description": text} if text else {})}
        for name, unit, text in zip(names, units, descriptions, strict=True)
    ]


def _asset(term: Term) -> str:
    name = term.entry.get("params", "asset_cfg", "name")
    return name.text() if name is not None else "robot"


def _joint_notes(joints: Joints, terms: list[Term], actions: list[Action]) -> list[str]:
    """Notes on the units of joints, and where joints have numbers instead of names."""
    groups = [term.group for term in terms if term.group is not None] + [action.group for action in actions]
    turning = any(action.unit in _TURNING for action in actions) or any(
        term.measured.joints and term.measured.unit in _TURNING for term in terms
    )
    units = ["units of joints are rad and rad/s, as of joints that turn: correct those of joints that slide"]
    if joints is not None or all(group.names is not None for group in groups):
        return units if turning else []
    message = "the joints have numbers instead of names: their order is that of the robot in the simulation, which is"
    return [*(units if turning else []), f"{message} not in the folder. {_HINT}"]
