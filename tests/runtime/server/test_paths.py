"""Names and paths that lead nowhere, or would lead out of the folder that is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import Server, serving
from tests.support.stress.models import proved
from tests.support.stress.requests import asked


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, bytes]]:
    """A server, and the body of a right request. Beside its folder lies a model that nobody may reach."""
    folder: Path = tmp_path_factory.mktemp("arm")
    arm = proved(folder / "models")
    proved(folder / "secret", "secret")
    with serving(folder / "models") as service:
        yield service, asked(arm.answers, 0, 1).body
        assert not service.unexpected()


AWAY = [
    "../secret/secret",
    "..%2fsecret%2fsecret",
    "..",
    "../arm",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "arm%2f..%2f..%2f..%2fetc%2fpasswd",
    "%00",
    "arm%00",
    "arm.onnx",
    "ARM",
    "a" * 5000,
    "%ff%fe",
    "~",
    "$(id)",
    "%5c..%5c",
]


@pytest.mark.parametrize("name", AWAY)
@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/{}",
        "/v2/models/{}/infer",
        "/v2/models/arm/versions/{}/infer",
        "/v2/models/arm/versions/{}/certificate",
        "/v2/repository/models/{}/load",
        "/v2/repository/models/{}/unload",
        "/{}",
    ],
)
def test_no_name_leads_out_of_the_folder(served: tuple[Server, bytes], path: str, name: str) -> None:
    service, right = served
    method = "POST" if path.endswith(("infer", "load")) else "GET"
    status, body, _ = service.ask(method, path.format(name), right if method == "POST" else None)
    assert status == 404 or (".." in name and status in (404, 405)), body[:200]
    assert b"root:" not in body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/arm/infer"),
        ("PUT", "/v2/models/arm/infer"),
        ("DELETE", "/v2"),
        ("POST", "/metrics"),
        ("PATCH", "/v2/repository/index"),
    ],
)
def test_another_method_is_405(served: tuple[Server, bytes], method: str, path: str) -> None:
    assert served[0].ask(method, path)[0] == 405
