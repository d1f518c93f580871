"""The report of a proof, which is written beside the file as NAME.parity.json."""

from __future__ import annotations

import base64
import platform
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from onnx import ModelProto
from pydantic import BaseModel, ConfigDict, ValidationError

from export.bounds.report import BoundReport
from export.onnxfile.source import Source, read_source
from runtime import InputError, write_whole
from runtime.extras import installed_version
from runtime.session.processor import cpuinfo, instructions
from runtime.version import VERSION

FORMAT = 1
"""Version of the record: keys may be added without a new one; a key never changes its meaning."""
Verdict = Literal["proved", "failed", "not proved"]
"""Failed: the file is wrong. Not proved: it was not shown to be right."""
_PACKAGES = ("torch", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy")

MEANING = (
    "Every layer of the file, on the input that it really received, gave a result that a correct float32 evaluation of "
    "the module's layer can give: rounding to nearest, a conventional matrix product in any order, with or without "
    "fused multiply-add, activations within the stated constants. The weights that the runtime used are the module's, "
    "bit for bit, and no operator was added, left out or changed.",
    "It was found on the inputs listed here, on this device, with these versions. It does not say that the model is "
    "good, that inputs unlike these behave alike, or that another device, runtime or version was tried.",
)
"""What a pass means, and what it does not."""


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, ser_json_inf_nan="strings", allow_inf_nan=True, extra="ignore"
    )


class FileRecord(_Record):
    """The verified file, by the SHA-256 of its bytes and of those of each file of external data."""

    name: str
    size: int
    sha256: str
    data: dict[str, str] = {}
    opset: int | None = None
    ir_version: int | None = None


class CheckRecord(_Record):
    """A result of one check of the proof."""

    name: str
    outcome: Literal["passed", "failed", "warning"]
    words: str


class ElementRecord(_Record):
    """One element of a layer's value: the file's, eager PyTorch's, the exact one, and the bound of its error."""

    layer: str
    inputs: str
    row: int
    index: int
    file: float
    eager: float
    exact: float
    bound: float
    ratio: float
    x: list[float] = []
    """The first 64 features of the network's input row."""
    features: int = 0


class LayerRecord(_Record):
    """One layer: ``ratio`` is its largest error / bound, ``histogram`` counts errors in ulp by the report's bins."""

    path: str
    op: str
    inputs: list[str]
    """The paths of the layers it reads, or "input"."""
    operators: list[str]
    input_shape: list[int]
    output_shape: list[int]
    parameters: int
    compared: int
    exempt: int
    by_kind: int
    ratio: float
    likely: float
    shares: dict[str, float]
    histogram: list[int]
    worst: ElementRecord | None = None


class InputsRecord(_Record):
    """A set of input rows."""

    kind: str
    words: str
    rows: int


class EndToEnd(_Record):
    """Largest differences of the output; ``bound_share`` is the share of the first-order bound, on sampled elements."""

    rows: int
    from_float64: float
    from_eager: float
    eager_from_float64: float
    magnitude: float
    bound_share: float
    sampled_rows: int
    sampled_outputs: int
    worst_inputs: str
    worst_row: int
    bit_equal_to_eager: float
    """The share of outputs with the same bits as eager PyTorch's."""


class ConstantRecord(_Record):
    """An activation's constants: its error may be u·(a + r·abs(y) + m·abs(z)); ``share`` of that was measured."""

    block: str
    absolute: float
    relative: float
    argument: float
    source: str
    share: float | None = None


class TensorRecord(_Record):
    """An array: its values in C order, little-endian, in base64."""

    shape: list[int]
    dtype: Literal["float32", "float64", "int64", "bool"]
    base64: str

    @classmethod
    def of(cls, values: np.ndarray) -> TensorRecord:
        """The record of an array of one of these types."""
        encoded = base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()
        return cls(shape=list(values.shape), dtype=values.dtype.name, base64=encoded)  # pyright: ignore[reportArgumentType]


class SeenWeightsRecord(_Record):
    """The smallest errors of a single weight of a linear layer that move some answer by more than its bound.

    To first order; ``relative`` to the weight itself, where that is not 0. ``unseen`` weights show in no answer, and do
    not count for the other figures, which are None where nothing shows.
    """

    layer: str
    weights: int
    unseen: int
    absolute_median: float | None
    absolute_worst: float | None
    relative_median: float | None
    relative_worst: float | None


class SeenRecord(_Record):
    """What the answers show of the weights; ``together``: of a relative error that all of them have in common."""

    together: float | None
    layers: list[SeenWeightsRecord]


