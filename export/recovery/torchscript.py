"""A TorchScript archive back into a spec and weights, read off its graph and compared with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch

from builder.assembly import assemble
from builder.errors import RecoveryError, SpecError
from builder.spec import MLPSpec

from .recovered import Recovered
from .torchscript_ops import OPERATORS, Step

_ROWS = 64
_DOUBLE, _SINGLE = 2.0**-20, 1e-4
"""How far outputs may be apart, as a share of the value and of the largest, in float64 and in float32: a net under the
reading of the graph, not a proof. Numbers in the file's code become float32 (2^-24), which carries on in float64."""


def read_torchscript(path: Path, *, name: str, input_name: str, output_name: str) -> Recovered:
    """The dense network in a TorchScript archive, which is loaded, and whose code is run on ``_ROWS`` random rows.

    Raises RecoveryError: no straight chain of blocks (the first operator that is none is named), or another result.
    """
    with _quiet():
        try:
            module = torch.jit.load(str(path), map_location="cpu").eval()
            frozen = torch.jit.freeze(module, optimize_numerics=False)
            graph = frozen.graph
        except Exception as error:  # torch.jit raises what its parser and its passes raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RecoveryError(f"{path}: TorchScript cannot read it: {reason}") from None
        steps, flattens = _walked(graph)
        spec, weights = _network(steps, name, input_name, output_name)
        compared = _compare(module, spec, weights)
    notes = [
        "TorchScript: its code was run; blocks and options are those of its graph, frozen in evaluation mode",
        compared,
    ]
    if flattens:
        notes.append("a reshape to (batch, features) in the file is left out: rows are flat here")
    return Recovered(spec, weights, tuple(notes))


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
        kind = node.kind()
        out = node.output().debugName() if node.outputsSize() == 1 else ""
        if _settled(node, values, current, constants):
            continue
        where = f"the operator {kind}"
        namespace, _, operator = kind.partition("::")
        rule = OPERATORS.get(operator.removesuffix("_"))
        if namespace != "aten" or rule is None:
            raise RecoveryError(f"{where} is no block of a dense network")
        unknown = [value for value in values if value not in constants]
        if unknown != [current]:
            raise RecoveryError(
                f"{where} joins or branches off: it does not take the value before it and constants alone"
            )
        at = values.index(current)
        try:
            steps += rule(steps, [constants[value] for value in values if value != current], at)
        except RecoveryError as error:
            raise RecoveryError(f"{where} {error}") from None
        except (ValueError, TypeError, IndexError, RuntimeError):
            raise RecoveryError(f"{where} has arguments that it should not have") from None
        flattens |= operator in ("flatten", "reshape", "view")
        current = out
    outputs = [value.debugName() for value in graph.outputs()]
    if outputs != [current]:
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
        inner = [(one, [value.debugName() for value in one.inputs()]) for one in taken.nodes()]
        if not all(_settled(one, inputs, current, constants) for one, inputs in inner):
            return False
        results = [value.debugName() for value in taken.outputs()]
        if any(result not in constants for result in results):
            return False
        constants |= {
            value.debugName(): constants[result] for value, result in zip(node.outputs(), results, strict=True)
        }
        return True
    answers: dict[str, Callable[[], object]] = {}
    if values[:1] == [current]:
        answers = {"aten::dim": lambda: 2, "aten::size": lambda: -1 if known == [0] else None}
    elif len(known) == len(values):
        answers = {
            "aten::ne": lambda: known[0] != known[1],
            "aten::eq": lambda: known[0] == known[1],
            "prim::ListConstruct": lambda: known,
        }
    answer = answers.get(kind, lambda: None)()
    if answer is None:
        return False
    constants[node.output().debugName()] = answer
    return True


def _network(
    steps: list[Step], name: str, input_name: str, output_name: str
) -> tuple[MLPSpec, dict[str, torch.Tensor]]:
    sizes = (step.tensors for step in steps)
    width = next(
        (
            tensors["weight"].shape[1] if step.kind == "linear" else max(t.numel() for t in tensors.values())
            for step, tensors in zip(steps, sizes, strict=True)
            if any(tensor.dim() for tensor in tensors.values())
        ),
        0,
    )
    if not any(step.kind == "linear" for step in steps) or not width:
        raise RecoveryError("no linear layer in it")
    try:
        spec = MLPSpec(
            name=name,
            input={"name": input_name, "features": width},
            blocks=[step.block for step in steps],
            output={"name": output_name},
        )
    except SpecError as error:
        raise RecoveryError(f"its blocks make no network: {error}") from None
    state = cast(dict[str, torch.Tensor], assemble(spec).state_dict())
    given = {f"{index}.{role}": value for index, step in enumerate(steps) for role, value in step.tensors.items()}
    weights: dict[str, torch.Tensor] = {}
    for key, default in state.items():
        value = given.get(key, default)
        if (value.dim() > 1 and value.shape != default.shape) or value.numel() not in (1, default.numel()):
            raise RecoveryError(f"block {key}: the file has {list(value.shape)}, and {list(default.shape)} is expected")
        weights[key] = value if value.shape == default.shape else value.reshape(-1).expand(default.shape).contiguous()
    return spec, weights


def _compare(script: torch.jit.ScriptModule, spec: MLPSpec, weights: dict[str, torch.Tensor]) -> str:
    """Hold the network against the file's own module, in float64, or in float32 where that runs in nothing else.

    Returns: what was found, in words. Raises RecoveryError: the outputs differ, or the file's module does not run.
    """
    module = assemble(spec).eval()
    module.load_state_dict(weights)
    rows = torch.randn(_ROWS, *spec.input.row_shape, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        try:
            single = script(rows)
        except Exception as error:  # the file's own code: it may raise anything
            reason = str(error).strip().rpartition("\n")[2]
            raise RecoveryError(f"the file's own module fails on rows of {rows.shape[1]} features: {reason}") from None
        try:
            theirs, tolerance, precision = script.double()(rows.double()), _DOUBLE, "float64"
        except RuntimeError:
            theirs, tolerance, precision = single, _SINGLE, "float32"
        ours = module.to(theirs.dtype)(rows.to(theirs.dtype)) if isinstance(theirs, torch.Tensor) else module(rows)
    if not isinstance(theirs, torch.Tensor) or theirs.shape != ours.shape:
        raise RecoveryError(
            f"the file's module gives {getattr(theirs, 'shape', type(theirs))}, the network {ours.shape}"
        )
    largest = float(theirs.abs().nan_to_num(0.0, 0.0).max())
    if not torch.allclose(theirs, ours, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        apart = (theirs - ours).abs().max().item()
        raise RecoveryError(f"the network differs from the file's own module by up to {apart:.3g} on {_ROWS} rows")
    return f"on {_ROWS} random rows the network gives what the file gives, in {precision} to within {tolerance:.0e}"


@contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript is deprecated, which the person who has such a file need not be told at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
