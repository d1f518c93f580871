"""Tables that are indexed: limits in the file, refusals of what is beyond them, the proof, and faults in the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from export import Artifact, ExportError, export, inspect, publish, read_report, verify
from runtime import InputError, Session, read_certificate
from tests.support.hand_written import Written, differences, proved, rows_of


class Tabular(nn.Module):
    """Two columns of categories, each with a table of its own, beside three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(5, 3), nn.Embedding(7, 2)])
        self.head = nn.Sequential(nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 2))

    def forward(self, cat: Tensor, num: Tensor) -> Tensor:
        found = [table(cat[:, i]) for i, table in enumerate(self.tables)]
        return self.head(torch.cat([*found, num], dim=1))


class OneTable(nn.Module):
    """Every column in one table, from an offset on, as CTR models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 3)
        self.first: Tensor
        self.register_buffer("first", torch.tensor([0, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x + self.first).flatten(1)


class Column(nn.Module):
    """A float column that is cast to an index."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.table(x[:, 0].long()), x[:, 1:]], dim=1))


class MaskedMean(nn.Module):
    """The mean of the rows of a table, without those of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        there = x != 0
        return (self.table(x) * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True).clamp(min=1)


def whole(*shape: int, below: int = 5) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(0))


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


Limits = tuple[tuple[int, int] | None, ...]
LOOKUPS: dict[str, tuple[nn.Module, tuple[Tensor, ...], list[Limits | None]]] = {
    "one index a row": (nn.Embedding(5, 3), (whole(4),), [((0, 4),)]),
    "several": (nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)), (whole(4, 2),), [((0, 4), (0, 4))]),
    "padding": (nn.Embedding(5, 3, padding_idx=2), (whole(4, 2),), [((0, 4), (0, 4))]),
    "two tables beside numbers": (Tabular(), (whole(4, 2), floats(4, 3)), [((0, 4), (0, 6)), None]),
    "one table with offsets": (OneTable(), (whole(4, 2),), [((0, 11), (-5, 6))]),
    "one index in two tables": (
        Written(lambda m, x: torch.cat([m.parts[0](x), m.parts[1](x)], 1), nn.Embedding(5, 3), nn.Embedding(7, 2)),
        (whole(4),),
        [((0, 4),)],
    ),
    "counted from 1": (Written(lambda m, x: m.parts[0](x - 1), nn.Embedding(5, 3)), (whole(4) + 1,), [((1, 5),)]),
    "a float column": (Column(), (torch.cat([whole(4, 1), floats(4, 2)], 1),), [((0, 4), None, None)]),
    "a float column as int32": (Written(lambda m, x: m.parts[0](x[:, 0].int()), nn.Embedding(5, 3)),
        (whole(4, 2).float(),), [((0, 4), None)]),
    "an index that is always within": (Written(lambda m, x: m.parts[0](x.argmax(1)) + m.parts[0]((x > 0).long()[:, 0]),
        nn.Embedding(4, 2)), (floats(4, 3),), [None]),
    "a clamped index": (Written(lambda m, x: m.parts[0](x.clamp(0, 3)).flatten(1), nn.Embedding(4, 2)), (whole(4, 3),),
        [None]),
    "one-hot": (Written(lambda m, x: F.one_hot(x, 5) @ m.w.long(), w=floats(5, 2) * 9), (whole(4),), [((0, 4),)]),
    "one-hot floats": (Written(lambda m, x: F.one_hot(x, 5).float() @ m.w, w=floats(5, 2)), (whole(4),), [((0, 4),)]),
    "a comparison": (Written(lambda _, x: (x[:, None] == torch.arange(5)).float()), (whole(4),), [None]),
    "a computed table": (Written(lambda m, x: F.embedding(x, m.w * 2), w=floats(5, 2)), (whole(4),), [((0, 4),)]),
    "tied to the output": (Written(lambda m, x: m.parts[0](x) @ m.parts[0].weight.t(), nn.Embedding(5, 3)),
        (whole(4),), [((0, 4),)]),
    "positions": (
        Written(lambda m, x: m.parts[0](x) + m.parts[1](torch.arange(2)), nn.Embedding(5, 3), nn.Embedding(6, 3)),
        (whole(4, 2),),
        [((0, 4), (0, 4))],
    ),
    "two inputs, one table": (
        Written(lambda m, a, b: m.parts[0](torch.stack([a, b], 1)), nn.Embedding(5, 3)),
        (whole(4), whole(4)),
        [((0, 4),), ((0, 4),)],
    ),
    "a masked mean": (MaskedMean(), (whole(4, 3),), [((0, 8), (0, 8), (0, 8))]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups(name: str, tmp_path: Path) -> None:
    module, example, limits = LOOKUPS[name]
    artifact = proved(module, tmp_path, example=example)
    ports = inspect(artifact.path).summary.inputs
    assert [port.indices for port in ports] == limits
    assert [port.dtype for port in ports] == [str(part.dtype).removeprefix("torch.") for part in example]
    assert [port.shape for port in ports] == [("batch", *part.shape[1:]) for part in example]
    limits_hold(module, artifact)


def limits_hold(module: nn.Module, artifact: Artifact) -> None:
    """At both ends of the limits the file gives what the module gives, and beyond them nothing at all."""
    ports = artifact.summary.inputs
    for port in ports:
        for place, limits in enumerate(port.indices or ()):
            for end, beyond in zip(limits or (), (-1, 1), strict=bool(limits)):
                rows = {each.name: rows_of(each, 3) for each in ports}
                rows[port.name].view(3, -1)[1, place] = end
                differences(module, artifact, rows)
                rows[port.name].view(3, -1)[1, place] = end + beyond
                with Session(artifact.path, "cpu") as session, pytest.raises(InputError) as caught:
                    session.run({key: part.numpy() for key, part in rows.items()})
                assert f"'{port.name}', row 2" in str(caught.value)
                assert " is not a whole number from {} to {}".format(*limits or ()) in str(caught.value)


def test_rows_of_a_tensor_picked_by_an_input(tmp_path: Path) -> None:
    """A table that is no Embedding takes numbers from its end as well."""
    picked = Written(lambda m, x: m.w[x], w=floats(5, 2))
    limits_hold(picked, proved(picked, tmp_path, example=whole(4)))
    selected = Written(lambda m, x: torch.index_select(m.w, 0, x), w=floats(5, 2))
    limits_hold(selected, proved(selected, tmp_path, example=whole(4)))


def test_places_of_a_row_picked_by_another_input(tmp_path: Path) -> None:
    module = Written(lambda _, x, y: torch.gather(x, 1, y))
    artifact = proved(module, tmp_path, example=(floats(4, 5), whole(4, 2)))
    assert [port.indices for port in artifact.summary.inputs] == [None, ((0, 4), (0, 4))]
    limits_hold(module, artifact)


def test_an_index_that_another_number_leads_beyond_the_table_is_no_index(tmp_path: Path) -> None:
    """It looks like one more than the input at small numbers."""
    module = Written(lambda m, x: m.parts[0](x + 20 * (x > 10).long()), nn.Embedding(15, 2))
    with pytest.raises(ExportError, match=r"embedding at 'parts.0'.*is indexed by a number that is computed"):
        export(module, tmp_path / "m.onnx", example=whole(4))


def test_whole_numbers_without_an_example(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.Flatten())
    for options in ({"input_shape": (2,)}, {"input_shape": (2,), "input_dtype": "int64"}):
        artifact = proved(module, tmp_path, **options)
        assert (artifact.summary.inputs[0].dtype, artifact.summary.inputs[0].shape) == ("int64", ("batch", 2))
    single = export(nn.Embedding(5, 3), tmp_path / "one.onnx", input_shape=())
    assert single.summary is not None
    assert single.summary.inputs[0].shape == ("batch",)


def test_other_whole_numbers_of_an_example_are_int64(tmp_path: Path) -> None:
    for kind in (torch.int32, torch.uint8):
        artifact = export(nn.Embedding(5, 3), tmp_path / "m.onnx", example=whole(4).to(kind))
        assert artifact.summary.inputs[0].dtype == "int64"
    export(nn.Embedding(5, 3), tmp_path / "m.onnx", example=whole(4).numpy())


def test_a_bag_of_indices_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"embedding_bag at 'embeddingbag'"):
        export(nn.EmbeddingBag(5, 3), tmp_path / "m.onnx", example=whole(4, 2))


def test_a_number_of_classes_that_depends_on_the_data_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="num_classes"):
        export(Written(lambda _, x: F.one_hot(x).float()), tmp_path / "m.onnx", example=whole(4))


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tabular, Path]:
    torch.manual_seed(0)
    module, path = Tabular(), tmp_path_factory.mktemp("tabular") / "tabular.onnx"
    publish(module, path, example=(whole(4, 2), floats(4, 3)), device="cpu", page=False)
    return module, path


def test_the_certificate_has_rows_of_whole_numbers(tabular: tuple[Tabular, Path]) -> None:
    _, path = tabular
    answers = read_certificate(path.with_suffix(".parity.json")).answers
    assert answers is not None
    assert answers.rows > 5
    cat, num = answers.inputs["cat"], answers.inputs["num"]
    assert cat.dtype == np.int64
    assert cat.shape == (answers.rows, 2)
    assert num.dtype == np.float32
    assert cat.min() >= 0
    assert set(cat[:, 0].tolist()) <= set(range(5))
    assert set(cat[:, 1].tolist()) <= set(range(7))
    assert len(set(cat[:, 0].tolist())) > 2
    with Session(path, "cpu") as session:
        found = session.run({"cat": cat, "num": num})["output"]
    assert (np.abs(found - answers.exact["output"]) <= answers.bound["output"]).all()
    report = read_report(path.with_suffix(".parity.json"))
    assert report.answers is not None
    assert report.answers.inputs["cat"].dtype == "int64"
    assert any("whole numbers over their whole range" in given.words for given in report.inputs)


def test_a_file_is_proved_again_from_itself(tabular: tuple[Tabular, Path]) -> None:
    module, path = tabular
    report = verify(module, path, device="cpu")
    assert report.proved, report.why
    assert [layer.op for layer in report.layers].count("embedding") == 2


@pytest.mark.parametrize("table", ["tables.0.weight", "tables.1.weight"])
def test_two_rows_of_a_table_exchanged_are_found(tabular: tuple[Tabular, Path], table: str, tmp_path: Path) -> None:
    module, path = tabular
    proto = onnx.load(str(path))
    held = next(each for each in proto.graph.initializer if each.name == table)
    values = numpy_helper.to_array(held).copy()
    values[[1, 3]] = values[[3, 1]]
    held.CopyFrom(numpy_helper.from_array(values, table))
    onnx.save(proto, tmp_path / "m.onnx")
    report = verify(module, tmp_path / "m.onnx", device="cpu")
    assert report.verdict == "failed"
    assert table in report.why
    assert "differs from the module's" in report.why


def test_an_index_of_another_column_is_found(tabular: tuple[Tabular, Path], tmp_path: Path) -> None:
    module, path = tabular
    proto = onnx.load(str(path))
    picked = [each for each in proto.graph.initializer if numpy_helper.to_array(each).shape == ()]
    (second,) = [each for each in picked if numpy_helper.to_array(each) == 1]
    second.CopyFrom(numpy_helper.from_array(np.array(0), second.name))
    onnx.save(proto, tmp_path / "m.onnx")
    assert not verify(module, tmp_path / "m.onnx", device="cpu").proved


def test_data_of_one_s_own(tabular: tuple[Tabular, Path]) -> None:
    module, path = tabular
    data = {"cat": whole(9, 2).numpy(), "num": floats(9, 3).numpy()}
    report = verify(module, path, device="cpu", data=data)
    assert report.proved
    assert report.inputs[0].words == "9 rows of the given arrays"
    data["cat"][4, 1] = 7
    with pytest.raises(InputError, match=r"'cat', row 5.*7 is not a whole number from 0 to 6"):
        verify(module, path, device="cpu", data=data)
