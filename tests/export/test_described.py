"""What is said of inputs and outputs, by a spec with several inputs or beside a module: in the file, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builder.documents import as_yaml
from export import ExportError, export, inspect, publish, verify
from runtime import Session
from runtime.model.port import Vocabulary
from tests.support.commands import Run
from tests.support.words import CARRIERS, ORIGINS, delays, eager


class Net(nn.Module):
    """Numbers of which some may be missing, and the code of a city."""

    def __init__(self) -> None:
        super().__init__()
        self.cities = nn.Embedding(4, 2)
        self.last = nn.Linear(4, 1)

    def forward(self, numbers: torch.Tensor, city: torch.Tensor) -> torch.Tensor:
        row = torch.cat([torch.nan_to_num(numbers, 0.5), self.cities(city[:, 0])], dim=1)
        return torch.sigmoid(self.last(row))


CITY = {"name": "city", "categories": ["Oslo", "Rome", "Paris"], "unknown": "Rome"}
SAID: dict[str, Any] = {
    "numbers": {"features": ["age", {"name": "height", "unit": "m", "range": [0, 3]}], "missing": True},
    "city": [CITY],
    "output": {"labels": ["no", "yes"]},
}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_a_spec_with_words_is_proved_and_declared(tmp_path: Path) -> None:
    spec, module = delays()
    artifact, report = publish(module, tmp_path / "d.onnx", spec=spec, device="cpu", page=False)
    assert artifact.proved
    assert "missing" in [inputs.kind for inputs in report.inputs]
    numbers, words = inspect(artifact.path).summary.inputs
    assert (numbers.features, numbers.units, numbers.missing) == (("distance", "wind"), ("mi", None), True)
    assert (words.features, words.dtype, words.indices) == (("carrier", "origin"), "int64", ((0, 3), (0, 2)))
    assert words.categories == (Vocabulary(CARRIERS, 2), Vocabulary(ORIGINS))
    rows = np.array([[np.nan, 3], [500, np.nan], [1, 2]], np.float32)
    codes = np.array([[3, 0], [1, 2], [0, 1]])
    with Session(artifact.path, "cpu") as session:
        found = session.predict({"numbers": rows, "words": codes})
    np.testing.assert_allclose(found, eager(module, rows, codes), rtol=0, atol=1e-6)
    assert verify(module, artifact.path, spec=spec, device="cpu").proved


def test_a_file_that_declares_other_words_is_not_the_specs(tmp_path: Path) -> None:
    spec, module = delays()
    path = export(module, tmp_path / "d.onnx", spec=spec).path
    record = spec.model_dump(exclude_none=True)
    record["inputs"][1]["features"][0]["categories"] = ["B6", "AA", "UA", "Ü 2"]
    other = type(spec)(**record)
    report = verify(module, path, spec=other, device="cpu")
    assert report.verdict == "failed"
    assert "the categories of 'words' of the file are" in report.why


def test_a_module_of_another_network_is_refused(tmp_path: Path) -> None:
    spec, module = delays()
    record = spec.model_dump(exclude_none=True)
    record["inputs"][1]["features"][0]["embedding"] = 4
    with pytest.raises(ExportError, match="is not of this module"):
        export(module, tmp_path / "d.onnx", spec=type(spec)(**record))


def test_a_hand_written_module_has_features(net: Net, tmp_path: Path) -> None:
    artifact, report = publish(net, tmp_path / "n.onnx", features=SAID, device="cpu", page=False)
    assert report.names_checked
    assert report.warnings == []
    assert artifact.summary is not None
    numbers, city = artifact.summary.inputs
    (output,) = artifact.summary.outputs
    assert (numbers.features, numbers.units, numbers.ranges) == (("age", "height"), (None, "m"), (None, (0.0, 3.0)))
    assert numbers.missing
    assert (city.dtype, city.indices) == ("int64", ((0, 3),))
    assert city.categories == (Vocabulary(("Oslo", "Rome", "Paris"), 1),)
    assert (output.labels, output.scores) == (("no", "yes"), "probabilities")
    assert verify(net, artifact.path, features=SAID, device="cpu").proved
    other = verify(net, artifact.path, features=SAID | {"numbers": ["age", "weight"]}, device="cpu")
    assert other.why.endswith(
        "the features of 'numbers' of the file are ['age', 'height'], and the given ones ['age', 'weight']"
    )


def test_a_list_is_of_the_only_input(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=1)).eval()
    features = ["a", {"name": "b", "range": [0, 1]}]
    artifact, _ = publish(module, tmp_path / "m.onnx", features=features, device="cpu", page=False)
    assert artifact.summary is not None
    assert artifact.summary.inputs[0].features == ("a", "b")
    with pytest.raises(ExportError, match="one list of features is given, and the module takes 2 inputs"):
        export(Net(), tmp_path / "n.onnx", features=["a"])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"cities": [CITY]}, r"given for 'cities'; the module has 'numbers' \(input\), 'city' \(input\), 'output'"),
        ({"numbers": ["a"]}, "the input 'numbers' has 2 values a row, and 1 features are given"),
        ({"numbers": [CITY, "b"]}, r"'numbers' is float32, and the categories of 'city' are whole numbers"),
        ({"city": [{"name": "c", "categories": list("abcde")}]}, "'c' codes from 0 to 3, and 5 categories are given"),
        ({"city": {"missing": True}}, "the input 'city' is int64, which has no NaN"),
        ({"numbers": {"labels": ["a", "b"]}}, "the input 'numbers' has labels, which are the classes of an output"),
        ({"output": {"labels": ["a", "b", "c"]}}, "the output 'output' has 1 values a row, and 3 labels are given"),
        ({"output": {"range": [0, 1]}}, "the output 'output' has a range, categories or missing values"),
    ],
)
def test_features_that_do_not_fit_are_refused(net: Net, said: Any, expected: str, tmp_path: Path) -> None:
    shapes: dict[str, Any] = {"input_shape": {"numbers": (2,), "city": (1,)}}
    shapes |= {"input_dtype": {"numbers": "float32", "city": "int64"}}
    with pytest.raises(ExportError, match=expected):
        export(net, tmp_path / "n.onnx", features=said, **shapes)
    assert not (tmp_path / "n.onnx").exists()


def test_a_file_describes_a_module_to_the_commands(tmp_path: Path, run: Run) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\ntorch.manual_seed(0)\nnet = nn.Sequential(nn.Linear(2, 1)).eval()\n"
    )
    (tmp_path / "f.yaml").write_text("input: [age, {name: height, unit: m}]\noutput: {labels: [no, yes]}\n")
    module, path = f"{tmp_path / 'net.py'}:net", tmp_path / "n.onnx"
    assert run("export", module, "-o", path, "--describe", tmp_path / "f.yaml", "--no-html").code == 0
    done = run("inspect", path)
    assert "logits of no, yes" in done.out
    assert "height" in done.out
    (tmp_path / "g.yaml").write_text("input: [age, {name: height, unit: cm}]\n")
    assert run("verify", path, "--module", module, "--describe", tmp_path / "f.yaml").code == 0
    done = run("verify", path, "--module", module, "--describe", tmp_path / "g.yaml")
    assert done.code == 1
    assert "the units of 'input' of the file are [None, 'm'], and the given ones [None, 'cm']" in done.out


def test_inspect_shows_words_and_counts_units_over_a_table(tmp_path: Path, run: Run) -> None:
    spec, module = delays()
    path = export(module, tmp_path / "d.onnx", spec=spec).path
    (tmp_path / "r.csv").write_text("carrier,origin,wind,distance\nAA,JFK,,3\n??,LGA,2,\n")
    done = run("inspect", path, "--data", tmp_path / "r.csv")
    assert done.code == 0
    assert "AA, B6, UA, Ü 2; other words are UA" in done.out
    assert "values may be missing (NaN)" in done.out
    assert "dead ReLU units, over 2 rows" in done.out


def test_the_commands_build_and_verify_a_spec_with_words(tmp_path: Path, run: Run) -> None:
    spec, module = delays()
    (tmp_path / "spec.yaml").write_text(as_yaml(spec), encoding="utf-8")
    save_file(module.state_dict(), tmp_path / "weights.safetensors")
    built = run("build", tmp_path / "spec.yaml", "-o", tmp_path / "out", "--no-html")
    assert built.code == 0, built.err
    assert "signature numbers [batch, 2], words [batch, 2] -> delay [batch, 1]" in built.out
    path = tmp_path / "out" / "delays.onnx"
    assert run("verify", path, "--spec", tmp_path / "spec.yaml").code == 0
    (tmp_path / "spec.yaml").write_text(as_yaml(spec).replace("Ü 2", "Z 2"), encoding="utf-8")
    done = run("verify", path, "--spec", tmp_path / "spec.yaml")
    assert done.code == 1
    assert "the categories of 'words' of the file are" in done.out


def test_scores_and_missing_values_are_compared(net: Net, tmp_path: Path) -> None:
    path = export(net, tmp_path / "n.onnx", features=SAID).path
    labels = {"output": {"labels": ["no", "yes"], "scores": "logits"}}
    other = verify(net, path, features=SAID | labels, device="cpu")
    assert other.verdict == "failed"
    assert other.why.endswith("the scores of 'output' of the file are probabilities, and the given ones logits")
    known = {"numbers": {"features": SAID["numbers"]["features"]}}
    other = verify(net, path, features=SAID | known, device="cpu")
    assert other.why.endswith("the missing values of 'numbers' of the file are taken, and the given ones none")
    words = verify(net, path, features=SAID | {"city": [CITY | {"unknown": "error"}]}, device="cpu")
    assert "['Oslo, Rome, Paris, other words are Rome'], and the given ones ['Oslo, Rome, Paris']" in words.why
    assert "the missing values of" not in " ".join(verify(net, path, device="cpu").warnings)  # the network asks for NaN


def test_missing_values_that_no_network_imputes_are_not_confirmed(tmp_path: Path) -> None:
    net, said = nn.Linear(2, 1), {"input": {"features": ["age", "height"], "missing": True}}
    path = export(net, tmp_path / "n.onnx", features=said).path
    assert "the missing values of 'input'" in " ".join(verify(net, path, device="cpu").warnings)


def test_an_output_feature_called_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has a feature 'label', a column that predict writes"):
        export(nn.Linear(2, 2), tmp_path / "m.onnx", features={"output": ["label", "b"]})
