"""What cannot be logged or loaded: each is one clear message, and nothing half is left under a name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlpx.mlflow
from runtime import MissingPackageError, sign
from tests.support.servers.failing_proxy import FailingProxy, failing_proxy
from tests.support.servers.mlflow import Mlflow, MlflowError, python
from tests.support.servers.running import free_ports

from .conftest import Proved


@pytest.fixture(scope="module")
def saved(mlflow: Mlflow, policy: Proved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "policy"
    mlflow("mlpx.mlflow.save_model(path, folder)", path=policy.path, folder=folder)
    return folder


def _other_certificate(path: Path, other: Proved) -> None:
    shutil.copy(other.certificate.path, path.with_suffix(".parity.json"))


def _unproved(path: Path, _: Proved) -> None:
    certificate = path.with_suffix(".parity.json")
    record = json.loads(certificate.read_text()) | {"verdict": "not proved", "why": "a layer is beyond its bound"}
    certificate.write_text(json.dumps(record))


def _changed(path: Path, _: Proved) -> None:
    path.with_suffix(".onnx.data").write_bytes(path.with_suffix(".onnx.data").read_bytes()[:-1] + b"?")


REFUSED: dict[str, tuple[Callable[[Path, Proved], object], str, str]] = {
    "a certificate of another file": (_other_certificate, "ProofError", "is not the file that .* was made of"),
    "no certificate": (lambda path, _: path.with_suffix(".parity.json").unlink(), "ProofError", "has no certificate"),
    "an unproved file": (_unproved, "ProofError", "is not proved: a layer is beyond its bound"),
    "weights that have changed": (_changed, "ProofError", "it, or its external data, has changed"),
    "no file": (lambda path, _: path.unlink(), "ModelError", "cannot be read: No such file"),
    "no ONNX file": (lambda path, _: path.write_text("<html>"), "ModelError", "not a whole ONNX file"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_only_a_proved_file_is_logged(
    mlflow: Mlflow, policy: Proved, table: Proved, fault: str, tmp_path: Path
) -> None:
    plant, kind, words = REFUSED[fault]
    folder = tmp_path / "policy"
    shutil.copytree(policy.path.parent, folder)
    plant(folder / "policy.onnx", table)
    for code in ("mlpx.mlflow.save_model(path, target)", "mlpx.mlflow.log_model(path, name='refused')"):
        with pytest.raises(MlflowError, match=words) as raised:
            mlflow(code, path=folder / "policy.onnx", target=tmp_path / "target")
        assert raised.value.kind == kind
    assert not (tmp_path / "target").exists()
    assert _models(mlflow, "refused") == []


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"device": "gpu"}, "InputError", "the device is auto, cpu, cuda or cuda:N, not 'gpu'"),
        ({"columns": True}, "InputError", "not all features have names; the model's inputs are 'obs', 'goal'"),
        ({"report": "nowhere.json"}, "InputError", "nowhere.json: cannot be read"),
    ],
)
def test_options_that_the_file_or_mlpx_does_not_have(
    mlflow: Mlflow, policy: Proved, options: dict[str, Any], kind: str, words: str
) -> None:
    with pytest.raises(MlflowError, match=words) as raised:
        mlflow("mlpx.mlflow.log_model(path, name='refused', **options)", path=policy.path, options=options)
    assert raised.value.kind == kind
    assert _models(mlflow, "refused") == []


def test_a_folder_that_holds_something_is_left_as_it_is(mlflow: Mlflow, policy: Proved, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MlflowError, match="exists and is not empty"):
        mlflow("mlpx.mlflow.save_model(path, folder)", path=policy.path, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_that_is_replaced_while_it_is_logged_is_not_kept(mlflow: Mlflow, policy: Proved, tmp_path: Path) -> None:
    shutil.copytree(policy.path.parent, tmp_path / "policy")
    code = """
        from pathlib import Path
        save = mlflow.pyfunc.save_model

        def replacing(**options):
            Path(path).with_suffix(".onnx.data").write_bytes(b"another")
            save(**options)

        mlflow.pyfunc.save_model = replacing
        try:
            mlpx.mlflow.save_model(path, folder)
        finally:
            mlflow.pyfunc.save_model = save
        """
    with pytest.raises(MlflowError, match="was replaced while it was logged") as raised:
        mlflow(code, path=tmp_path / "policy" / "policy.onnx", folder=tmp_path / "model")
    assert raised.value.kind == "ProofError"
    assert not (tmp_path / "model").exists()


def _swap_certificate(folder: Path, other: Proved) -> None:
    shutil.copy(other.certificate.path, folder / "policy.parity.json")


def _swap_both(folder: Path, other: Proved) -> None:
    _swap_certificate(folder, other)
    shutil.copy(other.path, folder / "policy.onnx")


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path, Proved], object]:
    def plant(folder: Path, _: Proved) -> None:
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new))

    return plant


def _rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the flavours of an MLmodel file."""
    record = yaml.safe_load((folder / "MLmodel").read_text())
    change(record["flavors"])
    (folder / "MLmodel").write_text(yaml.safe_dump(record))


