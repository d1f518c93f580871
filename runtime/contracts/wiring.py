"""Where the values of a file's graph come from: which layer or input makes what another layer, or an output, reads.

A source is in words: ``input 1``, ``layer 3``, or ``layer 3 (1 before its last)`` for another value than its last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.model.onnx_messages import attribute, text

Digest = Callable[[bytes], str | None]
"""In words what a constant is, by its name; None for a value that is no constant."""
_COMMUTATIVE = ("add", "mul", "max", "maximum", "min", "minimum", "sum", "mean")
"""The layers whose result does not depend on the order of what they read."""
_LONGEST = 120
"""Characters of what stands for an operator that is no layer; a longer one is a hash."""


def input_source(index: int) -> str:
    """What the input at a place is called."""
    return f"input {index + 1}"


def layer_source(index: int) -> str:
    """What the last value of a layer at a place is called."""
    return f"layer {index + 1}"


def read_by(kind: str, sources: Iterable[str]) -> tuple[str, ...]:
    """What a layer reads, in order: a value once if it reads no other, and sorted where the order does not matter."""
    read = list(sources)
    if len(set(read)) == 1:
        del read[1:]
    return tuple(sorted(read) if kind in _COMMUTATIVE else read)


def in_words(sources: Sequence[str]) -> str:
    """``layer 2 and input 1``."""
    return " and ".join(sources) or "nothing"


def sources_of(
    graph: Any,
    inputs: Sequence[bytes],
    layers: Sequence[Sequence[Any]],
    passed: Mapping[bytes, bytes],
    constant: Digest,
) -> dict[bytes, str]:
    """Of every value that is computed its source.

    ``layers`` has the operators of each layer, and ``passed`` the values that stand for others.
    """
    sources = {name: input_source(index) for index, name in enumerate(inputs)}
    for index, nodes in enumerate(layers):
        made = [name for node in nodes for name in node.output if name]
        for before, name in enumerate(reversed(made)):
            sources[name] = layer_source(index) + (f" ({before} before its last)" if before else "")
    for node in graph.node:
        for place, name in enumerate(node.output):
            if not name or name in sources or constant(name) is not None:
                continue
            if name in passed:
                sources[name] = sources.get(passed[name], "unknown")
                continue
            read = (sources.get(each) or constant(each) or "unknown" for each in node.input if each)
            words = f"output {place + 1} of {operator_words(node)} of ({', '.join(read)})"
            sources[name] = words if len(words) <= _LONGEST else f"an operator {_short(words.encode())}"
    return sources


def operator_words(node: Any) -> str:
    """An operator with its domain and its attributes, whatever their order."""
    given = sorted(each.SerializePartialToString(deterministic=True) for each in node.attribute)
    kind = text(node.op_type) if node.domain in (b"", b"ai.onnx") else f"{text(node.domain)}.{text(node.op_type)}"
    return f"{kind} {_short(b''.join(given))}" if given else kind


def array_words(values: np.ndarray) -> str:
    """Numbers of a constant that are no float32 weights: a few as they are, of more how many and a hash."""
    flat = values.reshape(-1)
    if flat.size <= 16 and flat.dtype.kind in "iub":
        return " ".join(str(int(each)) for each in flat)
    return f"{flat.size} of {flat.dtype} {_short(np.ascontiguousarray(flat).tobytes())}"


_STORED: dict[int, tuple[str, str]] = {
    2: ("|u1", "int32_data"),
    3: ("|i1", "int32_data"),
    5: ("<i2", "int32_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("|b1", "int32_data"),
}
"""The whole numbers of TensorProto: their type, and where they are if not as bytes."""


def whole_numbers(tensor: Any) -> np.ndarray | None:
    """Whole numbers or bools of a TensorProto that are in the file itself; None for any other."""
    if tensor.data_type not in _STORED or tensor.data_location:
        return None
    kind, place = _STORED[tensor.data_type]
    values = np.frombuffer(tensor.raw_data, kind) if tensor.raw_data else np.array(getattr(tensor, place)).astype(kind)
    return values.reshape(tuple(tensor.dims))


def stored_in(node: Any) -> np.ndarray | None:
    """The numbers of a Constant that has them as another attribute than a tensor; None for any other operator."""
    if node.op_type != b"Constant":
        return None
    for name, held, kind in (
        (b"value_float", "f", np.float32),
        (b"value_floats", "floats", np.float32),
        (b"value_int", "i", np.int64),
        (b"value_ints", "ints", np.int64),
    ):
        if (found := attribute(node, name.decode())) is not None:
            return np.asarray(getattr(found, held), kind)
    return None


def tensor_words(tensor: Any) -> str:
    """Any TensorProto but for its name."""
    copied = type(tensor)()
    copied.CopyFrom(tensor)
    copied.ClearField("name")
    return f"constant {_short(copied.SerializePartialToString(deterministic=True))}"


def computed_words(node: Any, place: int, read: Sequence[str]) -> str:
    """A constant that the file computes."""
    return f"constant {_short(f'{place} of {operator_words(node)} of {read}'.encode())}"


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
