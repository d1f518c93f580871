"""The shapes and types of the inputs: as given, or found by trying the widths of the module's own weights."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, islice, permutations, product
from typing import Any

from torch import nn

from builder.values import is_mapping
from export.errors import ExportError
from export.evaluation import threads_for
from export.graph import Input, Row

from .isolation import fresh, isolated
from .signature import Signature

Shapes = Mapping[str, Row | None]
Types = Mapping[str, str | None]
_ROWS = 3
_MOST_SHAPES = 400
"""Combinations of widths that are tried where there are several inputs."""
_MOST_TYPES = 64
_SHAPE_HINT = "input_shape={{'{0}': (4,), ...}}"
_TYPE_HINT = "input_dtype={{'{0}': 'int64', ...}}"


def resolve_inputs(module: nn.Module, signature: Signature, shape: Any = None, dtype: Any = None) -> Signature:
    """The signature with the shape and the type of every input: as given, as in its example, or found.

    ``shape`` is that of a row, by the input's name where there are several; ``dtype`` is "float32" or "int64", in the
    same way. Raises ExportError: nothing fits, or several shapes do.
    """
    names = list(signature.inputs)
    shapes = {n: None if s is None else _row(s) for n, s in _by_name(shape, names, "shape", _SHAPE_HINT).items()}
    types = _by_name(dtype, names, "type", _TYPE_HINT)
    invalid = next((dtype for dtype in types.values() if dtype not in (None, "float32", "int64")), None)
    if invalid is not None:
        raise ExportError(f"input_dtype is 'float32' or 'int64', not {invalid!r}")
    if signature.example is not None:
        _check_example(signature, shapes, types)
        return signature
    if all(shapes[name] is not None and types[name] is not None for name in names):  # the trace says what is wrong
        return signature.with_inputs({name: Input(shapes[name] or (), str(types[name])) for name in names})
    unknown = [name for name in names if shapes[name] is None]
    failure: Exception | None = None
    fitting: list[dict[str, Input]] = []
    for candidate in _candidates(module, names, shapes, types):
        error = _error(module, signature.with_inputs(candidate))
        failure = failure or error
        if error is None:
            fitting.append(candidate)
        if error is None and len(unknown) > 1:
            fitting += _alternative(module, signature, candidate, unknown)
        if fitting and (not unknown or len(fitting) > 1):
            break
    if not fitting:
        raise _nothing_fits(module, signature, shapes, unknown, failure)
    if len(fitting) > 1:
        widths = " or ".join(_format_widths(inputs, unknown) for inputs in fitting[:2])
        raise ExportError(f"{_unknown_width(names, unknown[0])}: {widths} would do. {_hint(names, unknown[0])}")
    return signature.with_inputs(fitting[0])


def _candidates(module: nn.Module, names: Sequence[str], shapes: Shapes, types: Types) -> Iterator[dict[str, Input]]:
    """What the inputs may be, the likeliest first; whole numbers only where a type or a shape is given."""
    widths = _widths(module, several=len(names) > 1)
    rows = [[shapes[name]] if shapes[name] is not None else [(width,) for width in widths] for name in names]
    open_types = [name for name in names if types[name] is None and shapes[name] is not None]
    subsets = chain.from_iterable(combinations(open_types, count) for count in range(len(open_types) + 1))
    for whole_numbers in islice(subsets, _MOST_TYPES):
        dtypes = {name: types[name] or ("int64" if name in whole_numbers else "float32") for name in names}
        for chosen in islice(product(*rows), _MOST_SHAPES):
            yield {name: Input(row or (), dtypes[name]) for name, row in zip(names, chosen, strict=True)}


def _widths(module: nn.Module, *, several: bool) -> list[int]:
    """The widths of the weights, in their order: last dimensions, then first ones of matrices, which may be transposed.

    With several inputs the differences too, since inputs may be concatenated. 1 comes last.
    """
    tensors = [t for t in chain(module.parameters(), module.buffers()) if t.ndim]
    widths = [t.shape[-1] for t in tensors] + [t.shape[0] for t in tensors if t.ndim == 2]
    widths = list(dict.fromkeys(widths))
    if several:
        widths += [a - b for a in widths for b in widths if a > b]
    return sorted(dict.fromkeys(widths), key=lambda width: width == 1)


def _alternative(
    module: nn.Module, signature: Signature, inputs: dict[str, Input], unknown: Sequence[str]
) -> list[dict[str, Input]]:
    """Other widths that would do as well, if any: one input wider by one, and another one narrower."""
    for wider, narrower in permutations(unknown, 2):
        width = inputs[narrower].row[0]
        if width == 1:
            continue
        other = {**inputs, wider: Input((inputs[wider].row[0] + 1,)), narrower: Input((width - 1,))}
        if _error(module, signature.with_inputs(other)) is None:
            return [other]
    return []


def _error(module: nn.Module, signature: Signature) -> Exception | None:
    """What the module raises when it is called on random rows."""
    try:
        with isolated(), threads_for(sum(parameter.numel() for parameter in module.parameters())):
            signature.call(fresh(module), signature.rows(_ROWS))
    except Exception as error:  # the caller's code may raise anything
        return error
    return None


def _nothing_fits(
    module: nn.Module, signature: Signature, shapes: Shapes, unknown: list[str], failure: Exception | None
) -> ExportError:
    names = list(signature.inputs)
    first_line = str(failure).strip().partition("\n")[0]
    reason = f"{type(failure).__name__}: {first_line}"
    if unknown:
        cause = "" if failure is None else f" ({reason})"
        return ExportError(f"{_unknown_width(names, unknown[0])}{cause}. {_hint(names, unknown[0])}")
    listed = ", ".join(f"'{name}' {list(shapes[name] or ())}" for name in names)
    message = f"the forward of {type(module).__name__} does not run on rows of {listed}: {reason}"
    return ExportError(f"{message}. What to do: give the shape of a row, input_shape=(...), or example=")


def _unknown_width(names: Sequence[str], name: str) -> str:
    what = f"the number of features of the input '{name}'" if len(names) > 1 else "the number of input features"
    return f"{what} cannot be seen from the module"


def _hint(names: Sequence[str], name: str) -> str:
    if len(names) > 1:
        return f"What to do: give input_shape={{'{name}': (features,)}} (--features {name}=N)"
    return "What to do: give input_shape=(features,) (--features), a spec, or example="


def _format_widths(inputs: Mapping[str, Input], unknown: Sequence[str]) -> str:
    return ", ".join(f"{n} {inputs[n].row[0]}" if len(inputs) > 1 else str(inputs[n].row[0]) for n in unknown)


def _check_example(signature: Signature, shapes: Shapes, types: Types) -> None:
    """Raise ExportError where a shape or a type is given that is not the example's."""
    for name, port in signature.inputs.items():
        if shapes[name] not in (None, port.row):
            raise ExportError(f"the example of '{name}' has rows of {list(port.row)}, not {list(shapes[name] or ())}")
        if types[name] not in (None, port.dtype):
            raise ExportError(f"the example of '{name}' is {port.dtype}, not {types[name]}")


def _row(shape: Any) -> Row:
    """The shape of a row that a caller gives. Raises ExportError."""
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = None
    if sizes is None or any(size < 1 for size in sizes):
        raise ExportError(f"input_shape is the shape of a row, such as (64,), not {shape!r}")
    return sizes


def _by_name(given: Any, inputs: Sequence[str], what: str, hint: str) -> dict[str, Any]:
    """What is given for the inputs: one value for the only input, or a mapping by name. Raises ExportError."""
    if not is_mapping(given):
        if given is not None and len(inputs) > 1:
            message = f"one {what} is given, and the module takes {len(inputs)} inputs: {', '.join(inputs)}"
            raise ExportError(f"{message}. What to do: give the {what}s by name, {hint.format(inputs[0])}")
        return dict.fromkeys(inputs, given)
    unknown = next((name for name in given if name not in inputs), None)
    if unknown is not None:
        raise ExportError(f"a {what} is given for '{unknown}'; the module's inputs are: {', '.join(inputs)}")
    return {name: given.get(name) for name in inputs}
