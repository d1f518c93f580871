"""Recording the ATen operators that a module calls on real tensors.

The dispatch mode runs below autograd, in inference mode, so that composite operators arrive undecomposed (``linear``,
``layer_norm``), views and writes in place among them. What does not depend on the input is computed and becomes a
constant. What does becomes a node: an operator of the table as it is, others by a decomposition, ours or PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, _decomp, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from builder.values import is_list
from export.graph import Node, unique

from .aliases import Aliases, Call, Value, storage_id
from .call_sites import CallSites
from .canonical import IDENTITIES, LEAVES, REWRITES, SHAPE_ONLY, VIEWS, promoted, view_of
from .decompositions import DECOMPOSED, decomposition_of
from .refusals import Refusal, refusal_of

DTYPES = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int64", torch.bool: "bool"}
"""The element types of values that depend on the input; int32 is written as int64."""
_DECOMPOSITIONS: Mapping[object, Callable[..., Any]] = vars(_decomp)["decomposition_table"]
"""PyTorch's own decompositions, by operator."""
_RESHAPING = ("squeeze_", "unsqueeze_", "t_", "transpose_", "swapdims_", "swapaxes_", "resize_", "set_", "as_strided_")
"""Operators in place that change the shape of a tensor or what it is a view of."""


@dataclass(frozen=True)
class RecordedConstant:
    """A tensor that does not depend on the input; ``own`` if it is the module's parameter or buffer ``name``."""

    name: str
    values: Tensor
    own: bool


@dataclass(frozen=True)
class RecordedNode:
    """One operator as it was called: the sizes in ``node`` are those of the batch that was run."""

    node: Node
    constants: dict[str, RecordedConstant]
    refusal: Refusal | None = None


@dataclass
class Record:
    """Everything that one run of the module called."""

    nodes: list[RecordedNode] = field(default_factory=list[RecordedNode])
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """Those that hold whether or not an output reads the result."""
    inactive: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])


