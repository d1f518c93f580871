"""The bound of a file: its targets, what the report says, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from builder import MLPSpec, assemble
from export import bound, publish, read_report, recover, verify
from export.bounds.boxes import box_of
from export.bounds.report import BoundReport
from export.graph import Input
from runtime import InputError, Port, Session
from tests.support.cases import network
from tests.support.recovering import real_network

DIGITS = Path(__file__).parents[3] / "models" / "digits"


def published(blocks: Sequence[object], folder: Path, **more: object) -> Path:
    """A small proved file without declared ranges."""
    spec, module = network(list(blocks))
    publish(module, folder / "net.onnx", spec=spec, page=False, **more)  # type: ignore[arg-type]
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from builder import load_spec, load_weights

    spec = load_spec(DIGITS / "spec.yaml")
    module = assemble(spec)
    load_weights(module, DIGITS / "weights.safetensors")
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    publish(module, path, spec=spec, page=False)
    return path


def test_the_bound_of_digits_is_small_and_every_step_helps(digits: Path) -> None:
    report = bound(digits, seconds=0, data=DIGITS / "heldout.parquet")
    assert report.why is None
    assert report.largest <= 0.008
    assert report.box == {"pixels": [(0, 16)]}
    steps = {step.name: step.bound for step in report.steps}
    assert list(steps) == ["intervals", "enclosures", "sensitivities", "at once"]
    assert list(steps.values()) == sorted(steps.values(), reverse=True)
    assert steps["at once"] < steps["intervals"] / 2
    (output,) = report.outputs.values()
    assert len(output.bound) == len(output.seen) == len(output.interval) == 10
    assert all(0 < seen < largest for seen, largest in zip(output.seen, output.bound, strict=True))
    assert report.labels is not None
    assert report.labels.margin == pytest.approx(sum(sorted(output.bound)[-2:]))
    assert report.labels.rows == 450
    assert 440 <= (report.labels.above or 0) <= 450
    total = sum(layer.error for layer in report.layers)
    assert steps["sensitivities"] == pytest.approx(total, rel=1e-3)


def test_the_certificate_of_digits_has_its_bound(digits: Path) -> None:
    stored = read_report(digits.with_suffix(".parity.json")).bound
    assert stored is not None
    assert stored.sha256 == read_report(digits.with_suffix(".parity.json")).file.sha256
    assert stored.largest <= bound(digits, seconds=0).largest * (1 + 1e-9)
    assert stored.largest == max(
        json.loads(digits.with_suffix(".parity.json").read_text())["bound"]["outputs"]["logits"]["bound"]
    )


@pytest.mark.parametrize(("name", "half"), [("acasxu_1_1.onnx", 0.5), ("g1_policy.onnx", 5.0)])
def test_networks_of_others_have_bounds(name: str, half: float, tmp_path: Path) -> None:
    """At least twice as tight as what intervals carry."""
    recovered = recover(real_network(name), tmp_path, page=False)
    assert recovered.artifact is not None
    report = bound(recovered.artifact.path, ranges=(-half, half), seconds=0)
    assert report.why is None
    assert report.largest <= report.steps[0].bound / 2


def test_splitting_makes_the_bound_smaller(tmp_path: Path) -> None:
    path = published([{"linear": 12}, "relu", {"linear": 12}, "relu", {"linear": 2}], tmp_path)
    whole, parts = bound(path, ranges=(-1, 1), seconds=0), bound(path, ranges=(-1, 1), seconds=1)
    assert whole.boxes == 1
    assert parts.boxes > 1
    assert parts.largest < whole.largest
    assert parts.steps[-1].name == "splitting"


def test_a_part_of_the_box_has_no_larger_bound(tmp_path: Path) -> None:
    path = published([{"linear": 12}, "tanh", {"linear": 12}, "relu", {"linear": 2}], tmp_path)
    narrow, wide = (bound(path, ranges=(-half, half), seconds=0) for half in (0.5, 2.0))
    for one, other in zip(narrow.outputs["output"].bound, wide.outputs["output"].bound, strict=True):
        assert one <= other


def test_what_folding_moved_is_a_figure_of_its_own(tmp_path: Path) -> None:
    """The file's constants are rounded; the module's layers, one by one, are not those."""
    blocks = [{"linear": 8}, "batch_norm", "relu", {"linear": 3}]
    spec, module = network([{"standardize": {"mean": 0.3, "std": 1.7}}, *blocks], features=5)
    spec = MLPSpec(**{**spec.model_dump(exclude_none=True), "input": {"features": 5, "range": [-2, 2]}})
    publish(module, tmp_path / "net.onnx", spec=spec, page=False, fold_affine=True)
    report = read_report(tmp_path / "net.parity.json").bound
    assert report is not None
    (output,) = report.outputs.values()
    assert output.folding is not None
    rows = np.random.default_rng(0).uniform(-2, 2, (500, 5)).astype(np.float32)
    with torch.no_grad():
        exact = module.double()(torch.from_numpy(rows).double()).numpy()
    with Session(tmp_path / "net.onnx", "cpu") as session:
        off = np.abs(session.predict(rows) - exact).max(axis=0)
    assert (off <= np.array(output.bound) + np.array(output.folding)).all()
    assert 0 < max(output.folding) < max(output.bound)
    alone = bound(tmp_path / "net.onnx", ranges=(-2, 2), seconds=0)
    assert all(part.folding is None for part in alone.outputs.values())


class Items(nn.Module):
    """A table and a float input."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(entries, 4), nn.Linear(6, 2)

    def forward(self, item: Tensor, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.table(item[:, 0]), x], dim=1))


