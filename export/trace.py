"""From a module in evaluation mode to a graph of blocks, with torch.fx."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from .blocks import CALLS, IN_PLACE, MODULES, TABLE, Row
from .emitter import unique
from .errors import ExportError
from .graph import Graph, Node, Shape, Tensor
from .hooks import refuse_lost_hooks


def trace(module: nn.Module, input_shape: Shape | None, input_name: str, output_name: str) -> Graph:
    """The blocks that ``module(x)`` runs for one input x of shape (batch, *input_shape), in their order.

    ``input_shape`` None is inferred from the first block that has weights. The module must be in evaluation mode; it
    is read, never changed. Raises ExportError: control flow that depends on data, an operator without a row in the
    table, several inputs or outputs, hooks that the trace would lose, shapes that do not fit.
    """
    refuse_lost_hooks(module)
    return _Reader(module, input_name, output_name).read(input_shape)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)


def _fx_graph(module: nn.Module) -> fx.Graph:
    parameters = list(inspect.signature(module.forward).parameters.values())
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)
    ]
    if len(needed) != 1:
        raise ExportError(
            f"{type(module).__name__}.forward takes {len(needed)} inputs ({', '.join(needed)}); one is expected"
        )
    # Left to fx, an optional argument would become a second input.
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        return _Tracer().trace(module, concrete_args=given or None)
    except TraceError as error:
        message = f"the forward of {type(module).__name__} depends on the data ({error}){_where(error)}"
        hint = "write it without if, for or assert on a tensor's values; torch.where chooses without branching"
        raise ExportError(f"{message}. What to do: {hint}") from None
    except (TypeError, AttributeError, RuntimeError, ValueError, NotImplementedError) as error:
        message = f"the forward of {type(module).__name__} cannot be traced: {error}{_where(error)}"
        raise ExportError(message) from error


def _where(error: BaseException) -> str:
    """The last line outside torch that an error passed through."""
    frame, found = error.__traceback__, ""
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if "/torch/" not in name.replace("\\", "/") and name != __file__:
            found = f", at line {frame.tb_lineno} of {frame.tb_frame.f_code.co_qualname}"
        frame = frame.tb_next
    return found


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
    def __init__(self, module: nn.Module, input_name: str, output_name: str):
        self.module = module
        self.input_name, self.output_name = input_name, output_name
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.names = {id(tensor): name for name, tensor in reversed(list(_tensors(module)))}
        self.paths: set[str] = set()
        self.values = {input_name, output_name}
        self.held: dict[fx.Node, _Value] = {}
        self.optional: set[fx.Node] = set()
        self.nodes: list[Node] = []

    def read(self, input_shape: Shape | None) -> Graph:
        if type(self.module) in MODULES:
            value = _Value(self.input_name)
            result = self._block(MODULES[type(self.module)], self.module, [value], "")
        else:
            result = self._walk(_fx_graph(self.module))
        graph = Graph(self.input_name, input_shape or self._inferred_shape(), tuple(self.nodes), result.name)
        return _with_shapes(graph)

    def _walk(self, graph: fx.Graph) -> _Value:
        for node in graph.nodes:
            if node.op == "placeholder" and not self.held:
                self.held[node] = _Value(self.input_name)
            elif node.op == "placeholder":
                self.optional.add(node)
            elif node.op == "call_module":
                called = self.modules[str(node.target)]
                if type(called) not in MODULES:
                    raise ExportError(_unsupported(type(called).__name__, str(node.target)))
                self._call(node, MODULES[type(called)], called, str(node.target))
            elif node.op in ("call_function", "call_method"):
                if any(argument in self.optional for argument in node.all_input_nodes):
                    self.optional.add(node)  # fx asserts that an optional argument has its default
                    continue
                path = ".".join(part for part in (_scope(node), node.name) if part)
                if node.target not in CALLS:
                    target = getattr(node.target, "__name__", node.target)
                    raise ExportError(_unsupported(f"{target}()", path))
                self._call(node, CALLS[node.target], None, path)
            elif node.op == "output":
                return self._held(node.args[0], "forward's return")
        raise ExportError("forward returns nothing")

    def _call(self, node: fx.Node, name: str, module: nn.Module | None, path: str) -> None:
        row = TABLE[name]
        source: Any = module
        inputs = list(node.args)
        if module is None:
            source = self._bound(node, row, path)
            inputs = [source.get(argument) for argument in row.calls[node.target][: row.inputs]]
        elif node.kwargs or len(inputs) != row.inputs:
            raise ExportError(f"{path}: {type(module).__name__} is called with other arguments than its input")
        values = [self._held(argument, f"{name} at '{path}'") for argument in inputs]
        in_place = source.get("inplace") if module is None else getattr(module, "inplace", False)
        if in_place or node.target in IN_PLACE:
            self._refuse_hidden_views(node, values[0], path)
            result = self._block(name, source, values, path)
            values[0].name, self.held[node] = result.name, values[0]
        else:
            self.held[node] = self._block(name, source, values, path)

    def _held(self, argument: Any, place: str) -> _Value:
        if not isinstance(argument, fx.Node) or argument not in self.held:
            message = f"{place} takes {_described(argument)}; expected a tensor that depends on the input"
            raise ExportError(message)
        return self.held[argument]

    def _bound(self, node: fx.Node, row: Row, path: str) -> dict[str, Any]:
        """The arguments of a call by their names; those that were left out are not there."""
        names = row.calls[node.target]
        surplus = [*node.args[len(names) :], *(key for key in node.kwargs if key not in names)]
        if surplus:
            listed = ", ".join(map(str, surplus))
            raise ExportError(f"{path}: {node.target} is called with arguments that are not known here: {listed}")
        return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)

    def _block(self, name: str, source: Any, inputs: list[_Value], path: str) -> _Value:
        """A node of the graph from a module, or from the arguments of a call."""
        row = TABLE[name]
        prefix = path if isinstance(source, nn.Module) else ""
        path = unique(path or name, self.paths)
        options = {key: self._option(source, key, default) for key, default in row.options.items()}
        tensors = {role: self._tensor(source, role, prefix) for role in row.tensors}
        tensors = {role: tensor for role, tensor in tensors.items() if tensor is not None}
        output = unique(f"{path}.output", self.values)
        names = tuple(value.name for value in inputs)
        self.nodes.append(Node(name, path, names, output, attributes=options, tensors=tensors))
        if row.inactive:  # the very same tensor comes back, so what is written to one is seen in the other
            inputs[0].name = output
            return inputs[0]
        return _Value(output, inputs[0].views if name == "flatten" else None)

    def _option(self, source: Any, key: str, default: Any) -> Any:
        if isinstance(source, nn.Module):
            return False if key == "training" else getattr(source, key, default)
        return source.get(key, default)

    def _tensor(self, source: Any, role: str, prefix: str) -> Tensor | None:
        if isinstance(source, nn.Module):
            tensor, name = getattr(source, role), ".".join(part for part in (prefix, role) if part)
        else:
            argument = source.get(role)
            if argument is None:
                return None
            if not isinstance(argument, fx.Node) or argument.op != "get_attr":
                message = f"{role} is {_described(argument)}; expected a parameter or a buffer of the module"
                raise ExportError(message)
            name = str(argument.target)
            tensor: Any = self.module
            for part in name.split("."):
                tensor = getattr(tensor, part)
        if tensor is None:
            return None
        # A tensor that two blocks share has one name, the first.
        return Tensor(self.names.get(id(tensor), name), _array(tensor, name))

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
        raise ExportError(f"{message}. What to do: give input_shape=(features,), or a spec")


def _with_shapes(graph: Graph) -> Graph:
    shapes, nodes = {graph.input: graph.input_shape}, []
    for node in graph.nodes:
        row, given = TABLE[node.op], [shapes[name] for name in node.inputs]
        reason = row.refuse(node, given[0])
        if reason:
            raise ExportError(f"{node.op} at '{node.path}': {reason}")
        if any(shape != given[0] for shape in given):
            listed = " and ".join(str(list(shape)) for shape in given)
            raise ExportError(
                f"{node.op} at '{node.path}': rows of shapes {listed} cannot be combined; they must be equal"
            )
        expected = node.tensors[row.width].values.shape[-1] if row.width in node.tensors else None
        if expected not in (None, given[0][-1]):
            message = f"expects {expected} features, but '{node.inputs[0]}' has rows of shape {list(given[0])}"
            raise ExportError(f"{node.op} at '{node.path}': {message}")
        shapes[node.output] = row.shape(node, given[0])
        nodes.append(replace(node, shape=shapes[node.output]))
    return graph.with_nodes(nodes, [])


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _array(tensor: torch.Tensor, name: str) -> np.ndarray:
    if tensor.is_meta:
        raise ExportError(f"{name} is on the meta device and has no values; load weights first")
    return tensor.detach().cpu().numpy()


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
        return f"the constant '{argument.target}'" if argument.op == "get_attr" else f"'{argument.name}'"
    return f"a {type(argument).__name__}" if isinstance(argument, list | tuple | dict) else repr(argument)


def _unsupported(what: str, path: str) -> str:
    known = ", ".join(TABLE)
    hint = "use a known block, or let torch.onnx write it unproved (fallback=True, --fallback)"
    return f"no block for {what} at '{path}'; the blocks are: {known}. What to do: {hint}"
