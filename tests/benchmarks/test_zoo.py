"""The table of networks of published packages: what it says of a network, whatever becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import running
from benchmarks.zoo.entries import Entry, Row, floats, ints, of
from benchmarks.zoo.exporters import difference, publish_by_mlpx
from benchmarks.zoo.networks import ABSENT, ENTRIES
from benchmarks.zoo.running import tried
from benchmarks.zoo.table import markdown, operators, totals
from benchmarks.zoo.worker import built

NETWORK = of("a package", ("MLP", lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), floats(3)))[0]


class OverRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean()


def test_names_are_there_once_and_nothing_is_imported_for_them() -> None:
    names = [(entry.package, entry.name) for entry in ENTRIES]
    assert len(set(names)) == len(names) >= 120
    assert len({package for package, _ in names}) >= 25
    assert not ABSENT.keys() & {package for package, _ in names}


def test_a_network_has_the_same_weights_every_time_and_statistics_that_tell() -> None:
    entry = of("p", ("norm", lambda: nn.Sequential(nn.BatchNorm1d(3), nn.PReLU()), floats(3)))[0]
    first, second = (entry.module().state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["0.running_mean"].std() > 0
    assert first["0.weight"].std() > 0
    assert not entry.module().training


def test_rows_of_numbers_and_of_categories() -> None:
    entry = Entry("p", "n", nn.Identity, {"x": floats(3), "kind": ints(4, 2)})
    example = entry.example(200)
    assert isinstance(example, dict)
    assert example["x"].shape == (200, 3)
    assert example["x"].dtype == torch.float32
    assert example["kind"].shape == (200, 2)
    assert example["kind"].dtype == torch.int64
    assert set(example["kind"].unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(example["x"], Row((3,)).drawn(200, torch.Generator().manual_seed(0)))


def test_what_a_network_is() -> None:
    found = built(NETWORK)
    assert found["parameters"] == 26
    assert found["outputs"] == [[5, 2]]
    assert found["operators"] == ["linear.default", "relu.default"]
    assert found["rows_apart"]
    assert not built(of("p", ("mixed", OverRows, floats(3)))[0])["rows_apart"]


def test_a_file_of_another_network_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    module = NETWORK.module()
    publish_by_mlpx(NETWORK, module, path)
    assert difference(NETWORK, module, path) < 1e-5
    with torch.no_grad():
        next(module.parameters()).mul_(1.1)
    assert difference(NETWORK, module, path) > 1e-3


def test_a_crash_and_a_time_limit_cost_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys, time\n"
        "for name, steps in json.loads(sys.argv[-1])['networks'].items():\n"
        "    for step in steps:\n"
        "        print(json.dumps({'network': name, 'step': step}), flush=True)\n"
        "        if (name, step) == ('b', 'mlpx'): os.abort()\n"
        "        if (name, step) == ('b', 'torch'): time.sleep(600)\n"
        "        if (name, step) == ('d', 'torch'): sys.exit(0)\n"
        "        if name == 'c':\n"
        "            print(json.dumps({'network': name, 'step': step, 'failed': 'no such module'}), flush=True)\n"
        "            break\n"
        "        result = {'outcome': 'fine'} if step != 'build' else {'parameters': 1}\n"
        "        print(json.dumps({'network': name, 'step': step, 'result': result}), flush=True)\n"
    )
    monkeypatch.setattr(running, "WORKER", [str(script)])
    entries = [Entry("p", name, nn.Identity, (floats(1),)) for name in "abcd"]
    a, b, c, d = tried("p", entries, ["mlpx", "torch"], limit=3)
    assert [a["mlpx"], a["torch"]] == [{"outcome": "fine"}] * 2
    assert (b["mlpx"]["outcome"], b["mlpx"]["message"]) == ("crashed", "SIGABRT")
    assert b["torch"]["outcome"] == "time limit"
    assert c["failed"] == "no such module"
    assert d["mlpx"] == {"outcome": "fine"}
    assert (d["torch"]["outcome"], d["torch"]["message"]) == ("crashed", "the process ended by itself")


def test_the_page_hides_nothing() -> None:
    good, bad = {"outcome": "proved", "seconds": 1.0, "message": ""}, {"outcome": "refused", "message": "no | block"}
    record = {"package": "p", "version": "1.0", "rows_apart": True, "operators": ["linear.default"]}
    records = [record | {"network": "a", "mlpx": good}, record | {"network": "b", "mlpx": bad, "rows_apart": False}]
    records += [{"package": "q", "network": "c", "failed": "the package is not installed"}]
    results = {
        "networks": records,
        "steps": ["mlpx"],
        "machine": {"date": "today"},
        "command": "python",
        "absent": [["r", "why"]],
    }
    page = markdown(json.loads(json.dumps(results)))
    assert "| p | 1.0 | 2 | 1 |" in page
    assert "| p b, whose rows depend on each other | refused | no \\| block |" in page
    assert "| q c | the package is not installed |" in page
    assert "| r | why |" in page
    assert totals(records, ["mlpx"]) == "mlpx       of 2: 1 proved, and agrees with eager PyTorch, 1 refused"
    assert operators(records).split() == ["2", "linear.default", "p", "a,", "p", "b"]
