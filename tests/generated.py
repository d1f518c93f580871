"""Source code of modules as people write them by hand: a forward of calls, skips, constants and loops."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hypothesis import strategies as st

HEAD = """
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)

    def forward(self, x):
        return x + F.dropout(F.silu(self.norm(self.inner(x))), 0.3, training=self.training)
"""

ACTIVATIONS = (
    *("{0}.relu()", "F.relu({0})", "torch.sigmoid({0})", "{0}.tanh()", "F.leaky_relu({0}, 0.2)", "F.elu({0}, 0.7)"),
    *("F.gelu({0})", "F.gelu({0}, approximate='tanh')", "F.silu({0})", "F.softplus({0})", "torch.softmax({0}, dim=-1)"),
    *("F.relu6({0})", "F.hardsigmoid({0})", "{0}.clamp(-1.5, 2.0)", "torch.clamp({0}, min=-0.5)", "F.hardtanh({0})"),
)
NUMBERS = ("{0} * 0.5", "2.0 - {0}", "-{0}", "{0} / 1.7", "{0} + 0.1", "3 * {0}", "torch.sub({0}, 0.3)")
PER_FEATURE = {
    "{0} - {1}": "self.register_buffer('{2}', torch.randn({3}))",
    "{0} / ({1} + 1e-5)": "self.register_buffer('{2}', torch.rand({3}) + 0.5)",
    "{0} / torch.sqrt({1} + 1e-5)": "self.register_buffer('{2}', torch.rand({3}) + 0.5)",
    "{0} * {1}": "self.{2} = nn.Parameter(torch.randn({3}))",
    "{0} * torch.exp({1})": "self.{2} = nn.Parameter(torch.randn({3}) * 0.1)",
    "{0} + {1}": "self.{2} = nn.Parameter(torch.randn({3}))",
    "{1} - {0}": "self.{2} = nn.Parameter(torch.randn(1, {3}))",
    "{0} * {1}[0]": "self.{2} = nn.Parameter(torch.randn({3}))",
}
LAYERS = {
    "self.{0}({1})": "self.{0} = nn.Linear({2}, {3})",
    "self.{0}( {1})": "self.{0} = weight_norm(nn.Linear({2}, {3}))",
    "self.{0}(  {1})": "self.{0} = spectral_norm(nn.Linear({2}, {3}))",
    "F.linear({1}, self.{0})": "self.{0} = nn.Parameter(torch.randn({3}, {2}) * 0.3)",
    "{1} @ self.{0}": "self.{0} = nn.Parameter(torch.randn({2}, {3}) * 0.3)",
    "torch.matmul({1}, self.{0}.t())": "self.{0} = nn.Parameter(torch.randn({3}, {2}) * 0.3)",
}


@dataclass
class Source:
    """A module in the making: the lines of ``__init__`` and of ``forward``, and the widths of the values so far."""

    inputs: dict[str, tuple[int, ...]]
    made: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    acting: list[str] = field(default_factory=list)
    """Values that are neither an input nor another's copy."""

    def add(self, expression: str, width: int, *, acts: bool = True) -> None:
        name = f"v{len(self.widths)}"
        self.steps.append(f"{name} = {expression}")
        self.widths[name] = width
        if acts:
            self.acting.append(name)

    def code(self, returned: str) -> str:
        parameters = ", ".join(self.inputs)
        lines = [HEAD, "class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in self.made]
        lines += ["", f"    def forward(self, {parameters}):", *(f"        {line}" for line in self.steps)]
        return "\n".join([*lines, f"        return {returned}", ""])


@st.composite
def sources(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The code of a class ``Net`` with 1 to 3 inputs and outputs, and the shapes of the inputs' rows."""
    names = draw(st.lists(st.sampled_from(["obs", "goal", "x", "image"]), min_size=1, max_size=3, unique=True))
    shapes = {n: (2, draw(st.integers(1, 4))) if n == "image" else (draw(st.integers(1, 8)),) for n in names}
    source = Source(shapes)
    for name, shape in shapes.items():
        if len(shape) > 1:
            flat = draw(
                st.sampled_from(["{0}.view({0}.size(0), -1)", "{0}.reshape({0}.shape[0], -1)", "{0}.flatten(1)"])
            )
            source.add(flat.format(name), 2 * shape[1], acts=False)
        else:
            source.widths[name] = shape[0]
    for _ in range(draw(st.integers(2, 9))):
        draw(st.sampled_from([_layer, _activation, _two, _join, _constant, _loop, _block, _number]))(draw, source)
    code = " ".join(source.steps)
    unread = [name for name in source.widths if name in shapes and not re.search(rf"\b{name}\b", code)]
    last = list(source.widths)[-1]
    if unread:
        source.add(f"torch.cat([{', '.join([*unread, last])}], dim=1)", sum(source.widths[n] for n in [*unread, last]))
    _layer(draw, source, list(source.widths)[-1])
    outputs = draw(st.lists(st.sampled_from(source.acting), max_size=2, unique=True))
    outputs = [n for n in outputs if n != source.acting[-1]] + [source.acting[-1]]
    return source.code(draw(_returned(outputs))), shapes


def _returned(outputs: list[str]) -> st.SearchStrategy[str]:
    listed = ", ".join(outputs)
    by_name = ", ".join(f"'out_{name}': {name}" for name in outputs)
    record = f"namedtuple('Out', {[f'out_{name}' for name in outputs]})({listed})"
    return st.sampled_from([listed if len(outputs) > 1 else outputs[0], f"{{{by_name}}}", record])


def _value(draw: st.DrawFn, source: Source) -> str:
    return draw(st.sampled_from(list(source.widths)))


def _layer(draw: st.DrawFn, source: Source, value: str | None = None) -> None:
    value = value or _value(draw, source)
    width, name = draw(st.integers(1, 12)), f"layer{len(source.made)}"
    call, made = draw(st.sampled_from(list(LAYERS.items())))
    source.made.append(made.format(name, value, source.widths[value], width))
    source.add(call.format(name, value), width)


def _activation(draw: st.DrawFn, source: Source) -> None:
    value = _value(draw, source)
    source.add(draw(st.sampled_from(ACTIVATIONS)).format(value), source.widths[value])


def _number(draw: st.DrawFn, source: Source) -> None:
    value = _value(draw, source)
    source.add(draw(st.sampled_from(NUMBERS)).format(value), source.widths[value])


def _two(draw: st.DrawFn, source: Source) -> None:
    value = _value(draw, source)
    alike = [name for name, width in source.widths.items() if width == source.widths[value]]
    other, symbol = draw(st.sampled_from(alike)), draw(st.sampled_from(["+", "-", "*"]))
    source.add(f"{value} {symbol} {other}", source.widths[value])


def _join(draw: st.DrawFn, source: Source) -> None:
    values = draw(st.lists(st.sampled_from(list(source.widths)), min_size=2, max_size=3))
    dim = draw(st.sampled_from(["1", "-1"]))
    source.add(f"torch.cat([{', '.join(values)}], dim={dim})", sum(source.widths[name] for name in values))


def _constant(draw: st.DrawFn, source: Source) -> None:
    value, name = _value(draw, source), f"constant{len(source.made)}"
    expression, made = draw(st.sampled_from(list(PER_FEATURE.items())))
    source.made.append(made.format(None, None, name, source.widths[value]))
    source.add(expression.format(value, f"self.{name}"), source.widths[value])


def _loop(draw: st.DrawFn, source: Source) -> None:
    value, name = _value(draw, source), f"layers{len(source.made)}"
    width, tied = source.widths[value], draw(st.booleans())
    source.made.append(f"self.{name} = nn.ModuleList([nn.Linear({width}, {width}) for _ in range(2)])")
    if tied:
        source.made.append(f"self.{name}[1].weight = self.{name}[0].weight")
    source.steps.append(f"h = {value}")
    source.steps.append(f"for layer in self.{name}:\n            h = h + F.elu(layer(h))")
    source.add("h", width)


def _block(draw: st.DrawFn, source: Source) -> None:
    value, name = _value(draw, source), f"block{len(source.made)}"
    source.made.append(f"self.{name} = Block({source.widths[value]})")
    source.add(f"self.{name}({value})", source.widths[value])
