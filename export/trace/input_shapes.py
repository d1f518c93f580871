"""The shapes and types of the inputs: given, or found by trying the widths of the module's own weights."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, islice, product
from typing import Any

from torch import nn

from export.errors import ExportError
from export.evaluation import threads_for
from export.graph import Input, Row

from .isolation import fresh, isolated
from .signature import Signature

Shapes = Mapping[str, Row | None]
_ROWS = 3
_MOST = 400
"""Combinations of widths that are tried where there are several inputs."""
_HINT = "input_shape={{'{0}': (4,), ...}}"


def with_inputs(module: nn.Module, signature: Signature, shape: Any = None, dtype: Any = None) -> Signature:
    """The signature with the shape and the type of every input: as given, as in its example, or found.

    ``shape`` is that of a row, by the input's name where there are several; ``dtype`` is "float32" or "int64", in the
    same way. Raises ExportError: nothing fits, or several shapes do.
    """
    names = list(signature.inputs)
    shapes = {n: None if s is None else _row(s) for n, s in _by_name(shape, names, "shape", _HINT).items()}
    types = _by_name(dtype, names, "type", "input_dtype={{'{0}': 'int64', ...}}")
    wrong = next((kind for kind in types.values() if kind not in (None, "float32", "int64")), None)
    if wrong is not None:
        raise ExportError(f"input_dtype is 'float32' or 'int64', not {wrong!r}")
    if signature.example is not None:
        return _as_example(signature, shapes, types)
    if all(shapes[name] is not None and types[name] is not None for name in names):  # the trace says what is wrong
        return signature.of({name: Input(shapes[name] or (), str(types[name])) for name in names})
    open_ = [name for name in names if shapes[name] is None]
    failure: Exception | None = None
    fitting: list[dict[str, Input]] = []
    for tried in _tries(module, names, shapes, types):
        reason = _fails(module, signature.of(tried))
        failure = failure or reason
        if reason is None:
            fitting.append(tried)
        if reason is None and len(open_) > 1:
            fitting += _neighbours(module, signature, tried, open_)
        if fitting and (not open_ or len(fitting) > 1):
            break
    if not fitting:
        raise _nothing_fits(module, signature, shapes, open_, failure)
    if len(fitting) > 1:
        listed = " or ".join(_listed(each, open_) for each in fitting[:2])
        raise ExportError(f"{_unseen(names, open_[0])}: {listed} would do. What to do: give {_how(names, open_[0])}")
    return signature.of(fitting[0])


def _tries(
    module: nn.Module, names: Sequence[str], shapes: Shapes, types: Mapping[str, str | None]
) -> Iterator[dict[str, Input]]:
    """What the inputs may be, the likeliest first; whole numbers only where a type or a shape is given."""
    widths = _widths(module, several=len(names) > 1)
    rows = [[shapes[name]] if shapes[name] is not None else [(width,) for width in widths] for name in names]
    open_types = [name for name in names if types[name] is None and shapes[name] is not None]
    for whole in islice(_subsets(open_types), 64):
        kinds = {name: types[name] or ("int64" if name in whole else "float32") for name in names}
        for chosen in islice(product(*rows), _MOST):
            yield {name: Input(given or (), kinds[name]) for name, given in zip(names, chosen, strict=True)}


def _widths(module: nn.Module, *, several: bool) -> list[int]:
    """The widths that weights show, in their order: of a matrix the last first, since it may stand either way.

    With several inputs the differences too, since inputs are joined. 1 comes last.
    """
    tensors = [t for t in chain(module.parameters(), module.buffers()) if t.ndim]
    found = [t.shape[-1] for t in tensors] + [t.shape[0] for t in tensors if t.ndim == 2]
    held = list(dict.fromkeys(found))
    if several:
        held += [a - b for a in held for b in held if a > b]
    return sorted(dict.fromkeys(held), key=lambda width: width == 1)


def _neighbours(
    module: nn.Module, signature: Signature, tried: dict[str, Input], open_: Sequence[str]
) -> list[dict[str, Input]]:
    """Other widths that would do as well: one input wider by as much as another is narrower."""
    for wider in open_:
        for narrower in open_:
            width = tried[narrower].row[0]
            if wider == narrower or width == 1:
                continue
            other = {**tried, wider: Input((tried[wider].row[0] + 1,)), narrower: Input((width - 1,))}
            if _fails(module, signature.of(other)) is None:
                return [other]
    return []


def _fails(module: nn.Module, signature: Signature) -> Exception | None:
    try:
        with isolated(), threads_for(sum(parameter.numel() for parameter in module.parameters())):
            signature.call(fresh(module), signature.rows(_ROWS))
    except Exception as error:  # the caller's code may raise anything
        return error
    return None


def _nothing_fits(
    module: nn.Module, signature: Signature, shapes: Shapes, open_: list[str], failure: Any
) -> ExportError:
    names = list(signature.inputs)
    first_line = str(failure).strip().partition("\n")[0]
    said = f"{type(failure).__name__}: {first_line}"
    if open_:
        cause = "" if failure is None else f" ({said})"
        return ExportError(f"{_unseen(names, open_[0])}{cause}. What to do: give {_how(names, open_[0])}")
    listed = ", ".join(f"'{name}' {list(shapes[name] or ())}" for name in names)
    message = f"the forward of {type(module).__name__} does not run on rows of {listed}: {said}"
    return ExportError(f"{message}. What to do: give the shape of a row, input_shape=(...), or example=")


def _unseen(names: Sequence[str], name: str) -> str:
    what = f"the number of features of the input '{name}'" if len(names) > 1 else "the number of input features"
    return f"{what} cannot be seen from the module"


def _how(names: Sequence[str], name: str) -> str:
    if len(names) > 1:
        return f"input_shape={{'{name}': (features,)}} (--features {name}=N)"
    return "input_shape=(features,) (--features), a spec, or example="


def _listed(tried: Mapping[str, Input], open_: Sequence[str]) -> str:
    return ", ".join(f"{name} {tried[name].row[0]}" if len(tried) > 1 else str(tried[name].row[0]) for name in open_)


def _as_example(signature: Signature, shapes: Shapes, types: Mapping[str, str | None]) -> Signature:
    for name, given in signature.inputs.items():
        if shapes[name] not in (None, given.row):
            raise ExportError(f"the example of '{name}' has rows of {list(given.row)}, not {list(shapes[name] or ())}")
        if types[name] not in (None, given.dtype):
            raise ExportError(f"the example of '{name}' is {given.dtype}, not {types[name]}")
    return signature


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
    """What is given for the inputs: one thing for the only input, or a mapping by name. Raises ExportError."""
    if not isinstance(given, Mapping):
        if given is not None and len(inputs) > 1:
            message = f"one {what} is given, and the module takes {len(inputs)} inputs: {', '.join(inputs)}"
            raise ExportError(f"{message}. What to do: give the {what}s by name, {hint.format(inputs[0])}")
        return dict.fromkeys(inputs, given)
    unknown = next((name for name in given if name not in inputs), None)
    if unknown is not None:
        raise ExportError(f"a {what} is given for '{unknown}'; the module's inputs are: {', '.join(inputs)}")
    return {name: given.get(name) for name in inputs}


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """None of them first, then one, and so on."""
    return chain.from_iterable(combinations(names, count) for count in range(len(names) + 1))
