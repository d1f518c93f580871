"""Who may ask, over which channel, and what a server was told not to do."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from export import publish
from tests.support.bounded import WORDS, give_bound
from tests.support.cases import network
from tests.support.commands import Run
from tests.support.serving import Server, ask, model, rows, serving

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pair: tuple[Path, Path]) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("secure")
    model(folder / "one.onnx")
    (folder / "token").write_text(TOKEN + "\n")
    options = ["--tls-cert", pair[0], "--tls-key", pair[1], "--token-file", folder / "token", "--no-control"]
    with serving(folder, *options) as running:
        yield running


def test_rest_with_tls_and_a_token(secure: Server, pair: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(pair[0]))
    assert secure.url.startswith("https://")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    x = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    asked: dict[str, Any] = {
        "method": "POST",
        "path": "/v2/models/one/infer",
        "body": {"inputs": [x]},
        "context": context,
    }
    assert ask(secure.url, **asked, **bearer).status == 200
    for wrong in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}):
        refused = ask(secure.url, **asked, **wrong)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.error
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask(secure.url, "GET", path, context=context).status == 200
    for path in ("/v2", "/metrics", "/v2/models/one", "/openapi.json", "/v2/health/other"):
        assert ask(secure.url, "GET", path, context=context).status in (401, 404), path
        assert ask(secure.url, "GET", path, context=context, **bearer).status in (200, 404), path
    assert ask(secure.url, "GET", "/metrics", context=context).status == 401
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(secure.url, "GET", "/v2/health/live", context=ssl.create_default_context())
    assert TOKEN not in secure.log_file.read_text()


def test_grpc_with_tls_and_a_token(secure: Server, pair: tuple[Path, Path]) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(rows(1))
    with triton.InferenceServerClient(secure.grpc, ssl=True, root_certificates=str(pair[0])) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        answer = client.infer("one", [x], headers=bearer)
        assert answer is not None
        assert [output.name for output in answer.get_response().outputs] == ["y"]
        for wrong in (None, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN}):
            with pytest.raises(InferenceServerException, match="bearer token") as failed:
                client.infer("one", [x], headers=wrong)
            assert failed.value.status() == "StatusCode.UNAUTHENTICATED"
        with pytest.raises(InferenceServerException, match="bearer token"):
            client.get_model_repository_index()
        with pytest.raises(InferenceServerException, match="bearer token"):
            _streamed(client)
        with pytest.raises(InferenceServerException, match="--no-control") as failed:
            client.unload_model("one", headers=bearer)
        assert failed.value.status() == "StatusCode.PERMISSION_DENIED"
    with grpc.insecure_channel(secure.grpc) as plain, pytest.raises(grpc.RpcError) as refused:
        plain.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def _streamed(client: Any) -> None:
    answers: Queue[Any] = Queue()
    client.start_stream(lambda **told: answers.put(told["error"]))
    try:
        raise answers.get(timeout=60)
    finally:
        client.stop_stream(cancel_requests=True)


def test_rest_clients_may_not_change_what_is_served(secure: Server, pair: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(pair[0]))
    for action in ("load", "unload"):
        path = f"/v2/repository/models/one/{action}"
        refused = ask(secure.url, "POST", path, context=context, Authorization=f"Bearer {TOKEN}")
        assert (refused.status, "--no-control" in refused.error) == (403, True)


def test_only_files_with_a_certificate_of_their_own_bytes(tmp_path: Path) -> None:
    spec, module = network([{"linear": 3}])
    publish(module, tmp_path / "proved.onnx", spec=spec, page=False)
    publish(module, tmp_path / "changed.onnx", spec=spec, page=False)
    model(tmp_path / "unproved.onnx")
    for name in ("proved", "changed"):
        give_bound(tmp_path / f"{name}.onnx")
    with (tmp_path / "changed.onnx").open("ab") as file:
        file.write(b"\x92\x01\x00")  # a field that no reader knows: the network is the same, the bytes are others
    with serving(tmp_path, "--only-proved") as server:
        told = {one["name"]: one for one in server.models}
        assert {name: one["state"] for name, one in told.items()} == {
            "proved": "READY",
            "changed": "UNAVAILABLE",
            "unproved": "UNAVAILABLE",
        }
        assert "--only-proved" in told["changed"]["reason"]
        assert "What to do" in told["unproved"]["reason"]
        assert ask(server.url, "GET", "/v2/health/ready").status == 503
        assert ask(server.url, "GET", "/v2/models/proved").json["parameters"]["proved"] is True
        certificate = ask(server.url, "GET", "/v2/models/proved/versions/1/certificate")
        assert certificate.json["verdict"] == "proved"
    with serving(tmp_path) as server:
        parameters = {one: ask(server.url, "GET", f"/v2/models/{one}").json["parameters"] for one in told}
    proved = {one: held["proved"] for one, held in parameters.items()}
    assert proved == {"proved": True, "changed": False, "unproved": False}
    bound = parameters["proved"]["bound"]
    assert bound["words"] == WORDS
    assert (bound["box"], bound["largest"], bound["margin"]) == ({"input": [[-0.5, 16]]}, 0.006543, 0.01309)
    assert parameters["changed"]["bound"] is parameters["unproved"]["bound"] is None


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--tls-cert", "cert.pem"], 2, "--tls-cert and --tls-key go together"),
        (["--tls-cert", "cert.pem", "--tls-key", "key.pem"], 2, "cert.pem"),
        (["--token-file", "nothing"], 2, "cannot be read"),
        (["--workers", "0"], 2, "--workers"),
        (["--host", "203.0.113.7"], 3, "cannot bind 203.0.113.7:0"),
    ],
    ids=lambda held: " ".join(held) if isinstance(held, list) else None,
)
def test_options_that_are_no_use(
    run: Run, tmp_path: Path, options: list[str], code: int, words: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("no PEM")
    model(tmp_path / "models" / "one.onnx")
    done = run("serve", "models", "--port", 0, "--grpc-port", 0, *options)
    assert done.code == code, done
    assert words in done.err, done
    assert "Traceback" not in done.err, done


def test_a_folder_without_models(run: Run, tmp_path: Path) -> None:
    assert "no model is in this folder" in (done := run("serve", tmp_path)).err
    assert done.code == 2
    assert "cannot be read" in (done := run("serve", tmp_path / "none")).err
    assert done.code == 2
