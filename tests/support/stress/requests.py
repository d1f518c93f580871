"""Requests of the V2 protocol made of a certificate's rows, and whether an answer is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime import Answers

HEAD = "inference-header-content-length"


@dataclass(frozen=True)
class Asked:
    """Some rows of a certificate, and how they are asked for."""

    body: bytes
    headers: dict[str, str]
    rows: slice
    id: str


def asked(answers: Answers, first: int, count: int, *, binary: bool = False, name: str = "r") -> Asked:
    """Rows first to first + count of the answers, by a request with the id ``name``."""
    rows = slice(first, first + count)
    entries: list[dict[str, Any]] = []
    pieces = []
    for tensor, values in answers.inputs.items():
        held = values[rows].astype("<f4")
        entries.append({"name": tensor, "shape": list(held.shape), "datatype": "FP32"})
        if binary:
            entries[-1]["parameters"] = {"binary_data_size": held.nbytes}
            pieces.append(held.tobytes())
        else:
            entries[-1]["data"] = held.reshape(-1).tolist()
    record: dict[str, Any] = {"id": name, "inputs": entries}
    if binary:
        record["parameters"] = {"binary_data_output": True}
    head = json.dumps(record).encode()
    headers = {"Content-Type": "application/json"}
    if binary:
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Asked(b"".join([head, *pieces]), headers, rows, name)


def outputs(body: bytes, headers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The outputs of an answer, float64."""
    head = int(headers.get(HEAD, len(body)))
    record, rest, at = json.loads(body[:head]), body[head:], 0
    found = {}
    for entry in record["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size")
        held = np.asarray(entry["data"]) if size is None else np.frombuffer(rest[at : at + size], "<f4")
        at += size or 0
        found[entry["name"]] = held.astype(np.float64).reshape(entry["shape"])
    return found


def why_wrong(answers: Answers, one: Asked, body: bytes, headers: Mapping[str, str]) -> str | None:
    """What is wrong in an answer with status 200: another request's id, or rows beyond the proved bound."""
    head = int(headers.get(HEAD, len(body)))
    given = json.loads(body[:head]).get("id")
    if given != one.id:
        return f"the answer of request {given!r} came for {one.id!r}"
    found = outputs(body, headers)
    for name, exact in answers.exact.items():
        wanted = exact[one.rows]
        if name not in found or found[name].shape != wanted.shape:
            return f"{name} of shape {wanted.shape} was expected, not { ({k: v.shape for k, v in found.items()}) }"
        if not (np.abs(found[name] - wanted) <= answers.bound[name][one.rows]).all():
            return f"{name} is beyond the proved bound"
    return None
