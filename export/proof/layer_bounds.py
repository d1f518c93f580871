"""Layer by layer: is each layer, on the input that it really received, within its bound of the module's layer?"""

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
from .rows import by_row, in_shape, sized, tensor_of
from .rules import RULES
from .rules.arithmetic import magnitude, merged, roundings
from .rules.common import Radius, size
from .rules.constants import LARGEST, probabilistic_gain
from .structure import Layer

SLACK = 1 + 2.0**-20
"""For the float64 arithmetic of the reference and of the bound."""
_CHUNK = 2**19
"""Elements of the widest value that are compared at a time."""
BINS = (0.0, 0.5, 1.0, *(2.0**k for k in range(1, 13)))
"""Upper ends of the bins of the histogram of errors, in ulp of the exact value; a last bin is open."""
_FEATURES = 64
"""Features of an input row that a record keeps."""

Value = tuple[Tensor, Radius]
"""A value in the network, and how far a float32 runtime may be from it."""
Step = Callable[[Layer, Sequence[Tensor], Sequence[Radius]], Value]
"""A layer's value, from its inputs and their radii."""


def walk(layers: Sequence[Layer], values: Mapping[str, Value], rows: int, step: Step) -> dict[str, Value]:
    """All values of a network by their names in the file, layer after layer, from the ``values`` of its inputs."""
    known = dict(values)
    for layer in layers:
        shapes = zip(layer.inputs, layer.input_shapes, strict=True)
        inputs = [reshaped(known[name], sized(shape, rows)) for name, shape in shapes]
        known[layer.output] = step(layer, [z for z, _ in inputs], [e for _, e in inputs])
    return known


def reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    """A value in the shape in which it is read."""
    z, e = value
    return z.reshape(shape), None if e is None else e.expand(z.shape).reshape(shape)


def compute(layer: Layer, z: Sequence[Tensor], precision: torch.dtype, rows: int) -> Tensor:
    """The value of the module's layer."""
    inputs = dict(zip(layer.source_nodes[0].inputs, z, strict=True))
    return follow(layer.source_nodes, inputs, precision=precision, rows=rows)[layer.source_nodes[-1].output]


def bounded(layer: Layer, z: Sequence[Tensor], e: Sequence[Radius], rows: int) -> tuple[Tensor, Tensor]:
    """The exact value of the module's layer, and the radius of a float32 runtime's result, for inputs with radii e."""
    node, y = layer.expected, compute(layer, z, torch.float64, rows)
    if len(layer.source_nodes) > 1:
        # For an infinite input a chain has inf - inf where the folded map has one product: its kinds count.
        finite = z[0].isfinite().all(dim=-1, keepdim=True)
        y = y if finite.all() else torch.where(finite, y, evaluate(node, z))
        return y, merged(layer.source_nodes, node, z[0], e[0], y)
    radius = RULES[node.op](node, z, e, y)
    factor = attribute(layer.nodes[0], "alpha", 1.0) if node.op == "linear" and layer.nodes else 1.0
    if abs(factor) < 1:  # a Gemm sums before it multiplies, so its sums overflow first
        radius = torch.where(magnitude(node, size(z[0])) / abs(factor) > LARGEST, torch.inf, radius)
    return y, radius


