"""``mlpx verify``: what is proved, what is refused, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import save_file

from builder import assemble, load_spec
from tests.support.commands import Run


def test_verify(run: Run, digits: tuple[Path, Path], tmp_path: Path) -> None:
    spec, folder = digits
    assert sorted(path.name for path in folder.iterdir()) == ["digits.onnx", "digits.parity.json"]
    done = run("verify", folder / "digits.onnx", "--spec", spec, "--certificate", folder / "digits.parity.json")
    assert done.code == 0
    assert "unchanged since it was proved on cpu" in done.err
    assert "proved    on cpu: every layer within its bound on " in done.out
    assert "passed   exact probes" in done.out
    assert "passed   shipped file" in done.out
    report = run("verify", folder / "digits.onnx", "--spec", spec, "-o", tmp_path / "again", "--json", "--seed", 5)
    assert report.code == 0
    assert json.loads(report.out)["verdict"] == "proved"
    assert json.loads(report.out)["seed"] == 5
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["digits.parity.html", "digits.parity.json"]


def test_verify_a_changed_file(run: Run, digits: tuple[Path, Path]) -> None:
    spec, folder = digits
    model = onnx.load(str(folder / "digits.onnx"))
    weight = next(t for t in model.graph.initializer if t.name == "4.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[7, 30] = np.nextafter(values[7, 30], np.float32(np.inf))
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(folder / "digits.onnx"))
    certificate = folder / "digits.parity.json"
    alone = run("verify", folder / "digits.onnx", "--certificate", certificate)
    assert alone.code == 1
    assert "is not the file that digits.parity.json was made of: its SHA-256 is" in alone.out
    done = run("verify", folder / "digits.onnx", "--spec", spec)
    assert done.code == 1
    assert done.out.startswith("failed    weight (4.weight) of '4' differs from the module's")
    assert "in 1 of 8,192 values, by at most 1 ulp, first at [7, 30]" in done.out
    assert "failed   exact probes" in done.out


def test_verify_by_a_damaged_certificate(run: Run, digits: tuple[Path, Path]) -> None:
    _, folder = digits
    path, certificate = folder / "digits.onnx", folder / "digits.parity.json"
    certificate.write_text("no report")
    done = run("verify", path, "--certificate", certificate)
    assert done.code == 2
    assert "not a parity report" in done.err


def change(path: Path, of: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(str(path))
    of(model)
    onnx.save(model, str(path))


def relabel(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "mlpx.outputs")
    entry.value = entry.value.replace("zero", "nine")


def rename(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "renamed"


@pytest.mark.parametrize(
    ("of", "verdict", "part"),
    [
        (relabel, "failed", "the labels of the file are ['nine', 'one'"),
        (rename, "failed", "input and output are 'pixels' and 'renamed', and the spec's are 'pixels' and 'logits'"),
        (lambda model: model.ClearField("metadata_props"), "proved", "the file does not say its "),
    ],
)
def test_verify_what_the_file_declares(
    of: Callable[[onnx.ModelProto], object], verdict: str, part: str, run: Run, digits: tuple[Path, Path]
) -> None:
    spec, folder = digits
    change(folder / "digits.onnx", of)
    done = run("verify", folder / "digits.onnx", "--spec", spec)
    assert done.out.startswith(verdict)
    assert part in done.out
    assert done.code == (verdict != "proved")
    if verdict == "proved":  # the range is the spec's, whatever the file says
        assert "2,756 rows" in done.out


def test_verify_a_hand_written_module(run: Run, nets: Path, tmp_path: Path) -> None:
    assert run("export", f"{nets}:ready", "-o", tmp_path / "m.onnx").code == 0
    asked = ("verify", tmp_path / "m.onnx", "--module", f"{nets}:Net")
    assert run(*asked).code == 2
    other = run(*asked, "--seed", 1)
    assert other.code == 1
    assert "differs from the module's" in other.out


def test_verify_is_asked_wrongly(run: Run, digits: tuple[Path, Path], tmp_path: Path) -> None:
    spec, folder = digits
    path = folder / "digits.onnx"
    for options, part in {
        (): "a file alone proves nothing",
        ("--spec", spec, "--module", "m:n"): "not both",
        ("--spec", spec, "--html"): "--html needs -o",
        ("--certificate", folder / "digits.parity.json", "--weights", "w.pt"): "--weights goes with --spec or --module",
        ("--certificate", folder / "digits.parity.json", "-o", "x"): "a certificate alone",
        ("--certificate", folder / "none.json"): "cannot be read",
        ("--spec", tmp_path / "none.yaml"): "none.yaml",
    }.items():
        done = run("verify", path, *options)
        assert done.code == 2
        assert part in done.err
    assert run("verify", tmp_path / "none.onnx", "--spec", spec).code == 2


def reverse(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "mlpx.inputs")
    (port,) = json.loads(entry.value)
    entry.value = json.dumps([port | {"features": port["features"][::-1]}])


def test_only_a_spec_confirms_names(run: Run, spec: Path, model: Path, tmp_path: Path) -> None:
    """Reversed names of features make no difference to the module, and a wrong one to whoever reads the file."""
    change(model, reverse)
    (tmp_path / "net.py").write_text(
        f"from builder import assemble, load_spec\nnet = assemble(load_spec({str(spec)!r}), seed=1)\n"
    )
    done = run("verify", model, "--module", f"{tmp_path / 'net.py'}:net", "-o", model.parent, "--no-html")
    assert done.code == 0
    assert "warning   names not checked: the file declares the features of 'x' and the labels of 'y'" in done.out
    assert "What to do: give the spec (--spec)" in done.out
    assert json.loads((model.parent / "tiny.parity.json").read_text())["names_checked"] is False
    done = run("package", model, "--for", "mlserver", "-o", tmp_path / "package")
    assert done.code == 0
    assert "note: the names that the file declares were not checked when it was proved" in done.err
    save_file(assemble(load_spec(spec), seed=1).state_dict(), tmp_path / "weights.safetensors")
    done = run("verify", model, "--spec", spec)
    assert done.code == 1
    assert "the features of the file are ['c', 'b', 'a'], and the spec's ['a', 'b', 'c']" in done.out


def test_names_of_a_spec_are_checked(run: Run, model: Path, tmp_path: Path) -> None:
    assert json.loads((model.parent / "tiny.parity.json").read_text())["names_checked"] is True
    done = run("package", model, "--for", "mlserver", "-o", tmp_path / "package")
    assert (done.code, done.err) == (0, "")


def test_a_file_without_names_has_none_to_check(run: Run, nets: Path, tmp_path: Path) -> None:
    done = run("export", f"{nets}:ready", "-o", tmp_path / "m.onnx", "--no-html")
    assert "names not checked" not in done.out
    assert json.loads((tmp_path / "m.parity.json").read_text())["names_checked"] is None