CHANGED: dict[str, tuple[Callable[[Path, Proved], object], str]] = {
    "the graph": (_replace("policy.onnx", b"Tanh", b"Tanz"), "is not the file that policy.parity.json proves: its SHA"),
    "the weights": (
        lambda folder, _: (folder / "policy.onnx.data").write_bytes(b"\0" * 28676),
        "is not the file that policy.parity.json proves: its external data has changed",
    ),
    "a missing file": (lambda folder, _: (folder / "policy.onnx").unlink(), "it is missing"),
    "the certificate of another file": (_swap_certificate, "is not the certificate that was logged"),
    "another proved file": (_swap_both, "is not the certificate that was logged"),
    "a missing certificate": (lambda folder, _: (folder / "policy.parity.json").unlink(), "cannot be checked: .*read"),
    "a verdict": (_replace("policy.parity.json", b'"proved"', b'"PROVED"'), "is not the certificate that was logged"),
    "a path out of the model": (_replace("MLmodel", b"file: policy.onnx", b"file: ../policy.onnx"), "name of a file"),
    "no entry for the file": (_replace("MLmodel", b"file: policy.onnx", b"path: policy.onnx"), "name of a file"),
    "a folder for the file": (_replace("MLmodel", b"file: policy.onnx", b"file: .."), "name of a file, not '..'"),
    "a name that no file can have": (
        _replace("MLmodel", b"file: policy.onnx", b"file: " + b"x" * 300),
        "is not the file that policy.parity.json proves: it cannot be read: File name too long",
    ),
    "the digest of another file": (
        _replace("MLmodel", b"    sha256: ", b"    sha256: 0"),
        "proves the SHA-256 .* expects 0",
    ),
    "an entry that is no mapping": (
        lambda folder, _: _rewrite(folder, lambda flavors: flavors.update(mlpx=["policy.onnx"])),
        "that of 'mlpx' has not",
    ),
    "no flavour": (_replace("MLmodel", b"  mlpx:\n", b"  mplx:\n"), "has no flavour 'mlpx'; it has mplx"),
}


@pytest.mark.parametrize("fault", CHANGED)
def test_what_has_changed_since_it_was_logged_is_not_loaded(
    mlflow: Mlflow, saved: Path, table: Proved, fault: str, tmp_path: Path
) -> None:
    plant, words = CHANGED[fault]
    shutil.copytree(saved, tmp_path / "model")
    plant(tmp_path / "model", table)
    for load in ("mlflow.pyfunc.load_model", "mlpx.mlflow.load_model"):
        with pytest.raises(MlflowError, match=words) as raised:
            mlflow(f"{load}(folder)", folder=tmp_path / "model")
        assert raised.value.kind == "ModelError"


@pytest.mark.parametrize(
    "text", ["", "- flavors\n", "flavors: [\n", "flavors: [mlpx]\n", "a: !!python/name:os.system\n"]
)
def test_a_record_that_is_none(mlflow: Mlflow, saved: Path, text: str, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "MLmodel").write_text(text)
    with pytest.raises(MlflowError, match=r"MLmodel is not an MLmodel file: .* What to do: log") as raised:
        mlflow("mlpx.mlflow.load_model(folder)", folder=tmp_path / "model")
    assert raised.value.kind == "ModelError"


@pytest.mark.parametrize(("config", "words"), [({"device": "gpu"}, "not 'gpu'"), (["cuda"], r"not .*cuda")])
def test_a_device_that_the_record_should_not_have(
    mlflow: Mlflow, saved: Path, config: Any, words: str, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "model")
    _rewrite(tmp_path / "model", lambda flavors: flavors["python_function"].update(config=config))
    with pytest.raises(MlflowError, match=f"the device is auto, cpu, cuda or cuda:N, {words}") as raised:
        mlflow("mlpx.mlflow.load_model(folder)", folder=tmp_path / "model")
    assert raised.value.kind == "InputError"


