"""The slots between layers that modules without weights may fill, and the blocks that the user's hints put there."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from builder.blocks import ACTIVATIONS
from builder.errors import RecoveryError, suggestion

from .checkpoint_layers import Layer
from .recovered import NotABlock, Step

_KINDS = {name.lower(): kind for kind, block in ACTIVATIONS.items() for name in (kind, block.torch_name)}


@dataclass(frozen=True)
class Hints:
    """What the user says about modules without weights; see ``read_checkpoint``."""

    activation: str | None = None
    output_activation: str | None = None
    activations: Sequence[str] | None = None
    dropout: float | None = None
    after_normaliser: str | None = None
    """The block behind a normaliser that comes first, where ``activations`` does not say it: that of a run's folder."""


def fill_slots(layers: Sequence[Layer], hints: Hints, notes: list[str]) -> list[list[Step]]:
    """The blocks after each layer; ``notes`` gets what was chosen by default.

    Raises RecoveryError: a hint is missing, or contradicts the indices.
    """
    slots = _Slots(layers)
    output_activation, dropout = hints.output_activation, hints.dropout
    if hints.activations is None:
        option, texts = "--activation", dict.fromkeys(slots.hidden, hints.activation or "none")
        _refuse_unclear(slots, hints.activation)
        if hints.after_normaliser is not None:
            texts |= dict.fromkeys(slots.after_normalisers, hints.after_normaliser)
    else:
        option, listed = "--activations", list(hints.activations)
        if hints.activation is not None:
            raise RecoveryError("give either --activation or --activations")
        if len(listed) == len(slots.indices) + 1 and output_activation is None:
            output_activation = listed.pop()
        if len(listed) != len(slots.indices):
            message = f"--activations names {len(listed)}, and there are {len(slots.indices)} places"
            raise RecoveryError(f"{message}; {slots.format_layers()}{slots.hint()}")
        texts = dict(zip(slots.indices, listed, strict=True))
    after: list[list[Step]] = [[] for _ in layers]
    for index, text in texts.items():
        after[index] = _fill_slot(slots, index, parse(text, option), dropout, option, notes)
    if dropout is not None and not any(map(_has_dropout, after)):
        raise RecoveryError(f"--dropout {dropout}: the indices leave no room for it; {slots.format_layers()}")
    if hints.activations is None:
        notes += _default_notes(slots, known=texts)
    end = slots.end
    after[end] = parse(output_activation or "none", "--output-activation")
    size = slots.sizes[end]
    if size is not None and len(after[end]) > size:
        message = f"the indices leave room for {size} modules {slots.between(end)}"
        raise RecoveryError(f"--output-activation {output_activation}: {message}")
    if size and output_activation is None:
        message = f"there is a module without weights {slots.between(end)}, and a checkpoint does not say which"
        raise RecoveryError(f"{message}. What to do: add --output-activation NAME, such as tanh, or none")
    if output_activation is None:
        notes.append("no activation after the output: a checkpoint does not say; --output-activation gives one")
    return after


def parse(text: str, option: str) -> list[Step]:
    """The blocks of ``elu``, ``LeakyReLU:0.2``, ``clip:-5:5`` or ``relu+dropout``; none for ``none``.

    Raises RecoveryError.
    """
    steps: list[Step] = []
    for part in () if text.strip().lower() in ("none", "identity", "") else text.split("+"):
        name, *values = part.strip().split(":")
        kind = _KINDS.get(name.lower())
        if kind is None:
            hint = suggestion(name, [*ACTIVATIONS, "none"], "activations")
            raise RecoveryError(f"{option}: unknown activation {name!r}; {hint}")
        options = [_number_or_text(value) for value in values]
        step = Step(kind, options=options[0] if len(options) == 1 else options or {})
        try:
            step.check()
        except NotABlock as reason:
            hint = "options are written as in leaky_relu:0.2, clip:-5:5 or gelu:tanh"
            raise RecoveryError(f"{option}: {part.strip()!r} {reason}; {hint}") from None
        steps.append(step)
    return steps


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class _Slots:
    """The slots between layers, each by the index of the layer before it."""

    def __init__(self, layers: Sequence[Layer]):
        self.layers = layers
        self.sizes = _slot_sizes(layers)
        self.end = max(index for index, layer in enumerate(layers) if layer.kind != "scale" or index == 0)
        """The layer that the output's activation follows."""
        self.linears = list(accumulate(layer.kind == "linear" for layer in layers))
        """The number of linear layers up to each layer."""
        self.indices = [index for index, size in enumerate(self.sizes[: self.end]) if size != 0]
        self.hidden = [index for index in self.indices if 0 < self.linears[index] < self.linears[-1]]
        """Those between two linear layers."""
        self.after_normalisers = [i for i in self.indices if not self.linears[i] and layers[i].kind == "standardize"]

    def between(self, index: int) -> str:
        return f"between {self.layers[index].title} and {self.layers[index + 1].title}"

    def describe(self, index: int) -> str:
        size = self.sizes[index]
        if size is None:
            return f"{self.between(index)}: no index tells which modules there are"
        return f"{self.between(index)}: {size} module{'s' if size > 1 else ''} without weights"

    def format_layers(self) -> str:
        """The layers and the slots between them, a line each."""
        lines, indices = list[str](), set(self.indices)
        for index, layer in enumerate(self.layers):
            inputs, outputs = layer.widths
            lines.append(f"\n  {layer.title}: {layer.kind}, {inputs or outputs} -> {outputs}")
            lines += [f"\n    {self.describe(index)}"] if index in indices else []
        shown = lines if len(lines) <= 60 else [*lines[:30], "\n  …", *lines[-25:]]
        return f"the layers, and the places for modules without weights:{''.join(shown)}"

    def hint(self) -> str:
        count = len(self.indices)
        example = ",".join(["relu"] * min(count, 8) + (["…"] if count > 8 else []))
        return (
            "\nA checkpoint does not hold its activations. What to do: add --activation NAME (one for all hidden"
            f" layers, such as elu, relu, tanh), or --activations {example} (one for each of the {count} places, in"
            " order, 'none' for nothing); --output-activation NAME for one after the last layer"
        )


