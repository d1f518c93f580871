"""The table of blocks: what each is in PyTorch, and what it becomes in ONNX.

Adding a block to the export is adding a row; ``builder/blocks.py`` is the matching table of the spec. A row knows the
torch module and functions that mean the block, the options and tensors to read from them, the cases to refuse, the
shape that comes out, and the ONNX nodes that compute it in opset 17.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from builder import Scale, Standardize

from .affine import Affine, affine_of
from .emitter import Emitter
from .graph import Node, Shape

Lower = Callable[[Emitter, Node], object]


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
    shape: Callable[[Node, Shape], Shape] = lambda node, shape: shape
    width: str = ""
    """The tensor whose last dimension is the number of input features."""
    affine: Callable[[Node], Affine] | None = None
    inactive: bool = False
    """Gives its input back in evaluation mode."""
    multiply_adds: Callable[[Node], int] = lambda node: 0


def op(op_type: str, **attributes: str) -> Lower:
    """One ONNX node; ``alpha="negative_slope"`` fills an attribute from an option, as float32."""

    def lower(emit: Emitter, node: Node) -> None:
        values = {name: emit.float32(node.attributes[option]) for name, option in attributes.items()}
        emit(op_type, node.inputs, node.output, node.path, **values)

    return lower


def _linear(emit: Emitter, node: Node) -> None:
    constants = [emit.tensor(node.tensors[role]) for role in ("weight", "bias") if role in node.tensors]
    emit("Gemm", [*node.inputs, *constants], node.output, node.path, alpha=1.0, beta=1.0, transB=1)


def _gelu(emit: Emitter, node: Node) -> None:
    """x / √2 → Erf → + 1 → · x → · 1/2, or the tanh formula; the order that ONNX Runtime fuses into one kernel."""
    (x,) = node.inputs
    if node.attributes["approximate"] == "tanh":
        cube = emit.step("Mul", node, emit.step("Mul", node, x, x), x)
        inner = emit.step("Add", node, x, emit.step("Mul", node, cube, emit.constant("gelu.cubic", 0.044715)))
        bell = emit.step("Tanh", node, emit.step("Mul", node, inner, emit.constant("gelu.scale", sqrt(2 / torch.pi))))
    else:
        bell = emit.step("Erf", node, emit.step("Div", node, x, emit.constant("gelu.sqrt2", sqrt(2))))
    raised = emit.step("Add", node, bell, emit.constant("one", 1.0))
    emit.last("Mul", node, emit.step("Mul", node, x, raised), emit.constant("half", 0.5))


def _silu(emit: Emitter, node: Node) -> None:
    (x,) = node.inputs
    emit.last("Mul", node, x, emit.step("Sigmoid", node, x))


def _softplus(emit: Emitter, node: Node) -> None:
    """Softplus(beta·x) / beta; from the threshold on x itself, where that is not the same in float32 anyway."""
    (x,), beta, threshold = node.inputs, node.attributes["beta"], node.attributes["threshold"]
    scaled = x if beta == 1 else emit.step("Mul", node, x, emit.constant(f"{node.path}.beta", beta))
    steps: list[tuple[str, list[str]]] = [("Softplus", [scaled])]
    if beta != 1:
        steps.append(("Div", ["", emit.constant(f"{node.path}.beta", beta)]))
    if threshold < 20:  # log1p(e^-20) is below half an ulp of 20
        above = emit.step("Greater", node, scaled, emit.constant(f"{node.path}.threshold", threshold))
        steps.append(("Where", [above, x, ""]))
    value = ""
    for index, (op_type, names) in enumerate(steps):
        emitted = emit.last if index == len(steps) - 1 else emit.step
        value = emitted(op_type, node, *(name or value for name in names))


def _clip(low: str | float, high: str | float) -> Lower:
    def lower(emit: Emitter, node: Node) -> None:
        bounds = []
        for role, bound in (("min", low), ("max", high)):
            value = node.attributes[bound] if isinstance(bound, str) else bound
            bounds.append(emit.constant(f"{node.path}.{role}", value))
        emit("Clip", [*node.inputs, *bounds], node.output, node.path)

    return lower


def _layer_norm(emit: Emitter, node: Node) -> None:
    if "weight" in node.tensors:
        constants = [emit.tensor(node.tensors[role]) for role in ("weight", "bias") if role in node.tensors]
    else:
        constants = [emit.constant(f"{node.path}.weight", [1.0] * node.shape[-1])]
    attributes = {"axis": -1, "epsilon": emit.float32(node.attributes["eps"]), "stash_type": 1}
    emit("LayerNormalization", [*node.inputs, *constants], node.output, node.path, **attributes)


def _batch_norm(emit: Emitter, node: Node) -> None:
    ones_and_zeros = {"weight": 1.0, "bias": 0.0}
    constants = []
    for role in ("weight", "bias", "running_mean", "running_var"):
        if role in node.tensors:
            constants.append(emit.tensor(node.tensors[role]))
        else:
            constants.append(emit.constant(f"{node.path}.{role}", [ones_and_zeros[role]] * node.shape[0]))
    epsilon = emit.float32(node.attributes["eps"])
    emit("BatchNormalization", [*node.inputs, *constants], node.output, node.path, epsilon=epsilon)


def _pair(first: str, second: str, roles: tuple[str, str]) -> Lower:
    """Two elementwise nodes, each with a constant per feature."""

    def lower(emit: Emitter, node: Node) -> None:
        between = emit.step(first, node, node.inputs[0], emit.tensor(node.tensors[roles[0]]))
        emit.last(second, node, between, emit.tensor(node.tensors[roles[1]]))

    return lower


def _never(emit: Emitter, node: Node) -> None:
    raise AssertionError(f"{node.op} at {node.path} is removed by folding and never lowered")


def _refuse_dropout(node: Node, shape: Shape) -> str | None:
    if node.attributes["training"] and node.attributes["p"] != 0:
        return "this dropout stays active in evaluation mode; call it with training=self.training, or use nn.Dropout"
    return None


def _refuse_softmax(node: Node, shape: Shape) -> str | None:
    if node.attributes["dim"] not in (None, -1, len(shape)) or (node.attributes["dim"] is None and len(shape) != 1):
        return f"softmax runs over the features (dim=-1), not over dim={node.attributes['dim']}"
    return None


def _refuse_flatten(node: Node, shape: Shape) -> str | None:
    if node.attributes["start_dim"] != 1 or node.attributes["end_dim"] not in (-1, len(shape)):
        return "flatten keeps the batch dimension and flattens the rest (start_dim=1, end_dim=-1)"
    return None


def _refuse_batch_norm(node: Node, shape: Shape) -> str | None:
    if "running_mean" not in node.tensors:
        return "it has no running statistics, so its result depends on the batch (track_running_stats=False)"
    return None if len(shape) == 1 else "it takes (batch, features)"


def _refuse_layer_norm(node: Node, shape: Shape) -> str | None:
    normalized = tuple(node.attributes["normalized_shape"] or ())
    return (
        None if normalized == shape[-1:] else f"it normalises {list(normalized)}; only the features can be normalised"
    )


def _refuse_add(node: Node, shape: Shape) -> str | None:
    return None if node.attributes["alpha"] == 1 else "an addition with alpha other than 1"


def _methods(name: str, *arguments: str, functions: tuple[Any, ...] = ()) -> dict[Any, tuple[str, ...]]:
    """``F.name``, ``torch.name`` and ``x.name()`` with the same arguments."""
    found = [getattr(home, name) for home in (F, torch) if hasattr(home, name)]
    return dict.fromkeys([*found, *functions, name], ("input", *arguments))


_SLOPE = {"negative_slope": 0.01}
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d")

TABLE: dict[str, Row] = {
    "linear": Row(
        _linear,
        (nn.Linear,),
        {F.linear: ("input", "weight", "bias")},
        tensors=("weight", "bias"),
        shape=lambda node, shape: (*shape[:-1], len(node.tensors["weight"].values)),
        width="weight",
        affine=affine_of("weight", "bias"),
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
        _never,
        (nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Dropout1d),
        {getattr(F, name): ("input", "p", "training", "inplace") for name in _DROPOUTS},
        {"p": 0.5, "training": True},
        refuse=_refuse_dropout,
        inactive=True,
    ),
    "elu": Row(op("Elu", alpha="alpha"), (nn.ELU,), {F.elu: ("input", "alpha", "inplace")}, {"alpha": 1.0}),
    "tanh": Row(op("Tanh"), (nn.Tanh,), _methods("tanh") | _methods("tanh_")),
    "gelu": Row(_gelu, (nn.GELU,), {F.gelu: ("input", "approximate")}, {"approximate": "none"}),
    "silu": Row(_silu, (nn.SiLU,), {F.silu: ("input", "inplace")}),
    "softplus": Row(
        _softplus,
        (nn.Softplus,),
        {F.softplus: ("input", "beta", "threshold")},
        {"beta": 1.0, "threshold": 20.0},
    ),
    "softmax": Row(
        lambda emit, node: emit("Softmax", node.inputs, node.output, node.path, axis=-1),
        (nn.Softmax,),
        _methods("softmax", "dim") | {F.softmax: ("input", "dim", "_stacklevel")},
        {"dim": None},
        refuse=_refuse_softmax,
    ),
    "relu6": Row(_clip(0.0, 6.0), (nn.ReLU6,), {F.relu6: ("input", "inplace")}),
    "hardsigmoid": Row(
        lambda emit, node: emit(
            "HardSigmoid", node.inputs, node.output, node.path, alpha=emit.float32(1 / 6), beta=0.5
        ),
        (nn.Hardsigmoid,),
        {F.hardsigmoid: ("input", "inplace")},
    ),
    "clip": Row(
        _clip("min_val", "max_val"),
        (nn.Hardtanh,),
        {F.hardtanh: ("input", "min_val", "max_val", "inplace")},
        {"min_val": -1.0, "max_val": 1.0},
    ),
    "batch_norm": Row(
        _batch_norm,
        (nn.BatchNorm1d,),
        options={"eps": 1e-5},
        tensors=("weight", "bias", "running_mean", "running_var"),
        refuse=_refuse_batch_norm,
        width="running_mean",
        affine=Affine.of_batch_norm,
        multiply_adds=lambda node: node.shape[0],
    ),
    "layer_norm": Row(
        _layer_norm,
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
        {"start_dim": 0, "end_dim": -1},
        refuse=_refuse_flatten,
        shape=lambda node, shape: (prod(shape),),
    ),
    "identity": Row(_never, (nn.Identity,), inactive=True),
    "standardize": Row(
        _pair("Sub", "Div", ("mean", "std")),
        (Standardize,),
        tensors=("mean", "std"),
        width="mean",
        affine=Affine.of_standardize,
        multiply_adds=lambda node: node.shape[0],
    ),
    "scale": Row(
        _pair("Mul", "Add", ("factor", "offset")),
        (Scale,),
        tensors=("factor", "offset"),
        width="factor",
        affine=affine_of("factor", "offset"),
        multiply_adds=lambda node: node.shape[0],
    ),
    "add": Row(
        op("Add"),
        calls={operator.add: ("input", "other"), operator.iadd: ("input", "other")} | _methods("add", "other", "alpha"),
        options={"alpha": 1},
        inputs=2,
        refuse=_refuse_add,
    ),
}
"""Every block that can be exported, by name."""

MODULES: dict[type[nn.Module], str] = {module: name for name, row in TABLE.items() for module in row.modules}
CALLS: dict[Any, str] = {target: name for name, row in TABLE.items() for target in row.calls}
IN_PLACE = {operator.iadd} | {target for target in CALLS if str(getattr(target, "__name__", target)).endswith("_")}
"""Calls that overwrite their input without being asked to by ``inplace=True``."""
