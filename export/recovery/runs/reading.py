"""Recovers the policy of a run: the facts of its folder, joined with the options, and its checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.errors import RecoveryError
from export.recovery.activation_slots import Hints, parse
from export.recovery.checkpoint import Layers, check_options, read_layers
from export.recovery.normaliser_file import SAVED, normaliser_of
from export.recovery.recovered import Recovered, Step, network_of, refusals_of

from .facts import Fact, Interface, Joints, Run, shown
from .folder import RunFolder
from .frameworks import find_run
from .joints import joint_names

_JOINED = ("key", "prefix", "activation", "output_activation", "epsilon")
"""Options that a run's folder may give too, by their names in ``read_checkpoint`` and in ``Run``."""

_SELECTS = ("key", "prefix")
"""Those that select a network in the checkpoint, of which there may be others."""


def run_of(path: Path, options: Mapping[str, Any]) -> tuple[RunFolder, Run] | None:
    """The run in a folder, or around a checkpoint; ``None`` for a checkpoint of no run, or for another network in it.

    Raises RecoveryError: a folder without a run that is known, or with several; files that cannot be read.
    """
    found = find_run(path)
    if found is None:
        return None
    with refusals_of(found.folder.path):
        run = found.framework.read(found.folder)
    if not path.is_dir() and any(_differs(run, option, options.get(option)) for option in _SELECTS):
        return None  # another network in the same file, of which the folder says nothing
    return found.folder, replace(run, notes=(f"a run of {run.framework}, {found.note}", *run.notes))


def read_run(folder: RunFolder, run: Run, *, name: str | None = None, **options: Any) -> Recovered:
    """The policy of a run; the options are those of ``read_checkpoint``, and ``joints``: their names, in order.

    Raises RecoveryError: an option contradicts the folder, the checkpoint holds another network than the folder
    describes, or something is in neither.
    """
    with refusals_of(folder.path):
        joints = _joints(run, options.pop("joints", None))
        values = _joined(run, options)
        dropout, dtype = options.get("dropout"), options.get("dtype")
        check_options(options.get("epsilon"), dropout, dtype)
        dtype = run.rounding.value if run.rounding is not None else dtype
        behind = run.after_normaliser.value if run.after_normaliser is not None else None
        activations = values["activations"]
        hints = Hints(values["activation"], values["output_activation"], activations, dropout, behind)
    with refusals_of(run.checkpoint):
        prefix = (values["prefix"],) if isinstance(values["prefix"], str) else tuple(values["prefix"] or ())
        contents = folder.contents
        layers = read_layers(run.checkpoint, contents, values["key"], prefix, hints, values["epsilon"], dtype)
    with refusals_of(folder.path):
        layers = _first_half(run, layers)
        _check(run, layers)
        interface = Interface()
        if run.interface is not None:
            interface = run.interface(layers.features, layers.widths[-1], joints)
        notes = [*run.notes, *_fact_notes(run, joints), *interface.notes, *layers.notes]
        source: dict[str, Any] = {"name": options.get("input_name", "observation")}
        source["features"] = list(interface.features) if interface.features is not None else layers.features
        output: dict[str, Any] = {"name": options.get("output_name", "action")}
        output |= {"features": list(interface.outputs)} if interface.outputs is not None else {}
        normaliser, said = _given_normaliser(run, layers, options.get("normalizer"))
        notes = [*notes[:1], *said, *notes[1:]]
        steps = [*interface.before, *normaliser, *layers.steps, *interface.after]
        name = name if name is not None or run.name is None else run.name.value
        period = run.period.value if run.period is not None else None
        return network_of(steps, run.checkpoint, name, source, output, notes, period=period)


def _given_normaliser(run: Run, layers: Layers, file: str | Path | None) -> tuple[list[Step], list[str]]:
    """The blocks of a normaliser's file, and notes on it or on its absence. Raises RecoveryError: there is one."""
    if file is None:
        hint = f"What to do: if so, write the statistics with {SAVED}, and add --normalizer normalizer.npz"
        return [], [f"{run.normaliser}. {hint}"] if run.normaliser else []
    if any(step.kind == "standardize" for step in layers.steps):
        where = f" ({run.prefix.place})" if run.prefix is not None else ""
        raise RecoveryError(f"--normalizer {file}: the checkpoint has a normaliser{where}. What to do: leave it out")
    return normaliser_of(Path(file), layers.features)


