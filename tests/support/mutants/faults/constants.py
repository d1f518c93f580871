"""Faults in what a file stores: its weights, their types and shapes, and constants that it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.support.mutants.editing import FLOAT, Array, File, NoPlace


def _somewhere(file: File, values: Array) -> tuple[int, ...]:
    return tuple(file.whole(0, size - 1) for size in values.shape)


def by_an_ulp(file: File) -> None:
    """One value by one or a few units in the last place."""
    name, values = file.weight()
    place = _somewhere(file, values)
    for _ in range(file.one([1, 1, 2, 5])):
        values[place] = np.nextafter(values[place], np.float32(np.inf))
    file.replace(name, values)


def one_value(file: File) -> None:
    """One value with the other sign, -0 for 0, scaled, or NaN, infinite, tiny or huge."""
    name, values = file.weight()
    place = _somewhere(file, values)
    was = values[place]
    others = [-was, was * np.float32(1.001), was * 2, 0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3e38, was + 1]
    values[place] = file.one(np.float32(each) for each in others)
    file.replace(name, values)


def moved(file: File) -> None:
    """A constant transposed, with two rows or columns exchanged, shuffled, reversed or rolled by one."""
    name, values = file.weight(lambda values: values.size > 1)
    axis = file.whole(0, values.ndim - 1)
    order = file.rng.permutation(values.shape[axis])
    first = np.arange(values.shape[axis])
    first[:2] = first[:2][::-1]
    changes: list[Callable[[], Array]] = [
        lambda: values.T.copy(),
        lambda: values.T.reshape(values.shape),
        lambda: np.take(values, order, axis),
        lambda: np.take(values, first, axis),
        lambda: np.flip(values, axis),
        lambda: np.roll(values, 1, axis),
    ]
    file.replace(name, file.one(changes)())


def scaled(file: File) -> None:
    """All values of a constant scaled, rounded to fewer bits, negated, clipped or set to one number."""
    name, values = file.weight()
    bits = values.view(np.int32)
    changes: list[Callable[[], Array]] = [
        lambda: values * np.float32(1 + 2.0**-22),
        lambda: values * 2,
        lambda: -values,
        lambda: values.astype(np.float16).astype(np.float32),
        lambda: (bits & ~0x1FFF).view(np.float32),
        lambda: np.clip(values, -1, 1),
        lambda: np.zeros_like(values),
        lambda: np.full_like(values, values.flat[0]),
    ]
    file.replace(name, file.one(changes)())


def bias_dropped(file: File) -> None:
    """An optional constant left out: of a Gemm, of a normalisation, a bound of a Clip."""
    node = file.node(fits=lambda node: len(node.input) > 1 and any(name in file.constants for name in node.input))
    places = [i for i, name in enumerate(node.input) if i and name in file.constants]
    if not places:
        raise NoPlace
    if node.op_type == "Gemm" and len(node.input) > 2:
        places = [2]
    place = file.one(places)
    if place == len(node.input) - 1 and file.chance(0.7):
        del node.input[place]
    else:
        node.input[place] = ""


def weights_moved_between(file: File) -> None:
    """Two constants scaled against each other, or shuffled together, which the mathematics may or may not forgive."""
    first, values = file.weight()
    second = file.one(n for n, v in file.constants.items() if n != first and v.dtype == np.float32 and v.size)
    if file.chance(0.5):
        factor = np.float32(file.one([2, 0.5, 3, 2.0**60]))
        file.replace(first, values * factor)
        file.replace(second, file.constants[second] / factor)
    else:
        axis = file.whole(0, values.ndim - 1) if values.ndim else 0
        size = values.shape[axis] if values.ndim else 0
        order = file.rng.permutation(size)
        along = file.one(a for a in range(file.constants[second].ndim) if file.constants[second].shape[a] == size)
        file.replace(first, np.take(values, order, axis))
        file.replace(second, np.take(file.constants[second], order, along))


def another_type(file: File) -> None:
    """A constant stored as another type, and cast to its own, or not."""
    name, values = file.weight()
    kind, to = file.one(
        [
            ("float16", FLOAT),
            ("float64", FLOAT),
            ("int32", FLOAT),
            ("int8", FLOAT),
            ("float16", None),
            ("float64", None),
        ]
    )
    with np.errstate(all="ignore"):
        stored = file.constant(values.astype(kind), kind)
    file.cursor = 0
    file.reads(name, stored if to is None else file.add("Cast", stored, to=to))


def another_shape(file: File) -> None:
    """A constant of another shape with the same elements, repeated along an axis, or cut to broadcast."""
    name = file.one(file.constants)
    values = file.constants[name]
    changes: list[Callable[[], Array]] = [
        lambda: values[None],
        lambda: values[..., None],
        lambda: values.reshape(-1),
        lambda: values.reshape(-1, 1),
        lambda: values.reshape(values.shape[::-1]),
        lambda: values[:1] if values.ndim else values[None],
        lambda: values[..., :1] if values.ndim else values[None],
        lambda: np.concatenate([values, values]) if values.ndim else np.stack([values, values]),
    ]
    file.replace(name, file.one(changes)())


def stored_twice(file: File) -> None:
    """A tensor with its values in two fields that differ, cut short, or with other dimensions than its bytes."""
    tensor = file.one(each for each in file.graph.initializer if each.data_type == FLOAT)
    values = file.constants[tensor.name]
    how = file.whole(0, 4)
    if how == 0:
        tensor.float_data.extend((values.reshape(-1) * 2).tolist())
    elif how == 1:
        tensor.ClearField("raw_data")
        tensor.float_data[:] = values.reshape(-1).tolist()
    elif how == 2:
        tensor.raw_data = tensor.raw_data[:-4]
    elif how == 3:
        tensor.dims[:] = [*tensor.dims, 1] if file.chance(0.5) else list(tensor.dims)[::-1]
    else:
        tensor.double_data.extend([1.0] * values.size)


def stored_in_a_node(file: File) -> None:
    """A stored constant that a Constant node holds instead, sometimes under a second name, or as other numbers."""
    name, values = file.weight()
    file.cursor = 0
    how = file.whole(0, 2)
    if how == 0 and values.size == 1:
        held = file.add("Constant", value_float=float(values.flat[0]))
    elif how == 1 and values.ndim == 1:
        held = file.add("Constant", value_floats=values.tolist())
    else:
        changed = values * np.float32(file.one([1, 1, 2]))
        held = file.add("Constant", value=numpy_helper.from_array(np.asarray(changed, np.float32), "held"))
    file.reads(name, held)


def _same_bits(file: File, values: Array) -> str:
    """Operators whose result a float32 evaluation has exactly."""
    half = file.constant(values / 2)
    ways: list[Callable[[], str]] = [
        lambda: file.add("Mul", half, np.float32(2)),
        lambda: file.add("Add", half, half),
        lambda: file.add("Identity", file.constant(values)),
        lambda: file.add("Cast", file.constant(values.astype(np.float64), "float64"), to=FLOAT),
        lambda: file.add("Neg", file.constant(-values)),
        lambda: file.add("Transpose", file.constant(values.T.copy())),
        lambda: file.add("Reshape", file.constant(values.reshape(-1)), np.array(values.shape, np.int64)),
        lambda: file.add("Where", np.ones(values.shape, bool), file.constant(values), half),
        lambda: file.add("Max", file.constant(values), np.float32(-3.4e38)),
    ]
    return file.one(ways)()


def computed_alike(file: File) -> None:
    """A constant that the file computes of others, and to which the same bits come."""
    name, values = file.weight()
    file.cursor = 0
    file.reads(name, _same_bits(file, values))


def _put(file: File, name: str, values: Array, made: str) -> None:
    """Let the file read what it computes, or the constant and the computed value less what the reference makes of it.

    ONNX's reference evaluator has the right constant then, whatever the runtime makes of it.
    """
    if file.chance(0.4):
        file.reads(name, made)
        return
    graph = helper.make_graph(
        list(file.graph.node)[: file.cursor], "computed", [], [onnx.ValueInfoProto(name=made)], file.graph.initializer
    )
    try:
        evaluator = cast("Any", ReferenceEvaluator)(helper.make_model(graph, opset_imports=file.proto.opset_import))
        with np.errstate(all="ignore"):
            (found,) = evaluator.run(None, {})
    except Exception:  # whatever it raises for operators that it cannot evaluate
        raise NoPlace from None
    if not np.isfinite(found).all():
        raise NoPlace
    rest = file.add("Sub", made, file.constant(np.asarray(found, np.float32)))
    file.reads(name, file.add("Add", file.constant(values), rest))


def _bound_or_weight(file: File) -> tuple[str, Array]:
    """A constant; often a single number, such as a bound, since none of a proof's exact probes reads those."""
    if file.chance(0.5):
        try:
            return file.weight(lambda values: values.size == 1)
        except NoPlace:
            pass
    return file.weight(lambda values: values.size < 200)


