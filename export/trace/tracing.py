"""From a module to a graph: it runs on real rows at two batch sizes, and the two records become one."""

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
from .input_shapes import with_inputs
from .isolation import fresh, isolated
from .merging import SIZES, merged
from .recorder import Record, Recorder
from .refusals import told
from .row_dependence import rows_depend
from .signature import Example, Signature, by_example, checked, outputs_of, plain

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
    given = plain(module, method) if example is None else by_example(module, example, method)
    return with_inputs(module, given.named(input_name), input_shape, input_dtype)


def trace(module: nn.Module, signature: Signature, outputs: Sequence[str] = (), *, computing: bool = True) -> Graph:
    """The operators that the module runs, in their order; ``outputs`` names what it returns.

    Where only the operators count, ``computing=False`` spares the products with matrices.

    The module must be in evaluation mode; it is run, and must not change itself. Raises UnsupportedError: control flow
    that depends on data, randomness, changed buffers, operators that no file has, all of them at once. Raises
    ExportError: whatever the forward raises, and results that are no outputs.
    """
    with threads_for(sum(parameter.numel() for parameter in module.parameters())):
        (first, values), (second, again) = (_run(module, signature, n, computing) for n in SIZES)
        if list(values) != list(again):
            raise ExportError("the forward returns other outputs for another number of rows")
        names, names_again = (_named(each, outputs, signature) for each in (values, again))
        return rows_depend(index_limits(merged(first, second, signature.inputs, names, names_again)))


def _run(module: nn.Module, signature: Signature, size: int, computing: bool) -> tuple[Record, dict[str, str | None]]:
    """What one run calls, and the values of its outputs by name."""
    rows = signature.rows(size, seed=size)
    module, held = fresh(module), _held(module)
    recorder = Recorder(module, rows, computing)
    try:
        with isolated():
            with recorder:
                returned = signature.call(module, rows)
            values = {name: recorder.value_of(tensor) for name, tensor in outputs_of(returned).items()}
    except ExportError:
        raise
    except Exception as error:  # the forward is the caller's code: it may raise anything
        _refuse(recorder.record)
        shapes = ", ".join(f"{list(given.row)}" for given in signature.inputs.values())
        message = f"the forward of {type(module).__name__} cannot be traced on rows of {shapes}"
        raise ExportError(f"{message}: {type(error).__name__}: {error}{_where(error)}") from error
    _refuse(recorder.record)
    changed = next((name for name, (now, before) in held.items() if not _equal(now, before)), None)
    if changed is not None:
        raise UnsupportedError(f"the forward changes '{changed}' in place; a file cannot do that")
    return recorder.record, values


def _refuse(record: Record) -> None:
    """Raise UnsupportedError for what is refused whether or not an output reads it."""
    if record.refusals:
        kept = [node.refusal for node in record.nodes if node.refusal is not None]
        raise UnsupportedError(told([*record.refusals, *kept]))


def _named(values: Mapping[str, str | None], asked: Sequence[str], signature: Signature) -> dict[str, str]:
    names = checked(tuple(values), asked, "output")
    constant = next((name for name, value in values.items() if value is None), None)
    if constant is not None:
        message = f"the output '{constant}' does not depend on the input"
        raise ExportError(f"{message}. What to do: leave it out of what the forward returns, it is a constant")
    both = next((name for name in names if name in signature.inputs), None)
    if both is not None:
        raise ExportError(f"input and output need different names, not both '{both}' (--input-name, --output-name)")
    return dict(zip(names, (str(value) for value in values.values()), strict=True))


def _held(module: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What a forward could change, and copies; of large ones the recorder sees the writes."""
    named = list(chain(module.named_parameters(), module.named_buffers()))
    tensors = {name: tensor for name, tensor in named if tensor.layout == torch.strided}
    if sum(tensor.numel() for tensor in tensors.values()) > _SMALL:
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel() < 2**12}
    return {name: (tensor, tensor.detach().clone()) for name, tensor in tensors.items()}


def _equal(now: torch.Tensor, before: torch.Tensor) -> bool:
    return torch.equal(now, before) or bool(((now == before) | ((now != now) & (before != before))).all())


def _where(error: BaseException) -> str:
    """The last line outside torch and this package that an error passed through."""
    where, ours = "", str(Path(__file__).parent)
    for frame, line in walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if "/torch/" not in name.replace("\\", "/") and not name.startswith(ours):
            where = f", at line {line} of {frame.f_code.co_qualname}"
    return where
