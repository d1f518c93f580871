"""Tracing: a module runs on real rows at two batch sizes, and the records of the two runs become one graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from torch import nn

from export.errors import ExportError, UnsupportedError
from export.evaluation import threads_for
from export.graph import Graph

from .index_limits import index_limits
from .input_shapes import resolve_inputs
from .isolation import fresh, isolated
from .merging import SIZES, merged
from .recorder import Record, Recorder
from .refusals import format_refusals
from .row_dependence import rows_depend
from .signature import Example, Signature, checked_names, from_example, from_parameters, named_outputs

_SMALL = 2**22
"""Elements of parameters up to which they are compared before and after a run."""


def signature_of(
    module: nn.Module,
    *,
    example: Example | None = None,
    input_shape: Any = None,
    input_dtype: Any = None,
    input_name: Sequence[str] = (),
    method: str = "forward",
) -> Signature:
    """How ``module`` is called, with the shape and the type of every input; see ``export``. Raises ExportError."""
    if not isinstance(input_name, tuple | list):
        input_name = (str(input_name),)
    signature = from_parameters(module, method) if example is None else from_example(module, example, method)
    return resolve_inputs(module, signature.named(input_name), input_shape, input_dtype)


def named_inputs(
    module: nn.Module, input_name: str | Sequence[str], example: Example | None, method: str
) -> tuple[str, ...]:
    """The names of the inputs in the file: those that are given, else the module's own. Raises ExportError."""
    signature = from_parameters(module, method) if example is None else from_example(module, example, method)
    names = (input_name,) if isinstance(input_name, str) else tuple(input_name)
    return tuple(signature.named(names).inputs)


def trace(module: nn.Module, signature: Signature, outputs: Sequence[str] = (), *, computing: bool = True) -> Graph:
    """The operators that the module runs, in order of execution; ``outputs`` names what it returns.

    Where only the operators matter and not their values, ``computing=False`` skips the products with matrices.

    The module must be in evaluation mode; it is run, and must not change itself. Raises UnsupportedError: control flow
    that depends on data, randomness, changed buffers, operators that a file does not have, all of them at once. Raises
    ExportError: whatever the forward raises, and results that cannot be outputs.
    """
    with threads_for(sum(parameter.numel() for parameter in module.parameters())):
        runs = [_run(module, signature, size, computing) for size in SIZES]
        if len({tuple(values) for _, values in runs}) > 1:
            raise ExportError("the forward returns other outputs for another number of rows")
        first, second = ((record, _output_values(values, outputs, signature)) for record, values in runs)
        return rows_depend(index_limits(merged(first, second, signature.inputs)))


def _run(module: nn.Module, signature: Signature, size: int, computing: bool) -> tuple[Record, dict[str, str | None]]:
    """The record of one run on ``size`` rows, and the graph's values of its outputs by name; None for a constant."""
    rows = signature.rows(size, seed=size)
    module, before = fresh(module), _copies(module)
    recorder = Recorder(module, rows, computing)
    try:
        with isolated():
            with recorder:
                returned = signature.call(module, rows)
            values = {name: recorder.value_of(tensor) for name, tensor in named_outputs(returned).items()}
    except ExportError:
        raise
    except Exception as error:  # the forward is the caller's code: it may raise anything
        _refuse(recorder.record)
        shapes = ", ".join(f"{list(port.row)}" for port in signature.inputs.values())
        message = f"the forward of {type(module).__name__} cannot be traced on rows of {shapes}"
        raise ExportError(f"{message}: {type(error).__name__}: {error}{_user_line(error)}") from error
    _refuse(recorder.record)
    changed = next((name for name, (tensor, copy) in before.items() if not _equal(tensor, copy)), None)
    if changed is not None:
        raise UnsupportedError(f"the forward changes '{changed}' in place; a file cannot do that")
    return recorder.record, values


def _refuse(record: Record) -> None:
    """Raise UnsupportedError for what is refused whether or not an output reads it."""
    if record.refusals:
        of_nodes = [node.refusal for node in record.nodes if node.refusal is not None]
        raise UnsupportedError(format_refusals([*record.refusals, *of_nodes]))


def _output_values(values: Mapping[str, str | None], names: Sequence[str], signature: Signature) -> dict[str, str]:
    """The outputs' values by their names, which are ``names`` where those are given. Raises ExportError."""
    names = checked_names(tuple(values), names, "output")
    constant = next((name for name, value in values.items() if value is None), None)
    if constant is not None:
        message = f"the output '{constant}' does not depend on the input"
        raise ExportError(f"{message}. What to do: leave it out of what the forward returns, it is a constant")
    shared = next((name for name in names if name in signature.inputs), None)
    if shared is not None:
        raise ExportError(f"input and output need different names, not both '{shared}' (--input-name, --output-name)")
    return dict(zip(names, (str(value) for value in values.values()), strict=True))


def _copies(module: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The tensors that a forward could change, and copies; writes to large ones are seen by the recorder alone."""
    named = list(chain(module.named_parameters(), module.named_buffers()))
    tensors = {name: tensor for name, tensor in named if tensor.layout == torch.strided}
    if sum(tensor.numel() for tensor in tensors.values()) > _SMALL:
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel() < 2**12}
    return {name: (tensor, tensor.detach().clone()) for name, tensor in tensors.items()}


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all elements are equal, NaN with NaN."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _user_line(error: BaseException) -> str:
    """The innermost line outside torch and this package that an error passed through."""
    text, this_folder = "", str(Path(__file__).parent)
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if "/torch/" not in file.replace("\\", "/") and not file.startswith(this_folder):
            text = f", at line {line} of {frame.f_code.co_qualname}"
    return text
