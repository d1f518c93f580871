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
    *("F.selu({0})", "F.mish({0})", "F.hardswish({0})", "F.celu({0}, 1.3)", "F.softsign({0})", "F.logsigmoid({0})"),
    *("F.softshrink({0})", "{0}.log_softmax(1)", "F.rms_norm({0}, {0}.shape[1:], eps=1e-2)", "{0}.abs()", "{0}.sin()"),
    *(
        "torch.cos({0})",
        "torch.exp(-{0}.abs())",
        "torch.log({0}.abs() + 1)",
        "torch.sqrt({0} * {0} + 1)",
        "{0}.square()",
    ),
    *("torch.where({0} > 0, {0}, 0.3 * {0})", "torch.where({0} <= 0.2, {0}.new_tensor(0.5), {0})", "{0} * ({0} > 0)"),
    *("{0}.masked_fill({0} > 1.5, 1.0)", "{0} * ({0}.abs() < 1).float()", "{0}.flip(1)", "{0}.roll(1, 1)"),
    *(
        "({0}.abs() + 1) ** 1.5",
        "{0}.clamp(-2, 2) ** 3",
        "{0}.unsqueeze(-1).squeeze(-1) * 2",
        "{0}[:, None].mean(1) * 1.1",
    ),
)
"""Of one value, which keep its width."""
BY_ROW = (
    *(
        "{0}.mean(1, keepdim=True)",
        "{0}.sum(-1, keepdim=True)",
        "{0}.amax(1, keepdim=True)",
        "{0}.min(1, keepdim=True)[0]",
    ),
    *("{0}.norm(dim=1, keepdim=True)", "{0}.var(1, unbiased=False, keepdim=True)", "({0} > 0).sum(1, keepdim=True)"),
    *("{0}.argmax(1, keepdim=True)", "torch.logsumexp({0}, 1, keepdim=True)", "({0} > 0).any(1)[:, None].float()"),
)
"""Of one value, a number for every row."""
WRITES = (
    *(
        "{0}[:, 0] = 0.5",
        "{0}[:, -1] = {0}[:, 0] * 2",
        "{0}[:, ::2] += 1",
        "{0}[:, :1] = {0}[:, -1:]",
        "{0}.clamp_(-2, 2)",
    ),
    *("{0}[{0} > 1] = 1.0", "{0}[:, [0]] *= 2", "{0}.view({0}.shape[0], 1, -1)[:, 0].mul_(0.5)", "{0}.T[0] = 0.1"),
    "F.relu({0}, inplace=True)",
)
"""In place, on a value that nobody else has."""
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
        draw(st.sampled_from(STEPS))(draw, source)
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
    other = draw(st.sampled_from(alike))
    written = draw(
        st.sampled_from(["{0} + {1}", "{0} - {1}", "{0} * {1}", "torch.maximum({0}, {1})", "{0} / ({1}.abs() + 1)"])
    )
    source.add(written.format(value, other), source.widths[value])


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


def _by_row(draw: st.DrawFn, source: Source) -> None:
    """A number for every row, and a value that it is spread over."""
    value, other = _value(draw, source), _value(draw, source)
    number = draw(st.sampled_from(BY_ROW)).format(value)
    written = draw(st.sampled_from(["{1} - {0}", "{1} / ({0}.abs() + 1)", "{1} * {0}", "torch.cat([{1}, {0}], 1)"]))
    wider = "cat" in written
    source.add(written.format(number, other), source.widths[other] + wider)


def _part(draw: st.DrawFn, source: Source) -> None:
    """Some of the features: a slice, or a list of their places."""
    value = _value(draw, source)
    width = source.widths[value]
    places = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=4))
    start = draw(st.integers(0, width - 1))
    stop = draw(st.integers(start + 1, width))
    written = draw(
        st.sampled_from(
            [f"[:, {places}]", f"[:, torch.tensor({places})]", f"[:, {start}:{stop}]", f"[..., {start}:{stop}]"]
        )
    )
    # More than copies: each is an operator that acts.
    source.add(f"{value}{written} * 1.5", len(places) if "[:, [" in written or "tensor" in written else stop - start)


def _halves(draw: st.DrawFn, source: Source) -> None:
    """Two halves of a value with an even width, brought together in another way."""
    even = [name for name, width in source.widths.items() if width % 2 == 0]
    if not even:
        return _by_row(draw, source)
    value = draw(st.sampled_from(even))
    half = source.widths[value] // 2
    halves = draw(st.sampled_from(["{0}.chunk(2, 1)", "{0}.split({1}, dim=1)", "torch.tensor_split({0}, 2, 1)"]))
    source.steps.append(f"first, second = {halves.format(value, half)}")
    written = {
        "first * torch.sigmoid(second)": 1,
        "torch.cat([second, first * 2], 1)": 2,
        "torch.stack([first, second], 1).mean(1)": 1,
    }
    written |= {f"F.glu({value})": 1, "torch.stack([second, first], -1).flatten(1).tanh()": 2}
    expression, times = draw(st.sampled_from(list(written.items())))
    source.add(expression, times * half)


def _products(draw: st.DrawFn, source: Source) -> None:
    """Rows as matrices (batch, k, n), turned and multiplied with each other or with a parameter."""
    value, name = _value(draw, source), f"matrix{len(source.made)}"
    width = source.widths[value]
    k = draw(st.sampled_from([d for d in range(1, width + 1) if width % d == 0]))
    n = width // k
    rows = f"{value}.view(-1, {k}, {n})"
    written = {
        f"({rows} @ {rows}.transpose(1, 2)).flatten(1)": k * k,
        f"torch.bmm({rows}.mT, {rows}).reshape({value}.shape[0], -1)": n * n,
        f"torch.einsum('bkn,nm->bkm', {rows}, self.{name}).flatten(1)": k * 3,
        f"self.{name}_layer({rows}).permute(0, 2, 1).flatten(1)": 2 * k,
    }
    if n > 1:  # one value less itself is nothing but rounding, which has no bound relative to it
        written[f"F.layer_norm({rows}, ({n},)).softmax(1).flatten(1)"] = width
    expression, wide = draw(st.sampled_from([pair for pair in written.items() if pair[1] <= 36]))
    if name in expression:
        source.made.append(f"self.{name} = nn.Parameter(torch.randn({n}, 3) * 0.3)")
        source.made.append(f"self.{name}_layer = nn.Linear({n}, 2)")
    source.add(expression, wide)


def _prelu(draw: st.DrawFn, source: Source) -> None:
    value, name = _value(draw, source), f"prelu{len(source.made)}"
    source.made.append(f"self.{name} = nn.PReLU({draw(st.sampled_from([1, source.widths[value]]))})")
    source.add(f"self.{name}({value})", source.widths[value])


def _write(draw: st.DrawFn, source: Source) -> None:
    value, name = _value(draw, source), f"written{len(source.steps)}"
    source.steps.append(f"{name} = {value} * 1.25")
    writes = [write for write in WRITES if source.widths[value] > 2 or "= 0." not in write]  # lest nothing of it stays
    for write in draw(st.lists(st.sampled_from(writes), min_size=1, max_size=3)):
        source.steps.append(write.format(name))
    source.add(f"{name} + 0.5", source.widths[value])


STEPS = (
    *(_layer, _activation, _two, _join, _constant, _loop, _block, _number, _by_row, _part, _halves, _products, _prelu),
    *(_write, _activation, _by_row, _layer),
)
