"""The certificate of a file, ``NAME.parity.json``, as far as running, serving and live checks need it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.files import sha256
from runtime.json_types import Json

from .bound import Bound, read_bound

FORMAT = 1
_FIGURES = "absolute_median", "absolute_worst", "relative_median", "relative_worst"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class SeenWeights:
    """The smallest errors of one weight of a linear layer that move some answer by more than its bound.

    To first order; ``relative`` to the weight, where that is not 0. ``unseen`` weights show in no answer; None where
    nothing shows.
    """

    layer: str
    weights: int
    unseen: int
    absolute_median: float | None
    absolute_worst: float | None
    relative_median: float | None
    relative_worst: float | None


@dataclass(frozen=True)
class Seen:
    """What the answers show of the weights; ``together``: of a relative error that all of them have in common."""

    together: float | None
    layers: tuple[SeenWeights, ...]


@dataclass(frozen=True)
class Answers:
    """Rows for a live check and their outputs: arrays (rows, ...) by the names of the file's inputs and outputs.

    A correct float32 evaluation is within ``bound`` of ``exact``, both float64. ``reduced`` is what a computation in
    "TF32", "TF32, truncated", "bfloat16" or "float16" gives, float32.

    Examples:
        >>> from runtime import read_certificate
        >>> answers = read_certificate("comfort.parity.json").answers
        >>> answers.inputs["air"].shape == (answers.rows, 2)
        True
        >>> bool((answers.bound["comfort"] > 0).all())
        True
    """

    rows: int
    inputs: Arrays
    exact: Arrays
    bound: Arrays
    reduced: Mapping[str, Arrays]
    seen: Seen | None = None
    """None if it is not recorded."""


@dataclass(frozen=True)
class Certificate:
    """The verdict on a file, which is identified by the SHA-256 of its bytes.

    Examples:
        >>> from runtime import read_certificate
        >>> certificate = read_certificate("comfort.parity.json")
        >>> certificate.verdict, certificate.file, certificate.device
        ('proved', 'comfort.onnx', 'cpu')
    """

    path: Path
    digest: str
    """The SHA-256 of the certificate's own bytes."""
    proved: bool
    why: str
    file: str
    """The file's name."""
    sha256: str
    data: Mapping[str, str]
    """The SHA-256 of each file of external data, by name."""
    device: str
    made: str
    """The day, in UTC."""
    mlpx_version: str
    largest: float | None
    """The largest difference of the file's outputs from the exact ones when it was proved; None if not measured."""
    names_checked: bool | None
    """Whether the names that the file declares are a spec's; None if it declares none, or if that is not known."""
    answers: Answers | None
    """None if the file is not proved, or no row has finite outputs."""
    verdict: str = "proved"
    """"proved", "failed" or "not proved"."""
    weights_sha256: str = ""
    """Of the module's weights; the metadata of a file that mlpx wrote hold it too."""
    bound: Bound | None = None
    """For every input of the declared ranges; None if none are declared, or it was left out."""

    def is_of(self, file: Path) -> bool:
        """Whether a file, and the external data beside it, still has the bytes that were proved."""
        digests = {file: self.sha256} | {file.parent / name: digest for name, digest in self.data.items()}
        try:
            return all(path.is_file() and sha256(path) == digest for path, digest in digests.items())
        except (OSError, ValueError):  # a file that cannot be read, or a name that no file can have
            return False


def read_certificate(path: str | Path) -> Certificate:
    """Read a ``NAME.parity.json``. Raises InputError: missing, damaged, or of a newer format.

    Examples:
        >>> from runtime import read_certificate, sha256
        >>> certificate = read_certificate("comfort.parity.json")
        >>> certificate.proved, certificate.sha256 == sha256("comfort.onnx")
        (True, True)
    """
    path = Path(path)
    hint = "What to do: name the NAME.parity.json that mlpx build, export or verify wrote for the file"
    damaged = f"{path}: not a parity report, or a damaged one. {hint}"
    record: Json
    try:
        content = path.read_bytes()
        record = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. {hint}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a parity report. {hint}") from None
    if not isinstance(record, dict):
        raise InputError(damaged)
    if record.get("format") not in (None, FORMAT):
        raise InputError(f"{path}: a report of format {record['format']}; this version reads format {FORMAT}")
    try:
        return Certificate(
            path=path,
            digest=hashlib.sha256(content).hexdigest(),
            proved=record["verdict"] == "proved",
            why=str(record["why"]),
            file=str(record["file"]["name"]),
            sha256=str(record["file"]["sha256"]),
            data=dict(record["file"].get("data", {})),
            device=str(record["device"]),
            made=str(record.get("made", "")),
            mlpx_version=str(record.get("versions", {}).get("mlpx", "?")),
            largest=None if (end := record.get("end_to_end")) is None else float(end["from_float64"]),
            names_checked=None if (checked := record.get("names_checked")) is None else bool(checked),
            answers=None if record.get("answers") is None else _answers(record["answers"]),
            verdict=str(record["verdict"]),
            weights_sha256=str(record.get("weights_sha256", "")),
            bound=None if record.get("bound") is None else read_bound(record["bound"], record["file"]["sha256"]),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise InputError(damaged) from None


def _answers(record: Mapping[str, Any]) -> Answers:
    rows = int(record["rows"])

    def arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        values = {name: _array(tensor) for name, tensor in tensors.items()}
        if any(len(array) != rows for array in values.values()):
            raise ValueError("tensors with other numbers of rows")
        return values

    exact = {key: arrays(record[key]) for key in ("inputs", "exact", "bound")}
    reduced = {kind: arrays(each) for kind, each in record.get("reduced", {}).items()}
    return Answers(rows, **exact, reduced=reduced, seen=None if record.get("seen") is None else _seen(record["seen"]))


def _seen(record: Mapping[str, Any]) -> Seen:
    layers = [
        SeenWeights(
            layer=str(layer["layer"]),
            weights=int(layer["weights"]),
            unseen=int(layer["unseen"]),
            **{name: _optional(layer[name]) for name in _FIGURES},
        )
        for layer in record["layers"]
    ]
    return Seen(_optional(record["together"]), tuple(layers))


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _array(record: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype({"float32": "<f4", "float64": "<f8", "int64": "<i8"}[record["dtype"]])
    values = np.frombuffer(base64.b64decode(record["base64"], validate=True), dtype)
    return values.reshape(record["shape"]).astype(dtype.newbyteorder("="))