@pytest.mark.parametrize("entries", [5, 500])
def test_whole_numbers_are_tried_one_by_one_or_over_their_table(entries: int, tmp_path: Path) -> None:
    module = Items(entries).eval()
    example = torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 2)
    publish(module, tmp_path / "items.onnx", example=example, page=False)
    report = bound(tmp_path / "items.onnx", module, example=example, ranges={"x": (-1, 1)}, seconds=0)
    assert report.why is None
    assert report.boxes == (entries if entries <= 64 else 1)
    assert report.box == {"item": [(0, entries - 1)], "x": [(-1, 1)]}
    rng = np.random.default_rng(0)
    items, x = rng.integers(0, entries, (400, 1)), rng.uniform(-1, 1, (400, 2)).astype(np.float32)
    with torch.no_grad():
        exact = module.double()(torch.from_numpy(items), torch.from_numpy(x).double()).numpy()
    with Session(tmp_path / "items.onnx", "cpu") as session:
        (found,) = session.run({"item": items, "x": x}).values()
    (output,) = report.outputs.values()
    assert (np.abs(found - exact) <= np.array(output.bound)).all()
    low, high = np.array(output.interval).T
    assert ((low <= exact) & (exact <= high)).all()


class Counted(nn.Module):
    """A function of whole numbers and of truths, and constants that are repeated for every row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(6, 4), nn.Linear(7, 2)

    def forward(self, item: Tensor) -> Tensor:
        known = self.table(item.clamp(0, 5)) * (item >= 0).unsqueeze(2)
        mean = known.sum(dim=1) / (item >= 0).sum(dim=1, keepdim=True).clamp(min=1)
        return self.last(torch.cat([mean, mean.new_full((len(item), 3), 0.1).cumsum(1)], dim=1))


def test_whole_numbers_and_constants_are_bounded(tmp_path: Path) -> None:
    module = Counted().eval()
    example = (torch.zeros(2, 5, dtype=torch.int64),)
    publish(module, tmp_path / "net.onnx", example=example, page=False)
    report = bound(tmp_path / "net.onnx", module, example=example, ranges=(-1, 5), seconds=0)
    assert report.why is None
    rows = np.random.default_rng(0).integers(-1, 6, (300, 5))
    with torch.no_grad():
        exact = module.double()(torch.from_numpy(rows)).numpy()
    with Session(tmp_path / "net.onnx", "cpu") as session:
        (found,) = session.run(rows).values()
    (output,) = report.outputs.values()
    low, high = np.array(output.interval).T
    assert ((low <= exact) & (exact <= high)).all()
    assert (np.abs(found - exact) <= np.array(output.bound)).all()


class Quotient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 1 / self.first(x)


class Cumulated(nn.Module):
    """Rows that depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) - self.first(x).mean(dim=0)


@pytest.mark.parametrize(
    ("module", "half", "words"),
    [
        (Quotient(), 3.0, ["has no finite value for every number in", "reciprocal"]),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), 3e38, ["'0': linear", "overflow"]),
        (Cumulated(), 1.0, ["a row's result depends on the rows beside it"]),
    ],
    ids=["a division by zero", "an overflow", "rows that depend on each other"],
)
def test_where_there_is_no_bound_the_report_says_why(
    module: nn.Module, half: float, words: list[str], tmp_path: Path
) -> None:
    publish(module.eval(), tmp_path / "net.onnx", input_shape=(3,), page=False)
    report = bound(tmp_path / "net.onnx", module, ranges=(-half, half))
    assert report.outputs == {}
    for part in words:
        assert part in (report.why or "")
    assert report.largest == float("inf")
    assert BoundReport.model_validate_json(report.model_dump_json()) == report


def test_without_declared_ranges_nothing_is_bounded_and_no_bound_leaves_it_out(tmp_path: Path) -> None:
    path = published([{"linear": 3}], tmp_path)
    assert read_report(tmp_path / "net.parity.json").bound is None
    with pytest.raises(InputError, match=r"the input 'input' has no declared range .*--range LOW HIGH"):
        bound(path)
    spec = MLPSpec(name="net", input={"features": 4, "range": [0, 1]}, blocks=[{"linear": 3}])
    publish(assemble(spec), tmp_path / "net.onnx", spec=spec, page=False, bound=False)
    assert read_report(tmp_path / "net.parity.json").bound is None
    publish(assemble(spec), tmp_path / "net.onnx", spec=spec, page=False)
    assert read_report(tmp_path / "net.parity.json").bound is not None


