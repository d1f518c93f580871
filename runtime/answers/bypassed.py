"""The file without some of the blocks that it applies to each feature: what a program without them computes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.contracts import Contract
from runtime.contracts.features import Interface
from runtime.contracts.network import Network
from runtime.contracts.reading import flat_width
from runtime.contracts.steps import CALLED, Step
from runtime.errors import ModelError
from runtime.model.onnx_header import read_header
from runtime.model.onnx_messages import parse_model
from runtime.model.summary import summary_of
from runtime.session.session import Session

Arrays = Mapping[str, np.ndarray]


def named(steps: Sequence[Step]) -> str:
    """``the clip and the normaliser``."""
    names = [f"the {CALLED.get(step.kind, step.kind)}" for step in steps]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def choices(steps: Sequence[Step], last: bool) -> Iterator[list[int]]:
    """The indices of the steps that are left out together: each alone, then the first ones, or for outputs the last."""
    effective = [index for index, step in enumerate(steps) if not step.is_identity]
    yield from ([index] for index in effective)
    for count in range(2, len(effective) + 1):
        yield effective[-count:] if last else effective[:count]


class Bypassed:
    """Runs a file without chosen steps of one of its inputs or outputs."""

    def __init__(self, path: Path, policy: Contract):
        self._path, self._policy = path, policy
        self._content = path.read_bytes()
        self._summary = summary_of(read_header(path).metadata)

    def run(self, interface: Interface, chosen: Collection[int], inputs: Arrays) -> dict[str, np.ndarray] | None:
        """The outputs, float64 (rows, values), without these steps; None for a file that cannot be run without them."""
        model = parse_model(self._content, self._path)
        network = Network(model, self._path.parent, self._summary)
        first = {each.port.name: network.leading(each.port.name, flat_width(each.port)) for each in self._policy.inputs}
        if any(each is interface for each in self._policy.inputs):
            steps = first[interface.port.name]
        else:
            taken = [step for each in first.values() for step in each]
            steps = network.trailing(interface.port.name, flat_width(interface.port), taken)
        network.bypass([steps[index] for index in chosen])
        try:
            with Session(model.SerializeToString(), "cpu") as session:
                results = session.run(dict(inputs))
        except ModelError:  # its weights are in another file, or it fixes its batch
            return None
        return {name: each.reshape(len(each), -1).astype(np.float64) for name, each in results.items()}
