"""Where modules without weights stand between layers, and which of them a person says are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import RecoveryError

from .activations import BlockData, parse
from .chains import gaps
from .layers import Layer


@dataclass(frozen=True)
class Said:
    """What a person says that a checkpoint cannot."""

    activation: str | None = None
    output_activation: str | None = None
    activations: Sequence[str] | None = None
    dropout: float | None = None


@dataclass(frozen=True)
class _Place:
    at: int
    """The index of the layer before it."""
    room: int | None
    """How many modules the indices leave room for; ``None`` where they do not tell."""
    run: str
    """``hidden`` between two linear layers, ``input`` before the first and ``output`` after the last."""
    turn: int
    """How many linear layers lie before it."""
    words: str


def fill(layers: Sequence[Layer], said: Said) -> tuple[list[list[BlockData]], list[str]]:
    """The blocks that follow each layer, and notes on what was chosen.

    Raises RecoveryError where something has to be said and is not, or contradicts the indices.
    """
    places, end = _places(layers)
    if said.activations is not None:
        return _listed(layers, places, end, said)
    after: list[list[BlockData]] = [[] for _ in layers]
    notes: list[str] = []
    hidden = [place for place in places if place.run == "hidden"]
    wanted = [place for place in places if place.room or place.run == "hidden"]
    if said.activation is None and wanted:
        raise RecoveryError(f"{_found(layers, places)}{_how(places)}")
    if said.activation is not None and parse(said.activation, "--activation"):
        if not hidden:
            raise RecoveryError(f"--activation {said.activation}: there is no place for it; {_found(layers, places)}")
        if len(hidden) < len(wanted) or max(Counter(place.turn for place in hidden).values()) > 1:
            message = "which of these modules is the activation is not said by --activation alone"
            raise RecoveryError(f"{message}; {_found(layers, places)}{_how(places)}")
    for place in hidden:
        blocks = parse(said.activation or "none", "--activation")
        after[place.at], lines = _with_dropout(place, blocks, said.dropout, "--activation")
        notes.extend(lines)
    _refuse_lost_dropout(layers, places, after, said.dropout)
    return after, [*notes, *_unsaid(layers, places), *_output(layers, after, end, said.output_activation)]


def _listed(
    layers: Sequence[Layer], places: list[_Place], end: int, said: Said
) -> tuple[list[list[BlockData]], list[str]]:
    entries = list(said.activations or ())
    output = said.output_activation
    if said.activation is not None:
        raise RecoveryError("--activation and --activations: one of the two")
    if len(entries) == len(places) + 1 and output is None:
        output = entries.pop()
    if len(entries) != len(places):
        message = f"--activations names {len(entries)}, and there are {len(places)} places"
        raise RecoveryError(f"{message}; {_found(layers, places)}{_how(places)}")
    after: list[list[BlockData]] = [[] for _ in layers]
    notes: list[str] = []
    for place, entry in zip(places, entries, strict=True):
        dropout = said.dropout if place.run == "hidden" else None
        after[place.at], lines = _with_dropout(place, parse(entry, "--activations"), dropout, "--activations")
        notes.extend(lines)
    _refuse_lost_dropout(layers, places, after, said.dropout)
    return after, [*notes, *_output(layers, after, end, output)]


def _places(layers: Sequence[Layer]) -> tuple[list[_Place], int]:
    """The places where a module can be, and the index of the layer that the output's activation follows."""
    end = max(at for at, layer in enumerate(layers) if layer.kind != "scale" or at == 0)
    linears = [at for at, layer in enumerate(layers) if layer.kind == "linear"]
    places = []
    for at, room in enumerate(gaps(layers)[:end]):
        if room == 0:
            continue
        turn = sum(linear <= at for linear in linears)
        run = "input" if turn == 0 else "output" if turn == len(linears) else "hidden"
        between = f"between {layers[at].path} and {layers[at + 1].path}"
        if room is None:
            words = f"{between}: no index tells what stands there"
        else:
            words = f"{between}: {room} module{'s' if room > 1 else ''} without weights"
        places.append(_Place(at, room, run, turn, words))
    return places, end


