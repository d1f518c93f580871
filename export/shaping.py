"""The shapes of the rows of every value, found from the input's shapes and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .blocks import TABLE
from .errors import ExportError
from .graph import Graph, Node, Shape, Tensor


def input_shapes(nodes: Sequence[Node], given: Mapping[str, Shape | None]) -> dict[str, Shape]:
    """The shapes of the inputs: those given, the others seen from the weights that their features meet.

    Raises ExportError where one cannot be seen.
    """
    widths = {name: shape[0] for name, shape in given.items() if shape is not None and len(shape) == 1}
    _spread(widths, nodes, of_one=False)
    if any(name not in widths and shape is None for name, shape in given.items()):
        _spread(widths, nodes, of_one=True)
    unknown = next((name for name, shape in given.items() if shape is None and name not in widths), None)
    if unknown is not None:
        several = len(given) > 1
        what = f"the number of features of the input '{unknown}'" if several else "the number of input features"
        hint = f"input_shape={{'{unknown}': (features,)}} (--features {unknown}=N)" if several else ""
        hint = hint or "input_shape=(features,) (--features), or a spec"
        raise ExportError(f"{what} cannot be seen from the module. What to do: give {hint}")
    return {name: shape or (widths[name],) for name, shape in given.items()}


def _spread(widths: dict[str, int], nodes: Sequence[Node], *, of_one: bool) -> None:
    """Add the widths that follow from the weights and from each other; ``of_one``: a constant of one value counts."""
    known = -1
    while known < len(widths):
        known = len(widths)
        for node in nodes:
            for name, width in _widths(node, widths, of_one):
                widths.setdefault(name, width)


def _widths(node: Node, widths: Mapping[str, int], of_one: bool) -> list[tuple[str, int]]:
    found = []
    own = [t.values.shape[-1] for role, t in node.tensors.items() if node.op != "linear" or role == "weight"]
    own = [width for width in own if width > 1 or of_one or node.op not in ("scale", "standardize")]
    if own:
        found += [(name, own[0]) for name in node.inputs]
    if node.op == "linear":
        return [*found, (node.output, len(node.tensors["weight"].values))]
    if node.op == "concat":
        missing = {name for name in node.inputs if name not in widths}
        held = sum(widths.get(name, 0) for name in node.inputs)
        if not missing:
            found.append((node.output, held))
        elif len(missing) == 1 and node.output in widths:
            (name,) = missing
            rest, left = divmod(widths[node.output] - held, node.inputs.count(name))
            found += [(name, rest)] if rest > 0 and not left else []
        return found
    if node.op == "flatten":
        return [*found, *((node.output, widths[name]) for name in node.inputs if name in widths)]
    alike = [*node.inputs, node.output]
    width = next((widths[name] for name in alike if name in widths), None)
    return found if width is None else [*found, *((name, width) for name in alike)]


def with_shapes(graph: Graph) -> Graph:
    """The graph with the shape of every value. Raises ExportError: blocks that cannot take what they are given."""
    shapes, nodes = dict(graph.inputs), []
    for node in graph.nodes:
        row, given = TABLE[node.op], [shapes[name] for name in node.inputs]
        place = f"{node.op} at '{node.path}'"
        reason = next(filter(None, (row.refuse(node, shape) for shape in given)), None)
        if reason:
            raise ExportError(f"{place}: {reason}")
        if row.alike and any(shape != given[0] for shape in given):
            listed = " and ".join(str(list(shape)) for shape in given)
            raise ExportError(f"{place}: rows of shapes {listed} cannot be combined; they must be equal")
        expected = node.tensors[row.width].values.shape[-1] if row.width in node.tensors else None
        if expected not in (None, given[0][-1]) and not (expected == 1 and row.of_any_width):
            message = f"expects {expected} features, but '{node.inputs[0]}' has rows of shape {list(given[0])}"
            raise ExportError(f"{place}: {message}")
        shapes[node.output] = row.shape(node, given)
        width = (shapes[node.output] if node.op == "linear" else given[0])[-1]
        tensors = {role: _fitted(tensor, role, width, place, row.of_any_width) for role, tensor in node.tensors.items()}
        nodes.append(replace(node, shape=shapes[node.output], tensors=tensors))
    return graph.with_nodes(nodes, [])


def _fitted(tensor: Tensor, role: str, width: int, place: str, of_any_width: bool) -> Tensor:
    """The tensor with a value per feature; one value stands for all of them where PyTorch takes it so."""
    if tensor.values.ndim != 1 or len(tensor.values) == width:
        return tensor
    if len(tensor.values) == 1 and of_any_width:
        return replace(tensor, values=np.repeat(tensor.values, width))
    raise ExportError(f"{place}: {tensor.name} has {len(tensor.values)} values for {width} features ({role})")
