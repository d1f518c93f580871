"""Layer by layer: is every layer, on the input that it really received, within its bound of the module's layer?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate, follow
from export.graph import Rows, row_of
from export.onnxfile.pattern_matching import attribute
from runtime import ModelError

from .inputs import USUAL
from .report import ElementRecord, LayerRecord
from .rows import by_row, in_shape, sized
from .rules import RULES
from .rules.arithmetic import magnitude, merged, roundings
from .rules.common import Radius, size
from .rules.constants import LARGEST, sharper
from .structure import Layer

SLACK = 1 + 2.0**-20
"""For the float64 arithmetic of the reference and of the bound."""
_CHUNK = 2**19
"""Elements of the widest value that are compared at a time."""
BINS = (0.0, 0.5, 1.0, *(2.0**k for k in range(1, 13)))
"""Upper ends of the histogram of errors, in units in the last place of the exact value; one bin more is open."""
_FEATURES = 64
"""Of an input row, that a record keeps."""

Value = tuple[Tensor, Radius]
"""What stands somewhere in a network, and how far a float32 runtime may be from it."""
Step = Callable[[Layer, Sequence[Tensor], Sequence[Radius]], Value]


def walk(layers: Sequence[Layer], values: Mapping[str, Value], rows: int, step: Step) -> dict[str, Value]:
    """What ``step`` makes of values at every layer, one after the other; values bear the names that the file has."""
    held = dict(values)
    for layer in layers:
        given = [seen_as(held[n], sized(shape, rows)) for n, shape in zip(layer.inputs, layer.shapes, strict=True)]
        held[layer.output] = step(layer, [z for z, _ in given], [e for _, e in given])
    return held


def seen_as(value: Value, shape: tuple[int, ...]) -> Value:
    """A value in the shape that its reader has for it."""
    z, e = value
    return z.reshape(shape), None if e is None else e.expand(z.shape).reshape(shape)


@dataclass
class LayerCheck:
    """What was found of one layer, or of several that a runtime computes as one."""

    layers: tuple[Layer, ...]
    whole: bool = False
    """Rows depend on each other, so that a batch is never compared in parts."""
    compared: int = 0
    exempt: int = 0
    by_kind: int = 0
    """Elements whose kind (NaN, infinite, finite) is not float64's but that of PyTorch's own float32 kernel."""
    worst: ElementRecord | None = None
    failure: ElementRecord | None = None
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) + 1, np.int64))
    shares: dict[str, float] = field(default_factory=dict)
    """The largest share of the bound, by kind of inputs."""
    unbounded: float = 0.0
    """The largest share of exempt values in one set of usual rows."""

    @property
    def path(self) -> str:
        return self.layers[-1].path

    @property
    def ratio(self) -> float:
        """The largest error over bound; above 1 is a failure."""
        return self.worst.ratio if self.worst is not None else 0.0

    @property
    def likely(self) -> float:
        """The same against the probabilistic line, for a single affine layer; above 1 is a warning."""
        only = self.layers[0].held
        return self.ratio * (sharper(roundings(only)) if len(self.layers) == 1 and only.op == "linear" else 1.0)

    def compare(self, inputs: str, values: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Hold the layer's value against its bound; the largest share of the bound in each row.

        ``values`` are what the runtime gave, by name; ``x`` is the network's input, for the record.
        """
        given = self._given(values, len(x))
        widest = max(prod(array.shape[1:]) for array in given.values())
        step = max(1, len(x)) if self._in_one() else max(1, _CHUNK // max(1, widest))
        before, shares = self.exempt, []
        for start in range(0, max(1, len(x)), step):
            part = given if step >= len(x) else _part(given, start, start + step)
            shares.append(self._compare(inputs, part, x[start : start + step], start))
        if inputs in USUAL and len(x):
            self.unbounded = max(self.unbounded, (self.exempt - before) / max(1, given[self.layers[-1].output].size))
        return np.concatenate(shares)

    def _given(self, values: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """What the runtime gave to the group and what it made of it, by name, in the module's shapes."""
        made, last = {layer.output for layer in self.layers[:-1]}, self.layers[-1]
        read = [pair for layer in self.layers for pair in zip(layer.inputs, layer.shapes, strict=True)]
        wanted = [*(pair for pair in read if pair[0] not in made), (last.output, last.held.shape)]
        return {name: in_shape(values[name], count, shape) for name, shape in wanted}

    def _in_one(self) -> bool:
        """Whether a batch must be compared at once: its rows are not the first dimension everywhere."""
        shapes = [shape for layer in self.layers for shape in (*layer.shapes, layer.held.shape)]
        return self.whole or any(not shape or shape[0] != Rows() for shape in shapes)

    def _compare(self, inputs: str, given: Mapping[str, np.ndarray], x: np.ndarray, start: int) -> np.ndarray:
        count, last = len(x), self.layers[-1]
        if not count:
            return np.zeros(0)
        with np.errstate(all="ignore"), torch.inference_mode():
            y, radius = self._computed(given, count, torch.float64, partial(expected, rows=count))
        assert radius is not None
        output = given[last.output]
        if output.shape != y.shape:
            raise ModelError(f"{self.path}: the runtime gave {list(output.shape)} values, not {list(y.shape)}")
        parts = (torch.from_numpy(output), y, radius.expand(y.shape))
        found, y, radius = (by_row(part.double(), count, last.held.shape) for part in parts)
        radius = radius * SLACK
        exempt = radius.isinf() | (y.isfinite() & ~(y.abs() + radius <= LARGEST))
        other = (_kind(found) != _kind(y)) & ~exempt
        if other.any():
            same = _kind(self._eager(given, count)) == _kind(found)
            self.by_kind += int((other & same).sum())
            exempt, other = exempt | (other & same), other & ~same
        apart = torch.where(y.isfinite() & ~exempt & ~other, (found - y).abs(), 0.0)
        ratio = torch.where(apart == 0, 0.0, torch.where(radius > 0, apart / radius, torch.inf))
        ratio = torch.where(other | ratio.isnan(), torch.inf, ratio)
        self.exempt += int(exempt.sum())
        self.compared += ratio.numel() - int(exempt.sum())
        self._count(apart, y, ~exempt & ~other & y.isfinite())
        self._keep(inputs, ratio, (found, y, radius), given, x, start)
        worst = ratio.amax(dim=1).numpy() if ratio.numel() else np.zeros(len(ratio))
        return np.broadcast_to(worst, (count,)) if len(worst) == 1 else worst

    def _computed(self, given: Mapping[str, np.ndarray], count: int, precision: torch.dtype, step: Step) -> Value:
        """What the layers make of what the runtime gave them, floating numbers in one precision."""
        last = self.layers[-1].output
        parts = {name: torch.from_numpy(array) for name, array in given.items() if name != last}
        values = {n: (z.to(precision) if z.is_floating_point() else z, None) for n, z in parts.items()}
        return walk(self.layers, values, count, step)[last]

    def _eager(self, given: Mapping[str, np.ndarray], count: int) -> Tensor:
        """The same layers by PyTorch in float32, a row each."""

        def step(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius]) -> Value:
            return computed(layer, z, torch.float32, count), None

        with torch.inference_mode():
            y, _ = self._computed(given, count, torch.float32, step)
        return by_row(y.double(), count, self.layers[-1].held.shape)

    def _count(self, apart: Tensor, y: Tensor, counted: Tensor) -> None:
        exponent = torch.frexp(y.abs()).exponent
        ulp = torch.ldexp(torch.ones_like(y), (exponent - 24).clamp(min=-149))
        edges = torch.tensor(BINS, dtype=torch.float64)
        distances = apart / ulp
        bins = torch.bucketize(distances.flatten() if counted.all() else distances[counted], edges)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram)).numpy()

    def _keep(
        self,
        inputs: str,
        ratio: Tensor,
        cells: tuple[Tensor, Tensor, Tensor],
        given: Mapping[str, np.ndarray],
        x: np.ndarray,
        start: int,
    ) -> None:
        """The element with the largest ratio, if it is larger than those before; ``cells``: found, exact, bound."""
        if not ratio.numel():
            return
        place = int(ratio.argmax())
        largest = float(ratio.flatten()[place])
        self.shares[inputs] = max(largest, self.shares.get(inputs, 0.0))
        if self.worst is not None and largest <= self.worst.ratio:
            return
        row, index = divmod(place, ratio.shape[1])
        eager = self._eager(given, len(x)) if self._in_one() else self._eager(_part(given, row, row + 1), 1)
        file, exact, bound, eager = (float(t.flatten()[place]) for t in (*cells, eager.expand_as(cells[0])))
        features = x[row].reshape(-1)
        self.worst = ElementRecord(
            layer=self.path,
            inputs=inputs,
            row=start + row,
            index=index,
            file=file,
            eager=eager,
            exact=exact,
            bound=bound,
            ratio=largest,
            x=features[:_FEATURES].tolist(),
            features=features.size,
        )
        if not largest <= 1 and self.failure is None:
            self.failure = self.worst