class Recorder(TorchDispatchMode):
    """Records what is called while the mode is on; ``value_of`` gives the graph's value that a tensor holds.

    Without ``computing`` products with matrices are not computed: their results are ones.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor], computing: bool = True):
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - torch gives it no types
        self.computing = computing
        self.record: Record = Record()
        self.call_sites: CallSites = CallSites(module)
        self.decomposing: list[str] = []
        """The operators that are being decomposed; a refusal of what they call names the first of them."""
        self.names: set[str] = set(inputs)
        self.rows: int = len(next(iter(inputs.values())))
        self.paths: set[str] = set()
        self.aliases: Aliases = Aliases(self._emit)
        self.owners: dict[int, str] = {}
        for name, tensor in reversed([*module.named_parameters(), *module.named_buffers()]):
            if tensor.layout == torch.strided:  # the first name of a tensor that has several
                self.aliases.add_constant(tensor)
                self.owners[storage_id(tensor)] = name
        for name, tensor in inputs.items():
            self.aliases.add_value(tensor, Value(name))

    # One method per way in which a call is recorded.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = _tensors((args, kwargs))
        name = str(func).removeprefix("aten.")
        if name.startswith("_assert_"):
            return func(*args, **kwargs)
        if any(tensor.layout != torch.strided for tensor in tensors):
            return self._refuse(func, [], {}, "sparse", name, func(*args, **kwargs))
        if func._schema.is_mutable:
            return self._write(func, name, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags and name not in DECOMPOSED
        if random and not _is_idle_dropout(name, args, kwargs):
            return self._refuse(func, args, kwargs, "random", name)
        tracked = self.aliases.tracked
        if not any(map(tracked, tensors)) or name in SHAPE_ONLY:
            return self._computed(func, name, args, kwargs)
        if name in IDENTITIES:
            return self._identity(func, name, args, kwargs)
        reason = refusal_of(name, args, tracked)
        if reason is not None:
            return self._refuse(func, args, kwargs, reason, name)
        decomposition = decomposition_of(name, args, kwargs, tracked)
        if decomposition is not None:
            with self:
                return decomposition(*args, **kwargs)
        if name in VIEWS or name in REWRITES or name in LEAVES:
            return self._leaf(func, name, args, kwargs)
        return self._decomposed(func, name, args, kwargs)

    def _computed(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call that does not depend on the input: its results are constants."""
        out = func(*args, **kwargs)
        for result in _tensors(out):
            if name.startswith(("empty", "new_empty")):  # uninitialised memory
                result.zero_()
            shared = (tensor for tensor in _tensors(args) if tensor is not result and _same_memory(tensor, result))
            source = next(shared, None)
            view = view_of(name, args[0], result, *args[1:], **kwargs) if source is not None and name in VIEWS else None
            self.aliases.add_constant(result, source, view)
        return out

    def _identity(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Dropout in evaluation mode, and other operators that return the values of their input."""
        site = self.call_sites.current()
        out = func(*args, **kwargs)
        if name.endswith(("dropout.default", "dropout1d.default")):
            p = float(kwargs["p"] if "p" in kwargs else args[1])
            self.record.inactive.append((site.home or site.scope or "dropout", p))
        self.aliases.add_derived(out, args[0], copied=not _same_memory(out, args[0]))
        return out

    def _leaf(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call that becomes a view, or one node for each of its results."""
        if self.computing or name != "linear.default":
            out = func(*args, **kwargs)
        else:
            out = args[0].new_ones((*args[0].shape[:-1], len(args[1])))
        with self:
            cast = promoted(name.partition(".")[0], args, out)
            if cast is not None:
                return func(*cast, **kwargs)
        if name in VIEWS:
            view = view_of(name, args[0], out, *args[1:], **kwargs)
            self.aliases.add_derived(out, args[0], view, copied=not _same_memory(out, args[0]))
            return out
        arguments, (op, _, overload) = _arguments_by_name(func, args, kwargs), name.partition(".")
        calls = REWRITES[name](arguments, out) if name in REWRITES else Call(op, overload, arguments)
        if calls is None:
            self.aliases.add_derived(out, args[0], copied=True)
        elif isinstance(calls, Call):
            self._record(calls, out)
        else:
            for call, result in zip(calls, out, strict=True):
                refusal = self._refusal(call.overload, name) if call.op == "refused" else None
                self._record(call, result, refusal)
        return out

    def _record(self, call: Call, result: Tensor, refusal: Refusal | None = None) -> None:
        """A node whose value the new tensor ``result`` holds."""
        self.aliases.add_value(result, self._emit(call, tuple(result.shape), result.dtype, refusal))

    def _decomposed(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        self.decomposing.append(name)
        try:
            with self:
                out = func.decompose(*args, **kwargs)
                if out is not NotImplemented:
                    return out
                if func in _DECOMPOSITIONS and torch.Tag.data_dependent_output not in func.tags:
                    return _DECOMPOSITIONS[func](*args, **kwargs)
            return self._refuse(func, args, kwargs, "operator", name)
        finally:
            self.decomposing.pop()

    def _write(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """An operator in place: its functional variant is recorded, and the result written to the target's storage."""
        target = args[0] if args else None
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        packet, _, overload = name.partition(".")
        if len(written) != 1 or written[0].name != "self" or not isinstance(target, Tensor):
            return self._refuse(func, args, kwargs, "out", name)
        if storage_id(target) in self.owners and not packet.endswith("detach_"):
            self.record.refusals.append(self._refusal("buffer", name, self.owners[storage_id(target)]))
            return func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and not _is_idle_dropout(name, args, kwargs):
            result = self._refuse(func, args, kwargs, "random", name, func(*args, **kwargs).clone())
            self.aliases.before_write(target)
            self.aliases.write(target, result)
            return target
        if packet in _RESHAPING:
            return self._refuse(func, args, kwargs, "out", name)
        if not any(map(self.aliases.tracked, _tensors((args, kwargs)))):
            return func(*args, **kwargs)
        with self:
            result = _functional(packet, overload, args, kwargs)
        if result is None:
            return self._refuse(func, args, kwargs, "operator", name)
        if result is not target:
            self.aliases.before_write(target)
            target.copy_(result)
            self.aliases.write(target, result)
        return target

    def _refuse(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], kind: str, name: str, out: Any = None
    ) -> Any:
        """Record a refusal and go on with real values, so that all refusals are reported at once.

        It counts only where an output depends on its results.
        """
        refusal = self._refusal(kind, self.decomposing[0] if self.decomposing else name)
        read = list(filter(self.aliases.tracked, _tensors((args, kwargs))))
        out = func(*args, **kwargs) if out is None else out
        tensors = _tensors(out)
        if not tensors or kind in ("data", "out"):
            self.record.refusals.append(refusal)
        for result in tensors:
            if result.layout == torch.strided:
                self._record(Call("refused", "default", {"read": read}), result, refusal)
        return out

    def _refusal(self, kind: str, operator: str, detail: str = "") -> Refusal:
        """Why the call that runs now cannot be in a file."""
        site = self.call_sites.current()
        return Refusal(kind, operator, site.home or site.scope, site.line, detail)

    # Nodes.

    def _emit(self, call: Call, shape: tuple[int, ...], dtype: torch.dtype, refusal: Refusal | None = None) -> Value:
        site = self.call_sites.current()
        path = unique(site.path_of(call.op), self.paths)
        inputs: list[str] = []
        constants: dict[str, RecordedConstant] = {}
        attributes: dict[str, Any] = {}
        for role, value in _flattened(call.arguments):
            content = self.aliases.read(value) if isinstance(value, Tensor) else value
            if isinstance(content, Value):
                inputs.append(content)
            elif isinstance(content, Tensor):
                constants[role] = self._constant(content, f"{path}.{role}")
            else:
                attributes[role] = tuple(value) if is_list(value) or isinstance(value, torch.Size) else value
        if dtype not in DTYPES and refusal is None:
            refusal = self._refusal("dtype", call.op, str(dtype).removeprefix("torch."))
        output = unique(f"{path}.output", self.names)
        node = Node(
            *(call.op, path, tuple(inputs), output, shape, attributes),
            overload=call.overload,
            dtype=DTYPES.get(dtype, "float32"),
            home=site.home or path,
            block=site.block,
            line=site.line,
        )
        self.record.nodes.append(RecordedNode(node, constants, refusal))
        return Value(output)

    def _constant(self, tensor: Tensor, name: str) -> RecordedConstant:
        own = self.owners.get(storage_id(tensor))
        if own is not None and tensor.numel() == tensor.untyped_storage().nbytes() // tensor.element_size():
            return RecordedConstant(own, tensor, True)
        return RecordedConstant(name, tensor.clone() if own is None else tensor, False)

    def value_of(self, tensor: Tensor) -> str | None:
        """The graph's value that a tensor holds at the end; None for a constant without a row for each input row."""
        content = self.aliases.read(tensor)
        if isinstance(content, Value):
            return content
        if not tensor.ndim or len(tensor) != self.rows:
            return None
        return self._emit(Call("expand", "default", {"self": tensor, "size": tensor.shape}), tensor.shape, tensor.dtype)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _arguments_by_name(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by its name in the schema, defaults included."""
    arguments = {argument.name: argument.default_value for argument in func._schema.arguments}
    return {**arguments, **dict(zip(arguments, args, strict=False)), **kwargs}


def _flattened(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments by name; the tensors of a list have its name and a number."""
    for role, value in arguments.items():
        if is_list(value) and any(isinstance(part, Tensor | Value) for part in value):
            yield from ((f"{role}.{i}", part) for i, part in enumerate(value))
        else:
            yield role, value


def _functional(packet: str, overload: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What an operator in place writes, as a new tensor of the type and shape of its target; None: no such variant."""
    target = args[0]
    if packet in ("detach_", "lift_fresh_"):
        return target
    if packet in ("copy_", "fill_", "zero_"):
        value = args[1] if len(args) > 1 else 0
        if isinstance(value, Tensor):
            return value.to(target.dtype).expand(target.shape)
        return torch.full_like(target, value)
    overload = {"pow_.Scalar": "Tensor_Scalar", "pow_.Tensor": "Tensor_Tensor"}.get(f"{packet}.{overload}", overload)
    functional = getattr(torch.ops.aten, packet.removesuffix("_"), None)
    if functional is None or overload not in functional.overloads():
        return None
    result = getattr(functional, overload)(*args, **kwargs)
    return result if result.dtype == target.dtype else result.to(target.dtype)


def _is_idle_dropout(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a dropout is not in training mode, or drops nothing."""
    if name not in IDENTITIES:
        return False
    train = args[2] if len(args) > 2 else kwargs.get("train", True)
    return not train or args[1] == 0


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return storage_id(a) == storage_id(b)
