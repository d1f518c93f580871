"""Who may ask: the bearer token, and TLS."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.support.serving import read, serving, until
from tests.support.stress.models import Proved, proved
from tests.support.stress.requests import asked, why_wrong
from tests.support.stress.wire import connected, ended, request

INFER = "/v2/models/arm/infer"


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    return proved(tmp_path_factory.mktemp("arm"))


def test_without_the_token_only_health_is_told(arm: Proved, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    one = asked(arm.answers, 0, 1)
    with serving(arm.file.parent, "--token-file", secret) as service:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"Authorization": "Basic x"}):
            for method, path in (("POST", INFER), ("GET", "/v2/models/arm"), ("GET", "/metrics"), ("GET", "/v2")):
                status, _, headers = service.ask(method, path, one.body if method == "POST" else None, given)
                assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
            assert service.ask("POST", "/v2/repository/models/arm/unload", "", given)[0] == 401
            assert service.ask("GET", "/v2/health/ready", None, given)[0] == 200
        right = {"Authorization": "Bearer s3cret"}
        status, body, headers = service.ask("POST", INFER, one.body, one.headers | right)
        assert status == 200
        assert why_wrong(arm.answers, one, body, headers) is None
        assert "s3cret" not in service.log_file.read_text()


def test_tls(arm: Proved, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        "-days",
        "2",
    ]
    try:
        subprocess.run(
            [*make, "-subj", "/CN=a", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("there is no openssl here to make a certificate with")
    one = asked(arm.answers, 0, 4)
    with serving(arm.file.parent, "--tls-cert", certificate, "--tls-key", key) as service:
        assert service.url.startswith("https://")
        connection = HTTPSConnection(*service.address, context=ssl.create_default_context(cafile=str(certificate)))
        connection.request("POST", INFER, one.body, one.headers)
        status, body, headers = read(connection.getresponse())
        connection.close()
        assert status == 200
        assert why_wrong(arm.answers, one, body, headers) is None
        with connected(service.address) as plain:
            plain.sendall(request(INFER, one.body, one.headers))
            assert ended(plain)
        with connected(service.address) as broken:
            broken.sendall(b"\x16\x03\x01" + os.urandom(200))
            broken.shutdown(socket.SHUT_WR)
            until(lambda: broken.recv(4096) == b"", "it hangs up")
        assert not service.events("failure")