def test_a_bound_rests_on_the_certificate_of_this_file(tmp_path: Path) -> None:
    path = published([{"linear": 3}], tmp_path)
    other = published([{"linear": 2}], tmp_path / "other")
    certificate = tmp_path / "net.parity.json"
    with pytest.raises(InputError, match="is of another file than"):
        bound(path, ranges=(-1, 1), certificate=other.with_suffix(".parity.json"))
    certificate.rename(tmp_path / "moved.json")
    with pytest.raises(InputError, match=r"no certificate net\.parity\.json beside it"):
        bound(path, ranges=(-1, 1))
    assert bound(path, ranges=(-1, 1), certificate=tmp_path / "moved.json").why is None
    spec, module = network([{"linear": 3}], seed=1)
    refused = verify(module, path, spec=spec)
    refused.write(certificate)
    with pytest.raises(InputError, match=r"says that net\.onnx is failed; a bound rests on a proved file"):
        bound(path, ranges=(-1, 1))
    with pytest.raises(InputError, match="no such file"):
        bound(tmp_path / "none.onnx")


def test_another_network_than_the_file_s_is_refused(tmp_path: Path) -> None:
    path = published([{"linear": 3}, "relu", {"linear": 2}], tmp_path)
    _, other = network([{"linear": 3}, "tanh", {"linear": 2}])
    with pytest.raises(InputError, match="is not this network"):
        bound(path, other, ranges=(-1, 1))
    _, weights = network([{"linear": 3}, "relu", {"linear": 2}], seed=9)
    with pytest.raises(InputError, match="is not this network: weight"):
        bound(path, weights, ranges=(-1, 1))


def test_a_network_that_cannot_be_read_back_must_be_given(tmp_path: Path) -> None:
    module = Quotient().eval()
    publish(module, tmp_path / "net.onnx", input_shape=(3,), page=False)
    with pytest.raises(InputError, match=r"cannot be read back from it: .*--spec or --module"):
        bound(tmp_path / "net.onnx", ranges=(5, 6))


INPUTS = {"x": Input((2,)), "item": Input((1,), "int64", ((0, 9),))}


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"x": (1, 0)}, "the range of 'x' is 1 to 0; expected LOW at most HIGH"),
        ({"x": (0, float("inf"))}, "the range of 'x' is 0 to inf; expected finite float32 numbers"),
        ({"x": (float("nan"), 1)}, "the range of 'x' is nan to 1; expected finite float32 numbers"),
        ({"x": (0, 1e39)}, "expected finite float32 numbers"),
        ({"x": [(0, 1), (0, 1), (0, 1)]}, "ranges of 3 features are given for 'x', which has 2"),
        ({"x": [1, 2, 3]}, "ranges of 1 features are given for 'x', which has 2"),
        ({"x": "0 to 1"}, "expected LOW and HIGH, two numbers"),
        ({"y": (0, 1)}, "a range is given for 'y'; the file's inputs are x, item"),
        ({"x": (0, 1), "item": (10, 12)}, "the range of feature 0 of 'item' holds no number that the file takes"),
        ({"x": (0, 1), "item": (0.2, 0.8)}, "holds no number that the file takes"),
        ({"item": (0, 3)}, "the input 'x' has no declared range"),
    ],
)
def test_ranges_that_are_no_box_are_refused(ranges: object, words: str) -> None:
    with pytest.raises(InputError) as error:
        box_of(INPUTS, [], ranges)  # type: ignore[arg-type]
    assert words in str(error.value)
    assert "What to do" in str(error.value) or "the file's inputs are" in str(error.value)


def test_declared_ranges_are_the_box_where_none_is_given() -> None:
    ports = [Port("x", ("batch", 2), features=("a", "b"), range=(0, 1), ranges=((-2, 3), None))]
    box = box_of(INPUTS, ports, None)
    assert box.record() == {"x": [(-2, 3), (0, 1)], "item": [(0, 9)]}
    assert box_of(INPUTS, ports, {"x": (0.5, 1)}).record() == {"x": [(0.5, 1)], "item": [(0, 9)]}


def test_the_box_holds_what_its_ends_are_in_float32() -> None:
    """A row of 0.1, in float32, is above 0.1 in float64."""
    box = box_of({"x": Input((1,))}, [], (-0.1, 0.1))
    assert box.holds(np.array([[0.1], [-0.1], [0.11]], np.float32)).tolist() == [True, True, False]


@pytest.mark.cuda
def test_errors_on_a_gpu_are_within_the_bound(digits: Path, cuda: str) -> None:
    report = bound(digits, device=cuda, seconds=0)
    (output,) = report.outputs.values()
    assert all(0 < seen < largest for seen, largest in zip(output.seen, output.bound, strict=True))
