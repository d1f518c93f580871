"""How far a float32 runtime may be from every value of a network, with errors that may cancel on their way.

The rules (``rules``) carry a radius through a layer by absolute values: |W|·e. Over many layers that grows far beyond
any real error, because the signs of W are forgotten. Here the error of a value is kept as a sum over its sources
(affine forms, as in the DeepZ analysis of Singh et al., NeurIPS 2018):

    d = Σ_s G_s·ε_s + f·ε,    |ε| ≤ 1 for every element, each on its own

Each source s is what one value adds by its own roundings, G_s (elements, elements of s) is what it became on the way,
and f (elements) is what has not met a matrix yet. Every layer takes the form of its input to that of its output:

    a matrix A         A·G_s, and f becomes a source of its own: A·diag(f)
    a function of one  s·G_s, with s the middle of the slopes of the function over [z - e, z + e]
    value              (``slopes``), and half of their range times e in f
    data movement      what it does to values
    any other          a new source, as large as the radius of its rule for inputs of radius e

with e = Σ|G_s| + f, the radius of the value. The layer's own roundings come on top, in f, at their worst over
[z - e, z + e]: its rule at |z| + e without an error of its input. Since a product with an exact 0 rounds nothing, and a
sum with it neither, a linear layer counts only inputs that may be other numbers. No radius is larger than the rule's.

Where there would be too much to multiply, all sources become one, A·diag(e), and the Euclidean norm of the error is
carried through the matrix by that of the matrix. No element is off by more than that norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log, prod

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate, times
from export.graph import Node, Rows

from .layer import Layer
from .layer_bounds import SLACK, Value, bounded
from .own_roundings import own_roundings
from .rows import sized, tensor_of
from .rules import FUNCTIONS
from .rules.arithmetic import is_affine, magnitude
from .rules.common import Radius, radius_of, size
from .rules.constants import U
from .slopes import slopes

POSITIVE = ("reshape", "permute", "select", "slice", "expand", "cat", "sum", "mean", "cumsum")
"""Operators that are linear with factors of at least 0."""
_STRETCHED = 2**20
"""The largest weight whose norm is computed."""
_ELEMENTS, _PRODUCTS = 2**24, 2**29
"""Of the sources of one value, and of all products of a layer: beyond, its input becomes one new source."""


@dataclass(frozen=True)
class Form:
    """The error of a value: ``sources`` (elements of a source, rows, elements) by name, ``fresh`` (rows, elements).

    ``spread`` (rows, elements) is the sum over the sources' sizes, ``length`` (rows,) the largest Euclidean norm of the
    error of a row.
    """

    sources: Mapping[str, Tensor]
    fresh: Tensor
    spread: Tensor
    length: Tensor

    @classmethod
    def of(cls, sources: Mapping[str, Tensor], fresh: Tensor) -> Form:
        """With its spread, and the length of its radius."""
        spread = torch.zeros_like(fresh)
        for part in sources.values():
            spread += part.abs().sum(dim=0)
        return cls(sources, fresh, spread, _length(spread + fresh))

    @classmethod
    def new(cls, fresh: Tensor) -> Form:
        """Without sources."""
        return cls({}, fresh, torch.zeros_like(fresh), _length(fresh))

    @property
    def radius(self) -> Tensor:
        """The largest error (rows, elements)."""
        return torch.minimum(self.spread + self.fresh, self.length[:, None])

    def no_longer_than(self, length: Tensor) -> Form:
        """The form of an error whose Euclidean norm is known (rows,)."""
        known = length.nan_to_num(torch.inf, torch.inf)
        return replace(self, length=torch.minimum(self.length.nan_to_num(torch.inf, torch.inf), known))


def _length(values: Tensor) -> Tensor:
    return values.square().sum(dim=1).sqrt() * SLACK


@dataclass
class AffineForms:
    """The forms of the values so far, by their names in the file, for ``rows`` rows."""

    rows: int
    forms: dict[str, Form] = field(default_factory=dict[str, Form])

    def step(self, layer: Layer, z: Sequence[Tensor], e: Sequence[Radius]) -> Value:
        """The exact value of a layer and its radius, for ``layer_bounds.walk``."""
        y, carried = bounded(layer, z, e, self.rows)
        # Infinity times 0 is not a bound either.
        carried = carried.nan_to_num(torch.inf, torch.inf).expand(y.shape)
        form = self._form(layer, z, e, y, carried) if self._is_plain(layer) else None
        if form is None:
            self.forms[layer.output] = Form.new(carried.reshape(self.rows, -1))
            return y, carried
        unbounded = carried.reshape(self.rows, -1).isinf()
        if unbounded.any():
            sources = {name: torch.where(unbounded, 0.0, part) for name, part in form.sources.items()}
            form = Form.of(sources, torch.where(unbounded, torch.inf, form.fresh))
        self.forms[layer.output] = form
        radius = form.radius.nan_to_num(torch.inf, torch.inf).reshape(y.shape)
        return y, torch.minimum(radius, carried)

    def _is_plain(self, layer: Layer) -> bool:
        """Whether it has inputs, and its values are numbers with the batch in front."""
        shapes = (*layer.input_shapes, layer.expected.shape)
        plain = bool(layer.inputs) and all(shape[:1] == (Rows(),) for shape in shapes)
        return plain and {layer.expected.dtype, *layer.input_dtypes} == {"float32"}

    def _form(self, layer: Layer, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor, carried: Tensor) -> Form | None:
        node = layer.expected
        forms = [self._form_of(name, part, radius) for name, part, radius in zip(layer.inputs, z, e, strict=True)]
        if node.op == "linear" and "weight" in node.tensors:
            form = self._through_matrix(layer, z[0], radius_of(e[0], z[0]), forms[0])
        elif len(z) == 1 and (is_affine(node) or node.op in FUNCTIONS) and y.shape == z[0].shape:
            return self._through_function(layer, z[0], radius_of(e[0], z[0]), y, carried, forms[0])
        elif node.op in POSITIVE or (node.op in ("add", "sub") and len(z) == 2):
            form = self._through_sum(layer, forms)
        else:
            return None
        own = own_roundings(layer, z, e, size(y) + form.radius.reshape(y.shape))
        # What float64 loses on the way, and what rounding the constants of folded layers makes of the error.
        terms = prod(sized(node.shape, 1)) + sum(prod(sized(shape, 1)) for shape in layer.input_shapes)
        lost = (terms * 2.0**-52 + (4 * U if len(layer.source_nodes) > 1 else 0.0)) * carried
        added = (own + lost).reshape(self.rows, -1)
        return replace(form, fresh=form.fresh + added, length=form.length + _length(added))

    def _form_of(self, name: str, z: Tensor, e: Radius) -> Form:
        if name in self.forms:
            return self.forms[name]
        return Form.new(radius_of(e, z).reshape(self.rows, -1))

    def _through_matrix(self, layer: Layer, z: Tensor, e: Tensor, form: Form) -> Form:
        """A·G_s for each source, and A·diag(f); all of it A·diag(e) where there is too much to multiply."""
        node, weight = layer.expected, layer.expected.tensors["weight"].values
        name, alone = layer.inputs[0], z[0].numel() == weight.shape[1]
        count = sum(len(part) for part in form.sources.values())
        elements = (count * len(weight) + weight.size) * self.rows
        length = torch.full_like(form.length, torch.inf)
        if elements > _ELEMENTS or count * weight.size * self.rows > _PRODUCTS:
            if alone and weight.size <= _STRETCHED:
                length = form.length * stretch(weight)
            form, name = Form.new(e.reshape(self.rows, -1)), f"{name}, with its sources"
        if not alone or weight.size * self.rows > _ELEMENTS:
            return Form.new(magnitude(node, e, shifted=False).reshape(self.rows, -1)).no_longer_than(length)
        sources = {source: times(weight, part) for source, part in form.sources.items()}
        found = Form.of(sources, torch.zeros(self.rows, len(weight), dtype=torch.float64))
        if not (form.fresh != 0).any():
            return found
        matrix = tensor_of(np.ascontiguousarray(weight)).double()
        diagonal = {name: form.fresh.T[:, :, None] * matrix.T[:, None, :]}
        spread = found.spread + form.fresh @ matrix.abs().T
        return Form(sources | diagonal, found.fresh, spread, _length(spread)).no_longer_than(length)

    def _through_function(self, layer: Layer, z: Tensor, e: Tensor, y: Tensor, carried: Tensor, form: Form) -> Form:
        least, most = slopes(layer.expected, z - e, z + e)
        steep = torch.maximum(least.abs(), most.abs())
        own = own_roundings(layer, [z], [e], size(y) + steep * e)
        parts = (least + most) / 2, (most - least) / 2 * e + 2.0**-50 * steep * e, own, steep, carried
        middle, beside, own, steep, carried = (part.reshape(self.rows, -1) for part in parts)
        known = middle.isfinite() & beside.isfinite() & own.isfinite()
        middle, steep = torch.where(known, middle, 0.0), torch.where(known, steep, 0.0)
        fresh = torch.where(known, middle.abs() * form.fresh + beside + own, carried)
        sources = {name: part * middle for name, part in form.sources.items()}
        spread = form.spread * middle.abs()
        length = steep.amax(dim=1) * form.length + _length(torch.where(known, own, carried))
        return Form(sources, fresh, spread, _length(spread + fresh)).no_longer_than(length)

    def _through_sum(self, layer: Layer, forms: Sequence[Form]) -> Form:
        node = layer.expected

        def apply(parts: Sequence[Tensor], linear: Node) -> Tensor:
            count = len(parts[0])
            shaped = [p.reshape(sized(shape, count)) for p, shape in zip(parts, layer.input_shapes, strict=True)]
            return evaluate(linear, shaped, precision=torch.float64, rows=count).reshape(count, -1)

        names = dict.fromkeys(name for form in forms for name in form.sources)
        linear = without_constants(node)
        sources: dict[str, Tensor] = {}
        for name in names:
            count = next(len(form.sources[name]) for form in forms if name in form.sources)
            parts = [form.sources.get(name, form.fresh.new_zeros(count, *form.fresh.shape)) for form in forms]
            sources[name] = apply([p.reshape(count * self.rows, -1) for p in parts], linear)
            sources[name] = sources[name].reshape(count, self.rows, -1)
        positive = replace(linear, op="add") if node.op == "sub" else linear
        found = Form.of(sources, apply([form.fresh for form in forms], positive))
        if len(forms) == 2 and forms[0].fresh.shape == forms[1].fresh.shape == found.fresh.shape:
            return found.no_longer_than(forms[0].length + forms[1].length)
        return found


def stretch(weight: np.ndarray) -> float:
    """By how much a matrix A makes any vector longer, at most: ‖(AᵀA)^8‖^(1/16), of Frobenius' norm.

    That is at most n^(1/32) times too much. In float32, whose roundings are far below the slack of a hundredth.
    """
    matrix = tensor_of(np.ascontiguousarray(weight)).float()
    power = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    logarithm = 0.0
    for square in range(4):
        if square:
            power, logarithm = power @ power, 2 * logarithm
        size_of = float(power.double().square().sum().sqrt())
        if not size_of > 0:
            return 0.0 if not weight.any() else float("inf")
        power, logarithm = power / size_of, logarithm + log(size_of)
    return exp(logarithm / 16) * 1.01


def work_per_row(layers: Sequence[Layer]) -> int:
    """About how many products the forms of a network take for one row: every matrix meets the sources before it."""
    shapes = [layer.expected.tensors["weight"].values.shape for layer in layers if layer.expected.op == "linear"]
    return sum(prod(shape) for shape in shapes) * sum(shape[-1] for shape in shapes) // 2


def without_constants(node: Node) -> Node:
    """The linear part of a sum or a concatenation: with 0 for its constants."""
    zeros = {r: replace(t, values=np.zeros_like(t.values)) for r, t in node.tensors.items()}
    return replace(node, tensors=zeros)
