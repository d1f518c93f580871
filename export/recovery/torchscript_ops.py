"""The table of TorchScript operators that are blocks of a dense network: what each becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from builder.errors import RecoveryError

from .activations import BlockData

Argument = object
"""A constant of the graph: a tensor, number, string, list or None."""


@dataclass
class Step:
    """A block under way, and its tensors by the names that its module gives them."""

    block: BlockData
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The block's name in a spec."""
        return self.block if isinstance(self.block, str) else next(iter(self.block))


Rule = Callable[[list[Step], Sequence[Argument], int], Sequence[Step]]
"""From the steps so far, the operator's other arguments and the place of the value among them, to the steps it adds."""


def _plain(kind: str, *defaults: tuple[object, ...]) -> Rule:
    """An operator that is a block where each argument is one of those in ``defaults``; missing ones are."""

    def rule(_: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
        for value, allowed in zip(given, defaults, strict=False):
            if value not in allowed:
                raise _Refused(f"with the argument {value!r}")
        return [Step(kind)] if kind else []

    return rule


class _Refused(RecoveryError):
    """Why an operator's arguments make it no block; the walk adds where."""


def _with(kind: str, *options: str, rest: Sequence[tuple[object, ...]] = ()) -> Rule:
    """An operator whose first arguments are a block's options."""

    def rule(_: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
        if any(value is None for value in given[: len(options)]):
            raise _Refused("with a bound that is left out")
        for value, allowed in zip(given[len(options) :], rest, strict=False):
            if value not in allowed:
                raise _Refused(f"with the argument {value!r}")
        data = {name: _number(value) for name, value in zip(options, given, strict=False)}
        return [Step({kind: data} if data else kind)]

    return rule


def _number(value: Argument) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else float(_tensor(value))


def _tensor(value: Argument) -> torch.Tensor:
    """A constant as float32; a number is rounded as torch rounds it in arithmetic with float32."""
    if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor):
        raise _Refused(f"with the argument {value!r}, where a number or a constant tensor is expected")
    if isinstance(value, int | float):
        return torch.tensor(value, dtype=torch.float32)
    if value.dim() and value.dtype != torch.float32:
        raise _Refused(f"with a constant of {value.dtype}; float32 is expected")
    return value.detach().to("cpu", torch.float32)


def _row(value: Argument) -> torch.Tensor:
    row = _tensor(value)
    if row.dim() and row.numel() != row.shape[-1]:
        raise _Refused(f"with a constant of shape {list(row.shape)}; one number per feature is expected")
    return row.reshape(()) if not row.dim() else row.reshape(-1)


def _clamp(steps: list[Step], given: Sequence[Argument], at: int) -> Sequence[Step]:
    low, high = (*given, None)[:2]
    if low == 0 and high is None:
        return [Step("relu")]
    return _with("clip", "min", "max")(steps, (low, high), at)


def _linear(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    weight = _tensor(given[0])
    if at or weight.dim() != 2:
        raise _Refused(f"with a weight of shape {list(weight.shape)}")
    tensors = {"weight": weight} | ({"bias": _row(given[1])} if len(given) > 1 and given[1] is not None else {})
    data = {"features": weight.shape[0]} | ({} if "bias" in tensors else {"bias": False})
    return [Step({"linear": {**data}}, tensors)]


def _matmul(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    weight = _tensor(given[0])
    if at or weight.dim() != 2:
        raise _Refused("with a constant in front; x·W is expected")
    return _linear(steps, [weight.t().contiguous()], 0)


def _addmm(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    if at != 1 or any(value != 1 for value in given[2:]):
        raise _Refused("in another form than bias + x·W")
    return _linear(steps, [_tensor(given[1]).t().contiguous(), given[0]], 0)


def _batch_norm(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    weight, bias, mean, var, training, _, eps, *_ = given
    if training is not False or mean is None or var is None:
        raise _Refused("with the statistics of the batch")
    tensors = {"running_mean": _row(mean), "running_var": _row(var), "num_batches_tracked": torch.tensor(0)}
    if (weight is None) != (bias is None):
        raise _Refused("with a weight or a bias alone")
    options: dict[str, object] = {"eps": eps}
    if weight is None:
        return [Step({"batch_norm": options | {"affine": False}}, tensors)]
    return [Step({"batch_norm": options}, {"weight": _row(weight), "bias": _row(bias)} | tensors)]


def _layer_norm(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    shape, weight, bias, eps, *_ = given
    if not isinstance(shape, list) or len(shape) != 1 or (weight is None and bias is not None):
        raise _Refused(f"over the dimensions {shape!r}; over the features alone is expected")
    options: dict[str, object] = {"eps": eps}
    if weight is None:
        return [Step({"layer_norm": options | {"elementwise_affine": False}})]
    if bias is None:
        return [Step({"layer_norm": options | {"bias": False}}, {"weight": _row(weight)})]
    return [Step({"layer_norm": options}, {"weight": _row(weight), "bias": _row(bias)})]


def _add(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    _refuse_alpha(given)
    last, row = steps[-1] if steps else None, _row(given[0])
    if last is not None and last.kind == "linear" and "bias" not in last.tensors and row.dim():
        steps.pop()
        return _linear(steps, [last.tensors["weight"], row], 0)
    if last is not None and last.kind == "scale" and "offset" not in last.tensors:
        steps.pop()
        return [Step("scale", {"factor": last.tensors["factor"], "offset": row})]
    return [Step("scale", {"offset": row})]


def _sub(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    _refuse_alpha(given)
    row = _row(given[0])
    if at:
        return [Step("scale", {"factor": torch.tensor(-1.0), "offset": row})]
    return [Step("standardize", {"mean": row})]


def _rsub(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    return _sub(steps, given, 1)


def _div(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    if at or len(given) > 1:
        raise _Refused("in another form than x / constant")
    last, row = steps[-1] if steps else None, _row(given[0])
    if last is not None and last.kind == "standardize" and "std" not in last.tensors:
        steps.pop()
        return [Step("standardize", {"mean": last.tensors["mean"], "std": row})]
    return [Step("standardize", {"std": row})]


def _mul(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    return [Step("scale", {"factor": _row(given[0])})]


def _neg(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    return [Step("scale", {"factor": torch.tensor(-1.0)})]


def _refuse_alpha(given: Sequence[Argument]) -> None:
    if any(value != 1 for value in given[1:]):
        raise _Refused("with an alpha other than 1")


def _flatten(steps: list[Step], given: Sequence[Argument], at: int) -> list[Step]:
    shape = given[0] if len(given) == 1 else list(given)
    if not (shape == [1, -1] and len(given) == 2) and not (
        isinstance(shape, list) and len(shape) == 2 and shape[0] == -1
    ):
        raise _Refused(f"to {shape!r}; (batch, features) is expected")
    return []


OPERATORS: dict[str, Rule] = {
    **{name: _plain(name) for name in ("relu", "tanh", "sigmoid", "silu", "relu6", "hardsigmoid")},
    **{name: _plain("") for name in ("detach", "alias", "contiguous")},
    "dropout": lambda steps, given, at: _plain("", (given[0],), (False,))(steps, given, at),
    "elu": _with("elu", "alpha", rest=((1,), (1,))),
    "leaky_relu": _with("leaky_relu", "negative_slope"),
    "gelu": _with("gelu", "approximate"),
    "softplus": _with("softplus", "beta", "threshold"),
    "softmax": _plain("softmax", (-1, 1), (None,)),
    "hardtanh": _with("clip", "min", "max"),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "flatten": _flatten,
    "reshape": _flatten,
    "view": _flatten,
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "div": _div,
    "mul": _mul,
    "neg": _neg,
}
"""The operators of ``aten`` by name; the in-place ones (``relu_``) are the same."""
