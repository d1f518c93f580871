"""Edits of an ONNX model by names: what is not in the model is left alone, so an edit fits a part of a file too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, helper, numpy_helper

Edit = Callable[[ModelProto], None]
Change = Callable[[np.ndarray], np.ndarray]


def changed(*changes: tuple[str, Change]) -> Edit:
    """Change constants by name, where a model has them."""

    def edit(proto: ModelProto) -> None:
        wanted = dict(changes)
        for tensor in proto.graph.initializer:
            if tensor.name in wanted:
                held = numpy_helper.to_array(tensor)
                values = np.ascontiguousarray(wanted[tensor.name](held.copy()), held.dtype)
                tensor.CopyFrom(numpy_helper.from_array(values.reshape(held.shape), tensor.name))

    return edit


def edited(output: str, change: Callable[[NodeProto], None]) -> Edit:
    """Change the operator that makes a value, where a model has it."""

    def edit(proto: ModelProto) -> None:
        for node in proto.graph.node:
            if output in node.output:
                change(node)

    return edit


def reading(output: str, place: int, values: np.ndarray) -> Edit:
    """Let the operator that makes a value read another constant in one of its places, which nothing else reads."""

    def edit(proto: ModelProto) -> None:
        name = f"planted {place} of {output}"
        for node in proto.graph.node:
            if output in node.output:
                node.input.extend([""] * (place + 1 - len(node.input)))
                node.input[place] = name
                proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))

    return edit


def together(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(proto: ModelProto) -> None:
        for each in edits:
            each(proto)

    return edit


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Give an operator another value of an attribute."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def attribute(node: NodeProto, name: str) -> object:
    """The value of an attribute that an operator is given; None where it is not."""
    found: AttributeProto | None = next((a for a in node.attribute if a.name == name), None)
    return None if found is None else helper.get_attribute_value(found)


def tf32(values: np.ndarray) -> np.ndarray:
    """Rounded to the 11 significant bits of TF32, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000
    return np.where(np.isfinite(values), rounded.astype(np.uint32).view(np.float32), values)


def bf16(values: np.ndarray) -> np.ndarray:
    """Rounded to the 8 significant bits of bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isfinite(values), rounded.astype(np.uint32).view(np.float32), values)


def fp16(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def int8(values: np.ndarray) -> np.ndarray:
    """Symmetric, one scale per matrix."""
    step = np.abs(values).max(initial=0.0) / 127 or 1.0
    return (np.round(values / step) * step).astype(np.float32)
