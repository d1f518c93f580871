"""The page of ``mlpx serve``: what it lists, how a model is tried on it, and what it keeps of a token."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from builder import MLPSpec, assemble
from export import publish
from runtime import Session
from tests.support.bounded import WORDS, give_bound
from tests.support.browser import CHROMIUM
from tests.support.cases import randomised
from tests.support.devtools import Page
from tests.support.serving import Server, ask, model, serving

SPEC = {
    "name": "arm",
    "input": {
        "name": "observation",
        "features": [{"name": "angle", "unit": "rad", "range": [-3, 3]}, {"name": "it's"}],
    },
    "blocks": [{"linear": 8}, "tanh", {"linear": 2}, "softmax"],
    "output": {"name": "choice", "labels": ["left", "right"]},
}
ROWS = "[...document.querySelectorAll('tbody tr')].map(row => row.innerText.replace(/\\s+/g, ' ').trim())"
SHOWN = "[...document.querySelectorAll('.value')].map(e => Number(e.value))"
TRIED = "document.querySelector('.value')?.innerText"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proved model, one without a certificate in two versions, and a broken one."""
    folder = tmp_path_factory.mktemp("models")
    spec = MLPSpec.model_validate(SPEC)
    publish(randomised(assemble(spec), 1), folder / "arm" / "arm.onnx", spec=spec, device="cpu", page=True)
    give_bound(folder / "arm" / "arm.onnx")
    model(folder / "plain" / "1" / "model.onnx")
    model(folder / "plain" / "2" / "model.onnx", seed=1)
    (folder / "torn").mkdir()
    (folder / "torn" / "torn.onnx").write_bytes(b"no model")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder) as running:
        yield running


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with Page() as page:
        page.open(server.url + "/")
        page.wait(TRIED)
        yield page


def test_the_models_are_listed_with_state_and_proof(page: Page, server: Server) -> None:
    arm, plain, other, torn = page.evaluate(ROWS)
    assert arm == "arm 1 READY proved certificate JSON cpu Try"
    assert [plain, other] == [f"plain {version} READY not proved cpu Try" for version in (1, 2)]
    assert torn.startswith("torn 1 UNAVAILABLE")
    assert "torn.onnx" in torn
    links = page.evaluate("[...document.querySelectorAll('tbody a')].map(a => a.href)")
    contents = [ask(server.url, "GET", urlsplit(link).path) for link in links]
    assert b"Proved." in contents[0].body
    assert contents[1].json["verdict"] == "proved"
    assert page.errors == []
    assert all(request.startswith(server.url) for request in page.requests)


def test_a_model_is_tried_and_the_command_asks_the_same(page: Page, server: Server, folder: Path) -> None:
    assert "angle" in page.text("#inputs")
    assert "rad, -3 to 3" in page.text("#inputs")
    page.type("input[type=range]", 1.5)
    page.type('input[type=number][aria-label="it\'s"]', -0.1)
    with Session(folder / "arm" / "arm.onnx", "cpu") as session:
        expected = session.predict(np.array([[1.5, -0.1]], np.float32))[0]
    near = f"{SHOWN}.every((v, i) => Math.abs(v - {json.dumps(expected.tolist())}[i]) < 1e-6)"
    page.wait(f"{SHOWN}.length === 2 && {near}")
    best = ("left", "right")[int(expected.argmax())]
    assert page.text(".decided").startswith(best)
    assert best in page.text(".best")
    command = shlex.split(page.text("#curl").replace("\\\n", " "))
    assert command[:2] == ["curl", f"{server.url}/v2/models/arm/versions/1/infer"]
    answer = ask(server.url, "POST", urlsplit(command[1]).path, command[command.index("-d") + 1])
    np.testing.assert_allclose(answer.json["outputs"][0]["data"], expected, rtol=1e-6)


def test_another_version_is_opened_and_a_refusal_is_shown(page: Page, server: Server) -> None:
    assert page.text("#bound") == f"Error of correct float32 arithmetic: {WORDS}."
    page.click("[aria-label='Try plain, version 2']")
    page.wait("document.activeElement.innerText === 'Try plain, version 2'")
    page.wait(f"{SHOWN}.length === 3")
    assert page.text("#bound") == ""
    ask(server.url, "POST", "/v2/repository/models/plain/unload", {})
    try:
        page.type("input[type=number]", 2)
        told = page.wait("document.querySelector('#wrong').innerText")
        assert "plain" in told
        page.click("#refresh")
        page.wait(f"{ROWS}.filter(row => row.startsWith('plain') && row.includes('UNAVAILABLE')).length > 0")
    finally:
        ask(server.url, "POST", "/v2/repository/models/plain/load", {})


def test_a_token_is_asked_for_and_kept_in_memory_only(folder: Path) -> None:
    secret = "much-too-secret"
    with serving(folder, environment={"MLPX_TOKEN": secret}) as running, Page() as page:
        page.open(running.url + "/")
        for token in ("wrong", secret):
            page.wait("!document.querySelector('#ask').hidden")
            page.type("#token", token)
            page.click("#ask button")
        page.wait(TRIED)
        assert page.evaluate(ROWS)[0].startswith("arm 1 READY")
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert "$TOKEN" in page.text("#curl")
        assert secret not in page.evaluate("document.documentElement.outerHTML")
        assert not any(secret in request for request in page.requests)
        page.open(running.url + "/")
        page.wait("!document.querySelector('#ask').hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_cut_off_or_faint(width: int, dark: bool, server: Server) -> None:
    with Page(width, dark=dark) as page:
        page.open(server.url + "/")
        page.wait(TRIED)
        seen = page.look()
    assert seen["width"] == width
    assert seen["texts"] > 20
    assert seen["cut"] == seen["faint"] == []
    assert seen["scroll"] <= width
