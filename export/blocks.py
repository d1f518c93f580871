"""The table of blocks: what each is in PyTorch, and what it becomes in ONNX.

Adding a block to the export is adding a row; ``builder/blocks.py`` is the matching table of the spec. A row knows the
torch module and functions that mean the block, the options and tensors to read from them, the cases to refuse, the
shape that comes out, and the ONNX nodes that compute it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from builder import Scale, Standardize

from .affine import Affine
from .arithmetic import SYMBOLS
from .graph import Node, Shape
from .operators import Lower, batch_norm, clip, gelu, layer_norm, linear, never, op, pair, silu, softmax, softplus


@dataclass(frozen=True)
class Row:
    """What tracing, folding and lowering need to know of a block."""

    lower: Lower
    modules: tuple[type[nn.Module], ...] = ()
    calls: Mapping[Any, tuple[str, ...]] = field(default_factory=dict)
    """Functions and tensor methods that mean the block, with the names of their arguments."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options read off the module or the call, with the defaults of the calls."""
    tensors: tuple[str, ...] = ()
    inputs: int = 1
    refuse: Callable[[Node, Shape], str | None] = lambda node, shape: None
    """Why the block cannot be exported for rows of this shape, if it cannot."""
    shape: Callable[[Node, Sequence[Shape]], Shape] = lambda node, shapes: shapes[0]
    alike: bool = True
    """Its inputs have rows of one shape."""
    of_any_width: bool = False
    """A tensor of one value stands for every feature."""
    width: str = ""
    """The tensor whose last dimension is the number of input features."""
    affine: Callable[[Node], Affine] | None = None
    inactive: bool = False
    """Gives its input back in evaluation mode."""
    multiply_adds: Callable[[Node], int] = lambda node: 0


def _refuse_dropout(node: Node, shape: Shape) -> str | None:
    if node.attributes["training"] and node.attributes["p"] != 0:
        return (
            "this dropout stays active in evaluation mode; call it with training=self.training, or let eval() reach it"
        )
    return None


def _refuse_softmax(node: Node, shape: Shape) -> str | None:
    if node.attributes["dim"] not in (None, -1, len(shape)) or (node.attributes["dim"] is None and len(shape) != 1):
        return f"softmax runs over the features (dim=-1), not over dim={node.attributes['dim']}"
    return None


def _refuse_linear(node: Node, shape: Shape) -> str | None:
    return None if len(shape) == 1 else f"it takes flat rows, not rows of shape {list(shape)}; put a flatten in front"


def _refuse_flatten(node: Node, shape: Shape) -> str | None:
    features = node.attributes["features"]
    if features not in (None, prod(shape)):
        return f"it makes rows of {features} features of rows of shape {list(shape)}, which hold {prod(shape)}"
    if node.attributes["start_dim"] != 1 or node.attributes["end_dim"] not in (-1, len(shape)):
        return "flatten keeps the batch dimension and flattens the rest (start_dim=1, end_dim=-1)"
    return None


def _refuse_batch_norm(node: Node, shape: Shape) -> str | None:
    if "running_mean" not in node.tensors:
        return "it has no running statistics, so its result depends on the batch (track_running_stats=False)"
    if node.attributes["training"]:
        return "it stays in training mode after eval(), so its result depends on the batch"
    return None if len(shape) == 1 else "it takes (batch, features)"


def _refuse_layer_norm(node: Node, shape: Shape) -> str | None:
    normalized = tuple(node.attributes["normalized_shape"] or ())
    return (
        None if normalized == shape[-1:] else f"it normalises {list(normalized)}; only the features can be normalised"
    )


def _refuse_concat(node: Node, shape: Shape) -> str | None:
    if len(shape) != 1:
        return f"it joins flat rows, not rows of shape {list(shape)}; put a flatten in front"
    return None if node.attributes["dim"] in (1, -1) else "it joins along the features (dim=1 or -1), not the batch"


def _methods(name: str, *arguments: str, functions: tuple[Any, ...] = ()) -> dict[Any, tuple[str, ...]]:
    """``F.name``, ``torch.name`` and ``x.name()`` with the same arguments."""
    found = [getattr(home, name) for home in (F, torch) if hasattr(home, name)]
    return dict.fromkeys([*found, *functions, name], ("input", *arguments))


