"""Rows of indices, the files that take them, and what these compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.embeddings import beside_floats, cast_column, only_indices

IDS = np.array([[0, 1], [9, 5], [3, 2]])
OBS = np.array([[0.5, -1.0], [2.0, 0.25], [-0.5, 4.0]], np.float32)
COLUMNS = {"speed": OBS[:, 0], "torque": OBS[:, 1], "genre": np.array([3.0, 0.0, 9.0], np.float32)}


def embedding_files(folder: Path) -> dict[str, Path]:
    """One of each, by what is special of it."""
    return {
        "indices": only_indices(folder / "indices.onnx"),
        "foreign": only_indices(folder / "foreign.onnx", said=False),
        "both": beside_floats(folder / "both.onnx"),
        "cast": cast_column(folder / "cast.onnx"),
        "foreign cast": cast_column(folder / "foreign_cast.onnx", said=False),
    }


def near(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
