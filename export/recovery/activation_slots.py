"""Where modules without weights stand between layers, and which of them a person says are there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from builder.blocks import BLOCKS
from builder.errors import RecoveryError, suggestion

from .checkpoint_layers import Layer
from .recovered import Step

_ACTIVATIONS = (
    *("relu", "elu", "tanh", "sigmoid", "leaky_relu", "gelu", "silu", "softplus", "softmax", "relu6", "hardsigmoid"),
    *("clip", "dropout"),
)
_NAMES = {name.lower(): kind for kind in _ACTIVATIONS for name in (kind, BLOCKS[kind].torch_name)}


def fill(
    layers: Sequence[Layer],
    activation: str | None,
    output_activation: str | None,
    activations: Sequence[str] | None,
    dropout: float | None,
    notes: list[str],
) -> list[list[Step]]:
    """The blocks that follow each layer; what was chosen is noted. The options are those of ``read_checkpoint``.

    Raises RecoveryError where something has to be said and is not, or contradicts the indices.
    """
    places = _Places(layers)
    if activations is None:
        option, entries = "--activation", dict.fromkeys(places.hidden, activation or "none")
        _refuse_unclear(places, activation)
    else:
        option, listed = "--activations", list(activations)
        if activation is not None:
            raise RecoveryError("--activation and --activations: one of the two")
        if len(listed) == len(places.at) + 1 and output_activation is None:
            output_activation = listed.pop()
        if len(listed) != len(places.at):
            message = f"--activations names {len(listed)}, and there are {len(places.at)} places"
            raise RecoveryError(f"{message}; {places.shown()}{places.how()}")
        entries = dict(zip(places.at, listed, strict=True))
    after: list[list[Step]] = [[] for _ in layers]
    for at, entry in entries.items():
        after[at] = _placed(places, at, parse(entry, option), dropout, option, notes)
    if dropout is not None and not any(map(_has_dropout, after)):
        raise RecoveryError(f"--dropout {dropout}: the indices leave no room for it; {places.shown()}")
    if activations is None:
        notes += _unsaid(places)
    end = places.end
    after[end] = parse(output_activation or "none", "--output-activation")
    room = places.rooms[end]
    if room is not None and len(after[end]) > room:
        message = f"{places.between(end)} the indices leave room for {room} modules"
        raise RecoveryError(f"--output-activation {output_activation}: {message}")
    if room and output_activation is None:
        raise RecoveryError(
            f"{places.between(end)} stands a module without weights, and a checkpoint does not say which."
            " What to do: add --output-activation NAME, such as tanh, or none"
        )
    if output_activation is None:
        notes.append("no activation after the output: a checkpoint does not say; --output-activation gives one")
    return after


def parse(text: str, option: str) -> list[Step]:
    """The blocks that one activation stands for; none for ``none``. Raises RecoveryError.

    A person names them as ``elu``, ``LeakyReLU:0.2``, ``clip:-5:5``, ``relu+dropout``.
    """
    blocks: list[Step] = []
    for part in () if text.strip().lower() in ("none", "identity", "") else text.split("+"):
        name, *values = part.strip().split(":")
        kind = _NAMES.get(name.lower())
        if kind is None:
            known = suggestion(name, [*_ACTIVATIONS, "none"], "activations")
            raise RecoveryError(f"{option}: no activation {name!r}; {known}")
        if kind == "clip" and not values:
            raise RecoveryError(f"{option}: clip takes two numbers, as in clip:-5:5")
        try:
            options = values if kind == "gelu" else [float(value) for value in values]
        except ValueError:
            message = f"{part.strip()!r}: expected a number after the colon, as in leaky_relu:0.2"
            raise RecoveryError(f"{option}: {message}") from None
        blocks.append(Step(kind, options=options[0] if len(options) == 1 else options or {}))
    return blocks


class _Places:
    """The places where modules without weights can stand, each by the index of the layer before it."""

    def __init__(self, layers: Sequence[Layer]):
        self.layers = layers
        self.rooms = _rooms(layers)
        self.end = max(at for at, layer in enumerate(layers) if layer.kind != "scale" or at == 0)
        """The layer that the output's activation follows."""
        self.turns = list(accumulate(layer.kind == "linear" for layer in layers))
        """How many linear layers there are up to each."""
        self.at = [at for at, room in enumerate(self.rooms[: self.end]) if room != 0]
        self.hidden = [at for at in self.at if 0 < self.turns[at] < self.turns[-1]]
        """Those between two linear layers."""

    def between(self, at: int) -> str:
        return f"between {self.layers[at].path} and {self.layers[at + 1].path}"

    def words(self, at: int) -> str:
        room = self.rooms[at]
        if room is None:
            return f"{self.between(at)}: no index tells what stands there"
        return f"{self.between(at)}: {room} module{'s' if room > 1 else ''} without weights"

    def shown(self) -> str:
        """The layers and the places between them, a line each."""
        lines, places = [], set(self.at)
        for at, layer in enumerate(self.layers):
            into, out = layer.widths
            lines.append(f"\n  {layer.title}: {layer.kind}, {into or out} -> {out}")
            lines += [f"\n    {self.words(at)}"] if at in places else []
        shown = lines if len(lines) <= 60 else [*lines[:30], "\n  …", *lines[-25:]]
        return f"the layers found, and where modules without weights can stand:{''.join(shown)}"

    def how(self) -> str:
        count = len(self.at)
        example = ",".join(["relu"] * min(count, 8) + (["…"] if count > 8 else []))
        return (
            "\nA checkpoint does not hold its activations. What to do: add --activation NAME (one for all hidden"
            f" layers, such as elu, relu, tanh), or --activations {example} (one for each of the {count} places, in"
            " order, 'none' for nothing); --output-activation NAME for one after the last layer"
        )


