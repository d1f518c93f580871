"""The benchmark of bounds: what it looks for it would find, and its evaluations are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.bound_evaluations import adverse, first_order, shuffled
from benchmarks.bound_search import Search
from benchmarks.bound_tables import tables
from benchmarks.bounds import main
from export import export
from export.bounds.bounding import Bounding
from export.bounds.boxes import box_of
from export.bounds.enclosing import Network
from export.bounds.searching import eager, outputs
from export.onnxfile.reading import read_model
from export.proof.structure import Structure, match
from export.trace import signature_of, trace

U = 2.0**-24


def structure_of(module: nn.Module, features: int, folder: Path) -> Structure:
    export(module, folder / "m.onnx", input_shape=(features,))
    graph = trace(module, signature_of(module, input_shape=(features,)))
    structure = match(graph, read_model(folder / "m.onnx"))
    assert structure.problem is None
    return structure


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str]]:
    code = main([*map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


def test_a_run_is_resumed_and_its_errors_are_within_the_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found" / "bounds.jsonl"
    code, first = ran(capsys, "--networks", 2, "--seconds", 0.05, "--out", out)
    assert code == 0
    assert [line for line in first if " of " in line][:2] == ["1 of 2: generated 20000", "2 of 2: written 20000"]
    out.write_text(out.read_text() + '{"network": "cut off')
    code, second = ran(capsys, "--networks", 2, "--out", out)
    assert code == 0
    assert second == first[2:]
    records = [json.loads(line) for line in out.read_text().splitlines()[:2]]
    for record in records:
        assert record["why"] is not None or 0 < max(record["share"].values()) <= 1
    assert any(record["why"] is None for record in records)


def test_an_error_above_its_bound_is_reported_with_all_that_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--name", "grid tanh 1 16", "--seconds", 0.05, "--out")
    code, lines = ran(capsys, *arguments, tmp_path / "right.jsonl")
    assert code == 0
    assert lines[-1] == "0 errors above their bounds"
    code, lines = ran(capsys, *arguments, tmp_path / "wrong.jsonl", "--factor", 1e-2)
    assert code == 1
    found = [json.loads(line.removeprefix("above its bound: ")) for line in lines if line.startswith("above")]
    assert lines[-1] == f"{len(found)} errors above their bounds"
    assert {one["evaluation"] for one in found} >= {"ONNX Runtime", "PyTorch", "shuffled", "adverse"}
    for one in found:
        assert one["network"] == "grid tanh 1 16"
        assert one["error"] > one["bound"] > 0
        assert one["evaluation"] == "report" or np.all(np.abs(one["row"]) <= 1)
    code, _ = ran(capsys, "--table", "--out", tmp_path / "wrong.jsonl")
    assert code == 1


def test_a_narrow_box_leaves_little_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = ran(capsys, "--name", "narrow generated 20005", "--seconds", 0.05, "--out", tmp_path / "narrow.jsonl")
    assert code == 0
    (found,) = (json.loads(line) for line in (tmp_path / "narrow.jsonl").read_text().splitlines())
    assert found["seen"]["adverse"] <= found["bound"] < 2 * found["seen"]["adverse"]


class Sums(nn.Module):
    """Every operator whose sums are put in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        square = self.second(self.first(x)).reshape(-1, 4, 3)
        square = square @ square.transpose(1, 2)
        return torch.cat([square.sum(dim=(1, 2))[:, None], square.sum(dim=-1), square.mean(dim=1)], dim=1)


def test_sums_in_another_order_are_the_same_sums(tmp_path: Path) -> None:
    module = Sums().eval()
    network = Network.of(structure_of(module, 6, tmp_path))
    rows = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    exact = outputs(network, rows, torch.float64)
    found = [shuffled(network, rows, seed) for seed in range(8)]
    sizes = np.abs(exact).max()
    assert all(0 < np.abs(one - exact).max() < 100 * U * sizes for one in found)
    assert len({one.tobytes() for one in found}) == 8
    with torch.no_grad():  # sums of whole numbers round nothing
        for part in (module.first.weight, module.first.bias, module.second.weight):
            part.copy_((part * 6).round())
    network = Network.of(structure_of(module, 6, tmp_path))
    rows = np.round(rows * 2)
    exact = outputs(network, rows, torch.float64)
    assert all(np.array_equal(shuffled(network, rows, seed), exact) for seed in range(4))