@dataclass
class LayerCheck:
    """The comparison of one layer, or of several that a runtime computes as one, with its bound, over all rows."""

    layers: tuple[Layer, ...]
    rows_depend: bool = False
    """Rows depend on each other, so that a batch is never compared in parts."""
    compared: int = 0
    exempt: int = 0
    by_kind: int = 0
    """Elements whose kind (NaN, infinite, finite) is not float64's but that of PyTorch's own float32 kernel."""
    worst: ElementRecord | None = None
    failure: ElementRecord | None = None
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) + 1, np.int64))
    shares: dict[str, float] = field(default_factory=dict[str, float])
    """The largest share of the bound, by kind of inputs."""
    unbounded: float = 0.0
    """The largest share of exempt elements in one set of usual rows."""

    @property
    def path(self) -> str:
        """The path in the module of the last layer, whose value is compared."""
        return self.layers[-1].path

    @property
    def ratio(self) -> float:
        """The largest error / bound; above 1 is a failure."""
        return self.worst.ratio if self.worst is not None else 0.0

    @property
    def likely(self) -> float:
        """The same against the probabilistic line, for a single linear layer; above 1 is a warning."""
        node = self.layers[0].expected
        is_linear = len(self.layers) == 1 and node.op == "linear"
        return self.ratio * (probabilistic_gain(roundings(node)) if is_linear else 1.0)

    def compare(self, kind: str, values: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Compare the layer's value with its bound; returns the largest share of the bound in each row.

        ``values`` are the runtime's, by name; ``x`` are the network's input rows, of this ``kind``, for the record.
        """
        arrays = self._arrays(values, len(x))
        widest = max(prod(array.shape[1:]) for array in arrays.values())
        step = max(1, len(x)) if self._needs_whole_batch() else max(1, _CHUNK // max(1, widest))
        exempt_before, shares = self.exempt, list[np.ndarray]()
        for start in range(0, max(1, len(x)), step):
            part = arrays if step >= len(x) else _rows(arrays, start, start + step)
            shares.append(self._compare(kind, part, x[start : start + step], start))
        if kind in USUAL and len(x):
            share = (self.exempt - exempt_before) / max(1, arrays[self.layers[-1].output].size)
            self.unbounded = max(self.unbounded, share)
        return np.concatenate(shares)

    def _arrays(self, values: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """The runtime's values of the group's inputs and of its output, by name, in the module's shapes."""
        inner, last = {layer.output for layer in self.layers[:-1]}, self.layers[-1]
        read = [pair for layer in self.layers for pair in zip(layer.inputs, layer.input_shapes, strict=True)]
        wanted = [*(pair for pair in read if pair[0] not in inner), (last.output, last.expected.shape)]
        return {name: in_shape(values[name], count, shape) for name, shape in wanted}

    def _needs_whole_batch(self) -> bool:
        """Whether a batch must be compared at once: its rows are not the first dimension everywhere."""
        shapes = [shape for layer in self.layers for shape in (*layer.input_shapes, layer.expected.shape)]
        return self.rows_depend or any(not shape or shape[0] != Rows() for shape in shapes)

    def _compare(self, kind: str, arrays: Mapping[str, np.ndarray], x: np.ndarray, start: int) -> np.ndarray:
        count, last = len(x), self.layers[-1]
        if not count:
            return np.zeros(0)
        with np.errstate(all="ignore"), torch.inference_mode():
            y, radius = self._computed(arrays, count, torch.float64, partial(bounded, rows=count))
        assert radius is not None
        output = arrays[last.output]
        if output.shape != y.shape:
            raise ModelError(f"{self.path}: the runtime gave {list(output.shape)} values, not {list(y.shape)}")
        parts = (tensor_of(output), y, radius.expand(y.shape))
        actual, y, radius = (by_row(part.double(), count, last.expected.shape) for part in parts)
        radius = radius * SLACK
        exempt = radius.isinf() | (y.isfinite() & ~(y.abs() + radius <= LARGEST))
        other_kind = (_kind(actual) != _kind(y)) & ~exempt
        if other_kind.any():
            as_eager = _kind(self._eager(arrays, count)) == _kind(actual)
            self.by_kind += int((other_kind & as_eager).sum())
            exempt, other_kind = exempt | (other_kind & as_eager), other_kind & ~as_eager
        error = torch.where(y.isfinite() & ~exempt & ~other_kind, (actual - y).abs(), 0.0)
        ratio = torch.where(error == 0, 0.0, torch.where(radius > 0, error / radius, torch.inf))
        ratio = torch.where(other_kind | ratio.isnan(), torch.inf, ratio)
        self.exempt += int(exempt.sum())
        self.compared += ratio.numel() - int(exempt.sum())
        self._count(error, y, ~exempt & ~other_kind & y.isfinite())
        self._keep_worst(kind, ratio, {"file": actual, "exact": y, "bound": radius}, arrays, x, start)
        largest = ratio.amax(dim=1).numpy() if ratio.numel() else np.zeros(len(ratio))
        return np.broadcast_to(largest, (count,)) if len(largest) == 1 else largest

    def _computed(self, arrays: Mapping[str, np.ndarray], count: int, precision: torch.dtype, step: Step) -> Value:
        """The group's value from the runtime's inputs of it, floating-point numbers in one precision."""
        last = self.layers[-1].output
        tensors = {name: tensor_of(array) for name, array in arrays.items() if name != last}
        values = {n: (z.to(precision) if z.is_floating_point() else z, None) for n, z in tensors.items()}
        return walk(self.layers, values, count, step)[last]

    def _eager(self, arrays: Mapping[str, np.ndarray], count: int) -> Tensor:
        """The group's value by PyTorch in float32, by row."""

        def step(layer: Layer, z: Sequence[Tensor], _e: Sequence[Radius]) -> Value:
            return compute(layer, z, torch.float32, count), None

        with torch.inference_mode():
            y, _ = self._computed(arrays, count, torch.float32, step)
        return by_row(y.double(), count, self.layers[-1].expected.shape)

    def _count(self, error: Tensor, y: Tensor, counted: Tensor) -> None:
        """Add errors to the histogram."""
        exponent = torch.frexp(y.abs()).exponent
        ulp = torch.ldexp(torch.ones_like(y), (exponent - 24).clamp(min=-149))
        edges = torch.tensor(BINS, dtype=torch.float64)
        distances = error / ulp
        bins = torch.bucketize(distances.flatten() if counted.all() else distances[counted], edges)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram)).numpy()

    def _keep_worst(
        self,
        kind: str,
        ratio: Tensor,
        values: Mapping[str, Tensor],
        arrays: Mapping[str, np.ndarray],
        x: np.ndarray,
        start: int,
    ) -> None:
        """Record the element with the largest ratio, if it exceeds earlier ones; ``values`` are the record's."""
        if not ratio.numel():
            return
        element = int(ratio.argmax())
        largest = float(ratio.flatten()[element])
        self.shares[kind] = max(largest, self.shares.get(kind, 0.0))
        if self.worst is not None and largest <= self.worst.ratio:
            return
        row, index = divmod(element, ratio.shape[1])
        at_once = self._needs_whole_batch()
        eager = self._eager(arrays, len(x)) if at_once else self._eager(_rows(arrays, row, row + 1), 1)
        values = {**values, "eager": eager.expand_as(ratio)}
        features = x[row].reshape(-1)
        self.worst = ElementRecord(
            layer=self.path,
            inputs=kind,
            row=start + row,
            index=index,
            ratio=largest,
            **{name: float(value.flatten()[element]) for name, value in values.items()},
            x=features[:_FEATURES].tolist(),
            features=features.size,
        )
        if not largest <= 1 and self.failure is None:
            self.failure = self.worst


def _rows(arrays: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[start:stop] for name, array in arrays.items()}


def _kind(values: Tensor) -> Tensor:
    """0 finite, 1 and -1 infinite, 2 NaN."""
    return torch.where(values.isnan(), 2.0, torch.where(values.isinf(), values.sign(), 0.0))


def layer_records(checks: Sequence[LayerCheck]) -> list[LayerRecord]:
    """The report's records of the layers."""
    paths = {check.layers[-1].output: check.path for check in checks}
    same_names = ("compared", "exempt", "by_kind", "ratio", "likely", "shares", "worst")
    return [
        LayerRecord(
            path=check.path,
            op=", ".join(layer.op for layer in check.layers),
            inputs=[paths.get(name, "input") for name in check.layers[0].inputs],
            operators=[node.op_type for layer in check.layers for node in layer.nodes],
            input_shape=[size for shape in check.layers[0].input_shapes[:1] for size in row_of(shape)],
            output_shape=list(check.layers[-1].expected.row),
            parameters=sum(layer.parameters for layer in check.layers),
            histogram=check.histogram.tolist(),
            **{name: getattr(check, name) for name in same_names},
        )
        for check in checks
    ]
