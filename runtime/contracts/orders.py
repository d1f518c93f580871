"""Whether the features of one network are those of another in another order: by their names, or by the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layers import Layer

Order = tuple[int, ...]
"""Of each feature of the first, its index in the second."""


def order_of_names(first: Sequence[str], second: Sequence[str]) -> Order | None:
    """The order of names that both have, each once; None if it is the same."""
    places = {name: index for index, name in enumerate(second)}
    order = tuple(places[name] for name in first)
    return None if order == tuple(range(len(order))) else order


def order_of_weights(first: Sequence[Layer], second: Sequence[Layer], kind: str) -> Order | None:
    """The order in which the first linear layer ("input"), or the last ("output"), has the same weights.

    None where the weights are not known, are the same, or are not the same in any order. Equal weights of several
    features cannot be told apart, and keep their order.
    """
    found = [_vectors(layers, kind) for layers in (first, second)]
    ours, theirs = found
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    places: dict[bytes, list[int]] = {}
    for index, vector in enumerate(theirs):
        places.setdefault(vector.tobytes(), []).append(index)
    order: list[int] = []
    for index, vector in enumerate(ours):
        same = places.get(vector.tobytes())
        if not same:
            return None
        order.append(same.pop(same.index(index) if index in same else 0))
    return None if order == sorted(order) else tuple(order)


def _vectors(layers: Sequence[Layer], kind: str) -> np.ndarray | None:
    """The weights of each feature: rows of the first layer, or columns of the last, with the bias."""
    places = [index for index, each in enumerate(layers) if each.kind == "linear" and "weight" in each.weights]
    if not places:
        return None
    if kind == "input":
        return np.ascontiguousarray(layers[0].weights["weight"]) if places[0] == 0 else None
    weights = layers[places[-1]].weights
    rows = [weights["weight"], *([weights["bias"].reshape(1, -1)] if "bias" in weights else [])]
    return np.ascontiguousarray(np.concatenate(rows).T)