def test_roundings_against_an_output_move_it_by_all_they_may(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [1.0, -1.0, 0.0]]))
        layer.bias.copy_(torch.tensor([4.0, 0.0]))
    network = Network.of(structure_of(layer, 3, tmp_path))
    rows = np.array([[1, 1, 1], [-1, -1, -3]], np.float32)
    for target, expected in ((0, [6 + 7 + 9 + 10, 12 + 12 + 11 + 8]), (1, [1 + 1, 1 + 1])):
        # The products, and the sums from the largest term of the total's sign on: 4, 7, 9, 10 and -9, -11, -12, -8.
        way = first_order(network, rows, np.full(2, target))
        moved = (adverse(network, rows, way) - outputs(network, rows, torch.float64))[:, target] / U
        assert moved == pytest.approx(expected, rel=1e-5)


def test_the_search_comes_near_to_the_bound_of_one_layer(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 2))
    structure = structure_of(module, 4, tmp_path)
    box = box_of(structure.wiring.inputs, (), (1.0, 1.5))
    report = Bounding(structure, box, "m.onnx", "").report()
    (output,) = report.outputs.values()
    network, bound = Network.of(structure), np.array(output.bound)
    found = Search(network, box, bound, {"PyTorch": eager(network)}, np.random.default_rng(0)).run()
    assert np.all(found.errors["adverse"] > 0.5 * bound)
    assert 0 < found.errors["PyTorch"].max() <= bound.max()
    for name, rows in found.rows.items():
        assert np.all((rows >= 1) & (rows <= 1.5))
        exact = outputs(network, rows, torch.float64)
        if name == "PyTorch":
            errors = np.abs(outputs(network, rows, torch.float32) - exact)
            assert np.diag(errors) == pytest.approx(found.errors[name], rel=1e-6)


def record(network: str, bound: float, seen: float, **more: Any) -> dict[str, Any]:
    found = {"ONNX Runtime": seen, "PyTorch": seen / 2, "shuffled": 0.0, "report": 0.0, "adverse": 4 * seen}
    sizes = {"depth": 2, "width": 64, "boxes": 1, "seconds": 0.5, "why": None, "violations": [], "steps": {}}
    return {"network": network, "bound": bound, "seen": found, "share": {"adverse": 0.5}, **sizes, **more}


def test_the_tables() -> None:
    records = [
        record("generated 1", 1.0, 0.1),
        record("generated 2", 3.0, 0.1),
        record("written 1", 8.0, 0.1, depth=9, violations=[{}]),
        record("written 2", 1.0, 1.0, why="'7': layer_norm may overflow float32 for numbers in -1 to 1"),
        record("grid relu 2 16", 1.0, 0.25, steps={"intervals": 2.0, "at once": 1.0}),
        record("digits", 1.0, 0.5),
        record("narrow written 3", 2.0, 0.5),
    ]
    lines = tables(records).splitlines()
    assert lines[0] == "2 generated networks, 2 written networks"
    assert "| 2 to 3 | 33 to 128 | 3 | 2 | 20 | 30 | 5 | 7.5 | 0.5 | 0 |" in lines
    assert "| all | | 4 | 3 | 30 | 80 | 7.5 | 20 | 0.5 | 1 |" in lines
    assert lines.index("Over narrow boxes") < lines.index("| all | | 1 | 1 | 4 | 4 | 1 | 1 | 0.5 | 0 |")
    assert "| layer_norm may overflow float32 | 1 |" in lines
    assert "| relu 2 16 | 2 |  |  | 1 |  | 1 | 1 | 0.25 | 1 | 4 | 1 | 0.50 |" in lines
    assert any(line.startswith("| digits |") for line in lines)
    assert lines[-1] == "1 errors above their bounds"
