"""Files whose shapes depend on a value, or on the batch in another way than by a factor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import nn

from tests.support.onnx_drafts import Draft

from .making import F, Maker, ints, written


def _softmax_between(folder: Path, shape: Callable[[Draft], Any], width: int = 4) -> tuple[nn.Module, Path]:
    """A softmax between a Reshape to a computed shape and one back."""
    d = Draft(17, ("batch", width))
    turned = d("Reshape", "x", shape(d))
    return nn.Softmax(dim=-1), written(d, d("Reshape", d("Softmax", turned, axis=-1), ints(-1, width)), folder)


def branch_on_a_value(folder: Path) -> tuple[nn.Module, Path]:
    """An If on x[0, 0], inside an If that is always true, picks the shape in front of a Softmax."""

    def shape(d: Draft) -> str:
        known = [onnx.numpy_helper.from_array(ints(*v), k) for k, v in (("zero", (0, 0)), ("one", (1, 1)))]
        known.append(onnx.numpy_helper.from_array(np.array([[0.123]], F), "value"))
        inner = [_constant_branch("wrong", -1, 2), _constant_branch("right", -1, 4)]
        nodes = [
            helper.make_node("Slice", ["x", "zero", "one"], ["first"]),
            helper.make_node("Equal", ["first", "value"], ["choice"]),
            helper.make_node("If", ["choice"], ["chosen"], then_branch=inner[0], else_branch=inner[1]),
        ]
        result = [helper.make_tensor_value_info("chosen", TensorProto.INT64, [2])]
        outer = helper.make_graph(nodes, "outer", [], result, known)
        always = d.constant(np.array([True]))
        other = _constant_branch("other", -1, 4)
        d.nodes.append(helper.make_node("If", [always], ["s"], then_branch=outer, else_branch=other))
        return "s"

    return _softmax_between(folder, shape)


def _constant_branch(name: str, *sizes: int) -> onnx.GraphProto:
    values = onnx.numpy_helper.from_array(ints(*sizes))
    result = helper.make_tensor_value_info(name, TensorProto.INT64, [len(sizes)])
    return helper.make_graph([helper.make_node("Constant", [], [name], value=values)], name, [], [result])


def table_by_a_value(folder: Path) -> tuple[nn.Module, Path]:
    """Slice, Cast and Gather of a table by x[0, 0] pick the shape in front of a Softmax: wrong from 200 to 201."""

    def shape(d: Draft) -> str:
        first = d("Squeeze", d("Slice", "x", ints(0, 0), ints(1, 1), ints(0, 1)), ints(1))
        index = d("Cast", d("Cast", first, to=TensorProto.UINT8), to=TensorProto.INT64)
        table = np.tile(ints(4), 256)
        table[200] = 2
        return d("Concat", ints(-1), d("Gather", table, index), axis=0)

    return _softmax_between(folder, shape)


def table_by_the_batch(rows: int) -> Maker:
    """Shape and Gather of a table pick the shape in front of a Softmax: over two rows at one size of the batch."""

    def make(folder: Path) -> tuple[nn.Module, Path]:
        def shape(d: Draft) -> str:
            table = np.tile(ints(4), 2**17)
            table[rows] = 8
            return d("Concat", ints(-1), d("Gather", table, d("Slice", d("Shape", "x"), ints(0), ints(1))), axis=0)

        return _softmax_between(folder, shape)

    make.__doc__ = table_by_the_batch.__doc__
    return make


def table_by_the_batch_alone(folder: Path) -> tuple[nn.Module, Path]:
    """The same with the operators of shapes alone: a table of 70 sizes, indexed by the batch."""

    def shape(d: Draft) -> str:
        table = np.tile(ints(4), 70)
        table[5] = 2
        return d("Concat", ints(-1), d("Gather", table, d("Gather", d("Shape", "x"), ints(0))), axis=0)

    return _softmax_between(folder, shape)


def constant_shape_of_two_rows(folder: Path) -> tuple[nn.Module, Path]:
    """Reshape to (-1, 8) in front of a Softmax over rows of 4: runs at even batches, over two rows at once."""
    return _softmax_between(folder, lambda _: ints(-1, 8))


def flattened_batch(folder: Path) -> tuple[nn.Module, Path]:
    """Flatten with axis 0 in front of a Softmax: over the whole batch."""
    d = Draft(17, ("batch", 4))
    return nn.Softmax(dim=-1), written(
        d, d("Reshape", d("Softmax", d("Flatten", "x", axis=0), axis=-1), ints(-1, 4)), folder
    )


def one_row_of_all(folder: Path) -> tuple[nn.Module, Path]:
    """Reshape to (1, -1) in front of a Softmax: over the whole batch, right for a single row."""
    return _softmax_between(folder, lambda _: ints(1, -1))


def remainder_of_the_batch(folder: Path) -> tuple[nn.Module, Path]:
    """The size 4 + 4·(batch mod 2): over two rows at odd batches that can be reshaped so."""

    def shape(d: Draft) -> str:
        odd = d("Mod", d("Gather", d("Shape", "x"), ints(0)), ints(2))
        return d("Concat", ints(-1), d("Add", d("Mul", odd, ints(4)), ints(4)), axis=0)

    return _softmax_between(folder, shape)


def narrow_size(kind: int, rows: int) -> Maker:
    """A Cast of the batch's size to a type that cannot hold it, and a size of 8 or 4 by what became of it."""

    def make(folder: Path) -> tuple[nn.Module, Path]:
        def shape(d: Draft) -> str:
            count = d("Gather", d("Shape", "x"), ints(0))
            back = d("Cast", d("Cast", count, to=kind), to=TensorProto.INT64)
            return d("Concat", back, ints(-1), axis=0)

        return _softmax_between(folder, shape)

    make.__doc__ = f"{narrow_size.__doc__} ({rows} rows)"
    return make