def test_without_mlflow_s_own_flavour_it_runs_on_the_cpu(mlflow: Mlflow, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    _rewrite(tmp_path / "model", lambda flavors: flavors.pop("python_function"))
    assert mlflow("result = mlpx.mlflow.load_model(folder).device", folder=tmp_path / "model") == "cpu"


def test_a_trusted_key_can_be_required(mlflow: Mlflow, policy: Proved, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    keys = {}
    for name in ("ours", "theirs"):
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
        keys[name] = tmp_path / f"{name}.pub"
        public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
        keys[name].write_bytes(public)
    shutil.copytree(policy.path.parent, tmp_path / "policy")
    sign(tmp_path / "policy" / "policy.parity.json", tmp_path / "ours.pem")
    saved = {"path": tmp_path / "policy" / "policy.onnx", "folder": tmp_path / "model"}
    load = "result = mlpx.mlflow.load_model(folder, trusted_keys=[key]).device"
    mlflow("mlpx.mlflow.save_model(path, folder)", **saved)
    assert mlflow(load, key=keys["ours"], **saved) == "cpu"
    with pytest.raises(MlflowError, match="none of its signatures is by") as raised:
        mlflow(load, key=keys["theirs"], **saved)
    assert raised.value.kind == "SignatureError"


def _models(mlflow: Mlflow, name: str) -> list[str]:
    """The states of the models of this name that a tracking server has."""
    return mlflow(
        """
        found = mlflow.search_logged_models(filter_string=f"name = '{name}'", output_format="list")
        result = [str(model.status) for model in found]
        """,
        name=name,
    )


@pytest.fixture(scope="module")
def proxy(uri: str) -> Iterator[FailingProxy]:
    with failing_proxy(uri) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def behind(proxy: FailingProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """Python that reaches the server through the proxy."""
    with python(proxy.uri, tmp_path_factory.mktemp("behind")) as worker:
        yield worker


LOG = "mlpx.mlflow.log_model(path, name=name, registered_model_name=name)"
_VERSIONS = "result = [v.version for v in mlflow.MlflowClient().search_model_versions(f\"name='{name}'\")]"


def test_an_upload_that_fails_leaves_nothing_under_the_name(
    mlflow: Mlflow, behind: Mlflow, proxy: FailingProxy, policy: Proved
) -> None:
    proxy.plant("policy.parity.json")
    with pytest.raises(MlflowError, match=r"planted|500"):
        behind(LOG, path=policy.path, name="halved")
    assert proxy.failed
    assert _models(mlflow, "halved") == []
    assert mlflow(_VERSIONS, name="halved") == []
    proxy.plant("no request")
    behind(LOG, path=policy.path, name="halved")
    assert mlflow(_VERSIONS, name="halved") == ["1"]


def test_an_upload_that_fails_where_nothing_may_be_deleted(behind: Mlflow, proxy: FailingProxy, policy: Proved) -> None:
    proxy.plant("logged-models/m-")
    words = r"(?s)(planted|500).*mlpx: models:/(m-\w+) is not whole.*What to do: .*delete_logged_model\('\2'\)"
    with pytest.raises(MlflowError, match=words):
        behind("mlpx.mlflow.log_model(path, name=name)", path=policy.path, name="stuck")
    proxy.plant("no request")


def test_a_server_that_ends_during_the_upload(
    mlflow: Mlflow, behind: Mlflow, proxy: FailingProxy, policy: Proved
) -> None:
    proxy.plant("policy.parity.json", ends=True)
    with pytest.raises(MlflowError, match=r"does not answer: .*models:/m-\w+ is not whole.*What to do: log") as raised:
        behind(LOG, path=policy.path, name="ended")
    assert raised.value.kind == "UnreachableError"
    assert mlflow(_VERSIONS, name="ended") == []


@pytest.mark.parametrize(("ends", "kind"), [(False, "MlflowException"), (True, "UnreachableError")])
def test_a_registry_that_fails_after_the_upload_loses_nothing(
    mlflow: Mlflow, behind: Mlflow, proxy: FailingProxy, policy: Proved, ends: bool, kind: str
) -> None:
    name = f"kept-{kind}"
    proxy.plant("model-versions/create", ends=ends)
    with pytest.raises(MlflowError, match=r"is not registered\. What to do: mlflow\.register_model") as raised:
        behind(LOG, path=policy.path, name=name)
    assert raised.value.kind == kind
    assert _models(mlflow, name) == ["READY"]
    assert mlflow(_VERSIONS, name=name) == []
    hint = raised.value.words.rpartition("What to do: ")[2]
    assert mlflow(f"result = {hint}.version") == "1"


LOAD = "mlpx.mlflow.load_model('models:/policy@champion')"


@pytest.mark.parametrize(("what", "call"), [("tracking server", LOG), ("registry", LOG), ("registry", LOAD)])
def test_a_server_that_is_down_is_named_at_once(mlflow: Mlflow, uri: str, policy: Proved, what: str, call: str) -> None:
    nowhere = f"127.0.0.1:{free_ports(1)[0]}"
    words = f"the {what} http://{nowhere} does not answer: .*refused; nothing was (logged|loaded)"
    code = f"""
        mlflow.{"set_tracking_uri" if what == "tracking server" else "set_registry_uri"}("http://us:secret@{nowhere}")
        try:
            {call}
        finally:
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
        """
    with pytest.raises(MlflowError, match=words) as raised:
        mlflow(code, path=policy.path, name="down", uri=uri)
    assert raised.value.kind == "UnreachableError"
    assert _models(mlflow, "down") == []


def test_without_mlflow_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, policy: Proved) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for call in (mlpx.mlflow.log_model, mlpx.mlflow.load_model, lambda path: mlpx.mlflow.save_model(path, "model")):
        with pytest.raises(MissingPackageError, match=r'pip install "mlpx\[mlflow\]"'):
            call(str(policy.path))
