"""What a training library's own wrapper does, between what the environment does and the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from export.recovery.recovered import Step

from .facts import GetInterface, Interface, Joints


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