def computed_roundly(file: File) -> None:
    """A constant that the file computes with roundings: a root, a quotient, a sum, a sine, an exponential."""
    name, values = _bound_or_weight(file)
    file.cursor = 0
    with np.errstate(all="ignore"):
        third, square, logarithm = values / np.float32(3), values * values, np.log(np.abs(values))
    ways: list[Callable[[], str]] = [
        lambda: file.add("Mul", file.constant(third), np.float32(3)),
        lambda: file.add("Div", file.constant(values * 3), np.float32(3)),
        lambda: file.add("Sqrt", file.constant(square)),
        lambda: file.add("Exp", file.constant(logarithm)),
        lambda: file.add("Reciprocal", file.constant(np.float32(1) / np.where(values == 0, 1, values))),
        lambda: file.add("Sub", file.add("Add", file.constant(values), np.float32(100)), np.float32(100)),
        lambda: file.add("Sum", file.constant(third), file.constant(third), file.constant(third)),
        lambda: file.add("Pow", file.constant(np.abs(values)), np.float32(1.0000001)),
    ]
    _put(file, name, values, file.one(ways)())


def computed_in_half(file: File) -> None:
    """A constant that the file computes in float16 or bfloat16, where evaluators round at different places."""
    name, values = _bound_or_weight(file)
    file.cursor = 0
    kind = file.one([TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.BFLOAT16])
    low = file.add("Cast", file.constant(values), to=kind)
    other = file.add("Cast", np.float32(file.one([1, 3, 0.1, 1024])), to=kind)
    for operator in file.one([["Add", "Sub"], ["Mul", "Div"], ["Div", "Mul"], ["Mul"], ["Add"]]):
        low = file.add(operator, low, other)
    if file.chance(0.3):
        low = file.add("Sqrt", file.add("Mul", low, low))
    _put(file, name, values, file.add("Cast", low, to=FLOAT))


