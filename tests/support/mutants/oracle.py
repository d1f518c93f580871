"""Does a file compute something else than its module? It is run, and compared with eager PyTorch; no rule is shared.

A result is something else where it is far, for rounding, from both the module's float64 and its float32 result. Where
float32 may overflow, or an input is NaN or infinite, a right file whose operators are folded, or spelt in other steps,
gives other results than the module: there only a finite result that is nowhere near the module's nor the right file's
is something else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor

from tests.support.hand_written import tensors_of

from .rounding import Watched, spread
from .subjects import Subject

SIZES = (1, 2, 3, 7, 8, 13, 16, 31, 32, 33, 64)
_TIMES = 24.0
"""How far a right file may be, in the largest distance that random errors caused."""
_ABOUT = 1e-3
"""The same where float32 may overflow: relative, or absolute below 1."""
_MOST_CONSTANTS = 60

Rows = list[np.ndarray]
"""The rows of each input, in the order of the module's."""


@dataclass(frozen=True)
class Reference:
    """Rows, and the module's outputs: exact, in float32, how far rounding carries them, and where it may overflow.

    ``clean`` is what the right file gives.
    """

    rows: Rows
    exact: list[np.ndarray]
    single: list[np.ndarray]
    allowed: list[np.ndarray]
    beyond: np.ndarray
    clean: list[np.ndarray]


