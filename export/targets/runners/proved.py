"""The certificate of an ONNX file: rows to ask the model for, and whether its answers are those that were proved.

The judgement is that of ``mlpx verify --url``: every value is within the proved bound of the exact one, and all values
of an output are nearer to the exact ones than to those of a reduced precision. It needs numpy only.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Arrays = Mapping[str, np.ndarray]

_DTYPES = {"float32": "<f4", "float64": "<f8", "int64": "<i8"}
_USUAL_RATIO = 8.0
"""How much further from the exact answers than when the file was proved float32 may be: another order of the sums."""


class Proved:
    """What is proved of a file: rows, their exact answers, and how far a float32 evaluation may be from these."""

    def __init__(self, file: Path, batch: int | None = None, max_batch: int = 1024):
        """``batch``: the rows that the file fixes.

        Raises ValueError: the file is not proved; OSError, ValueError or KeyError: a damaged certificate.
        """
        certificate = file.with_suffix(".parity.json")
        record = json.loads(certificate.read_text(encoding="utf-8"))
        if record["verdict"] != "proved" or record["answers"] is None:
            hint = "What to do: prove the file, or take the certificate away, and nothing is checked"
            raise ValueError(f"{certificate}: {file.name} is {record['verdict']}: {record['why']}. {hint}")
        answers = record["answers"]
        self.rows = int(answers["rows"])
        self._inputs, self._exact, self._bound = (_arrays(answers[key]) for key in ("inputs", "exact", "bound"))
        self._reduced = {name: _arrays(values) for name, values in answers.get("reduced", {}).items()}
        end_to_end = record.get("end_to_end")
        self._at_proof = float("inf") if end_to_end is None else float(end_to_end["from_float64"])
        self._batch, self._max_batch = batch, max_batch
        expected = {file.name: record["file"]["sha256"], **record["file"].get("data", {})}
        others = [name for name, digest in expected.items() if _sha256(file.with_name(name)) != digest]
        self.other_file = f"{', '.join(others)}: not the bytes that were proved" if others else ""
        """What is to be said where the file is not the certificate's."""

    def requests(self, turn: int) -> Iterator[list[np.ndarray]]:
        """The rows of each request; requests that are given together are to be sent together.

        All at once; one alone, another in every turn; and each alone, all at the same time, so that they share a call.
        """
        rows = np.arange(self.rows)
        if self._batch is not None:
            for start in range(0, self.rows, self._batch):
                yield [(start + np.arange(self._batch)) % self.rows]
            return
        for start in range(0, self.rows, self._max_batch):
            yield [rows[start : start + self._max_batch]]
        yield [rows[[turn % self.rows]]]
        yield list(rows[:, None])

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs by name for these rows."""
        return {name: values[rows] for name, values in self._inputs.items()}

    def fault(self, asked: Sequence[tuple[np.ndarray, Arrays]]) -> str:
        """What is wrong with the answers to requests for rows, in words; "" where nothing is."""
        rows = np.concatenate([rows for rows, _ in asked])
        faults = [self.other_file] if self.other_file else []
        with np.errstate(all="ignore"):  # a model that is wrong may give anything
            for name, exact in self._exact.items():
                given = [np.asarray(outputs[name]) for _, outputs in asked]
                if any(values.shape != (len(r), *exact.shape[1:]) for values, (r, _) in zip(given, asked)):
                    faults.append(f"'{name}' has another shape than {list(exact.shape[1:])} for each row")
                    continue
                values = np.concatenate([part.reshape(len(part), -1) for part in given]).astype(np.float64)
                faults += self._beyond(name, values, rows) or self._in_fewer_bits(name, values, rows)
        return "; ".join(faults)

    def _beyond(self, name: str, values: np.ndarray, rows: np.ndarray) -> list[str]:
        """Of values (K, values) that are the answers to rows (K,)."""
        exact, bound = _flat(self._exact[name], rows), _flat(self._bound[name], rows)
        error = np.abs(values - exact)
        wrong = ~(error <= bound)  # NaN never is
        if not wrong.any():
            return []
        excess = np.where(wrong, np.nan_to_num(error - bound, nan=np.inf), -np.inf)
        row, column = np.unravel_index(int(np.argmax(excess)), excess.shape)
        expected = f"{exact[row, column]:.9g} ± {bound[row, column]:.2g} (row {rows[row]}, value {column})"
        count = f"{wrong.sum():,} of {wrong.size:,} values beyond the bound"
        return [f"'{name}': {count}, the furthest {values[row, column]:.9g} instead of {expected}"]

    def _in_fewer_bits(self, name: str, values: np.ndarray, rows: np.ndarray) -> list[str]:
        """Whether all answers together, or those of a row, are nearer to a reduced precision's than to the exact ones.

        Only where the two are further apart than float32 may be: than twice the bound, or than the usual difference.
        """
        exact, bound = _flat(self._exact[name], rows), _flat(self._bound[name], rows)
        usual = _USUAL_RATIO * max(self._at_proof, float(np.spacing(np.float32(np.abs(exact).max(initial=0)))))
        for shape in ((1, -1), values.shape):
            off = _rms((values - exact).reshape(shape))
            margin = np.minimum(_rms(bound.reshape(shape)), usual)
            for precision, answers in self._reduced.items():
                reduced = _flat(answers[name], rows)
                apart = ~(_rms((reduced - exact).reshape(shape)) <= 2 * margin)
                near = _rms((values - reduced).reshape(shape))
                if (apart & (near < off)).any():
                    place = int(np.argmax(apart & (near < off)))
                    distances = f"({near[place]:.2g} from it) than to the exact answers ({off[place]:.2g})"
                    return [f"'{name}': nearer to what {precision} gives {distances}"]
        return []


def _arrays(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: _array(tensor) for name, tensor in tensors.items()}


def _array(record: Mapping[str, Any]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(record["base64"]), _DTYPES[record["dtype"]])
    return values.reshape(record["shape"])


def _flat(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(K, values) float64: of each row, what a table of the certificate holds."""
    return values.reshape(len(values), -1)[rows].astype(np.float64)


def _rms(values: np.ndarray) -> np.ndarray:
    """(K, values) to (K,): the root mean square of each row."""
    return np.sqrt(np.mean(np.square(values), axis=1)) if values.shape[1] else np.zeros(len(values))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        for block in iter(lambda: content.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()