def _with_dropout(
    place: _Place, blocks: list[BlockData], dropout: float | None, option: str
) -> tuple[list[BlockData], list[str]]:
    named = any(_is_dropout(block) for block in blocks)
    fits = place.room is None or place.room > len(blocks)
    if dropout is not None and not named and fits and (blocks or place.room):
        blocks = [*blocks, {"dropout": dropout}]
    if place.room is not None and len(blocks) < place.room:
        count = place.room - len(blocks)
        what = "one module" if count == 1 else f"{count} modules"
        hint = f"taken as nothing in evaluation, such as Dropout (--dropout) or Identity; {option} gives another"
        return blocks, [f"{place.words}, of which {what} is not named: {hint}"]
    if place.room is not None and len(blocks) > place.room:
        raise RecoveryError(f"{option}: {len(blocks)} modules are named; {place.words}")
    return blocks, []


def _is_dropout(block: BlockData) -> bool:
    return block == "dropout" or (isinstance(block, dict) and "dropout" in block)


def _refuse_lost_dropout(
    layers: Sequence[Layer], places: list[_Place], after: list[list[BlockData]], dropout: float | None
) -> None:
    if dropout is not None and not any(_is_dropout(block) for blocks in after for block in blocks):
        raise RecoveryError(f"--dropout {dropout}: the indices leave no room for it; {_found(layers, places)}")


def _output(layers: Sequence[Layer], after: list[list[BlockData]], end: int, given: str | None) -> list[str]:
    """Puts the output's activation after the last layer that is no scale, and says where none was named."""
    blocks = parse(given or "none", "--output-activation")
    room = gaps(layers)[end] if end + 1 < len(layers) else None
    if room is not None and len(blocks) > room:
        between = f"between {layers[end].path} and {layers[end + 1].path} the indices leave room for {room} modules"
        raise RecoveryError(f"--output-activation {given}: {between}")
    if room and given is None:
        raise RecoveryError(
            f"between {layers[end].path} and {layers[end + 1].path} stands a module without weights, and a checkpoint"
            " does not say which. What to do: add --output-activation NAME, such as tanh, or none"
        )
    after[end] = [*after[end], *blocks]
    if given is None:
        return ["no activation after the output: a checkpoint does not say; --output-activation gives one"]
    return []


def _unsaid(layers: Sequence[Layer], places: list[_Place]) -> list[str]:
    """Notes on what the indices leave open, or say against what is usual."""
    notes = []
    unsure = [place for place in places if place.room is None]
    for place in unsure:
        if place.run == "hidden":
            continue
        path = layers[place.at].path or layers[place.at].names[0]
        notes.append(f"nothing is put after {path}: --activations gives what stands there (clip:-5:5, for one)")
    hidden = [place for place in unsure if place.run == "hidden"]
    if hidden:
        between = ", ".join(f"{layers[place.at].path} and {layers[place.at + 1].path}" for place in hidden[:6])
        more = " …" if len(hidden) > 6 else ""
        notes.append(f"that an activation stands between {between}{more} is said by --activation alone, by no index")
    room = gaps(layers)
    for at, gap in enumerate(room):
        if gap == 0 and layers[at].kind == layers[at + 1].kind == "linear":
            notes.append(
                f"no activation between {layers[at].path} and {layers[at + 1].path}: the indices leave no room"
            )
    return notes


def _found(layers: Sequence[Layer], places: list[_Place]) -> str:
    lines = []
    for at, layer in enumerate(layers):
        into, out = layer.widths
        lines.append(f"\n  {layer.path or layer.names[0]}: {layer.kind}, {into or out} -> {out}")
        lines.extend(f"\n    {place.words}" for place in places if place.at == at)
    shown = lines if len(lines) <= 60 else [*lines[:30], "\n  …", *lines[-25:]]
    return f"the layers found, and where modules without weights can stand:{''.join(shown)}"


def _how(places: list[_Place]) -> str:
    count = len(places)
    example = ",".join(["relu"] * min(count, 8) + (["…"] if count > 8 else []))
    return (
        "\nA checkpoint does not hold its activations. What to do: add --activation NAME (one for all hidden layers,"
        f" such as elu, relu, tanh), or --activations {example} (one for each of the {count} places, in order, 'none'"
        " for nothing); --output-activation NAME for one after the last layer"
    )
