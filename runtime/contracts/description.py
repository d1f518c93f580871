"""The contract of a file: what the program that calls it must know of every value that goes in and comes out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from runtime.version import VERSION

from .features import Interface
from .layers import Layer
from .writing import as_yaml, interface_record, layer_record, row

FORMAT = 1
"""The version of mlpx's part of a contract file."""


@dataclass(frozen=True)
class Proof:
    """What the certificate beside the file says: its verdict, and its bound in words."""

    file: str
    verdict: str
    """"proved", "failed", "not proved", or "of another file"."""
    bound: str | None = None
    largest: float | None = None
    """The largest bound of any output; None without one."""


@dataclass(frozen=True)
class Contract:
    """What a file takes, applies, computes and gives.

    Examples:
        >>> from mlpx import contract
        >>> about = contract("comfort.onnx")
        >>> about.inputs[0].port.features, about.inputs[0].steps[0].kind
        (('temperature', 'humidity'), 'standardize')
        >>> [layer.kind for layer in about.layers]
        ['linear', 'relu', 'linear', 'softmax']
    """

    name: str
    inputs: tuple[Interface, ...]
    outputs: tuple[Interface, ...]
    layers: tuple[Layer, ...]
    """What stands between the first and the last blocks that are applied to each feature."""
    period: float | None = None
    """The seconds between two calls."""
    file: str | None = None
    """The file's name."""
    sha256: str | None = None
    md5: str | None = None
    proof: Proof | None = None
    source: str = ""
    """What it was read from, in words."""
    notes: tuple[str, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """The contract as plain values: what ``to_yaml`` writes. Every float32 number keeps all of its digits."""
        name = self.name
        models = {
            "inputs": [interface_record(each) for each in self.inputs],
            "outputs": [interface_record(each) for each in self.outputs],
            "layers": [layer_record(each) for each in self.layers],
            "parameters": {
                "model_path": self.file,
                "md5sum": self.md5,
                "sha256sum": self.sha256,
                "backend": "onnx",
            },
        }
        pipeline: dict[str, Any] = {
            "inputs": {name: row(each.port.name for each in self.inputs)},
            "outputs": {name: row(each.port.name for each in self.outputs)},
            "data_flow": {},
            "feedback_flow": {},
        }
        if self.period is not None:
            pipeline = {"configs": {"frequency": 1 / self.period, "period": self.period}, **pipeline}
        versions = {"mlpx version": VERSION, "contract version": FORMAT}
        record: dict[str, Any] = {"models": {name: models}, "pipeline": pipeline, "system information": versions}
        if self.proof is not None:
            record["certificate"] = {key: value for key, value in asdict(self.proof).items() if value is not None}
        return record

    def to_yaml(self) -> str:
        """The text of a contract file; ``runtime.read_contract`` reads it. Its form is that of LEAPP."""
        return as_yaml(self.to_record())
