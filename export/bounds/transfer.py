"""How a layer passes on what reaches it: errors of its inputs forwards, and coefficients of its output backwards.

A layer is a matrix, a function of one value, or a sum (any linear operator without factors below 0, and differences);
any other passes nothing on: an error in its input becomes a new one, as large as its rule says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate, times
from export.graph import Node, Rows
from export.proof.affine_forms import POSITIVE, without_constants
from export.proof.layer import Layer
from export.proof.rows import sized, tensor_of
from export.proof.rules import FUNCTIONS
from export.proof.rules.arithmetic import is_affine

Kind = Literal["matrix", "function", "sum", "none"]


@dataclass(frozen=True)
class Transfer:
    """One layer. Coefficients are (boxes, outputs, elements of a value)."""

    layer: Layer

    @property
    def node(self) -> Node:
        """The operator."""
        return self.layer.expected

    @cached_property
    def kind(self) -> Kind:
        """What it does to what reaches it."""
        layer, node = self.layer, self.node
        shapes = (*layer.input_shapes, node.shape)
        if not layer.inputs or not all(shape[:1] == (Rows(),) and _fixed(shape) for shape in shapes):
            return "none"
        if {node.dtype, *layer.input_dtypes} != {"float32"}:
            return "none"
        if node.op == "linear" and "weight" in node.tensors:
            return "matrix"
        if len(layer.inputs) == 1 and (is_affine(node) or node.op in FUNCTIONS):
            return "function" if layer.input_shapes[0] == node.shape else "none"
        if node.op in POSITIVE or (node.op in ("add", "sub") and len(layer.inputs) == 2):
            return "sum"
        return "none"

    @property
    def is_affine(self) -> bool:
        """Whether its node is an affine operator with constants."""
        return is_affine(self.node)

    @property
    def weight(self) -> np.ndarray:
        """The matrix (outputs, inputs), float32."""
        return self.node.tensors["weight"].values

    @property
    def terms(self) -> int:
        """How many products or numbers one value is summed of, at most."""
        if self.kind == "matrix":
            return self.weight.shape[-1] + 1
        return sum(prod(sized(shape, 1)) for shape in self.layer.input_shapes) if self.kind == "sum" else 2

    def errors_forward(self, errors: Sequence[Tensor]) -> Tensor:
        """What errors of the inputs, as large as these, become at most: of a matrix or a sum."""
        if self.kind == "matrix":
            return times(self.weight, errors[0], absolute=True)
        node = replace(self.node, op="add") if self.node.op == "sub" else self.node
        return evaluate(without_constants(node), errors, precision=torch.float64, rows=len(errors[0]))

    def backward(self, coefficients: Tensor, *, absolute: bool = False) -> list[Tensor]:
        """The coefficients of each input for those of the output, of a matrix or a sum; (boxes, outputs, elements).

        With ``absolute`` its factors count by their sizes.
        """
        boxes, outputs, _ = coefficients.shape
        if self.kind == "matrix":
            parts = coefficients.reshape(boxes, outputs, -1, self.weight.shape[0])
            weight = tensor_of(np.ascontiguousarray(self.weight)).double()
            return [(parts @ (weight.abs() if absolute else weight)).reshape(boxes, outputs, -1)]
        count = boxes * outputs
        node = replace(self.node, op="add") if absolute and self.node.op == "sub" else self.node
        with torch.inference_mode(False), torch.enable_grad():
            shapes = [sized(shape, count) for shape in self.layer.input_shapes]
            zeros = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
            y = evaluate(without_constants(node), zeros, precision=torch.float64, rows=count)
            found = torch.autograd.grad(y, zeros, coefficients.reshape(y.shape).clone())
        return [part.reshape(boxes, outputs, -1) for part in found]

    def constant(self) -> Tensor:
        """What a matrix or a sum adds to its inputs' part: (elements,) of its output."""
        zeros = [torch.zeros(sized(shape, 1), dtype=torch.float64) for shape in self.layer.input_shapes]
        if self.kind == "matrix":
            bias = self.node.tensors.get("bias")
            values = np.zeros(self.weight.shape[0]) if bias is None else bias.values.astype(np.float64)
            return tensor_of(values).repeat(prod(sized(self.node.shape, 1)) // len(values))
        return evaluate(self.node, zeros, precision=torch.float64, rows=1).reshape(-1)


def _fixed(shape: Sequence[object]) -> bool:
    """Whether only the first dimension grows with the batch."""
    return not any(isinstance(size, Rows) for size in shape[1:])