def _part(given: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[start:stop] for name, array in given.items()}


def computed(layer: Layer, z: Sequence[Tensor], precision: torch.dtype, rows: int) -> Tensor:
    """The module's layer on z."""
    given = dict(zip(layer.members[0].inputs, z, strict=True))
    return follow(layer.members, given, precision=precision, rows=rows)[layer.members[-1].output]


def expected(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius], rows: int) -> tuple[Tensor, Tensor]:
    """The exact value of the module's layer on z, and the radius of what a float32 runtime may give, for radii e."""
    y = computed(layer, z, torch.float64, rows)
    if len(layer.members) > 1:
        # Of an infinite input a chain makes inf - inf where the composed map has one product: kinds are those of that.
        finite = z[0].isfinite().all(dim=-1, keepdim=True)
        y = y if finite.all() else torch.where(finite, y, evaluate(layer.held, z))
        return y, merged(layer.members, layer.held, z[0], e[0], y)
    radius = RULES[layer.held.op](layer.held, z, e, y)
    factor = attribute(layer.nodes[0], "alpha", 1.0) if layer.held.op == "linear" and layer.nodes else 1.0
    if abs(factor) < 1:  # a Gemm sums before it multiplies, so its sums overflow first
        radius = torch.where(magnitude(layer.held, size(z[0])) / abs(factor) > LARGEST, torch.inf, radius)
    return y, radius


def _kind(values: Tensor) -> Tensor:
    """0 finite, 1 and -1 infinite, 2 NaN."""
    return torch.where(values.isnan(), 2.0, torch.where(values.isinf(), values.sign(), 0.0))


_ALIKE = ("compared", "exempt", "by_kind", "ratio", "likely", "shares", "worst")
"""What a check and its record have under one name."""


def layer_records(checks: Sequence[LayerCheck]) -> list[LayerRecord]:
    """What was found of every layer."""
    makers = {check.layers[-1].output: check.path for check in checks}
    return [
        LayerRecord(
            path=check.path,
            op=", ".join(layer.op for layer in check.layers),
            inputs=[makers.get(name, "input") for name in check.layers[0].inputs],
            operators=[node.op_type for layer in check.layers for node in layer.nodes],
            input_shape=[size for shape in check.layers[0].shapes[:1] for size in row_of(shape)],
            output_shape=list(check.layers[-1].held.row),
            parameters=sum(layer.parameters for layer in check.layers),
            histogram=check.histogram.tolist(),
            **{name: getattr(check, name) for name in _ALIKE},
        )
        for check in checks
    ]
