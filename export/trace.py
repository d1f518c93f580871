"""From a module in evaluation mode to a graph of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from .blocks import CALLS, IN_PLACE, MODULES, TABLE
from .calls import Calls, path_of, record
from .emitter import unique
from .errors import ExportError, UnsupportedError
from .graph import Graph, Node, Shape, Tensor
from .hooks import refuse_lost_hooks


def trace(module: nn.Module, input_shape: Shape | None, input_name: str, output_name: str) -> Graph:
    """The blocks that ``module(x)`` runs for one input x of shape (batch, *input_shape), in their order.

    ``input_shape`` None is inferred from the first block that has weights. The module must be in evaluation mode; it
    is read, never changed. Raises UnsupportedError: control flow that depends on data, or an operator without a row in
    the table. Raises ExportError: several inputs or outputs, hooks that the trace would lose, shapes that do not fit.
    """
    refuse_lost_hooks(module)
    return _Reader(module, record(module), input_name, output_name).read(input_shape)


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
    def __init__(self, module: nn.Module, calls: Calls, input_name: str, output_name: str):
        self.calls = calls
        self.input_name = input_name
        self.names = {id(tensor): name for name, tensor in reversed(list(_tensors(module)))}
        self.paths: set[str] = set()
        self.values = {input_name, output_name}
        self.held: dict[fx.Node, _Value] = {}
        self.nodes: list[Node] = []

    def read(self, input_shape: Shape | None) -> Graph:
        result = self._walk()
        graph = Graph(self.input_name, input_shape or self._inferred_shape(), tuple(self.nodes), result.name)
        return _with_shapes(graph)

    def _walk(self) -> _Value:
        for node in self.calls.graph.nodes:
            if node.op == "placeholder":
                self.held[node] = _Value(self.input_name)
            elif node.op == "call_module":
                self._call_module(node, str(node.target))
            elif node.op in ("call_function", "call_method"):
                self._call_function(node, ".".join(part for part in (_scope(node), node.name) if part))
            elif node.op == "output":
                return self._held(node.args[0], "forward's return")
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
        if node.target not in CALLS:
            raise UnsupportedError(_unsupported(f"{getattr(node.target, '__name__', node.target)}()", path))
        name = CALLS[node.target]
        arguments = TABLE[name].calls[node.target]
        given = {key: value for key, value in node.kwargs.items() if value is not None}
        surplus = [*node.args[len(arguments) :], *(key for key in given if key not in arguments)]
        if surplus:
            listed = ", ".join(map(str, surplus))
            raise ExportError(f"{name} at '{path}' is called with arguments that are not known here: {listed}")
        state = {**TABLE[name].options, **dict(zip(arguments, node.args, strict=False)), **given}
        inputs = [state.get(argument) for argument in arguments[: TABLE[name].inputs]]
        self._call(node, name, state, inputs, path, "")

    def _call(self, node: fx.Node, name: str, state: dict[str, Any], inputs: list[Any], path: str, own: str) -> None:
        values = [self._held(argument, f"{name} at '{path}'") for argument in inputs]
        if state.get("inplace") or node.target in IN_PLACE:
            self._refuse_hidden_views(node, values[0], path)
            result = self._block(name, state, values, path, own)
            values[0].name, self.held[node] = result.name, values[0]
        else:
            self.held[node] = self._block(name, state, values, path, own)

    def _held(self, argument: Any, place: str) -> _Value:
        if not isinstance(argument, fx.Node) or argument not in self.held:
            message = f"{place} takes {_described(argument)}; expected a tensor that depends on the input"
            raise ExportError(message)
        return self.held[argument]

    def _block(self, name: str, state: dict[str, Any], inputs: list[_Value], path: str, own: str) -> _Value:
        """A node of the graph; ``own`` is what the names of the module's own tensors begin with."""
        row = TABLE[name]
        path = unique(path or name, self.paths)
        options = {key: state[key] for key in row.options}
        computed = next((key for key, value in options.items() if isinstance(value, fx.Node | torch.Tensor)), None)
        if computed is not None:
            raise ExportError(f"{name} at '{path}': {computed} is a tensor; a number is expected")
        tensors = {role: self._tensor(state.get(role), f"{own}{role}") for role in row.tensors}
        given = {role: tensor for role, tensor in tensors.items() if tensor is not None}
        output = unique(f"{path}.output", self.values)
        names = tuple(value.name for value in inputs)
        self.nodes.append(Node(name, path, names, output, attributes=options, tensors=given))
        if row.inactive:  # the very same tensor comes back, so what is written to one is seen in the other
            inputs[0].name = output
            return inputs[0]
        return _Value(output, inputs[0].views if name == "flatten" else None)

    def _tensor(self, argument: Any, name: str) -> Tensor | None:
        if argument is None:
            return None
        if isinstance(argument, fx.Node):
            if argument.op != "get_attr":
                raise ExportError(f"{name} is {_described(argument)}; expected a parameter or a buffer of the module")
            name = path_of(str(argument.target))
            found: Any = self.calls.root
            for part in str(argument.target).split("."):
                found = getattr(found, part)
            argument = found
        if id(argument) in self.calls.changed:
            raise ExportError(
                f"the forward changes '{self.names.get(id(argument), name)}' in place; a file cannot do that"
            )
        # A tensor that two blocks share has one name, the first.
        return Tensor(self.names.get(id(argument), name), _array(argument, name))

    def _refuse_hidden_views(self, node: fx.Node, value: _Value, path: str) -> None:
        later = set(_after(node))
        for holder, held in self.held.items():
            if held is not value and held in value.views and later & set(holder.users):
                message = f"{path} overwrites a tensor in place while another view of it is still read"
                raise ExportError(f"{message}. What to do: use inplace=False")

    def _inferred_shape(self) -> Shape:
        reaching = {self.input_name}
        for node in self.nodes:
            if not reaching.intersection(node.inputs):
                continue
            row = TABLE[node.op]
            if row.width in node.tensors:
                return (node.tensors[row.width].values.shape[-1],)
            if node.op == "flatten":
                break
            reaching.add(node.output)
        message = "the number of input features cannot be seen from the module"
        raise ExportError(f"{message}. What to do: give input_shape=(features,) (--features), or a spec")


