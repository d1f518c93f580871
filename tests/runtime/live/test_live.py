"""``mlpx verify --url`` against ``mlpx serve``, over sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export import write_variant
from runtime import InputError, UnreachableError, check_live
from tests.support.commands import Run
from tests.support.serving import serving

SPEC = """name: tower
input: {name: x, features: 32, range: [-2, 2]}
blocks: [{linear: 64}, relu, {linear: 64}, relu, {linear: 10}]
output: {name: y}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built models: proved/tower.onnx with its certificate, and another with other weights."""
    from builder import assemble, load_spec
    from export import publish

    folder = tmp_path_factory.mktemp("models")
    (folder / "spec.yaml").write_text(SPEC)
    spec = load_spec(folder / "spec.yaml")
    for name, seed in (("proved", 1), ("other", 2)):
        (folder / name).mkdir()
        publish(assemble(spec, seed=seed).eval(), folder / name / "tower.onnx", spec=spec, page=False)
    return folder


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Path:
    return folder / "proved" / "tower.parity.json"


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """A server of three versions: the proved file, its float16 variant and another network's."""
    proved_file = folder / "proved" / "tower.onnx"
    files = [proved_file, write_variant(proved_file, "float16", folder).path, folder / "other" / "tower.onnx"]
    repository = folder / "repository"
    for version, file in enumerate(files, start=1):
        (repository / "tower" / str(version)).mkdir(parents=True)
        shutil.copy(file, repository / "tower" / str(version) / "model.onnx")
    with serving(repository, "--device", "auto") as server:
        yield f"{server.url}/v2/models/tower"


def test_the_certified_file_is_proved(run: Run, url: str, certificate: Path) -> None:
    done = run("verify", certificate.parent / "tower.onnx", "--url", f"{url}/versions/1")
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith("proved    http://127.0.0.1:")
    assert "tensors as JSON and bytes" in done.out
    assert "nearer to the exact answers than to those of TF32, bfloat16, float16" in done.out
    record = json.loads(run("verify", "--url", f"{url}/versions/1", "--certificate", certificate, "--json").out)
    assert record["proved"] is True
    assert record["findings"] == []
    assert record["version"] == "1"
    assert {asked["how"] for asked in record["asked"]} == {
        "all at once",
        "one by one",
        "in batches",
        "at the same time",
    }
    assert all(asked["rows"] >= record["rows"] == 60 for asked in record["asked"])
    assert 0 < record["share"] < 1
    assert record["largest"] < 8 * record["at_proof"]


def test_tensors_travel_as_asked(url: str, certificate: Path) -> None:
    for tensors, travels in (("json", {"JSON"}), ("binary", {"bytes"}), ("auto", {"JSON", "bytes"})):
        report = check_live(f"{url}/versions/1", certificate, tensors=tensors)
        assert report.proved
        assert {asked.tensors for asked in report.asked} == travels


def test_another_version_is_told_and_the_certified_one_named(run: Run, url: str, certificate: Path) -> None:
    done = run("verify", "--url", url, "--certificate", certificate)
    assert done.code == 1
    assert done.out.startswith("failed ")
    assert "values beyond the bound" in done.out
    assert "the server says that its file has the SHA-256" in done.out
    assert "version 1 answers as the proved file does; the URL was answered by version 3" in done.out
    assert "another file, or another preprocessing of the inputs" in done.out


def test_a_variant_in_fewer_bits_is_told(url: str, certificate: Path) -> None:
    report = check_live(f"{url}/versions/2", certificate)
    assert not report.proved
    assert {finding.kind for finding in report.findings} == {"file", "bound"}
    assert any("similar to the right ones" in cause and "float16" in cause for cause in report.causes)


@pytest.mark.parametrize(
    ("path", "words"),
    [("tower/versions/9", "the server's versions of 'tower' are 1, 2, 3"), ("towel", "the server's models are tower")],
)
def test_what_the_server_does_not_have(run: Run, url: str, certificate: Path, path: str, words: str) -> None:
    done = run("verify", "--url", url.replace("tower", path), "--certificate", certificate)
    assert done.code == 1
    assert "the server has no " in done.out
    assert words in done.out


def test_a_model_of_other_names_is_not_asked(run: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC.replace("name: x", "name: z").replace("name: y", "name: w"))
    assert run("build", tmp_path / "s.yaml", "--seed", 1, "-o", tmp_path, "--no-html").code == 0
    done = run("verify", "--url", url, "--certificate", tmp_path / "tower.parity.json")
    assert done.code == 1
    assert "the inputs of the file are z; the server's are x" in done.out
    assert "the outputs of the file are w; the server's are y" in done.out
    assert "no row was asked" in done.out


def test_over_grpc(folder: Path, certificate: Path, run: Run) -> None:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    with serving(folder / "proved") as server:
        where = f"grpc://{server.grpc}/v2/models/tower"
        done = run("verify", "--url", where, "--certificate", certificate)
        assert done.code == 0
        assert "tensors as bytes" in done.out
        assert "gRPC" in done.out
        done = run("verify", "--url", where.replace("tower", "towel"), "--certificate", certificate)
        assert done.code == 1
        assert "the server's models are tower" in done.out


