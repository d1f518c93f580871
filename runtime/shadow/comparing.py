"""Two answers to one request, compared number by number."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtime.live.protocol import OutputTensor, ServerError
from runtime.live.rest_client import decode_tensors

from .bounds import MAX_ANSWER, Known
from .outcomes import BEYOND, EQUAL, OTHER, UNBOUNDED, WITHIN

Tensors = Mapping[str, OutputTensor]
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


@dataclass(frozen=True)
class Compared:
    """What a comparison found; the fields of ``Outcome``."""

    kind: str
    words: str = ""
    rows: int = 0
    apart: float | None = None
    share: float | None = None
    moved: int = 0


@dataclass(frozen=True)
class Answered:
    """The headers (names in lower case) and the body of a request or an answer."""

    headers: Mapping[str, str]
    body: bytes

    def unpacked(self) -> bytes:
        """The body without its Content-Encoding. Raises ServerError."""
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding == "identity":
            return self.body
        if encoding not in _WINDOW_BITS:
            raise ServerError(f"Content-Encoding {encoding[:40]!r} is not read here")
        try:
            unpacking = zlib.decompressobj(_WINDOW_BITS[encoding])
            content = unpacking.decompress(self.body, MAX_ANSWER)
        except zlib.error as error:
            raise ServerError(f"the body is not {encoding}: {error}") from None
        if not unpacking.eof:
            raise ServerError(f"the {encoding} of the body ends early, or unpacks to more than {MAX_ANSWER:,} bytes")
        return content


def compare(request: Answered, old: Answered, new: Answered, known: tuple[Known, Known]) -> Compared:
    """Compare what two servers answered with tensors; ``known`` are the bounds of the old and of the new side."""
    sides: list[Tensors] = []
    for name, answer in (("old", old), ("new", new)):
        try:
            sides.append(decode_tensors(answer.headers, answer.unpacked(), "outputs")[1])
        except ServerError as error:
            return Compared(OTHER, f"the {name} server's answer cannot be read: {error}")
    if words := _unlike(*sides):
        return Compared(OTHER, words)
    try:
        inputs = decode_tensors(request.headers, request.unpacked(), "inputs")[1]
    except ServerError:  # without them no row is known to be in a box
        inputs = {}
    return _measured(inputs, sides[0], sides[1], known)


def _unlike(old: Tensors, new: Tensors) -> str:
    if set(old) != set(new):
        return f"the outputs are {_names(old)} of the old server, {_names(new)} of the new one"
    for name, tensor in old.items():
        ours, theirs = ((each.datatype, list(each.shape)) for each in (tensor, new[name]))
        if ours != theirs:
            old_form, new_form = (f"{datatype} {shape}" for datatype, shape in (ours, theirs))
            return f"'{name}' is {old_form} of the old server, {new_form} of the new one"
    return ""


def _names(tensors: Tensors) -> str:
    return ", ".join(f"'{name}'" for name in tensors) or "none"


def _measured(inputs: Tensors, old: Tensors, new: Tensors, known: tuple[Known, Known]) -> Compared:
    kinds: set[str] = set()
    words, rows, apart, share = "", 0, 0.0, None
    moved: np.ndarray | None = None
    for name, tensor in old.items():
        ours, theirs = _numbers(tensor), _numbers(new[name])
        if ours is None or theirs is None:
            kinds.add(UNBOUNDED)
            words = words or f"'{name}' is {tensor.datatype}, which is not compared"
            continue
        rows = max(rows, ours.shape[0] if ours.ndim else 1)
        with np.errstate(invalid="ignore"):
            same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
            differences = np.where(same, 0.0, np.abs(ours - theirs))
        differences[np.isnan(differences)] = np.inf  # NaN against a number
        if ours.ndim == 2 and ours.shape[1] > 1:
            changed = ours.argmax(axis=1) != theirs.argmax(axis=1)
            moved = changed if moved is None else moved | changed
        if same.all():
            kinds.add(EQUAL)
            continue
        allowed = known[0].allows(inputs, name, ours.shape) + known[1].allows(inputs, name, ours.shape)
        apart = max(apart, float(differences.max()))
        bounded = ~np.isnan(allowed)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(same, 0.0, differences / allowed)
        if bounded.any():
            share = max(share or 0.0, float(shares[bounded].max()))
        if (beyond := bounded & (differences > allowed)).any():
            kinds.add(BEYOND)
            place = np.unravel_index(int(np.where(beyond, shares, -1).argmax()), ours.shape)
            words = _place(name, place, ours, theirs, f"the bounds allow {float(allowed[place]):.3g} there")
        elif (~same & ~bounded).any():
            kinds.add(UNBOUNDED)
            place = np.unravel_index(int(np.where(bounded, -1, differences).argmax()), ours.shape)
            words = words or _place(name, place, ours, theirs, _why_unbounded(known))
        else:
            kinds.add(WITHIN)
    kind = next((kind for kind in (BEYOND, UNBOUNDED, WITHIN) if kind in kinds), EQUAL)
    return Compared(kind, words, rows, apart, share, 0 if moved is None else int(moved.sum()))


def _why_unbounded(known: tuple[Known, Known]) -> str:
    lacking = [name for name, each in zip(("old", "new"), known, strict=True) if each.bound is None]
    if lacking:
        return f"no bound of the {' and of the '.join(lacking)} model is known"
    return "the row is outside the ranges that the bounds hold for"


def _place(name: str, place: tuple[np.intp, ...], old: np.ndarray, new: np.ndarray, end: str) -> str:
    row, *index = (int(number) for number in place) if place else (0,)
    at = f" {index[0] if len(index) == 1 else index}" if index else ""
    difference = abs(float(old[place]) - float(new[place]))
    return f"'{name}'{at}, row {row + 1}: {old[place]:.9g} and {new[place]:.9g}, {difference:.3g} apart; {end}"


def _numbers(tensor: OutputTensor) -> np.ndarray | None:
    """As float64, of the float32 values where it is FP32: JSON has them with fewer digits, or more."""
    if tensor.values is None or tensor.datatype != "FP32":
        return tensor.values
    with np.errstate(over="ignore"):
        return tensor.values.astype(np.float32).astype(np.float64)
