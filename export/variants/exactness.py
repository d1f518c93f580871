"""Are the integer products of this ONNX Runtime on this processor exact?

On x86 processors without VNNI the fast product of unsigned and signed bytes adds pairs in 16 bits, and saturates:
255 · 127 + 255 · 127 gives 32767. No version or flag says for sure which product is used, so it is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from runtime import ModelError, Session
from runtime.processor import vnni

from .kinds import KINDS, Kind, Spelling
from .layers import Layer

_ROWS, _COLUMNS = 64, 24
_TOLERANCE = _ROWS / 8
Run = Callable[[np.ndarray], np.ndarray]


def extremes() -> tuple[np.ndarray, np.ndarray]:
    """Rows (batch, 64) of 0, 1 and -1 and a weight (64, 24) of 1 and -1.

    Quantised, each becomes an integer of the largest magnitude, or one below. Rounding then changes a sum of 64
    products by at most 4 (with 4-bit weights); pairs that saturate make a sum of equal signs half as large, 32 off.
    """
    signs = np.where(np.arange(_ROWS)[:, None] // 4 % (np.arange(_COLUMNS) + 1) % 2 == 0, 1.0, -1.0)
    rows = np.stack([np.ones(_ROWS), signs[:, 1], signs[:, 3], np.arange(_ROWS) % 2])
    return rows.astype(np.float32), signs.astype(np.float32)


def is_exact(run: Run) -> bool:
    """Whether ``run``, float32 rows (batch, 64) to (batch, 24), gives the products of ``extremes`` unsaturated."""
    rows, weight = extremes()
    return all(np.abs(run(row) - row @ weight).max() <= _TOLERANCE for row in rows[:, None])


def way_of(kind: str) -> str:
    """The first way of a kind whose products are exact here. Raises ExportError where none is."""
    found = _found(kind)
    if found is None:
        raise ExportError(f"no product of {kind} is exact with this ONNX Runtime on this processor ({vnni()})")
    return found


def passed_over(kind: str, way: str) -> str | None:
    """Why a faster way of a kind is not taken here, in words; None where ``way`` is the fastest."""
    faster = list(KINDS[kind].ways)[: list(KINDS[kind].ways).index(way)]
    if not faster:
        return None
    return f"{kind} as {' or '.join(faster)}: its products are not exact on this processor, {vnni()}"


@cache
def _found(kind: str) -> str | None:
    return next((way for way in KINDS[kind].ways if _is_exact_way(KINDS[kind], way)), None)


def _is_exact_way(kind: Kind, way: str) -> bool:
    try:
        with Session(probe(kind, way), "cpu", threads=1) as session:
            return is_exact(session.predict)
    except ModelError:  # an ONNX Runtime that lacks the operator
        return False


def probe(kind: Kind, way: str) -> bytes:
    """A file of one layer with the weight of ``extremes``, spelt in this way."""
    rows, weight = extremes()
    layer = Layer("probe", (), "x", "y", weight, None)
    spelling = Spelling(layer, {"x", "y"})
    kind.ways[way](spelling, (-float(rows.max()), float(rows.max()) * 127 / 128))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", _ROWS), ("y", _COLUMNS))
    ]
    held = [numpy_helper.from_array(values, name) for name, values in spelling.constants.items()]
    graph = helper.make_graph(spelling.nodes, "probe", ports[:1], ports[1:], held)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in kind.domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