_SAME = ("contiguous", "detach", "float")
COPIES = (torch.clone, "clone")
"""They give the values of their input in memory of their own."""
_SLOPE = {"negative_slope": 0.01}
CLAMPS = (torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_")
"""They leave out a bound that is not given, where a Hardtanh has one."""
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d")

TABLE: dict[str, Row] = {
    "linear": Row(
        linear,
        (nn.Linear,),
        {F.linear: ("input", "weight", "bias")},
        tensors=("weight", "bias"),
        refuse=_refuse_linear,
        shape=lambda node, shapes: (*shapes[0][:-1], len(node.tensors["weight"].values)),
        width="weight",
        affine=Affine.of_linear,
        multiply_adds=lambda node: node.tensors["weight"].values.size,
    ),
    "sigmoid": Row(op("Sigmoid"), (nn.Sigmoid,), _methods("sigmoid") | _methods("sigmoid_")),
    "relu": Row(op("Relu"), (nn.ReLU,), _methods("relu", "inplace") | _methods("relu_")),
    "leaky_relu": Row(
        op("LeakyRelu", alpha="negative_slope"),
        (nn.LeakyReLU,),
        {F.leaky_relu: ("input", "negative_slope", "inplace")},
        _SLOPE,
    ),
    "dropout": Row(
        never,
        (nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Dropout1d),
        {getattr(F, name): ("input", "p", "training", "inplace") for name in _DROPOUTS},
        {"p": 0.5, "training": True},
        refuse=_refuse_dropout,
        inactive=True,
    ),
    "elu": Row(op("Elu", alpha="alpha"), (nn.ELU,), {F.elu: ("input", "alpha", "inplace")}, {"alpha": 1.0}),
    "tanh": Row(op("Tanh"), (nn.Tanh,), _methods("tanh") | _methods("tanh_")),
    "gelu": Row(gelu, (nn.GELU,), {F.gelu: ("input", "approximate")}, {"approximate": "none"}),
    "silu": Row(silu, (nn.SiLU,), {F.silu: ("input", "inplace")}),
    "softplus": Row(
        softplus,
        (nn.Softplus,),
        {F.softplus: ("input", "beta", "threshold")},
        {"beta": 1.0, "threshold": 20.0},
    ),
    "softmax": Row(
        softmax,
        (nn.Softmax,),
        _methods("softmax", "dim") | {F.softmax: ("input", "dim", "_stacklevel")},
        {"dim": None},
        refuse=_refuse_softmax,
    ),
    "relu6": Row(clip(0.0, 6.0), (nn.ReLU6,), {F.relu6: ("input", "inplace")}),
    "hardsigmoid": Row(
        lambda emit, node: emit(
            "HardSigmoid", node.inputs, node.output, node.path, alpha=emit.float32(1 / 6), beta=0.5
        ),
        (nn.Hardsigmoid,),
        {F.hardsigmoid: ("input", "inplace")},
    ),
    "clip": Row(
        clip("min_val", "max_val"),
        (nn.Hardtanh,),
        {F.hardtanh: ("input", "min_val", "max_val", "inplace")}
        | dict.fromkeys(CLAMPS, ("input", "min_val", "max_val")),
        {"min_val": -1.0, "max_val": 1.0},
    ),
    "batch_norm": Row(
        batch_norm,
        (nn.BatchNorm1d,),
        options={"eps": 1e-5, "training": False},
        tensors=("weight", "bias", "running_mean", "running_var"),
        refuse=_refuse_batch_norm,
        width="running_mean",
        affine=Affine.of_batch_norm,
        multiply_adds=lambda node: node.shape[0],
    ),
    "layer_norm": Row(
        layer_norm,
        (nn.LayerNorm,),
        {F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps")},
        {"normalized_shape": None, "eps": 1e-5},
        tensors=("weight", "bias"),
        refuse=_refuse_layer_norm,
        width="weight",
    ),
    "flatten": Row(
        lambda emit, node: emit("Flatten", node.inputs, node.output, node.path, axis=1),
        (nn.Flatten,),
        _methods("flatten", "start_dim", "end_dim"),
        {"start_dim": 0, "end_dim": -1, "features": None},
        refuse=_refuse_flatten,
        shape=lambda node, shapes: (prod(shapes[0]),),
    ),
    "identity": Row(
        never,
        (nn.Identity,),
        dict.fromkeys((*COPIES, *_SAME), ("input",)),
        inactive=True,
    ),
    "standardize": Row(
        pair(("Sub", "mean"), ("Div", "std")),
        (Standardize,),
        tensors=("mean", "std"),
        of_any_width=True,
        width="mean",
        affine=Affine.of_standardize,
        multiply_adds=lambda node: node.shape[0],
    ),
    "scale": Row(
        pair(("Mul", "factor"), ("Add", "offset")),
        (Scale,),
        tensors=("factor", "offset"),
        of_any_width=True,
        width="factor",
        affine=Affine.of_scale,
        multiply_adds=lambda node: node.shape[0],
    ),
    "add": Row(
        op("Add"),
        inputs=2,
    ),
    "subtract": Row(op("Sub"), inputs=2),
    "multiply": Row(op("Mul"), inputs=2),
    "concat": Row(
        lambda emit, node: emit("Concat", node.inputs, node.output, node.path, axis=1),
        calls=dict.fromkeys((torch.cat, torch.concat), ("tensors", "dim")),
        options={"dim": 0},
        refuse=_refuse_concat,
        shape=lambda node, shapes: (sum(shape[-1] for shape in shapes),),
        alike=False,
    ),
}
"""Every block that can be exported, by name."""

MODULES: dict[type[nn.Module], str] = {module: name for name, row in TABLE.items() for module in row.modules}
CALLS: dict[Any, str] = {target: name for name, row in TABLE.items() for target in row.calls}
IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv} | {
    target for target in (*CALLS, *SYMBOLS) if str(getattr(target, "__name__", target)).endswith("_")
}
"""Calls that overwrite their input without being asked to by ``inplace=True``."""
