"""What ``check_device`` says of files, certificates and runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.modules import of_family
from export import publish
from runtime import Certificate, Finding, InputError, ModelError, check_device, read_certificate, sha256
from runtime.device.running import Opener
from tests.support.cases import network
from tests.support.live import with_certificate
from tests.support.onnx_drafts import fixed_batch
from tests.support.policy import SHAPES, Policy
from tests.support.runtimes import Evaluated

File = tuple[Certificate, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> File:
    _, module = network([{"linear": 24}, "tanh", {"linear": 5}], features=20)
    return with_certificate(module, tmp_path_factory.mktemp("made"))


@pytest.fixture
def file(made: File, tmp_path: Path) -> Path:
    """A copy of the file, with its certificate beside it."""
    certificate, path = made
    for each in (certificate.path, path):
        (tmp_path / each.name).write_bytes(each.read_bytes())
    return tmp_path / path.name


def certificate_of(path: Path) -> Path:
    return path.with_suffix(".parity.json")


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a certificate by hand."""
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def with_weight(path: Path, factor: float) -> None:
    """Multiply the first weight of the last layer of a file."""
    model = onnx.load(str(path))
    weight = next(t for t in model.graph.initializer if t.name == "2.weight")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] *= np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(path))


def opener_of(kind: type[Evaluated]) -> Opener:
    """A runtime that runs the file in one way, and its layers alone rightly."""
    return lambda source: (kind if isinstance(source, Path) else Evaluated)(source, np.matmul)


def kinds(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.kind for finding in findings}


def test_a_proved_file_holds_on_every_device(made: File, device: str) -> None:
    certificate, path = made
    report = check_device(path, certificate, device)
    assert report.proved
    assert report.unchanged
    assert report.device.startswith(device)
    assert report.rows == certificate.answers.rows if certificate.answers else 0
    assert report.linear_layers == 2
    assert report.share <= 1
    assert report.warnings == report.causes == report.left_out == ()
    hows = {batch.how: batch.rows for batch in report.asked}
    assert hows["one by one"] == hows["all at once"] == report.rows
    assert hows["in a batch of 256"] == 256


def test_a_stale_file_is_not_run(file: Path) -> None:
    """Made anew from other weights; the certificate is of the older one."""
    _, module = network([{"linear": 24}, "tanh", {"linear": 5}], features=20, seed=4)
    publish(module, file.parent / "new" / "m.onnx", page=False)
    file.write_bytes((file.parent / "new" / "m.onnx").read_bytes())

    def opener(_: Path | bytes) -> Evaluated:
        raise AssertionError("a file that nobody proved was opened")

    report = check_device(file, certificate_of(file), opener=opener)
    assert not report.proved
    assert not report.unchanged
    (finding,) = report.findings
    assert finding.kind == "file"
    assert "is not the file that m.parity.json was made of: its SHA-256 is" in finding.words
    assert report.causes == (
        "the file says that it has other weights: one of the two is of an older or a newer export",
    )
    assert report.asked == ()


def test_a_stale_certificate_is_told_from_a_stale_file(file: Path) -> None:
    """The same weights, written for another opset."""
    _, module = network([{"linear": 24}, "tanh", {"linear": 5}], features=20)
    publish(module, file.parent / "new" / "m.onnx", opset=13, page=False)
    report = check_device(file.parent / "new" / "m.onnx", certificate_of(file))
    assert kinds(report.findings) == {"file"}
    assert "the same weights: it was written anew, and the certificate is stale" in report.causes[0]
    edit(certificate_of(file), lambda record: record.pop("weights_sha256"))
    assert (
        "does not say of which weights" in check_device(file.parent / "new" / "m.onnx", certificate_of(file)).causes[0]
    )


def test_a_weight_that_is_changed_with_the_hash_is_found_by_the_rows(file: Path) -> None:
    with_weight(file, 1.01)
    edit(certificate_of(file), lambda record: record["file"].update(sha256=sha256(file)))
    report = check_device(file, certificate_of(file), "cpu")
    assert report.unchanged
    assert kinds(report.findings) == {"bound"}
    assert "instead of" in report.findings[0].words
    assert "however the rows are sent" in report.findings[0].words
    (cause,) = report.causes
    assert cause.startswith("the linear layers multiply the file's weights exactly, so either")
    assert cause.endswith("or the certificate was edited, or its file was")