def _with_shapes(graph: Graph) -> Graph:
    shapes, nodes = {graph.input: graph.input_shape}, []
    for node in graph.nodes:
        row, given = TABLE[node.op], [shapes[name] for name in node.inputs]
        place = f"{node.op} at '{node.path}'"
        reason = row.refuse(node, given[0])
        if reason:
            raise ExportError(f"{place}: {reason}")
        if any(shape != given[0] for shape in given):
            listed = " and ".join(str(list(shape)) for shape in given)
            raise ExportError(f"{place}: rows of shapes {listed} cannot be combined; they must be equal")
        expected = node.tensors[row.width].values.shape[-1] if row.width in node.tensors else None
        if expected not in (None, given[0][-1]):
            message = f"expects {expected} features, but '{node.inputs[0]}' has rows of shape {list(given[0])}"
            raise ExportError(f"{place}: {message}")
        shapes[node.output] = row.shape(node, given[0])
        for role, tensor in node.tensors.items():
            width = (shapes[node.output] if node.op == "linear" else given[0])[-1]
            if tensor.values.ndim == 1 and len(tensor.values) != width:
                raise ExportError(
                    f"{place}: {tensor.name} has {len(tensor.values)} values for {width} features ({role})"
                )
        nodes.append(replace(node, shape=shapes[node.output]))
    return graph.with_nodes(nodes, [])


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _array(tensor: torch.Tensor, name: str) -> np.ndarray:
    """The values of a tensor, in its own memory where that can be."""
    if tensor.is_meta:
        raise ExportError(f"{name} is on the meta device and has no values; load weights first")
    if tensor.dtype != torch.float32 or tensor.layout != torch.strided or tensor.ndim == 0:
        found = f"{tensor.dtype}, {tensor.layout}, shape {list(tensor.shape)}"
        raise ExportError(f"{name} is {found}; a dense float32 tensor with a value per feature is expected")
    return tensor.detach().cpu().resolve_neg().numpy()


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] if isinstance(entry, tuple) else key for key, entry in stack.items()]
    return str(paths[-1]) if paths else ""


def _after(node: fx.Node) -> Iterator[fx.Node]:
    following = node.next
    while following.op != "root":
        yield following
        following = following.next


def _described(argument: Any) -> str:
    if isinstance(argument, fx.Node):
        return f"the constant '{path_of(str(argument.target))}'" if argument.op == "get_attr" else f"'{argument.name}'"
    return f"a {type(argument).__name__}" if isinstance(argument, list | tuple | dict) else repr(argument)


def _unsupported(what: str, path: str) -> str:
    known = ", ".join(TABLE)
    hint = "use a known block, or let torch.onnx write it unproved (fallback=True, --fallback)"
    return f"no block for {what} at '{path}'; the blocks are: {known}. What to do: {hint}"
