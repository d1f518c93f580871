"""The calls that a forward makes, recorded by torch.fx, each with what its module held at that moment."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass
from itertools import chain
from threading import RLock, get_ident
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from builder import Residual

from .blocks import MODULES, TABLE
from .errors import ExportError, UnsupportedError


@dataclass(frozen=True)
class Calls:
    """The recorded graph, the module behind each call of one, and the options and tensors that it held then."""

    graph: fx.Graph
    root: nn.Module
    inputs: tuple[str, ...]
    """The parameters of the forward that are the graph's placeholders, in their order."""
    modules: dict[fx.Node, nn.Module]
    states: dict[fx.Node, dict[str, Any]]
    changed: set[int]
    """The identities of the tensors that the forward changed in place."""


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, Residual)
_ONE_AT_A_TIME = RLock()
"""torch.fx patches ``nn.Module`` for the whole process while it traces."""


def record(module: nn.Module) -> Calls:
    """The calls of ``module(x)``, as a user calls it: with its own hooks, defaults and ``__call__``.

    A tensor is given for every parameter of the forward without a default, or for the first if all have one.
    Raises UnsupportedError: control flow that depends on the data. Raises ExportError: autocast, and whatever else the
    forward raises.
    """
    kind = type(module).__name__
    given = inputs_of(module)
    keywords = tuple(name for name, by_name in given.items() if by_name)
    root = _Root(module, keywords)
    tracer = _Tracer(tuple(given))
    try:
        with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
            before = _values(module)
            graph = tracer.trace(root)
    except ExportError:
        raise
    except TraceError as error:
        message = f"the forward of {kind} depends on the data, or asks for its shape ({error}){_where(error)}"
        hint = "write it without if, for, assert or unpacking on a tensor or its shape"
        raise UnsupportedError(f"{message}. What to do: {hint}") from None
    except Exception as error:  # the forward is the caller's code: it may raise anything
        message = f"the forward of {kind} cannot be traced: {type(error).__name__}: {error}{_where(error)}"
        raise ExportError(message) from error
    changed = {key for key, (tensor, held) in before.items() if not torch.equal(tensor, held)}
    return Calls(graph, root, tuple(given), tracer.modules, tracer.states, changed)


def inputs_of(module: nn.Module) -> dict[str, bool]:
    """The parameters of the forward that take a tensor each, and whether they are given by name.

    Raises ExportError: a forward that is not Python.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except ValueError:
        raise ExportError(f"a {type(module).__name__} cannot be traced: it has no Python forward") from None
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p for p in named if p.default is p.empty] or named[:1]
    return {p.name: p.kind == p.KEYWORD_ONLY for p in needed} or {"input": False}


def is_plain(module: nn.Module) -> bool:
    """Blocks in containers, and no code of the caller's that could touch their tensors."""
    for part in module.modules():
        hooks = part._forward_hooks or part._forward_pre_hooks
        own = {"forward", "train", "eval", "_call_impl"} & set(vars(part))
        if (type(part) not in MODULES and type(part) not in _CONTAINERS) or hooks or own:
            return False
    return True


def _values(module: nn.Module) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Each tensor that code of the caller's could change, and a copy of its values."""
    if is_plain(module):
        return {}
    tensors = [t for t in chain(module.parameters(), module.buffers()) if t.layout == torch.strided]
    return {id(tensor): (tensor, tensor.detach().clone()) for tensor in tensors}


def path_of(name: str) -> str:
    """A name below the recorded root as the name below the caller's module."""
    return name.removeprefix(_Root.HOLDS).removeprefix(".")


class _Root(nn.Module):
    """Calls the module, so that its hooks and optional arguments are traced as those of any inner module."""

    HOLDS = "module"

    def __init__(self, module: nn.Module, keywords: tuple[str, ...]):
        super().__init__()
        self.module = module
        self.keywords = keywords

    def forward(self, *inputs: Any) -> Any:
        split = len(inputs) - len(self.keywords)
        return self.module(*inputs[:split], **dict(zip(self.keywords, inputs[split:], strict=True)))


class _Proxy(fx.Proxy):
    """fx would record ``x += y`` as ``x + y``, and forget that whoever else holds x sees the sum."""

    def _recorded(self, target: Any, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    def __iadd__(self, other: Any) -> Any:
        return self._recorded(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._recorded(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._recorded(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._recorded(operator.itruediv, other)


class _Tracer(fx.Tracer):
    def __init__(self, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.inputs = inputs
        self.thread = get_ident()
        self.modules: dict[fx.Node, nn.Module] = {}
        self.states: dict[fx.Node, dict[str, Any]] = {}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """fx would make one placeholder of ``*inputs``."""
        placeholders = [self.create_proxy("placeholder", name, (), {}) for name in self.inputs]
        return root_fn, [self.root, *placeholders]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)

    def path_of_module(self, mod: nn.Module) -> str:
        return path_of(super().path_of_module(mod))

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if get_ident() != self.thread:  # fx patches every module of the process; other threads go on as they were
            return forward(*args, **kwargs)
        result = super().call_module(m, forward, args, kwargs)
        node = result.node if isinstance(result, fx.Proxy) else None
        # A container gives back what its last inner call gave, which is recorded already.
        if node is not None and node.op == "call_module" and node not in self.modules:
            self.modules[node] = m
            if type(m) in MODULES:
                self.states[node] = _state(m)
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise ExportError("the forward runs under autocast, which a float32 file would lose. What to do: remove it")
        return super().create_node(*args, **kwargs)


def _state(module: nn.Module) -> dict[str, Any]:
    """What the call reads of its module, past fx's own attribute access."""
    row = TABLE[MODULES[type(module)]]
    held = {**vars(module), **module._parameters, **module._buffers}
    names = [*row.options, *row.tensors, "inplace"]
    return {name: held[name] if name in held else getattr(type(module), name, None) for name in names}


def _where(error: BaseException) -> str:
    """The last line outside torch and this file that an error passed through."""
    frame, found = error.__traceback__, ""
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if "/torch/" not in name.replace("\\", "/") and name != __file__:
            found = f", at line {frame.tb_lineno} of {frame.tb_frame.f_code.co_qualname}"
        frame = frame.tb_next
    return found