def test_a_token(folder: Path, certificate: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse")
    with serving(folder / "proved", "--token-file", tmp_path / "token") as server:
        arguments = "verify", "--url", f"{server.url}/v2/models/tower", "--certificate", certificate
        monkeypatch.setenv("MLPX_TOKEN", "correct-horse")
        assert run(*arguments).code == 0
        for wrong in ("another", ""):
            monkeypatch.setenv("MLPX_TOKEN", wrong)
            done = run(*arguments)
            assert done.code == 3
            assert "set the environment variable MLPX_TOKEN" in done.err
            assert done.out == ""
        monkeypatch.setenv("MLPX_TOKEN", "two\nlines")
        assert run(*arguments).code == 2


def test_tls(folder: Path, certificate: Path, run: Run, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the server's certificate, is not installed")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(made, check=True, capture_output=True)
    with serving(folder / "proved", "--tls-cert", chain, "--tls-key", key) as server:
        arguments = "verify", "--url", f"{server.url}/v2/models/tower", "--certificate", certificate
        assert run(*arguments, "--ca-file", chain).code == 0
        untrusted = run(*arguments)
        assert untrusted.code == 3
        assert "is not trusted" in untrusted.err
        assert "--ca-file" in untrusted.err
        assert run(*arguments, "--ca-file", key).code == 2
        assert run(*arguments, "--ca-file", tmp_path / "none.pem").code == 2


def test_it_needs_neither_torch_nor_onnx(url: str, certificate: Path, root: Path) -> None:
    heavy = ["torch", "onnx", "onnxruntime", "tritonclient", "grpc", "polars", "pandas"]
    code = f"""import sys
from mlpx.cli import main
sys.argv = ["mlpx", "verify", "--url", {url + "/versions/1"!r}, "--certificate", {str(certificate)!r}]
try:
    main()
except SystemExit as end:
    print([end.code, *(name for name in {heavy} if name in sys.modules)])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("proved ")
    assert done.stdout.endswith("[0]\n")


def test_a_file_or_certificate_that_is_no_use(run: Run, url: str, certificate: Path, tmp_path: Path) -> None:
    other = certificate.parent.parent / "other" / "tower.onnx"
    done = run("verify", other, "--url", url, "--certificate", certificate)
    assert done.code == 1
    assert "is not the file that" in done.err
    assert done.out == ""
    assert run("verify", tmp_path / "none.onnx", "--url", url).code == 2
    record = json.loads(certificate.read_text())
    for change, code, words in (
        ({"answers": None}, 2, "holds no answers"),
        ({"verdict": "failed", "why": "because"}, 1, "because"),
    ):
        (tmp_path / "c.parity.json").write_text(json.dumps(record | change))
        done = run("verify", "--url", url, "--certificate", tmp_path / "c.parity.json")
        assert done.code == code
        assert words in done.err
    with pytest.raises(InputError, match="because"):
        check_live(url, tmp_path / "c.parity.json")


URLS = {
    "127.0.0.1:8000/v2/models/m": "http, https, grpc or grpcs",
    "ftp://host/v2/models/m": "got 'ftp'",
    "http://host": "expected the path /v2/models/NAME, got '/'",
    "http://host/v1/models/m": "expected the path",
    "http://host/v2/models/m/extra": "expected the path",
    "http:///v2/models/m": "names no host",
    "http://host/prefíx/v2/models/m": "its path holds characters that a URL cannot have",
    "http://host:99999/v2/models/m": "Port out of range",
    "http://host/v2/models/m?x=1": "nothing after '?'",
    "http://name:secret@host/v2/models/m": "MLPX_TOKEN",
    "grpc://host/v2/models/m": "needs a port",
    "grpc://host:1/prefix/v2/models/m": "gRPC has no paths",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_none(run: Run, certificate: Path, url: str) -> None:
    done = run("verify", "--url", url, "--certificate", certificate)
    assert done.code == 2
    assert URLS[url] in done.err
    assert "What to do: give one like" in done.err
    assert "secret" not in done.err


WRONG = {
    "no certificate": (["--url", "http://h/v2/models/m"], "--certificate NAME.parity.json"),
    "a spec too": (
        ["--url", "http://h/v2/models/m", "--spec", "s.yaml", "-o", "out"],
        "does not go with --spec, --output",
    ),
    "a device too": (["--url", "http://h/v2/models/m", "--device", "cpu"], "does not go with --device"),
    "a method too": (["--url", "http://h/v2/models/m", "--method", "act"], "does not go with --method"),
    "no url": (["f.onnx", "--tensors", "json"], "go with --url"),
    "neither": (["--spec", "s.yaml"], "name the ONNX FILE, or a live server with --url"),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_do_not_go_together(run: Run, name: str) -> None:
    done = run("verify", *WRONG[name][0])
    assert done.code == 2
    assert WRONG[name][1] in " ".join(done.err.replace("│", " ").split())


def test_settings_that_are_none(certificate: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tensors": "xml"}, "json, binary, auto"),
        ({"timeout": 0.0}, "seconds, more than 0"),
        ({"ca_file": certificate}, "goes with https:// or grpcs://"),
        ({"token": "a b\n"}, "line break"),
    ]
    for options, words in wrong:
        with pytest.raises(InputError, match=words):
            check_live("http://127.0.0.1:1/v2/models/m", certificate, **options)
    with pytest.raises(InputError, match="never JSON over gRPC"):
        check_live("grpc://127.0.0.1:1/v2/models/m", certificate, tensors="json")
    for scheme in ("http", "https", "grpc", "grpcs"):
        with pytest.raises(UnreachableError, match=r"cannot be reached: .*What to do: check the host"):
            check_live(f"{scheme}://127.0.0.1:1/v2/models/m", certificate, timeout=5)