def _differs(run: Run, option: str, given: Any) -> bool:
    """Whether an option was given, and contradicts the folder."""
    fact: Fact[Any] | None = getattr(run, option)
    if given is None or given == () or fact is None:
        return False
    if option in ("activation", "output_activation"):
        flag = f"--{option.replace('_', '-')}"
        return parse(given, flag) != parse(fact.value, flag)
    if option in _SELECTS:
        given, value = ((each,) if isinstance(each, str) else each for each in (given, fact.value))
        return [part.rstrip(".") for part in given] != [part.rstrip(".") for part in value]
    return given != fact.value


def _refuse(option: str, given: Any, fact: Fact[Any]) -> RecoveryError:
    flag = f"--{option.replace('_', '-')}"
    message = f"{flag} {shown(given)} contradicts {shown(fact.value)}, from {fact.place}"
    by_path = "; another network is recovered by the file's path" if option in _SELECTS else ""
    return RecoveryError(f"{message}. What to do: leave {flag} out{by_path}")


def _joined(run: Run, options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``_JOINED`` and of ``activations``. Raises RecoveryError: an option contradicts the folder."""
    values: dict[str, Any] = {}
    for option in _JOINED:
        given, fact = options.get(option), getattr(run, option)
        if _differs(run, option, given):
            raise _refuse(option, given, fact)
        values[option] = fact.value if fact is not None else given
    given = options.get("activations")
    values["activations"] = given
    if given is not None and run.activation is not None:
        known = [parse(run.activation.value, ""), []]
        known += [parse(fact.value, "") for fact in (run.after_normaliser, run.output_activation) if fact is not None]
        if any(parse(text, "--activations") not in known for text in given):
            raise _refuse("activations", ",".join(given), run.activation)
        values["activations"] = None  # they agree, and the folder says where they are
    return values


def _joints(run: Run, given: str | Sequence[str] | None) -> Joints:
    """The names of the joints, from the folder or the option. Raises RecoveryError: they contradict each other."""
    if given is None:
        return run.joints
    names = joint_names(given)
    if run.joints is not None and run.joints.value != names.value:
        raise _refuse("joints", names.value, run.joints)
    return names


def _first_half(run: Run, layers: Layers) -> Layers:
    """The layers with the means alone, where the last layer gives means and deviations. Raises RecoveryError."""
    if run.first_half is None or not run.first_half.value:
        return layers
    at = max(index for index, step in enumerate(layers.steps) if step.kind == "linear")
    last, outputs = layers.steps[at], layers.widths[-1]
    if outputs % 2:
        message = f"means and deviations are an even number of outputs, and the checkpoint has {outputs}"
        raise RecoveryError(f"{run.first_half.place}: {message}")
    tensors = {role: tensor[: outputs // 2] for role, tensor in last.tensors.items()}
    steps = [*layers.steps[:at], Step(last.kind, tensors, last.options), *layers.steps[at + 1 :]]
    note = f"the last layer gives {outputs // 2} means and as many deviations ({run.first_half.place}): the means alone"
    return replace(layers, steps=steps, notes=[*layers.notes, f"{note} are kept"])


def _check(run: Run, layers: Layers) -> None:
    """Raise RecoveryError if the checkpoint holds another network than the folder describes."""
    if run.hidden is None:
        return
    expected = tuple(layers.features if width == -1 else width for width in run.hidden.value)
    found = tuple(layers.widths[:-1])
    if expected != found:
        message = f"{run.hidden.place} says hidden layers of {list(expected)}, and {run.checkpoint.name} has"
        hint = "What to do: put the files of one run into one folder; this checkpoint is of another"
        raise RecoveryError(f"{message} {list(found)}. {hint}")


def _fact_notes(run: Run, joints: Joints) -> list[str]:
    """A note on each fact, with its place."""
    lines: list[tuple[str, Fact[Any] | None]] = [
        ("key", run.key),
        ("prefix", run.prefix),
        ("activation", run.activation),
        ("epsilon", run.epsilon),
        ("after the normaliser", run.after_normaliser),
        ("after the output", run.output_activation),
        ("statistics in", run.rounding),
        ("hidden layers of", run.hidden),
        ("period in seconds", run.period),
        ("name", run.name),
    ]
    notes = [fact.note(what) for what, fact in lines if fact is not None and fact.value not in ("none", "")]
    return [*notes, *([f"order of the joints: {joints.place}"] if joints is not None else [])]