def computed_from_text(file: File) -> None:
    """Numbers cast from texts, as evaluators read them differently."""
    name, values = _bound_or_weight(file)
    file.cursor = 0
    texts = [repr(float(value)) for value in values.reshape(-1)]
    texts[file.whole(0, len(texts) - 1)] = file.one(
        ["1_0", " 2 ", "1e1", "+3", "0x10", "nan", "Infinity", "1.", texts[0]]
    )
    made: TensorProto = cast("Any", helper).make_tensor("texts", TensorProto.STRING, values.shape, texts)
    _put(file, name, values, file.add("Cast", file.add("Constant", value=made), to=FLOAT))


def computed_with_integers(file: File) -> None:
    """A constant that comes out of whole numbers: overflow, division of negative ones, a cast of NaN, a range."""
    name, values = _bound_or_weight(file)
    file.cursor = 0
    whole = np.round(np.clip(values * 7, -1e6, 1e6)).astype(np.int64)
    ways: list[Callable[[], str]] = [
        lambda: file.add("Div", file.constant(whole), np.int64(-2)),
        lambda: file.add("Cast", file.constant(values * 1e10), to=TensorProto.INT32),
        lambda: file.add("Cast", file.constant(values * np.float32(300)), to=TensorProto.UINT8),
        lambda: file.add("Mul", file.constant((whole % 100).astype(np.uint8), "uint8"), np.uint8(7)),
        lambda: file.add("Add", file.constant(whole.astype(np.int32), "int32"), np.int32(2**31 - 1)),
        lambda: file.add("Cast", file.constant(values), to=TensorProto.BOOL),
        lambda: file.add("Mod", file.constant(whole), np.int64(-3)),
        lambda: file.add("Abs", file.constant(whole)),
    ]
    _put(file, name, values, file.add("Cast", file.one(ways)(), to=FLOAT))


CONSTANTS = {
    "a value by an ulp": by_an_ulp,
    "a value of a constant": one_value,
    "a constant permuted": moved,
    "a constant scaled": scaled,
    "an optional input dropped": bias_dropped,
    "two constants against each other": weights_moved_between,
    "a constant of another type": another_type,
    "a constant of another shape": another_shape,
    "a tensor stored ambiguously": stored_twice,
    "a Constant node": stored_in_a_node,
    "a constant computed exactly": computed_alike,
    "a constant computed with roundings": computed_roundly,
    "a constant computed in float16": computed_in_half,
    "a constant cast from text": computed_from_text,
    "a constant computed of integers": computed_with_integers,
}
