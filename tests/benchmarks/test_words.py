"""The comparison of generated tables in every way to score them: nothing is unexplained, and a fault is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.words import by_table, case_of, compare, judged


def test_no_way_to_score_differs_and_each_refused_row_is_named(tmp_path: Path) -> None:
    found = compare(5000, 7, tmp_path)
    assert found["different_codes"] == 0
    assert len(found["ways"]) == 5
    for name, record in found["ways"].items():
        assert record["unexplained"] == 0, name
        assert record["named"] == record["refused"] > 20, name


def test_a_difference_is_not_explained_away(tmp_path: Path) -> None:
    case = case_of(300, 1, tmp_path)
    found = by_table(case)
    assert judged(case, found)["unexplained"] == 0
    row = int(np.flatnonzero(~case.refused)[0])
    outputs = found.outputs.copy()
    outputs[row] += 2 * case.bound
    assert judged(case, replace(found, outputs=outputs))["unexplained"] == 1
    outputs[row] = np.nan
    assert judged(case, replace(found, outputs=outputs))["unexplained"] >= 1
    assert found.labels is not None
    sure = int(np.flatnonzero(~case.refused & (np.abs(case.exact) > case.bound))[0])
    labels = found.labels.copy()
    labels[sure] = "late" if labels[sure] == "on time" else "on time"
    assert judged(case, replace(found, labels=labels))["unexplained"] == 1
    assert judged(case, replace(found, named=found.named - 1))["unexplained"] == 1
