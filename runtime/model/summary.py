"""What the ONNX metadata of a file that mlpx exported say about it.

The keys begin with ``mlpx.``. ``mlpx.format`` is the version of this record: a reader takes the version it knows and
treats a file with a newer one as foreign. A key may be added without a new version, but never change its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from runtime.json_types import Json

from .port import LARGEST, Port, expect, read_port

FORMAT = 1


@dataclass(frozen=True)
class BlockSummary:
    """A block of the file; shapes are those of a row.

    Examples:
        >>> from mlpx import inspect
        >>> block = inspect("comfort.onnx").summary.blocks[1]
        >>> block.op, block.input_shape, block.output_shape, block.multiply_adds
        ('linear', (2,), (8,), 16)
    """

    path: str
    op: str
    input_shape: tuple[int | str, ...] | None
    output_shape: tuple[int | str, ...] | None
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """A model file in figures.

    Examples:
        >>> from mlpx import inspect
        >>> summary = inspect("comfort.onnx").summary
        >>> summary.outputs[0].labels, sum(block.parameters for block in summary.blocks)
        (('poor', 'good'), 46)
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    blocks: tuple[BlockSummary, ...]
    opset: int
    ir_version: int
    target: str | None = None
    """The server that the opset and the IR version were chosen for."""
    folded: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    weights_sha256: str | None = None
    external_data: bool = False
    """The weights are in a file beside it: the model's name with ``.data`` appended."""
    spec: dict[str, Any] | None = None
    mlpx_version: str | None = None
    variant: dict[str, Any] | None = None
    """For a file of reduced precision: its kind, its source, and that it is not proved equal."""
    rows_depend: bool = False
    """A row's result depends on the other rows of its batch, so that batches are never split or joined."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    """The metadata of other tools."""

    @property
    def period(self) -> float | None:
        """The seconds between two calls of a controller, where the spec says them."""
        value: Json = (self.spec or {}).get("period")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST:
            return None
        return float(value)

    @property
    def parameters(self) -> int:
        """Of all blocks together."""
        return sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        """Per row, of all blocks together."""
        return sum(block.multiply_adds for block in self.blocks)

    def to_metadata(self) -> dict[str, str]:
        """The ONNX metadata that holds this summary, in a fixed order."""
        values = asdict(self)
        values |= {key: [port.to_record() for port in getattr(self, key)] for key in ("inputs", "outputs")}
        plain = {"name", "weights_sha256", "target"}
        record = {"mlpx.format": str(FORMAT), "mlpx.version": self.mlpx_version or ""}
        for key, value in sorted(values.items()):
            if key in ("mlpx_version", "metadata") or value is None or (key == "rows_depend" and not value):
                continue
            record[f"mlpx.{key}"] = value if key in plain else json.dumps(value, ensure_ascii=False)
        record["mlpx.parameters"] = str(self.parameters)
        record["mlpx.multiply_adds"] = str(self.multiply_adds)
        return dict(sorted(record.items()))


def summary_of(metadata: Mapping[str, str]) -> Summary | None:
    """The summary in a file's ONNX metadata; None for a file that mlpx did not write, or whose record is newer.

    Examples:
        >>> from runtime import read_header, summary_of
        >>> summary_of(read_header("comfort.onnx").metadata).name
        'comfort'
    """
    own = {key.removeprefix("mlpx."): value for key, value in metadata.items() if key.startswith("mlpx.")}
    if own.get("format") != str(FORMAT):
        return None
    try:
        ports = {key: tuple(read_port(port) for port in json.loads(own[key])) for key in ("inputs", "outputs")}
        return Summary(
            name=own["name"],
            **ports,
            blocks=tuple(BlockSummary(**_tuples(block)) for block in json.loads(own["blocks"])),
            opset=json.loads(own["opset"]),
            ir_version=json.loads(own["ir_version"]),
            target=own.get("target"),
            folded=tuple(json.loads(own["folded"])),
            remarks=tuple(json.loads(own["remarks"])),
            weights_sha256=own.get("weights_sha256"),
            external_data=json.loads(own["external_data"]),
            spec=json.loads(own["spec"]) if "spec" in own else None,
            mlpx_version=own["version"],
            variant=_object(json.loads(own["variant"])) if "variant" in own else None,
            rows_depend=expect(bool)(json.loads(own.get("rows_depend", "false"))),
            metadata={key: value for key, value in metadata.items() if not key.startswith("mlpx.")},
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def rows_depend(metadata: Mapping[str, str]) -> bool:
    """Whether a file says that a row's result depends on the other rows of its batch, as with int8-dynamic."""
    if metadata.get("mlpx.rows_depend", "false") != "false":
        return True
    try:
        return bool(json.loads(metadata["mlpx.variant"]).get("by_batch", True)) if "mlpx.variant" in metadata else False
    except (AttributeError, ValueError, RecursionError):
        return True


def widest_layer(metadata: Mapping[str, str]) -> int | None:
    """Values per row of the widest input or output of a block; None where a file does not say."""
    try:
        blocks = json.loads(metadata["mlpx.blocks"])
        return max(1, *(prod(block[key]) for block in blocks for key in ("input_shape", "output_shape")))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _object(value: Json) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _tuples(record: dict[str, Json]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
