"""Score the held-out rows of an example model: ``python -m models.score digits out/digits/digits.onnx``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars

from mlpx import Session
from runtime import read_inputs, score
from runtime.data.scoring import input_ports

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """``accuracy`` for a model with labels, else ``r2``, the share of the target's variance that is explained."""

    metric: str
    value: float
    rows: int


def held_out(name: str, file: Path, device: str = "auto") -> Result:
    """The figure of merit of the exported ``file`` on the held-out rows of the model ``name``."""
    data = next((HERE / name).glob("heldout.*"))
    read = polars.read_csv if data.suffix == ".csv" else polars.read_parquet
    target = read(data)["target"].to_numpy()
    with Session(file, device) as session:
        rows, _ = read_inputs(data, input_ports(session))
        (scores,) = score(session, rows)
    if scores.labels is not None:
        expected = target if target.dtype == object else np.asarray(scores.port.labels, dtype=object)[target]
        return Result("accuracy", float((scores.labels == expected).mean()), len(target))
    residual = ((target - scores.outputs[:, 0].astype(np.float64)) ** 2).sum()
    return Result("r2", float(1 - residual / ((target - target.mean()) ** 2).sum()), len(target))


if __name__ == "__main__":
    result = held_out(sys.argv[1], Path(sys.argv[2]))
    print(f"{result.metric:<9} {result.value:.3f} on {result.rows} held-out rows of {sys.argv[1]}")
