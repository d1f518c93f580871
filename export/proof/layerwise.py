"""Layer by layer: is every layer, on the input that it really received, within its bound of the module's layer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

from export.graph import Node
from runtime import ModelError

from .affine_bounds import magnitude, merged, roundings
from .bounds import RULES
from .inputs import USUAL
from .operators import attribute
from .reference import evaluate, follow
from .rounding import LARGEST, Radius, sharper, size
from .rows import rows_of
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


@dataclass
class LayerCheck:
    """What was found of one layer, or of several that a runtime computes as one."""

    layers: tuple[Layer, ...]
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
        step = max(1, _CHUNK // max(prod(value.shape[1:]) for value in values.values()))
        shares, before = [], self.exempt
        for start in range(0, max(1, len(x)), step):
            part = {name: value[start : start + step] for name, value in values.items()}
            shares.append(self._compare(inputs, part, x[start : start + step], start))
        if inputs in USUAL and len(x):
            values_of = values[self.layers[-1].output].size
            self.unbounded = max(self.unbounded, (self.exempt - before) / values_of)
        return np.concatenate(shares)

    def _compare(self, inputs: str, values: Mapping[str, np.ndarray], x: np.ndarray, start: int) -> np.ndarray:
        found = torch.from_numpy(values[self.layers[-1].output]).flatten(1).double()
        with np.errstate(all="ignore"), torch.inference_mode():
            y, radius = self._expected(values)
        y, radius = y.flatten(1), radius.flatten(1) * SLACK
        if found.shape != y.shape:
            raise ModelError(f"{self.path}: the runtime gave {list(found.shape)} values, not {list(y.shape)}")
        exempt = radius.isinf() | (y.isfinite() & ~(y.abs() + radius <= LARGEST))
        other = (_kind(found) != _kind(y)) & ~exempt
        if other.any():
            same = _kind(self._eager(values).flatten(1)) == _kind(found)
            self.by_kind += int((other & same).sum())
            exempt, other = exempt | (other & same), other & ~same
        apart = torch.where(y.isfinite() & ~exempt & ~other, (found - y).abs(), 0.0)
        ratio = torch.where(apart == 0, 0.0, torch.where(radius > 0, apart / radius, torch.inf))
        ratio = torch.where(other | ratio.isnan(), torch.inf, ratio)
        self.exempt += int(exempt.sum())
        self.compared += ratio.numel() - int(exempt.sum())
        self._count(apart, y, ~exempt & ~other & y.isfinite())
        self._keep(inputs, ratio, found, y, radius, values, x, start)
        return ratio.amax(dim=1).numpy() if ratio.numel() else np.zeros(len(x))

    def _expected(self, values: Mapping[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        held: dict[str, tuple[torch.Tensor, Radius]] = {}
        count = len(values[self.layers[-1].output])
        for layer in self.layers:
            given = [
                held[name] if name in held else (torch.from_numpy(rows_of(values[name], count, row)).double(), None)
                for name, row in zip(layer.inputs, layer.rows, strict=True)
            ]
            held[layer.output] = expected(layer, [z for z, _ in given], [e for _, e in given])
        y, radius = held[self.layers[-1].output]
        assert radius is not None
        return y, radius

    def _eager(self, values: Mapping[str, np.ndarray]) -> torch.Tensor:
        """The same layers by PyTorch in float32."""
        count, first = len(values[self.layers[-1].output]), self.layers[0]
        held = {
            name: torch.from_numpy(rows_of(values[name], count, row))
            for name, row in zip(first.inputs, first.rows, strict=True)
        }
        with torch.inference_mode():
            for layer in self.layers:
                given = {m: held[n] for m, n in zip(layer.members[0].inputs, layer.inputs, strict=True)}
                held[layer.output] = follow(layer.members, given)[layer.members[-1].output]
        return held[self.layers[-1].output].double()

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
        values: Mapping[str, np.ndarray],
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
        one = {name: value[row : row + 1] for name, value in values.items()}
        cells = (found, self._eager(one).flatten(1).expand_as(found), y, radius)
        file, eager, exact, bound = (float(cell.flatten()[place]) for cell in cells)
        self.worst = Element(self.path, inputs, start + row, index, file, eager, exact, bound, largest, x[row].copy())
        if not largest <= 1 and self.failure is None:
            self.failure = self.worst


def expected(layer: Layer, z: Sequence[torch.Tensor], e: Sequence[Radius]) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact value of the module's layer on z, and the radius of what a float32 runtime may give, for radii e."""
    given = dict(zip(layer.members[0].inputs, z, strict=True))
    y = follow(layer.members, given)[layer.members[-1].output]
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


def groups(layers: Sequence[Layer], *, coarse: bool = False) -> list[LayerCheck]:
    """A check for every layer; ``coarse`` takes an affine layer and the activation that alone reads it as one."""
    found: list[list[Layer]] = []
    for layer in layers:
        last = found[-1][-1] if found else None
        readers = sum(layer.inputs.count(last.output) for layer in layers) if last is not None else 0
        joined = coarse and last is not None and last.held.op == "linear" and readers == 1
        if (
            joined
            and last is not None
            and layer.inputs == (last.output,)
            and len(layer.inputs) == 1
            and layer.held.op != "linear"
        ):
            found[-1].append(layer)
        else:
            found.append([layer])
    return [LayerCheck(tuple(group)) for group in found]


def _kind(values: torch.Tensor) -> torch.Tensor:
    """0 finite, 1 and -1 infinite, 2 NaN."""
    return torch.where(values.isnan(), 2.0, torch.where(values.isinf(), values.sign(), 0.0))
