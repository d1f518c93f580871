"""The network layer by layer, whatever is carried along: exact values with their radii, or values with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from export.graph import Node

from .structure import Layer, Structure

V = TypeVar("V")


def walk(
    structure: Structure,
    inputs: Mapping[str, V],
    step: Callable[[Layer, Sequence[V]], V],
    move: Callable[[Node, V], V],
) -> list[V]:
    """What ``step`` makes of the inputs at every layer; ``move`` takes it through nodes that compute nothing.

    Returns: what stands at the network's outputs, in order.
    """
    graph = structure.graph
    layers = {layer.members[-1].output: layer for layer in structure.layers}
    values = dict(inputs)
    for node in graph.nodes:
        if node.output in structure.moved:
            values[node.output] = move(node, values[node.inputs[0]])
        elif node.output in layers:
            layer = layers[node.output]
            values[node.output] = step(layer, [values[name] for name in layer.members[0].inputs])
    return [values[value] for value in graph.outputs.values()]
