"""Faults of where values are taken from: slices, indices and dimensions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from export.graph import Rows
from export.proof.structure import Layer
from runtime import InputError, ModelError, Session

from .edits import Edit, edited, reading, set_attribute, together
from .sites import Plan, Site

_PLACE_OF_INDEX = {"Gather": 1, "GatherElements": 1}


def _slice(site: Site) -> Edit | None:
    """A slice that starts and ends one later, or one earlier where it reaches the end."""

    def moved(layer: Layer) -> int | None:
        given, size = layer.expected.attributes, layer.input_shapes[0][layer.expected.attributes["dim"]]
        if isinstance(size, Rows) or layer.nodes[-1].op_type != "Slice":
            return None
        return 1 if given["end"] < size else -1 if given["start"] > 0 else None

    layer = site.pick("slice", fits=lambda layer: moved(layer) is not None)
    by = moved(layer) if layer is not None else None
    if layer is None or by is None:
        return None
    given = layer.expected.attributes
    start, end = (np.array([given[role] + by], np.int64) for role in ("start", "end"))
    return together(reading(layer.output, 1, start), reading(layer.output, 2, end))


def _index(site: Site, layer: Layer) -> tuple[NodeProto, int, np.ndarray] | None:
    """The operator that reads a constant index, the place of it, and the index."""
    for node in layer.nodes:
        place = _PLACE_OF_INDEX.get(node.op_type)
        held = site.held(node, place) if place is not None else None
        if place is not None and held is not None and held.size:
            return node, place, held
    return None


def _size_of_indexed(layer: Layer) -> int:
    """Of the dimension that an index picks from; 1 where that is the batch."""
    size = layer.input_shapes[0][layer.expected.attributes["dim"]]
    return size if isinstance(size, int) else 1


def _one_index(site: Site) -> Edit | None:
    """One element of an index, another of its dimension."""
    ops = ("index_select", "gather", "select")
    layer = site.pick(*ops, fits=lambda layer: _index(site, layer) is not None and _size_of_indexed(layer) > 1)
    found = _index(site, layer) if layer is not None else None
    if layer is None or found is None:
        return None
    node, place, held = found
    size, values = _size_of_indexed(layer), held.copy().reshape(-1)
    at = site.rng.integers(len(values))
    values[at] = (values[at] % size + site.rng.integers(1, size)) % size
    return reading(node.output[0], place, values.reshape(held.shape))


def _two_indices(site: Site) -> Edit | None:
    """Two elements of one index, each in the other's place; or of two that pick one column each of one value."""

    def unlike(layer: Layer) -> bool:
        found = _index(site, layer)
        return found is not None and len(np.unique(found[2])) > 1

    layer = site.pick("index_select", "gather", fits=unlike)
    found = _index(site, layer) if layer is not None else None
    if found is None:
        return _two_columns(site)
    node, place, held = found
    flat = held.copy().reshape(-1)
    first = int(site.rng.integers(len(flat)))
    others = np.flatnonzero(flat != flat[first])
    second = int(others[site.rng.integers(len(others))])
    flat[[first, second]] = flat[[second, first]]
    return reading(node.output[0], place, flat.reshape(held.shape))


def _two_columns(site: Site) -> Edit | None:
    picked = [(layer, _index(site, layer)) for layer in site.layers if layer.expected.op == "select"]
    known = [(layer, found) for layer, found in picked if found is not None]
    for i in site.rng.permutation(len(known)).tolist():
        (layer, (node, place, held)) = known[i]
        for other, (reader, its_place, index) in known[i + 1 :]:
            alike = (
                other.inputs == layer.inputs and other.expected.attributes["dim"] == layer.expected.attributes["dim"]
            )
            if alike and not np.array_equal(held, index):
                exchanged = reading(reader.output[0], its_place, held.reshape(index.shape))
                return together(reading(node.output[0], place, index.reshape(held.shape)), exchanged)
    return None


def _permutation(site: Site) -> Edit | None:
    """Two dimensions of one size, each in the other's place of a permutation."""

    def pairs(layer: Layer) -> list[tuple[int, int]]:
        shape = layer.expected.shape
        alike = [(i, j) for i in range(len(shape)) for j in range(i) if shape[i] == shape[j] != 1]
        return alike if layer.nodes[-1].op_type == "Transpose" else []

    layer = site.pick("permute", fits=lambda layer: bool(pairs(layer)))
    if layer is None:
        return None
    first, second = pairs(layer)[site.rng.integers(len(pairs(layer)))]
    dims = list(layer.expected.attributes["dims"])
    dims[first], dims[second] = dims[second], dims[first]
    return edited(layer.output, lambda node: set_attribute(node, "perm", dims))


def _reshape(site: Site) -> Edit | None:
    """Two sizes of a Reshape exchanged, where the file runs all the same, and gives other numbers in the same shape.

    Numbers that rounding alone tells apart are no others: the queries of an attention may stand one by one.
    """
    found = []
    for node in site.model.proto.graph.node:
        held = site.held(node, 1) if node.op_type == "Reshape" else None
        for first, second in combinations(range(1, 0 if held is None else held.size), 2):
            if held is not None and held[first] != held[second]:
                sizes = held.copy()
                sizes[[first, second]] = sizes[[second, first]]
                found.append(reading(node.output[0], 1, sizes))
    right = _outputs(onnx.load(str(site.model.path))) if found else []
    for i in site.rng.permutation(len(found)).tolist():
        other = onnx.load(str(site.model.path))
        found[i](other)
        outputs = _outputs(other)
        alike = [values.shape for values in outputs] == [values.shape for values in right]
        if alike and not all(np.allclose(a, b, rtol=1e-4) for a, b in zip(outputs, right, strict=True)):
            return found[i]
    return None


def _outputs(proto: ModelProto) -> list[np.ndarray]:
    """What a file gives for three normal rows, whole numbers 0 and 1; nothing where it does not run."""
    rng = np.random.default_rng(0)
    try:
        with Session(proto.SerializeToString(), "cpu") as session:
            feed = {}
            for port in session.inputs:
                shape = (3, *(size for size in port.shape[1:] if isinstance(size, int)))
                drawn = rng.standard_normal(shape) if port.dtype == "float32" else rng.integers(0, 2, shape)
                feed[port.name] = drawn.astype(port.dtype)
            return list(session.run(feed).values())
    except (InputError, ModelError, RuntimeError):
        return []


MOVEMENT: dict[str, Plan] = {
    "slice off by one": _slice,
    "one index wrong": _one_index,
    "two indices swapped": _two_indices,
    "two dimensions exchanged": _permutation,
    "two sizes of a reshape exchanged": _reshape,
}