class AnswersRecord(_Record):
    """Rows to ask a live server for: arrays (rows, ...) by the names of the file's inputs and outputs.

    ``exact`` is the module in float64; a correct float32 evaluation of the whole network is within ``bound`` of it.
    ``reduced`` is what computing in TF32, bfloat16 or float16 gives.
    """

    rows: int
    inputs: dict[str, TensorRecord]
    exact: dict[str, TensorRecord]
    bound: dict[str, TensorRecord]
    reduced: dict[str, dict[str, TensorRecord]] = {}
    seen: SeenRecord | None = None
    """None where finding it would take long."""


class ParityReport(_Record):
    """The verdict on one file and one module, with all that it rests on.

    Examples:
        >>> from export import read_report
        >>> report = read_report("comfort.parity.json")
        >>> report
        ParityReport(proved: comfort.onnx, on cpu, ... rows)
        >>> report.device, report.bound.box["air"]
        ('cpu', [(0.0, 40.0), (0.0, 100.0)])
    """

    format: int = FORMAT
    verdict: Verdict
    why: str
    file: FileRecord
    weights_sha256: str
    device: str
    seed: int
    seconds: float
    checks: list[CheckRecord] = []
    layers: list[LayerRecord] = []
    inputs: list[InputsRecord] = []
    failure: ElementRecord | None = None
    end_to_end: EndToEnd | None = None
    constants: list[ConstantRecord] = []
    bins: list[float] = []
    answers: AnswersRecord | None = None
    """For a file that is proved."""
    names_checked: bool | None = None
    """Whether the names, units, ranges and labels that the file declares were compared with a spec's.

    None if it declares none and no spec was given, and in a report of an older version.
    """
    bound: BoundReport | None = None
    """The bound for every input of the declared ranges; None where no range is declared, or it was left out."""
    versions: dict[str, str] = {}
    machine: dict[str, str] = {}
    made: str = ""
    """The day, in UTC."""
    source: str | None = None
    """What the module was made from."""
    kept: str | None = None
    """The path of a refused file."""

    def __repr__(self) -> str:
        """In one line; ``model_dump()`` has the whole."""
        rows = sum(part.rows for part in self.inputs)
        why = f"on {self.device}, {counted(rows, 'row')}" if self.proved else self.why
        return f"ParityReport({self.verdict}: {self.file.name}, {why})"

    __str__ = __repr__

    @property
    def proved(self) -> bool:
        """Whether the verdict is that the file computes what the module computes."""
        return self.verdict == "proved"

    @property
    def folded(self) -> bool:
        """Whether the file holds folded layers."""
        return any(" + " in layer.op for layer in self.layers)

    @property
    def warnings(self) -> list[str]:
        """Results that are worth a look but not failures."""
        return [check.words for check in self.checks if check.outcome == "warning"]

    def write(self, path: str | Path) -> None:
        """Write the record as JSON, atomically. Raises OutputError."""
        write_whole(Path(path), (self.model_dump_json(indent=1) + "\n").encode())


def read_report(path: str | Path) -> ParityReport:
    """Read a ``NAME.parity.json``. Raises InputError: missing, damaged, or of another format.

    Examples:
        >>> from export import read_report
        >>> read_report("comfort.parity.json").verdict
        'proved'
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        report = ParityReport.model_validate_json(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValidationError):
        raise InputError(f"{path}: not a parity report. What to do: name the NAME.parity.json of the file") from None
    if report.format != FORMAT:
        raise InputError(f"{path}: a report of format {report.format}; this version reads format {FORMAT}")
    return report


def file_record(path: Path) -> FileRecord:
    """The size and hashes of a file and of the external data that it names. Raises ModelError: it cannot be read."""
    return record_of(*read_source(path))


def record_of(proto: ModelProto, source: Source) -> FileRecord:
    """The same of a file that was read. Raises ModelError: it has changed since."""
    header = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
    record = FileRecord(
        name=source.path.name,
        size=source.whole_size,
        sha256=source.sha256,
        data=source.data_hashes(),
        opset=header.get("ai.onnx"),
        ir_version=proto.ir_version,
    )
    source.check()
    return record


def versions() -> dict[str, str]:
    """Of mlpx, Python and the packages that took part."""
    known = {"mlpx": VERSION, "python": platform.python_version()}
    return known | {package: number for package in _PACKAGES if (number := installed_version(package)) is not None}


def machine() -> dict[str, str]:
    """The processor, its instruction sets and the system."""
    flags = [flag for flag in ("avx2", "fma", "avx512f", "avx512_vnni") if flag in instructions()]
    processor = cpuinfo().get("model name") or platform.processor() or platform.machine()
    return {"processor": processor, "instructions": " ".join(flags), "system": platform.system()}


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 layer, 2 layers."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
