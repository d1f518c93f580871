"""From a module in evaluation mode to a graph of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from .arithmetic import OF_TWO, SYMBOLS, WITH_CONSTANT
from .blocks import CALLS, CLAMPS, COPIES, IN_PLACE, MODULES, TABLE
from .calls import Calls, record
from .emitter import unique
from .errors import ExportError, UnsupportedError
from .graph import Graph, Node, Shape, Tensor
from .hooks import refuse_lost_hooks
from .known import Known, described
from .naming import input_names, is_record, output_names
from .reshapes import RESHAPES, reshaped
from .shaping import input_shapes, with_shapes


def trace(
    module: nn.Module,
    input_shape: Shape | Mapping[str, Shape] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Graph:
    """The blocks that ``module(x)`` runs for inputs of shape (batch, *shape), in their order.

    ``inputs`` and ``outputs`` name them; without, the only one is "input" or "output", several have the names of the
    forward's parameters and of what it returns. ``input_shape`` is the shape of a row, by the input's name where there
    are several; what is left out is inferred from the weights. The module must be in evaluation mode; it is read, never
    changed. Raises UnsupportedError: control flow that depends on data, or an operator without a row in the table.
    Raises ExportError: hooks that the trace would lose, shapes that do not fit, names that do not.
    """
    refuse_lost_hooks(module)
    calls = record(module)
    reader = _Reader(module, calls, input_names(calls.inputs, inputs), outputs)
    returned = reader.walk()
    both = next((name for name in returned if name in reader.inputs), None)
    if both is not None:
        raise ExportError(f"input and output need different names, not both '{both}' (--input-name, --output-name)")
    shapes = input_shapes(reader.nodes, _given(input_shape, reader.inputs))
    return with_shapes(Graph(shapes, tuple(reader.nodes), returned))


def _given(shape: Shape | Mapping[str, Shape] | None, inputs: Sequence[str]) -> dict[str, Shape | None]:
    if not isinstance(shape, Mapping):
        if shape is not None and len(inputs) > 1:
            message = f"one shape is given, and the module takes {len(inputs)} inputs: {', '.join(inputs)}"
            raise ExportError(
                f"{message}. What to do: give the shapes by name, input_shape={{'{inputs[0]}': (4,), ...}}"
            )
        return dict.fromkeys(inputs, shape)
    unknown = next((name for name in shape if name not in inputs), None)
    if unknown is not None:
        raise ExportError(f"a shape is given for '{unknown}'; the module's inputs are: {', '.join(inputs)}")
    return {name: shape.get(name) for name in inputs}


class _Value:
    """A tensor in memory while the graph is read.

    Dropout and Identity give their input itself and Flatten a view of it, so an operation in place is seen by all who
    hold it: ``name`` then changes for every holder. ``views`` are all the values of one memory, in whatever shape.
    """

    def __init__(self, name: str, views: list[_Value] | None = None):
        self.name = name
        self.views = [] if views is None else views
        self.views.append(self)


class _Reader:
    def __init__(self, module: nn.Module, calls: Calls, inputs: tuple[str, ...], outputs: Sequence[str]):
        self.calls = calls
        self.inputs, self.outputs = inputs, outputs
        self.known = Known(module, calls)
        self.paths: set[str] = set()
        self.values = {*inputs, *(outputs or ("output",))}
        self.held: dict[fx.Node, _Value] = {}
        self.nodes: list[Node] = []

    def walk(self) -> dict[str, str]:
        """Read every call; the values of the outputs by name."""
        names = iter(self.inputs)
        for node in self.calls.graph.nodes:
            if node.op == "placeholder":
                self.held[node] = _Value(next(names))
            elif node.op == "call_module":
                self._call_module(node, str(node.target))
            elif node.op == "output":
                returned = output_names(node.args[0], self.outputs)
                return {name: self._held(value, "forward's return").name for name, value in returned.items()}
            elif not is_record(node) and not self.known.take(node):
                self._call_function(node, ".".join(part for part in (_scope(node), node.name) if part))
        raise ExportError("forward returns nothing")

    def _call_module(self, node: fx.Node, path: str) -> None:
        kind = type(self.calls.modules[node])
        if kind not in MODULES:
            raise UnsupportedError(_unsupported(kind.__name__, path))
        name = MODULES[kind]
        if node.kwargs or len(node.args) != TABLE[name].inputs:
            raise ExportError(f"{path}: {kind.__name__} is called with other arguments than its input")
        self._call(node, name, self.calls.states[node], list(node.args), path, f"{path}." if path else "")

    def _call_function(self, node: fx.Node, path: str) -> None:
        if node.target in SYMBOLS:
            return self._arithmetic(node, path)
        if node.target == "to" and all(map(_keeps_values, (*node.args[1:], *node.kwargs.values()))):
            return self._call(node, "identity", {}, [node.args[0]], path, "")
        if node.target in RESHAPES:
            return self._call(node, "flatten", *reshaped(node, self.known, path), path, "")
        if node.target is torch.addmm and len(node.args) == 3 and not node.kwargs:
            bias, x, matrix = node.args
            state = {"weight": self.known.transposed(matrix, path), "bias": bias}
            return self._call(node, "linear", state, [x], path, "")
        if node.target not in CALLS:
            raise UnsupportedError(_unsupported(f"{getattr(node.target, '__name__', node.target)}()", path))
        name = CALLS[node.target]
        arguments = TABLE[name].calls[node.target]
        given = {key: value for key, value in node.kwargs.items() if value is not None}
        defaults = dict(TABLE[name].options)
        if node.target in CLAMPS:
            given = {f"{key}_val" if key in ("min", "max") else key: value for key, value in given.items()}
            defaults = {"min_val": -torch.inf, "max_val": torch.inf}
        surplus = [*node.args[len(arguments) :], *(key for key in given if key not in arguments)]
        if surplus:
            listed = ", ".join(map(str, surplus))
            raise ExportError(f"{name} at '{path}' is called with arguments that are not known here: {listed}")
        positional = {key: value for key, value in zip(arguments, node.args, strict=False) if value is not None}
        state = {**defaults, **positional, **given}
        inputs = [state.get(argument) for argument in arguments[: TABLE[name].inputs]]
        self._call(node, name, state, inputs, path, "")

    def _arithmetic(self, node: fx.Node, path: str) -> None:
        symbol = SYMBOLS[node.target]
        given = dict(node.kwargs)
        operands = [*node.args, *(given.pop(key) for key in ("input", "other") if key in given)]
        if given.pop("alpha", 1) != 1 or given:
            raise ExportError(f"'{path}' is called with {', '.join(node.kwargs)}; plain {symbol} is expected")
        if len(operands) != (1 if symbol == "negative" else 2):
            raise ExportError(f"'{path}' is called with {len(operands)} arguments; {symbol} takes another number")
        values = [self.held.get(operand) if isinstance(operand, fx.Node) else None for operand in operands]
        if symbol == "negative":
            return self._call(node, "scale", {"factor": -1.0}, operands, path, "")
        left, right = operands
        if all(values) and symbol in OF_TWO:
            return self._call(node, OF_TWO[symbol], {}, operands, path, "")
        if values[0] is not None and values[1] is None and symbol == "@":
            return self._call(node, "linear", {"weight": self.known.transposed(right, path)}, [left], path, "")
        if values[0] is None and values[1] is not None:
            if symbol == "-":
                state = {"factor": -1.0, "offset": self.known.per_feature(left, path)}
                return self._call(node, "scale", state, [right], path, "")
            if symbol in ("+", "*"):
                left, right, values = right, left, values[::-1]
        if values[0] is None or values[1] is not None or symbol not in WITH_CONSTANT:
            words = f"{described(operands[0])} {symbol} {described(operands[1])}"
            raise UnsupportedError(_unsupported(words, path))
        block, role = WITH_CONSTANT[symbol]
        self._call(node, block, {role: self.known.per_feature(right, path)}, [left], path, "")

    def _call(self, node: fx.Node, name: str, state: Mapping[str, Any], inputs: list[Any], path: str, own: str) -> None:
        arguments = [
            each for argument in inputs for each in (argument if isinstance(argument, list | tuple) else [argument])
        ]
        values = [self._held(argument, f"{name} at '{path}'") for argument in arguments]
        if state.get("inplace") or node.target in IN_PLACE:
            self._refuse_hidden_views(node, values[0], path)
            result = self._block(name, state, values, path, own)
            values[0].name, self.held[node] = result.name, values[0]
        elif node.target in COPIES:
            self.held[node] = _Value(self._block(name, state, [_Value(values[0].name)], path, own).name)
        else:
            self.held[node] = self._block(name, state, values, path, own)

    def _held(self, argument: Any, place: str) -> _Value:
        if not isinstance(argument, fx.Node) or argument not in self.held:
            message = f"{place} takes {described(argument)}; expected a tensor that depends on the input"
            raise ExportError(message)
        return self.held[argument]

    def _block(self, name: str, state: Mapping[str, Any], inputs: list[_Value], path: str, own: str) -> _Value:
        """A node of the graph; ``own`` is what the names of the module's own tensors begin with."""
        row = TABLE[name]
        path = unique(path or name, self.paths)
        options = {key: state[key] for key in row.options}
        computed = next((key for key, value in options.items() if isinstance(value, fx.Node | torch.Tensor)), None)
        if computed is not None:
            raise ExportError(f"{name} at '{path}': {computed} is a tensor; a number is expected")
        tensors: dict[str, Tensor] = {}
        for role in row.tensors:
            held = state.get(role)
            if isinstance(held, float):
                options[role] = held
            elif held is not None:
                tensors[role] = (
                    held if isinstance(held, Tensor) else self.known.tensor(held, f"{own or f'{path}.'}{role}")
                )
        output = unique(f"{path}.output", self.values)
        names = tuple(value.name for value in inputs)
        self.nodes.append(Node(name, path, names, output, attributes=options, tensors=tensors))
        if row.inactive:  # the very same tensor comes back, so what is written to one is seen in the other
            inputs[0].name = output
            return inputs[0]
        return _Value(output, inputs[0].views if name == "flatten" else None)

    def _refuse_hidden_views(self, node: fx.Node, value: _Value, path: str) -> None:
        later = set(_after(node))
        for holder, held in self.held.items():
            if held is not value and held in value.views and later & set(holder.users):
                message = f"{path} overwrites a tensor in place while another view of it is still read"
                raise ExportError(f"{message}. What to do: use inplace=False")


def _keeps_values(argument: Any) -> bool:
    """An argument of ``x.to(...)`` that leaves a float32 value as it is: a device, float32, or an option."""
    return isinstance(argument, str | torch.device | bool) or argument is torch.float32


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] if isinstance(entry, tuple) else key for key, entry in stack.items()]
    return str(paths[-1]) if paths else ""


def _after(node: fx.Node) -> Iterator[fx.Node]:
    following = node.next
    while following.op != "root":
        yield following
        following = following.next


def _unsupported(what: str, path: str) -> str:
    known = ", ".join(TABLE)
    hint = "use a known block, or let torch.onnx write it unproved (fallback=True, --fallback)"
    return f"no block for {what} at '{path}'; the blocks are: {known}. What to do: {hint}"