def largest_batch(folder: Path) -> tuple[nn.Module, Path]:
    """Min of the batch's size and 5,000 as the first size: rows are mixed in larger batches."""

    def shape(d: Draft) -> str:
        return d("Concat", d("Min", d("Gather", d("Shape", "x"), ints(0)), ints(5000)), ints(-1), axis=0)

    return _softmax_between(folder, shape)


def squeezed_by_a_value(folder: Path) -> tuple[nn.Module, Path]:
    """The axes of an Unsqueeze depend on x: a Softmax along another axis."""
    d = Draft(17, ("batch", 4))
    first = d("Reshape", d("Slice", "x", ints(0, 0), ints(1, 1), ints(0, 1)), ints(1))
    axes = d("Cast", d("Clip", d("Sub", first, F(4)), F(0), F(1)), to=TensorProto.INT64)
    turned = d("Unsqueeze", "x", d("Add", axes, ints(1)))
    return nn.Softmax(dim=-1), written(d, d("Reshape", d("Softmax", turned, axis=2), ints(-1, 4)), folder)


def declared_shape_that_is_not(folder: Path) -> tuple[nn.Module, Path]:
    """A value_info that declares an inner dimension as 1, so that a Transpose seems to move nothing."""
    d = Draft(17, ("batch", 4))
    turned = d("Transpose", d("Reshape", d("Relu", "x"), ints(0, 2, 2)), perm=[0, 2, 1])
    model = d.model(d("Reshape", turned, ints(-1, 4)))
    model.graph.value_info.append(helper.make_tensor_value_info("v1", TensorProto.FLOAT, ["batch", 1, 4]))
    path = folder / "attack.onnx"
    path.write_bytes(model.SerializeToString())
    return nn.ReLU().eval(), path


def size_as_data(folder: Path) -> tuple[nn.Module, Path]:
    """A target shape that is also data: the batch's size is added to every feature."""
    d = Draft(17, ("batch", 4))
    shape = d("Shape", "x")
    turned = d("Reshape", d("Relu", "x"), shape)
    return nn.ReLU().eval(), written(d, d("Max", turned, d("Cast", shape, to=TensorProto.FLOAT)), folder)


def shape_of_the_shape(folder: Path) -> tuple[nn.Module, Path]:
    """Reshape's values and its target are one value: the output is the shape."""
    d = Draft(17, ("batch", 4))
    shape = d("Slice", d("Shape", "x"), ints(0), ints(1), ints(0))
    output = d("Cast", d("Reshape", shape, shape), to=TensorProto.FLOAT)
    return nn.ReLU().eval(), written(d, output, folder)


SHAPES: dict[str, Maker] = {
    "a branch on a value": branch_on_a_value,
    "a table by a value": table_by_a_value,
    "a table by the batch, 4": table_by_the_batch(4),
    "a table by the batch, 10,000": table_by_the_batch(10_000),
    "a table by the batch alone": table_by_the_batch_alone,
    "two rows by a constant shape": constant_shape_of_two_rows,
    "the batch flattened": flattened_batch,
    "one row of all": one_row_of_all,
    "a remainder of the batch": remainder_of_the_batch,
    "a size of 16 bits": narrow_size(TensorProto.UINT16, 2**16 + 4),
    "a size of float16": narrow_size(TensorProto.FLOAT16, 2049),
    "a largest batch": largest_batch,
    "axes by a value": squeezed_by_a_value,
    "a declared shape": declared_shape_that_is_not,
    "a size as data": size_as_data,
    "the shape of a shape": shape_of_the_shape,
}
