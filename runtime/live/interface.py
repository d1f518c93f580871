"""The metadata of a server beside what the certificate says of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtime.model.certificate import Answers

from .protocol import ModelInfo, TensorInfo
from .report import Finding
from .tensors import datatype_of


def compared(info: ModelInfo, answers: Answers) -> tuple[list[Finding], list[str]]:
    """Findings on names, datatypes and shapes that are not the file's, and remarks on what metadata leaves out."""
    findings, remarks = [], []
    for kind, said, known in (("input", info.inputs, answers.inputs), ("output", info.outputs, answers.exact)):
        if not said:
            remarks.append(f"its metadata names no {kind}s, so only the answers were judged")
            continue
        findings += [Finding("interface", words) for words in _differences(kind, said, known)]
        extra = [one.name for one in said if one.name not in known]
        if extra and kind == "output" and not findings:
            remarks.append(f"it has outputs that the file does not have: {', '.join(extra)}")
    return findings, remarks


def _differences(kind: str, said: Sequence[TensorInfo], known: Mapping[str, np.ndarray]) -> list[str]:
    by_name = {one.name: one for one in said}
    missing = [name for name in known if name not in by_name]
    extra = [name for name in by_name if name not in known] if kind == "input" else []
    if missing or extra:
        return [f"the {kind}s of the file are {', '.join(known)}; the server's are {', '.join(by_name)}"]
    words = []
    for name, held in known.items():
        one = by_name[name]
        datatype = datatype_of(held)
        if one.datatype not in (datatype, f"TYPE_{datatype}"):
            words.append(f"{kind} '{name}' is {datatype} in the file and {one.datatype} at the server")
        if not _shape_fits(one.shape, held.shape[1:]):
            words.append(f"{kind} '{name}' is {[-1, *held.shape[1:]]} in the file and {list(one.shape)} at the server")
    return words


def _shape_fits(said: tuple[int, ...], row: tuple[int, ...]) -> bool:
    """With the batch before it as the protocol has it, or without, as some servers say it; -1 is any size."""
    bare = said[1:] if len(said) == len(row) + 1 else said
    return len(bare) == len(row) and all(size in (-1, wanted) for size, wanted in zip(bare, row, strict=True))


def fixed_batch(info: ModelInfo, answers: Answers) -> int | None:
    """The number of rows that metadata says every batch has; None where it leaves that open."""
    for one in info.inputs:
        if one.name in answers.inputs and len(one.shape) == answers.inputs[one.name].ndim and one.shape[0] > 0:
            return one.shape[0]
    return None
