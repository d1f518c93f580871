"""Small ONNX files that take indices into an embedding table, and what they say of them in their metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime import Port, Summary

_RNG = np.random.default_rng(0)
TABLE = _RNG.standard_normal((10, 4), dtype=np.float32)
WEIGHT = _RNG.standard_normal((4, 3), dtype=np.float32)
FLOATS = _RNG.standard_normal((2, 4), dtype=np.float32)
OUT = Port("y", ("batch", 3))
GENRES = Port("ids", ("batch", 2), features=("genre", "mood"), dtype="int64", indices=((0, 9), (1, 5)))
"""Two indices into the same table; 0 is a row of it, and still not allowed as a mood."""
GENRE = Port("ids", ("batch", 1), features=("genre",), dtype="int64", indices=((0, 9),))
OBSERVATION = Port("obs", ("batch", 2), features=("speed", "torque"))
CAST = Port("x", ("batch", 3), features=("speed", "torque", "genre"), indices=(None, None, (0, 9)))


SHIFTED = Port("ids", ("batch", 2), dtype="int64", indices=((100, 109), (100, 109)))
"""Indices that begin at 100: 0 would be beyond the table."""


def only_indices(path: Path, port: Port = GENRES, *, said: bool = True, rows_depend: bool = False) -> Path:
    """``ids`` int64 (batch, 2) to the sum of their rows of the table, times the weight."""
    nodes = [
        helper.make_node("Sub", ["ids", "first" if port is SHIFTED else "zero"], ["places"]),
        helper.make_node("Gather", ["table", "places"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "weight"], ["z"]),
    ]
    if rows_depend:
        nodes += [helper.make_node("ReduceMean", ["z"], ["m"], axes=[0]), helper.make_node("Sub", ["z", "m"], ["y"])]
    else:
        nodes[-1].output[0] = "y"
    return _saved(path, nodes, (port,), said=said, rows_depend=rows_depend)


def beside_floats(path: Path, *, said: bool = True) -> Path:
    """``obs`` float32 (batch, 2) and ``ids`` int64 (batch, 1)."""
    nodes = [
        helper.make_node("Squeeze", ["ids", "axis"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Gemm", ["obs", "floats", "row"], ["sum"]),
        helper.make_node("MatMul", ["sum", "weight"], ["y"]),
    ]
    return _saved(path, nodes, (OBSERVATION, GENRE), said=said)


def cast_column(path: Path, *, said: bool = True) -> Path:
    """``x`` float32 (batch, 3), whose last column is an index."""
    nodes = [
        helper.make_node("Split", ["x", "parts"], ["obs", "column"], axis=1),
        helper.make_node("Squeeze", ["column", "axis"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Gemm", ["obs", "floats", "row"], ["sum"]),
        helper.make_node("MatMul", ["sum", "weight"], ["y"]),
    ]
    return _saved(path, nodes, (CAST,), said=said)


def of_indices(ids: np.ndarray) -> np.ndarray:
    """What ``only_indices`` answers, in float64."""
    return TABLE.astype(np.float64)[ids].sum(axis=1) @ WEIGHT.astype(np.float64)


def of_both(observations: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """What ``beside_floats`` and ``cast_column`` answer for (rows, 2) and (rows,), in float64."""
    return (observations @ FLOATS.astype(np.float64) + TABLE[ids]) @ WEIGHT.astype(np.float64)


def _saved(
    path: Path, nodes: list[onnx.NodeProto], ports: tuple[Port, ...], *, said: bool, rows_depend: bool = False
) -> Path:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    held = {"table": TABLE, "weight": WEIGHT, "floats": FLOATS, "axis": np.array([1]), "parts": np.array([2, 1])}
    held |= {"zero": np.array(0), "first": np.array(100)}
    used = {name for node in nodes for name in node.input}
    inputs, outputs = (
        [helper.make_tensor_value_info(port.name, kinds[port.dtype], port.shape) for port in each]
        for each in (ports, (OUT,))
    )
    weights = [numpy_helper.from_array(array, name) for name, array in held.items() if name in used]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if said:
        summary = Summary("m", ports, (OUT,), (), 17, 8, rows_depend=rows_depend, mlpx_version="0")
        helper.set_model_props(model, summary.to_metadata())
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