def test_a_change_below_the_bound_is_believed_with_its_hash(file: Path) -> None:
    """The limit that the report states: an edited certificate is believed."""
    with_weight(file, 1 + 2.0**-23)
    assert not check_device(file, certificate_of(file), "cpu").proved
    edit(certificate_of(file), lambda record: record["file"].update(sha256=sha256(file)))
    assert check_device(file, certificate_of(file), "cpu").proved


def test_an_operator_that_is_computed_differently_is_found_by_the_rows(made: File) -> None:
    certificate, path = made

    class Softer(Evaluated):
        def run(self, x: Any) -> dict[str, np.ndarray]:
            return {name: values * np.float32(1.001) for name, values in super().run(x).items()}

    report = check_device(path, certificate, opener=opener_of(Softer))
    assert not report.proved
    assert "bound" in kinds(report.findings) <= {"bound", "precision"}


def test_an_operator_that_is_wrong_in_single_rows_only(made: File) -> None:
    certificate, path = made

    class Odd(Evaluated):
        def run(self, x: Any) -> dict[str, np.ndarray]:
            results = super().run(x)
            alone = len(next(iter(x.values()))) == 1
            return {k: v + np.float32(0.01) for k, v in results.items()} if alone else results

    report = check_device(path, certificate, opener=opener_of(Odd))
    (cause,) = report.causes
    assert cause == "it depends on the batch: wrong one by one; right all at once, in batches, in a batch of 256"


def test_a_certificate_that_does_not_prove_its_file(file: Path) -> None:
    edit(certificate_of(file), lambda record: record.update(verdict="not proved", why="an operator has no rule"))
    report = check_device(file, certificate_of(file))
    assert kinds(report.findings) == {"certificate"}
    assert "gives m.onnx the verdict 'not proved': an operator has no rule" in report.findings[0].words
    assert "only a proved file can be checked" in report.causes[0]


def test_a_certificate_without_rows(file: Path) -> None:
    """The hashes and the products are checked all the same, and what is missing is said."""
    edit(certificate_of(file), lambda record: record.update(answers=None))
    report = check_device(file, certificate_of(file), "cpu")
    assert report.proved
    assert report.rows == 0
    assert report.linear_layers == 2
    (warning,) = report.warnings
    assert "m.parity.json holds no rows, so only the file and its linear layers were checked" in warning


def test_a_certificate_of_other_rows_is_refused(file: Path) -> None:
    def rename(record: dict[str, Any]) -> None:
        record["answers"]["inputs"] = {"other": next(iter(record["answers"]["inputs"].values()))}

    edit(certificate_of(file), rename)
    with pytest.raises(InputError, match="other"):
        check_device(file, certificate_of(file), "cpu")


def test_tables_that_do_not_fit_together_are_refused(file: Path) -> None:
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda answers: answers["bound"].clear(),
        lambda answers: answers["reduced"]["TF32"].clear(),
        lambda answers: answers.update(inputs={}),
        lambda answers: answers.update(inputs={}, exact={}, bound={}, reduced={}),
        lambda answers: answers["bound"].update(other=next(iter(answers["bound"].values()))),
    ]
    content = certificate_of(file).read_text()
    for change in changes:
        certificate_of(file).write_text(content)
        edit(certificate_of(file), lambda record, change=change: change(record["answers"]))
        with pytest.raises(InputError, match="What to do: "):
            check_device(file, certificate_of(file), "cpu")


def test_unknown_fields_of_a_certificate_are_ignored(file: Path) -> None:
    def extend(record: dict[str, Any]) -> None:
        record["later"] = record["answers"]["later"] = {"a": [1]}

    edit(certificate_of(file), extend)
    assert check_device(file, certificate_of(file), "cpu").proved


