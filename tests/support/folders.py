"""Models and Parquet folders for the tests of scoring on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars

from builder import MLPSpec, assemble
from export import export
from runtime import Part, Session, score_file

NAMES = ["age", "height", "weight"]


def model(folder: Path, *, width: int = 16, features: Any = NAMES, name: str = "m.onnx") -> Path:
    """A model of three features with the labels no and yes, and one hidden layer."""
    blocks = [{"linear": width}, "relu", {"linear": 2}]
    output = {"name": "y", "labels": ["no", "yes"]}
    spec = MLPSpec(name="m", input={"name": "x", "features": features}, blocks=blocks, output=output)
    export(assemble(spec, seed=1).eval(), folder / name, spec=spec)
    return folder / name


def write_rows(path: Path, rows: int, *, seed: int = 0, group: int | None = None, **more: Any) -> Path:
    """A Parquet file of that many rows for the model, each with an id of its own, in row groups of ``group`` rows."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {name: rng.normal(size=rows).astype(np.float32) for name in reversed(NAMES)}
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = polars.Series([f"{path.stem}-{row}" for row in range(rows)], dtype=polars.String)
    polars.DataFrame({"id": ids} | columns | more).write_parquet(path, row_group_size=group)
    return path


def read_results(folder: Path, parts: Sequence[Part]) -> polars.DataFrame:
    """All results, in the order of the data."""
    return polars.concat([polars.read_parquet(folder / part.target) for part in parts])


def score_alone(file: Path, sources: Sequence[Path], folder: Path) -> polars.DataFrame:
    """What one machine gives for these files, in order, with the ids of the rows before it."""
    frames = []
    with Session(file, "cpu") as session:
        for number, source in enumerate(sources):
            score_file(session, source, folder / f"alone-{number}.parquet")
            results = polars.read_parquet(folder / f"alone-{number}.parquet")
            frames.append(polars.read_parquet(source, columns=["id"]).hstack(results))
    return polars.concat(frames)


def hidden_files(folder: Path) -> list[str]:
    """What is left in a folder that no user asked for."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]
