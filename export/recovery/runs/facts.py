"""What the folder of a training run says about its policy: facts, each with the place that it was read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from builder.values import is_list, is_tuple
from export.recovery.recovered import Step

T = TypeVar("T")
Feature = Mapping[str, Any]
"""A feature as in a spec: its name, and its unit, range and description where they are known."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value, and where it was read: ``params/agent.yaml line 41``."""

    value: T
    place: str

    def note(self, what: str) -> str:
        """``activation elu: params/agent.yaml line 41``."""
        return f"{what} {shown(self.value)}: {self.place}"


def shown(value: object) -> str:
    """A value as it is written in an option or a note."""
    if is_tuple(value) or is_list(value):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


Joints = Fact[tuple[str, ...]] | None
"""The names of the robot's joints in the order of the simulation, where they are known."""


@dataclass(frozen=True)
class Interface:
    """What the environment does around the network, as blocks, and what the inputs and outputs are."""

    before: tuple[Step, ...] = ()
    """Between the raw observation and the normaliser: clips and scales."""
    after: tuple[Step, ...] = ()
    """Behind the network's last layer: clips, the action's scale and offset."""
    features: Sequence[Feature] | None = None
    """One for each input, where the folder says what they are."""
    outputs: Sequence[Feature] | None = None
    notes: tuple[str, ...] = ()


GetInterface = Callable[[int, int, Joints], Interface]
"""Gives the interface for a number of inputs, a number of outputs and the joints. Raises RecoveryError."""


@dataclass(frozen=True)
class Run:
    """What a run says. A fact that is ``None`` is not in the folder: an option gives it, or is asked for."""

    framework: str
    folder: Path
    checkpoint: Path
    name: Fact[str] | None = None
    """Of the model; default: the checkpoint's name."""
    key: Fact[str] | None = None
    prefix: Fact[tuple[str, ...]] | None = None
    """The parts of the network in the state dict, in order; the normaliser first, where there is one."""
    activation: Fact[str] | None = None
    output_activation: Fact[str] | None = None
    epsilon: Fact[float] | None = None
    after_normaliser: Fact[str] | None = None
    """The block behind the normaliser, in the form of ``--activations``: ``clip:-5:5``."""
    rounding: Fact[str] | None = None
    """``float32``, where the framework itself rounds float64 statistics to it before it computes with them."""
    hidden: Fact[tuple[int, ...]] | None = None
    """The widths of the hidden layers; -1 for the number of inputs. They are compared with the checkpoint's."""
    first_half: Fact[bool] | None = None
    """Whether the last layer gives means and then as many deviations; the means alone are kept."""
    period: Fact[float] | None = None
    """Seconds between two calls."""
    interface: GetInterface | None = None
    """``None``: the folder says nothing about it."""
    joints: Joints = None
    normaliser: str = ""
    """A warning where the observations are normalised outside of the checkpoint; a file with the statistics ends it."""
    notes: tuple[str, ...] = ()
    """What else was found, a line each."""


def clip_step(low: Sequence[float], high: Sequence[float]) -> list[Step]:
    """A clip of each feature; infinite limits are none. No step if there is no limit at all."""
    limits = {"min": list(map(float, low)), "max": list(map(float, high))}
    if all(math.isinf(limit) for limit in (*limits["min"], *limits["max"])):
        return []
    return [Step("clip", options={name: _one_or_each(values) for name, values in limits.items()})]


def scale_step(factor: Sequence[float], offset: Sequence[float] = (0.0,)) -> list[Step]:
    """A scale of each feature, x * factor + offset.

    Both are in the spec and in the weights, as float32. No step if it changes nothing.
    """
    options = {"factor": _one_or_all(factor), "offset": _one_or_all(offset)}
    options = {name: value for name, value in options.items() if value != (1.0 if name == "factor" else 0.0)}
    tensors = {name: np.asarray(value, np.float32) for name, value in options.items()}
    return [Step("scale", tensors, options)] if options else []


def _one_or_each(limits: Sequence[float]) -> float | list[float | None]:
    """One limit, or one for each feature, None where there is none."""
    if len(set(limits)) == 1 and not math.isinf(limits[0]):
        return limits[0]
    return [None if math.isinf(limit) else limit for limit in limits]


def _one_or_all(values: Sequence[float]) -> float | list[float]:
    numbers = [float(value) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers
