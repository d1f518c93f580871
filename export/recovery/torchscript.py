"""A TorchScript archive back into a spec and weights, read off its graph and compared with it."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from builder.errors import RecoveryError, SpecError

from .recovered import Recovered, Step, network_of

_ROWS = 64
_DOUBLE, _SINGLE = 2.0**-20, 1e-4
"""How far outputs may be apart, as a share of the value and of the largest, in float64 and in float32: a net under the
reading of the graph, not a proof. Numbers in the file's code become float32 (2^-24), which carries on in float64."""
_ANSWERS = {"aten::ne": operator.ne, "aten::eq": operator.eq, "prim::ListConstruct": lambda *values: list(values)}


def read_torchscript(path: Path, **names: str) -> Recovered:
    """The dense network in a TorchScript archive, which is loaded, and whose code is run on ``_ROWS`` random rows.

    ``names`` are the spec's: ``name``, ``input_name`` and ``output_name``.
    Raises RecoveryError: no straight chain of blocks (the first operator that is none is named), or another result.
    """
    # TorchScript is deprecated, which the person who has such a file need not be told at every call.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            module = torch.jit.load(str(path), map_location="cpu").eval()
            graph = torch.jit.freeze(module, optimize_numerics=False).graph
        except Exception as error:  # torch.jit raises what its parser and its passes raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecoveryError(f"TorchScript cannot read it: {reason}") from None
        steps, flattens = _walked(graph)
        try:
            found = Recovered(*network_of(steps, **names))
        except SpecError as error:
            raise RecoveryError(f"its blocks make no network: {error}") from None
        compared = _compare(module, found)
    graph_note = "TorchScript: its code was run; blocks and options are those of its graph, frozen in evaluation mode"
    flat_note = "a reshape to (batch, features) in the file is left out: rows are flat here"
    return replace(found, notes=(graph_note, compared, *([flat_note] if flattens else [])))


def _walked(graph: torch.Graph) -> tuple[list[Step], bool]:
    """The graph's blocks in order, and whether it reshapes rows."""
    inputs = list(graph.inputs())[1:]
    if len(inputs) != 1:
        raise RecoveryError(f"forward takes {len(inputs)} inputs; one is expected")
    current = inputs[0].debugName()
    constants: dict[str, object] = {}
    steps: list[Step] = []
    flattens = False
    for node in graph.nodes():
        values = [value.debugName() for value in node.inputs()]
        if _settled(node, values, current, constants):
            continue
        where = f"the operator {node.kind()}"
        namespace, _, name = node.kind().partition("::")
        rule = OPERATORS.get(name.removesuffix("_"))
        if namespace != "aten" or rule is None:
            raise RecoveryError(f"{where} is no block of a dense network")
        if [value for value in values if value not in constants] != [current]:
            message = "it does not take the value before it and constants alone"
            raise RecoveryError(f"{where} joins or branches off: {message}")
        arguments = [constants[value] for value in values if value != current]
        try:
            steps += rule(steps, values.index(current), *arguments)
        except RecoveryError as error:
            raise RecoveryError(f"{where} {error}") from None
        except (ValueError, TypeError, IndexError, RuntimeError):
            raise RecoveryError(f"{where} has arguments that it should not have") from None
        flattens |= name in ("flatten", "reshape", "view")
        current = node.output().debugName() if node.outputsSize() == 1 else ""
    if [value.debugName() for value in graph.outputs()] != [current]:
        raise RecoveryError("forward does not return the last value of one chain of blocks")
    return steps, flattens


def _settled(node: torch.Node, values: list[str], current: str, constants: dict[str, object]) -> bool:
    """Whether a node only asks for the rows' dimensions, or checks them: (batch, features) answers it."""
    kind, known = node.kind(), [constants[value] for value in values if value in constants]
    if kind == "prim::Constant":
        constants[node.output().debugName()] = node.output().toIValue()
        return True
    if kind == "prim::If" and isinstance(outcome := constants.get(values[0]), bool):
        taken = list(node.blocks())[0 if outcome else 1]
        for inner in taken.nodes():
            if not _settled(inner, [value.debugName() for value in inner.inputs()], current, constants):
                return False
        results = [value.debugName() for value in taken.outputs()]
        if any(result not in constants for result in results):
            return False
        outputs = [value.debugName() for value in node.outputs()]
        constants |= {output: constants[result] for output, result in zip(outputs, results, strict=True)}
        return True
    answer: object = None
    if values[:1] == [current]:
        answer = 2 if kind == "aten::dim" else -1 if kind == "aten::size" and known == [0] else None
    elif len(known) == len(values):
        answer = _ANSWERS[kind](*known) if kind in _ANSWERS else None
    if answer is None:
        return False
    constants[node.output().debugName()] = answer
    return True


