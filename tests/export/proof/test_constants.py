"""The constants of the rules, measured here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.constants import by_pytorch, grid, main, measure, measurements, node_of
from export.proof.rules.constants import CONSTANTS


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_constants_hold_here(name: str) -> None:
    for found in measurements("cpu", 13, [name]):
        assert found.share <= 1, found


def test_another_kernel_is_beyond_the_constants() -> None:
    points = [grid(12).reshape(-1, 64)]

    def hard(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.clip(arrays[0] / 6 + 0.5, 0, 1)

    assert measure("sigmoid", "wrong", hard, points).share > 1e3
    assert measure("sigmoid", "right", by_pytorch(node_of("sigmoid")), points).share < 1


def test_the_program_prints_every_function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    names = ("sigmoid", "pow", "gelu tanh")
    only = [part for name in names for part in ("--only", name)]
    monkeypatch.setattr("sys.argv", ["constants", "--points", "10", *only, "--json", f"{tmp_path}/c.json"])
    main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
