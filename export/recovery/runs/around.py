"""What a training library's own wrapper does, between what the environment does and the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from export.recovery.recovered import Step

from .facts import GetInterface, Interface, Joints

ARGMAX = "ACTION: the outputs are {} of a discrete action; the action is the index of the largest"
PARTS_ARGMAX = (
    "ACTION: the outputs are logits of several discrete actions, a part of them for each in order; each action is the"
    " index of the largest of its part"
)
BITS = "ACTION: the outputs are logits of an action of zeros and ones: 1 where the output is above 0, and 0 elsewhere"
"""What becomes of outputs that are no action themselves, which is left to the caller."""


def wrapped(
    inner: GetInterface | None,
    before: Sequence[Step] = (),
    after: Callable[[int], Sequence[Step]] = lambda _outputs: (),
    notes: Sequence[str] = (),
) -> GetInterface:
    """The interface with ``before`` next to the network's first block and ``after`` next to its last.

    ``after`` gives the blocks for a number of outputs.
    """

    def interface(inputs: int, outputs: int, joints: Joints) -> Interface:
        own = inner(inputs, outputs, joints) if inner is not None else Interface()
        return replace(
            own,
            before=(*own.before, *before),
            after=(*after(outputs), *own.after),
            notes=(*notes, *own.notes),
        )

    return interface
