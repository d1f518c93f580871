"""The ATen operators that a module calls on real tensors, and which of them depend on its input.

The mode stands below autograd, in inference mode, so operators arrive whole (``linear``, ``layer_norm``), views and
writes in place among them. What does not depend on the input is computed and becomes a constant. What does is a node:
an operator of the table as it is, any other by its decomposition, ours or PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from export.graph import unique

from .aliases import Call, Content, Memories, Value, View
from .decompositions import DECOMPOSED, SOMETIMES
from .normal import INACTIVE, LEAVES, NORMAL, SHAPE_ONLY, VIEWS, Given
from .places import Places
from .promotion import promoted
from .refusals import Refusal, refusal_of

KINDS = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int64", torch.bool: "bool"}
"""The element types of values that depend on the input; 32 bits of a whole number are written as 64."""
_RESHAPED = ("squeeze_", "unsqueeze_", "t_", "transpose_", "swapdims_", "swapaxes_", "resize_", "set_", "as_strided_")
"""Operators in place that change what a tensor is a view of."""


@dataclass
class Recorded:
    """One operator as it was called: ``shape`` and sizes are those of the batch that was run."""

    op: str
    overload: str
    path: str
    home: str
    block: str
    line: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    tensors: dict[str, Constant]
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Constant:
    """A tensor that no input has a part in; ``own`` if it is a parameter or buffer of the module under ``name``."""

    name: str
    values: Tensor
    own: bool


@dataclass
class Record:
    """Everything that one run of the module called."""

    nodes: list[Recorded] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    inactive: list[str] = field(default_factory=list)


class Recorder(TorchDispatchMode):
    """Record what is called while the mode is on; ``value_of`` says which value a tensor holds."""

    def __init__(self, module: nn.Module, inputs: Mapping[str, Tensor]):
        super().__init__()
        self.record = Record()
        self.places = Places(module)
        self.decomposing: list[str] = []
        """Operators that are being replaced by others: what is refused of those is said of the first."""
        self.names = set(inputs)
        self.rows = len(next(iter(inputs.values())))
        self.paths: set[str] = set()
        self.memories = Memories(self._emit)
        self.owned: dict[int, str] = {}
        for name, tensor in reversed([*module.named_parameters(), *module.named_buffers()]):
            if tensor.layout == torch.strided:  # the first name of a tensor that has several
                self.memories.constant(tensor)
                self.owned[_storage(tensor)] = name
        for name, tensor in inputs.items():
            self.memories.value(tensor, Value(name))

    # What arrives, from the most to the least special.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = str(func).removeprefix("aten.")
        if name.startswith("_assert_"):
            return func(*args, **kwargs)
        if any(tensor.layout != torch.strided for tensor in tensors):
            return self._refuse(func, [], {}, "sparse", name, func(*args, **kwargs))
        if func._schema.is_mutable:
            return self._write(func, name, args, kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags and name not in DECOMPOSED
        if random and not _is_inactive(name, args, kwargs):
            return self._refuse(func, args, kwargs, "random", name)
        if not any(self.memories.tracked(tensor) for tensor in tensors) or name in SHAPE_ONLY:
            return self._plain(func, args, kwargs)
        if name in INACTIVE:
            return self._inactive(func, name, args, kwargs)
        reason = refusal_of(func, name, args, kwargs, self.memories.tracked)
        if reason is not None:
            return self._refuse(func, args, kwargs, reason, name)
        applies, function = SOMETIMES.get(name, (None, None))
        if applies is None or not applies(args, kwargs, self.memories.tracked):
            function = DECOMPOSED.get(name)
        if function is not None:
            with self:
                return function(*args, **kwargs)
        if name in VIEWS or name in NORMAL or name in LEAVES:
            return self._leaf(func, name, args, kwargs)
        return self._decomposed(func, name, args, kwargs)

    def _plain(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What no input has a part in: computed, as PyTorch does."""
        out = func(*args, **kwargs)
        name = str(func).removeprefix("aten.")
        for result in tree_leaves(out):
            if isinstance(result, Tensor):
                if name.startswith(("empty", "new_empty")):  # what lies there is nobody's value
                    result.zero_()
                source = self._shared(result, args)
                view = self._view(name, args, kwargs, result) if source is not None and name in VIEWS else None
                self.memories.constant(result, source, view)
        return out

    def _inactive(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Dropout in evaluation mode, and operators that give the values of their input."""
        place = self.places.here()
        out = func(*args, **kwargs)
        if name.endswith(("dropout.default", "dropout1d.default")):
            self.record.inactive.append(f"dropout '{place.home or place.scope or 'dropout'}'")
        self.memories.same(out, args[0], copied=not _same_memory(out, args[0]))
        return out

    def _leaf(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        with self:
            cast = promoted(name.partition(".")[0], args, out)
            if cast is not None:
                return func(*cast, **kwargs)
        if name in VIEWS:
            view = self._view(name, args, kwargs, out)
            shared = _same_memory(out, args[0])
            if view is None:
                self.memories.same(out, args[0], copied=not shared)
            elif shared:
                self.memories.viewed(out, args[0], view)
            else:
                self.memories.value(out, self._emit_view(view, self.memories.read(args[0]), out))
            return out
        given = Given(_by_name(func, args, kwargs), name.partition(".")[2], lambda t: not self.memories.tracked(t))
        calls = (
            NORMAL[name](given, out) if name in NORMAL else [(Call(name.partition(".")[0], given.overload, given), out)]
        )
        for call, result in calls:
            if call is None:
                self.memories.same(result, args[0], copied=True)
            elif call.op == "refused":
                refusal = self.places.refusal(call.overload, name)
                self.memories.value(result, self._emit(call, tuple(result.shape), result.dtype, refusal))
            else:
                self.memories.value(result, self._emit(call, tuple(result.shape), result.dtype))
        return out

    def _decomposed(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        self.decomposing.append(name)
        try:
            return self._in_terms_of_others(func, name, args, kwargs)
        finally:
            self.decomposing.pop()

    def _in_terms_of_others(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        with self:
            out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
            table = decomposition_table
            if func in table and torch.Tag.data_dependent_output not in func.tags:
                return table[func](*args, **kwargs)
        return self._refuse(func, args, kwargs, "operator", name)

    def _write(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """An operator in place: its functional twin, and the result written to whoever sees the memory."""
        target = args[0] if args else None
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        packet, _, overload = name.partition(".")
        if len(written) != 1 or written[0].name != "self" or not isinstance(target, Tensor):
            return self._refuse(func, args, kwargs, "out", name)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if _storage(target) in self.owned and not packet.endswith("detach_"):
            changed = self.owned[_storage(target)]
            self.record.refusals.append(self.places.refusal("buffer", name, changed))
            return func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and not _is_inactive(name, args, kwargs):
            result = self._refuse(func, args, kwargs, "random", name, func(*args, **kwargs).clone())
            self.memories.before_write(target)
            self.memories.write(target, result)
            return target
        if packet in _RESHAPED:
            return self._refuse(func, args, kwargs, "out", name)
        if not any(self.memories.tracked(tensor) for tensor in tensors):
            return self._plain_write(func, name, args, kwargs)
        with self:
            result = _functional(packet, overload, args, kwargs)
        if result is None:
            return self._refuse(func, args, kwargs, "operator", name)
        if result is not target:
            self.memories.before_write(target)
            target.copy_(result)
            self.memories.write(target, result)
        return target

    def _plain_write(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out is not args[0]:
            self.memories.constant(out, args[0], None)
        return out

    def _refuse(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], kind: str, name: str, out: Any = None
    ) -> Any:
        """Go on with real values, so that all refusals are seen at once; what is not read is no refusal."""
        refusal = self.places.refusal(kind, self.decomposing[0] if self.decomposing else name)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        read = [tensor for tensor in leaves if self.memories.tracked(tensor)]
        out = func(*args, **kwargs) if out is None else out
        tensors = [result for result in tree_leaves(out) if isinstance(result, Tensor)]
        if not tensors or kind in ("data", "out"):
            self.record.refusals.append(refusal)
        for result in tensors:
            if result.layout == torch.strided:
                call = Call("refused", "default", {"read": read})
                self.memories.value(result, self._emit(call, tuple(result.shape), result.dtype, refusal))
        return out

    # Nodes.

    def _emit(self, call: Call, shape: tuple[int, ...], dtype: torch.dtype, refusal: Refusal | None = None) -> Value:
        place = self.places.here()
        base = place.path_of(call.op)
        path = unique(base, self.paths)
        inputs: list[str] = []
        tensors: dict[str, Constant] = {}
        attributes: dict[str, Any] = {}
        for role, value in call.arguments.items():
            if isinstance(value, list) and any(isinstance(part, Tensor | Value) for part in value):
                for i, part in enumerate(value):
                    self._argument(f"{role}.{i}", part, path, inputs, tensors, attributes)
            else:
                self._argument(role, value, path, inputs, tensors, attributes)
        if dtype not in KINDS and refusal is None:
            refusal = self.places.refusal("dtype", call.op, str(dtype).removeprefix("torch."))
        output = unique(f"{path}.output", self.names)
        kind = KINDS.get(dtype, "float32")
        node = Recorded(
            call.op,
            call.overload,
            path,
            place.home or path,
            place.block,
            place.line,
            tuple(inputs),
            output,
            shape,
            kind,
            attributes,
            tensors,
            refusal,
        )
        self.record.nodes.append(node)
        return Value(output)

    def _argument(
        self,
        role: str,
        value: Any,
        path: str,
        inputs: list[str],
        tensors: dict[str, Constant],
        attributes: dict[str, Any],
    ) -> None:
        held = self.memories.read(value) if isinstance(value, Tensor) else value
        if isinstance(held, Value):
            inputs.append(held)
        elif isinstance(value, Tensor):
            tensors[role] = self._constant(value, f"{path}.{role}")
        else:
            attributes[role] = tuple(value) if isinstance(value, list | torch.Size) else value

    def _constant(self, tensor: Tensor, name: str) -> Constant:
        own = self.owned.get(_storage(tensor))
        if own is not None and tensor.numel() == tensor.untyped_storage().nbytes() // tensor.element_size():
            return Constant(own, tensor, True)
        return Constant(name, tensor.clone() if own is None else tensor, False)

    def _emit_view(self, view: View, source: Content, out: Tensor) -> Value:
        return self._emit(view.call(source), tuple(out.shape), out.dtype)

    def _view(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> View | None:
        return VIEWS[name](args[0], out, *args[1:], **kwargs)

    def _shared(self, result: Tensor, args: Sequence[Any]) -> Tensor | None:
        given = (leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor))
        return next((tensor for tensor in given if tensor is not result and _same_memory(tensor, result)), None)

    def value_of(self, tensor: Tensor) -> str | None:
        """The value of the graph that a tensor holds at the end; None for a constant that is no row for each input."""
        held = self.memories.read(tensor)
        if isinstance(held, Value):
            return held
        if not tensor.ndim or len(tensor) != self.rows:
            return None
        return self._emit(Call("expand", "default", {"self": tensor, "size": tensor.shape}), tensor.shape, tensor.dtype)


def _by_name(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by its name in the schema, defaults included."""
    found: dict[str, Any] = {}
    for i, argument in enumerate(func._schema.arguments):
        if i < len(args):
            found[argument.name] = args[i]
        elif argument.name in kwargs:
            found[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def _functional(packet: str, overload: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What an operator in place would give as a new tensor, of the type and shape of its target."""
    target = args[0]
    if packet == "copy_":
        source = args[1]
        return source.to(target.dtype).expand(target.shape)
    if packet in ("fill_", "zero_"):
        value = args[1] if packet == "fill_" else 0
        if isinstance(value, Tensor):
            return value.to(target.dtype).expand(target.shape)
        return torch.full_like(target, value)
    if packet in ("detach_", "lift_fresh_"):
        return target
    overload = {"pow_.Scalar": "Tensor_Scalar", "pow_.Tensor": "Tensor_Tensor"}.get(f"{packet}.{overload}", overload)
    functional = getattr(torch.ops.aten, packet.removesuffix("_"), None)
    if functional is None or overload not in functional.overloads():
        return None
    result = getattr(functional, overload)(*args, **kwargs)
    return result if result.dtype == target.dtype else result.to(target.dtype)


def _is_inactive(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """A dropout that is not in training mode, or has nothing to drop."""
    if name not in INACTIVE:
        return False
    train = args[2] if len(args) > 2 else kwargs.get("train", True)
    return not train or args[1] == 0


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _same_memory(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and _storage(a) == _storage(b)