def _rooms(layers: Sequence[Layer]) -> list[int | None]:
    """Between each layer and the next, how many modules without weights the indices leave room for.

    ``None`` where no index tells, as behind the last layer. Where the indices of a container leave no room anywhere, it
    is no Sequential with activations but a list of layers that code calls one by one, and they tell nothing either.
    """
    rooms: list[int | None] = [None] * len(layers)
    containers: dict[str, list[int]] = {}
    for at, (layer, following) in enumerate(pairwise(layers)):
        (container, index), (other, next_index) = layer.place, following.place
        if container == other and index is not None and next_index is not None and index < next_index:
            rooms[at] = next_index - index - 1
            containers.setdefault(container, []).append(at)
    for known in containers.values():
        linears = {at for first in known for at in (first, first + 1) if layers[at].kind == "linear"}
        if len(linears) > 1 and not any(rooms[at] for at in known):
            for at in known:
                rooms[at] = None
    return rooms


def _refuse_unclear(places: _Places, activation: str | None) -> None:
    """Raise RecoveryError where ``--activation`` alone does not say what stands in each place."""
    beside = any(places.rooms[at] for at in places.at if at not in places.hidden)
    if activation is None and (places.hidden or beside):
        raise RecoveryError(f"{places.shown()}{places.how()}")
    if activation is not None and parse(activation, "--activation"):
        if not places.hidden:
            raise RecoveryError(f"--activation {activation}: there is no place for it; {places.shown()}")
        if beside or len({places.turns[at] for at in places.hidden}) < len(places.hidden):
            message = "which of these modules is the activation is not said by --activation alone"
            raise RecoveryError(f"{message}; {places.shown()}{places.how()}")


def _placed(
    places: _Places, at: int, blocks: list[Step], dropout: float | None, option: str, notes: list[str]
) -> list[Step]:
    """The blocks of a place, with the Dropout behind a hidden activation; what is not named is noted."""
    room = places.rooms[at]
    fits = room is None or room > len(blocks)
    if dropout is not None and at in places.hidden and fits and (blocks or room) and not _has_dropout(blocks):
        blocks = [*blocks, Step("dropout", options=dropout)]
    if room is not None and len(blocks) > room:
        raise RecoveryError(f"{option}: {len(blocks)} modules are named; {places.words(at)}")
    if room is not None and len(blocks) < room:
        what = "one module" if room - len(blocks) == 1 else f"{room - len(blocks)} modules"
        hint = f"taken as nothing in evaluation, such as Dropout (--dropout) or Identity; {option} gives another"
        notes.append(f"{places.words(at)}, of which {what} is not named: {hint}")
    return blocks


def _has_dropout(blocks: Sequence[Step]) -> bool:
    return any(block.kind == "dropout" for block in blocks)


def _unsaid(places: _Places) -> list[str]:
    """Notes on what the indices leave open, or say against what is usual."""
    layers = places.layers
    unsure = [at for at in places.at if places.rooms[at] is None]
    notes = [
        f"nothing is put after {layers[at].title}: --activations gives what stands there (clip:-5:5, for one)"
        for at in unsure
        if at not in places.hidden
    ]
    hidden = [f"{layers[at].path} and {layers[at + 1].path}" for at in unsure if at in places.hidden]
    if hidden:
        between = f"{', '.join(hidden[:6])}{' …' if len(hidden) > 6 else ''}"
        notes.append(f"that an activation stands between {between} is said by --activation alone, by no index")
    for at, room in enumerate(places.rooms):
        if room == 0 and layers[at].kind == layers[at + 1].kind == "linear":
            notes.append(f"no activation {places.between(at)}: the indices leave no room")
    return notes
