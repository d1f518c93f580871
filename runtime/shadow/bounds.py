"""What two servers' numbers may be apart by: the sum of their proved bounds, where both have one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.json_types import Json
from runtime.live.connection import Connection
from runtime.live.protocol import OutputTensor, ServerError
from runtime.live.rest_client import RestClient
from runtime.model.bound import Bound, format_bound, format_up
from runtime.model.certificate import read_certificate

from .options import Options, Side

_MAX_CERTIFICATE = 2**28
MAX_ANSWER = 2**30
"""Bytes of an answer that are read."""
Tensors = Mapping[str, OutputTensor]


def connected(side: Side, options: Options) -> RestClient:
    """A client of a side. Raises InputError: the CA file cannot be used."""
    return RestClient(Connection(side.address, options.timeout, options.token, options.ca_file, MAX_ANSWER))


@dataclass(frozen=True)
class Known:
    """What is known of the bound of one model of a side."""

    bound: Bound | float | None
    words: str
    """It, or why there is none."""

    def allows(self, inputs: Tensors, output: str, shape: tuple[int, ...]) -> np.ndarray:
        """The bound of each number of an output of this shape (rows, ...); NaN where there is none."""
        if self.bound is None:
            return np.full(shape, np.nan)
        if not isinstance(self.bound, Bound):
            return np.full(shape, self.bound)
        found = self.bound.outputs.get(output)
        width = int(np.prod(shape[1:])) if shape else 0
        if found is None or len(found.bound) != width or not shape:
            return np.full(shape, np.nan)
        inside = _inside(self.bound, inputs, shape[0])
        table = np.where(inside[:, None], np.array(found.bound), np.nan)
        return np.where(np.isfinite(table), table, np.nan).reshape(shape)


def _inside(bound: Bound, inputs: Tensors, rows: int) -> np.ndarray:
    """Whether each row is in the box that the bound holds for."""
    inside = np.ones(rows, bool)
    for name, ranges in bound.box.items():
        tensor = inputs.get(name)
        if tensor is None or tensor.values is None or tensor.values.shape[:1] != (rows,):
            return np.zeros(rows, bool)
        values = tensor.values.reshape(rows, -1)
        if tensor.datatype == "FP32":
            values = values.astype(np.float32)
        low, high = (np.array(ends) for ends in zip(*ranges, strict=True))
        if len(low) not in (1, values.shape[1]):
            return np.zeros(rows, bool)
        inside &= ((values >= low) & (values <= high)).all(axis=1)
    return inside


def known_of(side: Side, options: Options, model: str, version: str | None) -> Known:
    """The bound of a model: what the options say, or the certificate that the server shows."""
    if isinstance(side.bound, Bound):
        return Known(side.bound, format_bound(side.bound))
    if side.bound is not None:
        return Known(side.bound, f"{format_up(side.bound)} by option")
    try:
        with closing(connected(side, options)) as client:
            return _asked(client, side, side.model_path(model, version))
    except (InputError, ServerError) as error:
        return Known(None, f"not known: {error}")


def _asked(client: RestClient, side: Side, path: str) -> Known:
    record = client.metadata(path)
    parameters: Json = record.get("parameters")
    found = parameters if isinstance(parameters, dict) else {}
    place = found.get("certificate")
    if not isinstance(place, str):
        return Known(None, "none: the server shows no certificate")
    _, content = client.request("GET", f"{side.address.prefix}/{place}", None, {}, _MAX_CERTIFICATE)
    with tempfile.TemporaryDirectory(prefix="mlpx-shadow-") as folder:
        file = Path(folder) / "served.parity.json"
        file.write_bytes(content)
        certificate = read_certificate(file)
    if not certificate.proved or certificate.sha256 != found.get("sha256"):
        return Known(None, "none: the certificate that the server shows does not prove its file")
    if certificate.bound is None:
        return Known(None, "none: its certificate has no bound for every input (the ranges are not declared)")
    if certificate.bound.largest is None:
        return Known(None, format_bound(certificate.bound))
    return Known(certificate.bound, format_bound(certificate.bound))