def _slot_sizes(layers: Sequence[Layer]) -> list[int | None]:
    """After each layer, the number of modules without weights that the indices leave room for.

    ``None`` where no index says it, as after the last layer. If the indices of a container leave no room anywhere, it
    is not a Sequential with activations but a list of layers that code calls one by one, and they say nothing either.
    """
    sizes: list[int | None] = [None] * len(layers)
    containers: dict[str, list[int]] = {}
    for at, (layer, following) in enumerate(pairwise(layers)):
        (container, index), (next_container, next_index) = layer.position, following.position
        if container == next_container and index is not None and next_index is not None and index < next_index:
            sizes[at] = next_index - index - 1
            containers.setdefault(container, []).append(at)
    for known in containers.values():
        linears = {at for first in known for at in (first, first + 1) if layers[at].kind == "linear"}
        if len(linears) > 1 and not any(sizes[at] for at in known):
            for at in known:
                sizes[at] = None
    return sizes


def _refuse_unclear(slots: _Slots, activation: str | None) -> None:
    """Raise RecoveryError if ``--activation`` alone does not say what fills each slot."""
    others = any(slots.sizes[index] for index in slots.indices if index not in slots.hidden)
    if activation is None and (slots.hidden or others):
        raise RecoveryError(f"{slots.format_layers()}{slots.hint()}")
    if activation is not None and parse(activation, "--activation"):
        if not slots.hidden:
            raise RecoveryError(f"--activation {activation}: there is no place for it; {slots.format_layers()}")
        if others or len({slots.linears[index] for index in slots.hidden}) < len(slots.hidden):
            message = "--activation alone does not say which of these modules is the activation"
            raise RecoveryError(f"{message}; {slots.format_layers()}{slots.hint()}")


def _fill_slot(
    slots: _Slots, index: int, blocks: list[Step], dropout: float | None, option: str, notes: list[str]
) -> list[Step]:
    """The blocks of a slot, with the Dropout after a hidden activation; modules that are not named are noted."""
    size = slots.sizes[index]
    has_room = size is None or size > len(blocks)
    if dropout is not None and index in slots.hidden and has_room and (blocks or size) and not _has_dropout(blocks):
        blocks = [*blocks, Step("dropout", options=dropout)]
    if size is not None and len(blocks) > size:
        raise RecoveryError(f"{option}: {len(blocks)} modules are named; {slots.describe(index)}")
    if size is not None and len(blocks) < size:
        unnamed = "one module" if size - len(blocks) == 1 else f"{size - len(blocks)} modules"
        hint = f"taken as nothing in evaluation, such as Dropout (--dropout) or Identity; {option} gives another"
        notes.append(f"{slots.describe(index)}, of which {unnamed} is not named: {hint}")
    return blocks


def _has_dropout(blocks: Sequence[Step]) -> bool:
    return any(block.kind == "dropout" for block in blocks)


def _default_notes(slots: _Slots, known: Container[int]) -> list[str]:
    """Notes on what neither the hints nor the indices say, and on what is unusual."""
    layers = slots.layers
    unknown = [index for index in slots.indices if slots.sizes[index] is None]
    notes = [
        f"nothing is put after {layers[index].title}: --activations says what follows it (clip:-5:5, for example)"
        for index in unknown
        if index not in known
    ]
    hidden = [f"{layers[index].title} and {layers[index + 1].title}" for index in unknown if index in slots.hidden]
    if hidden:
        pairs = f"{', '.join(hidden[:6])}{' …' if len(hidden) > 6 else ''}"
        notes.append(f"only --activation says that there is an activation between {pairs}; no index does")
    for index, size in enumerate(slots.sizes):
        if size == 0 and layers[index].kind == layers[index + 1].kind == "linear":
            notes.append(f"no activation {slots.between(index)}: the indices leave no room")
    return notes