class Oracle:
    """What a module computes, on batches of many sizes with numbers of every scale."""

    def __init__(self, subject: Subject, seed: int):
        self.subject, self.rng = subject, np.random.default_rng(seed)
        self._double = copy.deepcopy(subject.module).double()
        self._clean = _opened(subject.proto.SerializeToString())
        sizes = [*SIZES, *SIZES, *self.rng.integers(1, 65, 4).tolist()]
        kinds = ["usual"] * len(SIZES) + ["any"] * len(SIZES) + ["usual", "any"] * 2
        self.sizes = sizes
        batches = [self._rows(size, kind) for size, kind in zip(sizes, kinds, strict=True)]
        self.reference = self._reference([np.concatenate(parts) for parts in zip(*batches, strict=True)])

    def _rows(self, count: int, kind: str) -> Rows:
        rows: Rows = []
        scale = self.rng.uniform(-30, 30, count) * (kind == "any") * (self.rng.random(count) < 0.7)
        for port in self.subject.inputs:
            shape = (count, *(int(size) for size in port.shape[1:]))
            if port.dtype != "float32" or port.indices is not None:
                values = self.rng.integers(-9, 10, shape)
                flat = values.reshape(count, -1)
                for place, limits in enumerate(port.indices or ()):
                    if limits is not None:
                        flat[:, place] = self.rng.integers(limits[0], limits[1] + 1, count)
                rows.append(flat.reshape(shape).astype(port.dtype))
                continue
            flat = self.rng.standard_normal((count, int(np.prod(shape[1:])))) * 10.0 ** scale[:, None]
            if kind == "any":
                special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 1e-45, 1e30, -1e30, 88.8, -104.0, 3e38]
                for row in np.flatnonzero(self.rng.random(count) < 0.3):
                    whole = self.rng.random() < 0.3
                    place = slice(None) if whole else int(self.rng.integers(flat.shape[1]))
                    flat[row, place] = special[self.rng.integers(len(special))]
            rows.append(flat.reshape(shape).astype(np.float32))
        return rows

    def _reference(self, rows: Rows) -> Reference:
        given = [torch.from_numpy(part) for part in rows]
        wide = [part.double() if part.is_floating_point() else part for part in given]
        module, double = self.subject.module, self._double
        with torch.no_grad():
            with Watched(len(rows[0])) as watched:
                single = tensors_of(module(*(part.clone() for part in given)))

            def call() -> list[Tensor]:
                return tensors_of(double(*(part.clone() for part in wide)))

            exact = call()
            apart = spread(call, exact)
        return Reference(
            rows,
            [each.double().numpy() for each in exact],
            [each.double().numpy() for each in single],
            [_TIMES * each.numpy() + 1e-37 for each in apart],
            watched.beyond.numpy(),
            self._clean.run(list(self.subject.outputs), dict(zip(self._inputs, rows, strict=True))),
        )

    def difference(self, path: Path, *, own_numbers: bool = True) -> str | None:
        """Where the file computes something else, in words; None where it does not.

        With ``own_numbers`` it is also run on the numbers that it stores itself.
        """
        try:
            session = _opened(str(path))
        except Exception as error:  # ONNX Runtime's, of many classes
            return f"it does not open: {_short(error)}"
        proto = onnx.load(str(path), load_external_data=False)
        constants = [tensor.name for tensor in proto.graph.initializer]
        inputs = _ordered([each.name for each in session.get_inputs() if each.name not in constants], self._inputs)
        outputs = _ordered([each.name for each in session.get_outputs()], list(self.subject.outputs))
        declared = {each.name: each.shape for each in session.get_inputs() if each.name not in constants}
        firsts = (shape[0] for shape in declared.values() if shape)
        fixed = next((size for size in firsts if isinstance(size, int)), None)
        for reference, sizes in self._batches(proto, own_numbers):
            sizes = sizes if fixed is None else [fixed] * (len(reference.rows[0]) // fixed)
            start = 0
            for size in filter(None, sizes):
                part = slice(start, start + size)
                start += size
                feed = {
                    name: _shaped(rows[part], declared.get(name, []))
                    for name, rows in zip(inputs, reference.rows, strict=False)
                }
                try:
                    found = session.run(outputs, feed)
                except Exception as error:  # the same
                    return f"it does not run on {size} rows: {_short(error)}"
                if any(
                    given.shape != rows[part].shape for given, rows in zip(feed.values(), reference.rows, strict=False)
                ):
                    found = [_alike(values, exact[part]) for values, exact in zip(found, reference.exact, strict=False)]
                words = self._wrong(found, reference, part)
                if words:
                    return f"{words} of a batch of {size}"
        return None

    def _batches(self, proto: ModelProto, own_numbers: bool) -> Iterator[tuple[Reference, list[int]]]:
        yield self.reference, self.sizes
        if own_numbers:
            special = self._special(proto)
            count = len(special.rows[0])
            yield special, [1, 1, min(62, count - 2), max(0, count - 64)]

    @property
    def _inputs(self) -> list[str]:
        return [port.name for port in self.subject.inputs]

    def _special(self, proto: ModelProto) -> Reference:
        """Rows of the numbers that the file stores."""
        numbers = {float(value) for value in _numbers(proto) if np.isfinite(np.float32(value))}
        chosen = sorted(numbers)
        if len(chosen) > _MOST_CONSTANTS:
            chosen = [chosen[i] for i in self.rng.choice(len(chosen), _MOST_CONSTANTS, replace=False)]
        values = np.array([0.0, 1.0, *chosen], np.float32)
        rows = self._rows(2 * len(values), "usual")
        for part in rows:
            if part.dtype == np.float32:
                flat = part.reshape(len(part), -1)
                flat[: len(values)] = values[:, None]
                flat[len(values) :, 0] = values
        return self._reference(rows)

    def _wrong(self, found: Sequence[np.ndarray], reference: Reference, part: slice) -> str | None:
        if len(found) != len(reference.exact):
            return f"{len(found)} outputs in place of {len(reference.exact)}, for rows"
        beyond = reference.beyond[part]
        for number, values in enumerate(found):
            columns = (reference.exact, reference.single, reference.allowed, reference.clean)
            exact, single, allowed, clean = (column[number][part] for column in columns)
            if values.shape != exact.shape:
                return f"output {number} has shape {values.shape} in place of {exact.shape}, for rows"
            if values.dtype.kind not in "fiub":
                return f"output {number} has type {values.dtype}, for rows"
            wrong = _apart(values.astype(np.float64), exact, single, allowed)
            if beyond.any():  # where folding makes inf of inf - inf
                loose = _apart(
                    values.astype(np.float64), exact, single, _ABOUT * (1 + np.fmax(abs(exact), abs(single)))
                )
                loose &= np.isfinite(values) & _apart(values, clean, clean, _ABOUT * (1 + np.abs(clean)))
                wrong[beyond] &= loose[beyond]
            if wrong.any():
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                words = f"output {number} at {list(place)} is {values[place]!r}, the module's {single[place]!r}"
                kind = "beyond float32, " if beyond[place[0]] else ""
                return f"{words} (float64 {exact[place]!r}, allowed {allowed[place]:.3g}), {kind}row {place[0]}"
        return None


def _apart(values: np.ndarray, exact: np.ndarray, single: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Which elements are farther than allowed both from the exact ones and from those of float32.

    Where rounding may carry an element anywhere, by a quotient of what cancels, it may also be infinite or NaN.
    """
    with np.errstate(all="ignore"):
        distance = np.fmin(np.abs(values - exact), np.abs(values - single))
        same = (values == single) | (values == exact) | (np.isnan(values) & np.isnan(single))
    return ~((distance <= allowed) | same | (allowed > np.finfo(np.float32).max))


def _opened(source: str | bytes) -> Any:
    import onnxruntime  # which starts a thread, in a process that may not fork then

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _shaped(rows: np.ndarray, declared: Sequence[int | str]) -> np.ndarray:
    """The rows in the shape that the file declares, where as many numbers fit: a module may take several shapes."""
    row = [size for size in declared[1:] if isinstance(size, int)]
    return rows.reshape(-1, *row) if len(row) == len(declared) - 1 and np.prod(row) == rows[0].size else rows


def _alike(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """An output for rows of another shape, in the module's for its own rows, where as many numbers fit."""
    return values.reshape(wanted.shape) if values.size == wanted.size else values


def _ordered(names: list[str], own: list[str]) -> list[str]:
    """The file's names in the module's order: by name where they are the same, else as they come."""
    return own if set(names) == set(own) else names


def _numbers(proto: ModelProto) -> Iterator[float]:
    tensors = [*proto.graph.initializer]
    tensors += [each.t for node in proto.graph.node for each in node.attribute if each.HasField("t")]
    for tensor in tensors:
        if tensor.data_type in (1, 7, 11) and not tensor.external_data:
            try:
                yield from np.asarray(numpy_helper.to_array(tensor)).reshape(-1)[:64].astype(np.float64).tolist()
            except Exception:  # a tensor that is no tensor any more
                continue
    yield from (each.f for node in proto.graph.node for each in node.attribute if each.HasField("f"))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:160]}"
