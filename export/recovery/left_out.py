"""Warnings on what a policy needs and a selection lacks though the file has it: a normaliser, an action's scale."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.errors import RecoveryError

from .checkpoint_file import Contents
from .checkpoint_layers import Layer, layers_of
from .roles import belong_together, role_of
from .selection import Selection, selected
from .suggestions import Part, fitting, format_options

_ACTION = re.compile(r"(^|[._])actions?_(scale|bias|offset|low|high|min|max|mean|std)$", re.IGNORECASE)
"""Tensors that only a policy's output has."""


def left_out(contents: Contents, selection: Selection, key: str | None, prefix: Sequence[str]) -> list[str]:
    """Notes on normalisers of the inputs, and on scales of the outputs, that the file has and the selection lacks.

    Each gives the whole selection with it, after the user's own ``key`` and ``prefix``, and that selection was tried.
    A critic's normaliser is not offered to an actor, nor the reverse.
    """
    chosen, notes = selection.chosen, list[str]()
    role = next((role for layer in reversed(chosen) if (role := _role(selection, layer))), "")
    within, layers = {id(tensor) for layer in chosen for tensor in layer.tensors.values()}, layers_of(contents.tensors)
    others = [layer for layer in layers[0] if not within & {id(tensor) for tensor in layer.tensors.values()}]
    options = _Options(contents, selection, key, prefix, layers[0])
    linears = [layer for layer in chosen if layer.kind == "linear"]
    if all(layer.kind != "standardize" for layer in chosen):
        normalisers = [layer for layer in others if layer.kind == "standardize"]
        width = linears[0].widths[0]
        for part in _fitting(normalisers, layers[0], width, role):
            (layer,) = part.layers
            what = f"{layer.title} holds a mean and a spread for {width} features, the network's inputs"
            if layer.widths[0] == width:
                advice = options.format(part, front=True)
                notes.append(f"NORMALISER LEFT OUT: {what}; if the network is fed normalised rows, {advice}")
    if all(layer.kind != "scale" for layer in chosen[-1:]):
        scales = [layer for layer in others if layer.kind == "scale" and layer.position[1] is None]
        width = linears[-1].widths[1]
        for part in _fitting(scales, layers[0], width, role):
            what = f"{', '.join(part.layers[0].names)} scale an action of {width} values, the network's outputs"
            notes.append(f"ACTION SCALE LEFT OUT: {what}; {options.format(part, front=False)}")
        notes += [
            f"ACTION SCALE LEFT OUT: {name} {list(tensor.shape)} belongs to no layer that can be recovered; what it"
            " does to the action is not in the network. What to do: add a block for it, such as scale, to the spec"
            for name, tensor in contents.tensors.items()
            if name in layers[1]
            and _ACTION.search(name)
            and tensor.numel() in (1, width)
            and _fits(name.rpartition(".")[0], role)
        ]
    return notes


def _fitting(candidates: Sequence[Layer], layers: Sequence[Layer], width: int, role: str) -> list[Part]:
    """As ``suggestions.fitting``; one that no prefix selects alone comes with the prefix of its first tensor."""
    found = fitting(candidates, layers, (), width, role)
    return found or [
        Part(layer.names[0], (layer,))
        for layer in candidates
        if layer.widths[0] in (0, width) and _fits(layer.names[0], role)
    ]


def _role(selection: Selection, layer: Layer) -> str:
    return role_of(".".join(filter(None, (selection.scope, layer.path))))


def _fits(name: str, role: str) -> bool:
    return belong_together(role_of(name), role)


class _Options:
    """The options that select the chosen layers and one more part."""

    def __init__(
        self,
        contents: Contents,
        selection: Selection,
        key: str | None,
        prefix: Sequence[str],
        layers: Sequence[Layer],
    ):
        self._contents, self._selection, self._key = contents, selection, key
        self._layers = layers
        own = tuple(prefix) or ("",)
        scope = f"{selection.scope}." if selection.scope else ""
        paths = tuple(layer.prefix for layer in selection.chosen)
        # As the user typed them; then under the file's own names, for a part in another state dict.
        self._ways = [
            (key, scope, own),
            (None, "", own),
            (None, "", tuple(scope + each for each in own)),
            (key, scope, paths),
            (None, "", tuple(scope + path for path in paths)),
        ]

    def format(self, part: Part, *, front: bool) -> str:
        """``put it in front: --prefix …``, in the first of the ways that selects the part and the chosen layers."""
        (layer,) = part.layers
        expected = [_tensors(layer), *map(_tensors, self._selection.chosen)]
        expected = expected if front else [*expected[1:], expected[0]]
        for key, scope, own in self._ways:
            for name in dict.fromkeys((part.prefix, layer.names[0])):
                if not name.startswith(scope):
                    continue
                new = name.removeprefix(scope)
                prefixes = (new, *own) if front else (*own, new)
                if self._selects(key, prefixes, expected):
                    option = f"--key {key} " if key else ""
                    where = "in front" if front else "at the end"
                    return f"put it {where}: {option}{format_options(prefixes)}"
        where = "before" if front else "after"
        return f"no --prefix selects it beside the others; add a block for it {where} them to the spec"

    def _selects(self, key: str | None, prefixes: tuple[str, ...], expected: list[list[int]]) -> bool:
        try:
            found = selected(self._contents, key, prefixes).chosen
        except RecoveryError:
            return False
        return [_tensors(layer) for layer in found] == expected


def _tensors(layer: Layer) -> list[int]:
    return [id(tensor) for tensor in layer.tensors.values()]