def _compare(script: torch.jit.ScriptModule, found: Recovered) -> str:
    """Hold the network against the file's own module, in float64, or in float32 where that runs in nothing else.

    Returns: what was found, in words. Raises RecoveryError: the outputs differ, or the file's module does not run.
    """
    module = found.module()
    rows = torch.randn(_ROWS, *found.spec.input.row_shape, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        try:
            theirs, tolerance, precision = script(rows), _SINGLE, "float32"
        except Exception as error:  # the file's own code: it may raise anything
            reason = str(error).strip().rpartition("\n")[2]
            raise RecoveryError(f"the file's own module fails on rows of {rows.shape[1]} features: {reason}") from None
        with suppress(RuntimeError):
            theirs, tolerance, precision = script.double()(rows.double()), _DOUBLE, "float64"
        ours = module.to(theirs.dtype)(rows.to(theirs.dtype)) if isinstance(theirs, torch.Tensor) else module(rows)
    if not isinstance(theirs, torch.Tensor) or theirs.shape != ours.shape:
        shape = getattr(theirs, "shape", type(theirs))
        raise RecoveryError(f"the file's module gives {shape}, the network {ours.shape}")
    largest = float(theirs.abs().nan_to_num(0.0, 0.0).max())
    if not torch.allclose(theirs, ours, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        apart = (theirs - ours).abs().max().item()
        raise RecoveryError(f"the network differs from the file's own module by up to {apart:.3g} on {_ROWS} rows")
    return f"on {_ROWS} random rows the network gives what the file gives, in {precision} to within {tolerance:.0e}"


# What each operator becomes.

Rule = Callable[..., list[Step]]
"""From the steps so far, the place of the value among an operator's arguments and the other arguments (constants:
tensors, numbers, strings, lists, None) to the steps that it adds; it may change the last step instead."""


def _block(kind: str, *options: str, allowed: Sequence[tuple[object, ...]] = ()) -> Rule:
    """An operator that is a block (or nothing, ``""``), whose first arguments are the block's options.

    Each argument behind them is one of those in ``allowed``; missing ones are.
    """

    def rule(steps: list[Step], at: int, *arguments: object) -> list[Step]:
        if any(value is None for value in arguments[: len(options)]):
            raise RecoveryError("with a bound that is left out")
        for value, expected in zip(arguments[len(options) :], allowed, strict=False):
            if value not in expected:
                raise RecoveryError(f"with the argument {value!r}")
        data = {name: _number(value) for name, value in zip(options, arguments, strict=False)}
        return [Step(kind, options=data)] if kind else []

    return rule


def _number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else float(_tensor(value))


def _tensor(value: object) -> torch.Tensor:
    """A constant as float32; a number is rounded as torch rounds it in arithmetic with float32."""
    if isinstance(value, bool) or not isinstance(value, int | float | torch.Tensor):
        raise RecoveryError(f"with the argument {value!r}, where a number or a constant tensor is expected")
    if isinstance(value, int | float):
        return torch.tensor(value, dtype=torch.float32)
    if value.dim() and value.dtype != torch.float32:
        raise RecoveryError(f"with a constant of {value.dtype}; float32 is expected")
    return value.detach().to("cpu", torch.float32)


def _row(value: object) -> torch.Tensor:
    row = _tensor(value)
    if row.dim() and row.numel() != row.shape[-1]:
        raise RecoveryError(f"with a constant of shape {list(row.shape)}; one number per feature is expected")
    return row


def _present(**values: object) -> dict[str, torch.Tensor]:
    """The constants that are not None, as rows."""
    return {role: _row(value) for role, value in values.items() if value is not None}


def _clamp(steps: list[Step], at: int, low: object, high: object = None) -> list[Step]:
    if low == 0 and high is None:
        return [Step("relu")]
    return _block("clip", "min", "max")(steps, at, low, high)


def _linear(steps: list[Step], at: int, weight: object, bias: object = None) -> list[Step]:
    matrix = _tensor(weight)
    if at or matrix.dim() != 2:
        raise RecoveryError(f"with a weight of shape {list(matrix.shape)}")
    return [Step("linear", {"weight": matrix} | _present(bias=bias))]


def _matmul(steps: list[Step], at: int, weight: object) -> list[Step]:
    matrix = _tensor(weight)
    if at or matrix.dim() != 2:
        raise RecoveryError("with a constant in front; x·W is expected")
    return _linear(steps, at, matrix.t().contiguous())


def _addmm(steps: list[Step], at: int, bias: object, weight: object, *factors: object) -> list[Step]:
    if at != 1 or any(factor != 1 for factor in factors):
        raise RecoveryError("in another form than bias + x·W")
    return _linear(steps, 0, _tensor(weight).t().contiguous(), bias)


def _batch_norm(steps: list[Step], at: int, *arguments: object) -> list[Step]:
    weight, bias, mean, var, training, _, eps, *_ = arguments
    if training is not False or mean is None or var is None:
        raise RecoveryError("with the statistics of the batch")
    tensors = _present(running_mean=mean, running_var=var)
    if (weight is None) != (bias is None):
        raise RecoveryError("with a weight or a bias alone")
    return [Step("batch_norm", tensors | _present(weight=weight, bias=bias), {"eps": eps})]


def _layer_norm(
    steps: list[Step], at: int, shape: object, weight: object, bias: object, eps: object, *_: object
) -> list[Step]:
    if not isinstance(shape, list) or len(shape) != 1 or (weight is None and bias is not None):
        raise RecoveryError(f"over the dimensions {shape!r}; over the features alone is expected")
    return [Step("layer_norm", _present(weight=weight, bias=bias), {"eps": eps})]


def _add(steps: list[Step], at: int, value: object, *alpha: object) -> list[Step]:
    _refuse_alpha(alpha)
    row, last = _row(value), steps[-1] if steps else Step("")
    role = {"linear": "bias", "scale": "offset"}.get(last.kind)
    if role and role not in last.tensors and (role == "offset" or row.dim()):
        last.tensors[role] = row
        return []
    return [Step("scale", {"offset": row})]


def _sub(steps: list[Step], at: int, value: object, *alpha: object, reversed_: bool = False) -> list[Step]:
    _refuse_alpha(alpha)
    if at or reversed_:
        return [Step("scale", {"factor": torch.tensor(-1.0), "offset": _row(value)})]
    return [Step("standardize", {"mean": _row(value)})]


def _refuse_alpha(alpha: Sequence[object]) -> None:
    if any(factor != 1 for factor in alpha):
        raise RecoveryError("with an alpha other than 1")


def _div(steps: list[Step], at: int, value: object, *rounding: object) -> list[Step]:
    if at or rounding:
        raise RecoveryError("in another form than x / constant")
    row, last = _row(value), steps[-1] if steps else Step("")
    if last.kind == "standardize" and "std" not in last.tensors:
        last.tensors["std"] = row
        return []
    return [Step("standardize", {"std": row})]


def _mul(steps: list[Step], at: int, factor: object = -1.0) -> list[Step]:
    """A product; a negation is one with -1."""
    return [Step("scale", {"factor": _row(factor)})]


def _flatten(steps: list[Step], at: int, *arguments: object) -> list[Step]:
    shape = arguments[0] if len(arguments) == 1 else list(arguments)
    rows = isinstance(shape, list) and len(shape) == 2 and shape[0] == -1
    if not rows and arguments != (1, -1):
        raise RecoveryError(f"to {shape!r}; (batch, features) is expected")
    return []


OPERATORS: dict[str, Rule] = {
    **{name: _block(name) for name in ("relu", "tanh", "sigmoid", "silu", "relu6", "hardsigmoid")},
    **{name: _block("") for name in ("detach", "alias", "contiguous")},
    "dropout": _block("", "p", allowed=((False,),)),
    "elu": _block("elu", "alpha", allowed=((1,), (1,))),
    "leaky_relu": _block("leaky_relu", "negative_slope"),
    "gelu": _block("gelu", "approximate"),
    "softplus": _block("softplus", "beta", "threshold"),
    "softmax": _block("softmax", allowed=((-1, 1), (None,))),
    "hardtanh": _block("clip", "min", "max"),
    **dict.fromkeys(("clamp", "clamp_min"), _clamp),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm"), _matmul),
    "addmm": _addmm,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    **dict.fromkeys(("flatten", "reshape", "view"), _flatten),
    "add": _add,
    "sub": _sub,
    "rsub": partial(_sub, reversed_=True),
    "div": _div,
    "mul": _mul,
    "neg": _mul,
}
"""The operators of ``aten`` by name; the in-place ones (``relu_``) are the same."""