@pytest.mark.parametrize("family", ["tables", "attention", "every operator"])
def test_networks_of_other_operators_hold(family: str, tmp_path: Path) -> None:
    """Whole numbers, products of two values, outputs that are not float32."""
    module, example = of_family(family, 0)
    publish(module, tmp_path / "m.onnx", example=example, page=False)
    report = check_device(tmp_path / "m.onnx", tmp_path / "m.parity.json", "cpu")
    assert report.proved, report.findings
    assert report.rows > 0
    assert report.linear_layers > 0


def test_several_inputs_and_external_data(tmp_path: Path) -> None:
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, external_data=True, page=False)
    path = tmp_path / "m.onnx"
    report = check_device(path, certificate_of(path), "cpu")
    assert report.proved
    assert report.linear_layers > 0
    with open(tmp_path / "m.onnx.data", "r+b") as data:
        data.write(b"\x01")
    report = check_device(path, certificate_of(path), "cpu")
    assert "its external data, m.onnx.data, is different" in report.findings[0].words
    (tmp_path / "m.onnx.data").unlink()
    report = check_device(path, certificate_of(path), "cpu")
    assert "its external data, m.onnx.data, cannot be read" in report.findings[0].words
    assert report.causes == ("its weights are missing",)


def test_external_data_that_the_certificate_does_not_name(tmp_path: Path) -> None:
    publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, external_data=True, page=False)
    path = tmp_path / "m.onnx"
    edit(certificate_of(path), lambda record: record["file"].update(data={}))
    report = check_device(path, certificate_of(path), "cpu")
    assert "reads m.onnx.data, and m.parity.json does not hold the hash of it" in report.findings[0].words


def test_a_fixed_batch(tmp_path: Path) -> None:
    path = fixed_batch(tmp_path, 7)
    report = check_device(path, certificate_of(path), "cpu")
    assert report.proved
    assert {batch.how for batch in report.asked} == {"in batches"}
    assert all(batch.rows % 7 == 0 for batch in report.asked)


def test_a_file_that_is_replaced_meanwhile(file: Path) -> None:
    class Replacing(Evaluated):
        def run(self, x: Any) -> dict[str, np.ndarray]:
            file.write_bytes(file.read_bytes() + b"\x00")
            return super().run(x)

    report = check_device(file, certificate_of(file), opener=opener_of(Replacing))
    assert "was replaced while it was checked" in report.findings[-1].words
    assert not report.unchanged


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        check_device(file.with_name("none.onnx"), certificate_of(file))
    file.write_bytes(b"nothing of the kind")
    report = check_device(file, certificate_of(file))
    assert kinds(report.findings) == {"file"}
    assert report.causes == ("the file is damaged, or no ONNX file",)


def test_without_linear_layers_the_rows_say_what_they_cannot_tell(tmp_path: Path) -> None:
    spec, module = network(["relu"], features=3)
    certificate, path = with_certificate(module, tmp_path, spec)
    report = check_device(path, certificate, "cpu")
    assert report.proved
    assert report.linear_layers == report.products == 0
    wide = {name: bound + 1e3 for name, bound in certificate.answers.bound.items()} if certificate.answers else {}
    assert certificate.answers is not None
    loose = replace(certificate, answers=replace(certificate.answers, bound=wide), largest=None)
    (warning,) = check_device(path, loose, "cpu").warnings
    assert "would pass too" in warning


def test_torch_and_onnx_stay_out(made: File, root: Path) -> None:
    certificate, path = made
    code = "import sys; from runtime import check_device; assert check_device(*sys.argv[1:]).proved;"
    code += "print([name for name in ('torch', 'onnx', 'pydantic', 'pandas') if name in sys.modules])"
    command = [sys.executable, "-c", code, str(path), str(certificate.path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_faults_are_found_where_torch_and_onnx_cannot_be_imported(made: File, root: Path) -> None:
    certificate, path = made
    code = "import sys, runpy; sys.modules |= {'torch': None, 'onnx': None};"
    code += "runpy.run_module('tests.support.without_torch', run_name='__main__')"
    command = [sys.executable, "-c", code, str(path), str(certificate.path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"none": [], "one product of 200": ["product"], "TF32": ["product"]}


def test_the_certificate_is_read_again_by_path(file: Path) -> None:
    assert read_certificate(certificate_of(file)).proved
    assert check_device(str(file), str(certificate_of(file)), "cpu").proved
