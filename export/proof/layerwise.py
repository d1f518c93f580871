"""Layer by layer: is every layer, on the input that it really received, within its bound of the module's layer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

from export.evaluation import evaluate, follow
from export.graph import Node, Rows
from export.onnxfile.pattern_matching import attribute
from runtime import ModelError

from .inputs import USUAL
from .rounding import LARGEST, Radius, sharper, size
from .rows import by_row, in_shape, sized
from .rules import RULES
from .rules.affine import magnitude, merged, roundings
from .structure import Layer

SLACK = 1 + 2.0**-20
"""For the float64 arithmetic of the reference and of the bound."""
_CHUNK = 2**19
"""Elements of the widest value that are compared at a time."""
BINS = (0.0, 0.5, 1.0, *(2.0**k for k in range(1, 13)))
"""Upper ends of the histogram of errors, in units in the last place of the exact value; one bin more is open."""


@dataclass(frozen=True)
class Element:
    """One element of a layer's value, with everything that is known of it. ``eager`` is PyTorch's in float32."""

    layer: str
    inputs: str
    row: int
    index: int
    found: float
    eager: float
    exact: float
    bound: float
    ratio: float
    x: np.ndarray = field(repr=False)
    """The network's input row."""


@dataclass(frozen=True)
class _Given:
    """What the runtime gave to each layer of a group, in the module's shapes, and what it made of it.

    An input is None where another layer of the group makes it.
    """

    inputs: tuple[tuple[np.ndarray | None, ...], ...]
    output: np.ndarray

    @classmethod
    def of(cls, layers: Sequence[Layer], values: Mapping[str, np.ndarray], count: int) -> _Given:
        made = {layer.output for layer in layers[:-1]}
        inputs = tuple(
            tuple(
                None if name in made else in_shape(values[name], count, shape)
                for name, shape in zip(layer.inputs, layer.shapes, strict=True)
            )
            for layer in layers
        )
        return cls(inputs, in_shape(values[layers[-1].output], count, layers[-1].held.shape))

    @property
    def widest(self) -> int:
        arrays = [self.output, *(array for group in self.inputs for array in group if array is not None)]
        return max(prod(array.shape[1:]) for array in arrays)

    def rows(self, start: int, stop: int) -> _Given:
        inputs = tuple(tuple(None if a is None else a[start:stop] for a in group) for group in self.inputs)
        return _Given(inputs, self.output[start:stop])


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
    worst: Element | None = None
    failure: Element | None = None
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
        given = _Given.of(self.layers, values, len(x))
        step = max(1, len(x)) if self._in_one() else max(1, _CHUNK // max(1, given.widest))
        before = self.exempt
        starts = range(0, max(1, len(x)), step)
        shares = [
            self._compare(
                inputs, given if step >= len(x) else given.rows(start, start + step), x[start : start + step], start
            )
            for start in starts
        ]
        if inputs in USUAL and len(x):
            self.unbounded = max(self.unbounded, (self.exempt - before) / max(1, given.output.size))
        return np.concatenate(shares)

    def _in_one(self) -> bool:
        """Whether a batch must be compared at once: its rows are not the first dimension everywhere."""
        shapes = [shape for layer in self.layers for shape in (*layer.shapes, layer.held.shape)]
        return self.whole or any(not shape or shape[0] != Rows() for shape in shapes)

    def _compare(self, inputs: str, given: _Given, x: np.ndarray, start: int) -> np.ndarray:
        count, shape = len(x), self.layers[-1].held.shape
        if not count:
            return np.zeros(0)
        with np.errstate(all="ignore"), torch.inference_mode():
            y, radius = self._expected(given, count)
        if given.output.shape != y.shape:
            raise ModelError(f"{self.path}: the runtime gave {list(given.output.shape)} values, not {list(y.shape)}")
        wide = torch.from_numpy(given.output).double()
        found, y, radius = (by_row(part.double(), count, shape) for part in (wide, y, radius.expand(y.shape)))
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
        self._keep(inputs, ratio, found, y, radius, given, x, start)
        worst = ratio.amax(dim=1).numpy() if ratio.numel() else np.zeros(len(ratio))
        return np.broadcast_to(worst, (count,)) if len(worst) == 1 else worst

    def _expected(self, given: _Given, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        held: dict[str, tuple[torch.Tensor, Radius]] = {}
        for layer, arrays in zip(self.layers, given.inputs, strict=True):
            parts: list[tuple[torch.Tensor, Radius]] = []
            for name, array, shape in zip(layer.inputs, arrays, layer.shapes, strict=True):
                if array is not None:
                    parts.append((_widened(torch.from_numpy(array)), None))
                else:  # perhaps seen in another shape
                    z, e = held[name]
                    wanted = sized(shape, count)
                    parts.append((z.reshape(wanted), None if e is None else e.expand(z.shape).reshape(wanted)))
            held[layer.output] = expected(layer, [z for z, _ in parts], [e for _, e in parts], count)
        y, radius = held[self.layers[-1].output]
        assert radius is not None
        return y, radius

    def _eager(self, given: _Given, count: int) -> torch.Tensor:
        """The same layers by PyTorch in float32, a row each."""
        held: dict[str, torch.Tensor] = {}
        with torch.inference_mode():
            for layer, arrays in zip(self.layers, given.inputs, strict=True):
                parts = [
                    held[name].reshape(sized(shape, count)) if array is None else torch.from_numpy(array)
                    for name, array, shape in zip(layer.inputs, arrays, layer.shapes, strict=True)
                ]
                named = dict(zip(layer.members[0].inputs, parts, strict=True))
                made = follow(layer.members, named, precision=torch.float32, rows=count)
                held[layer.output] = made[layer.members[-1].output]
        last = self.layers[-1]
        return by_row(held[last.output].double(), count, last.held.shape)

    def _count(self, apart: torch.Tensor, y: torch.Tensor, counted: torch.Tensor) -> None:
        exponent = torch.frexp(y.abs()).exponent
        ulp = torch.ldexp(torch.ones_like(y), (exponent - 24).clamp(min=-149))
        edges = torch.tensor(BINS, dtype=torch.float64)
        distances = apart / ulp
        bins = torch.bucketize(distances.flatten() if counted.all() else distances[counted], edges)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram)).numpy()

    def _keep(
        self,
        inputs: str,
        ratio: torch.Tensor,
        found: torch.Tensor,
        y: torch.Tensor,
        radius: torch.Tensor,
        given: _Given,
        x: np.ndarray,
        start: int,
    ) -> None:
        if not ratio.numel():
            return
        place = int(ratio.argmax())
        largest = float(ratio.flatten()[place])
        self.shares[inputs] = max(largest, self.shares.get(inputs, 0.0))
        if self.worst is not None and largest <= self.worst.ratio:
            return
        row, index = divmod(place, ratio.shape[1])
        eager = self._eager(given, len(x)) if self._in_one() else self._eager(given.rows(row, row + 1), 1)
        cells = (found, eager.expand_as(found), y, radius)
        file, eager, exact, bound = (float(cell.flatten()[place]) for cell in cells)
        self.worst = Element(self.path, inputs, start + row, index, file, eager, exact, bound, largest, x[row].copy())
        if not largest <= 1 and self.failure is None:
            self.failure = self.worst


def _widened(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.is_floating_point() else values


def expected(
    layer: Layer, z: Sequence[torch.Tensor], e: Sequence[Radius], rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact value of the module's layer on z, and the radius of what a float32 runtime may give, for radii e."""
    given = dict(zip(layer.members[0].inputs, z, strict=True))
    y = follow(layer.members, given, precision=torch.float64, rows=rows)[layer.members[-1].output]
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


def without_bound(layers: Sequence[Layer]) -> Node | None:
    """The first block that no rule bounds."""
    return next((member for layer in layers for member in layer.members if member.op not in RULES), None)


def _kind(values: torch.Tensor) -> torch.Tensor:
    """0 finite, 1 and -1 infinite, 2 NaN."""
    return torch.where(values.isnan(), 2.0, torch.where(values.isinf(), values.sign(), 0.0))
