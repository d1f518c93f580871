"""The page that runs a model in the browser: what it shows, what it judges, and what it never asks for."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from builder import MLPSpec, assemble, load_spec, load_weights
from export import package, publish, verify
from runtime import Certificate, Session, read_certificate
from tests.support.browser import CHROMIUM
from tests.support.cases import randomised
from tests.support.commands import Run
from tests.support.devtools import Page
from tests.support.policy import Policy
from tests.support.servers.environments import environment
from tests.support.words import delays

ARM = {
    "name": "arm",
    "input": {
        "name": "observation",
        "features": [
            {"name": "shoulder_angle", "unit": "rad", "range": [-3.2, 3.2]},
            {"name": "payload", "unit": "kg", "range": [0, 5]},
            {"name": "last_action"},
        ],
    },
    "blocks": [{"linear": 16}, "tanh", {"linear": 2}],
    "output": {"name": "joint_target", "features": [{"name": "shoulder", "unit": "rad"}, {"name": "<b>'elbow'</b>"}]},
}
READY = "!document.querySelector('#verdict').innerText.startsWith('Loading')"
SHOWN = "[...document.querySelectorAll('[data-output=%s] .value')].map(e => Number(e.value))"


@pytest.fixture(scope="module")
def npm() -> Path:
    return environment("onnxruntime-web") / "node_modules" / "onnxruntime-web"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Path]:
    """Proved files: a picture with labels, features with ranges, and several inputs and outputs."""
    folder = tmp_path_factory.mktemp("files")
    spec = load_spec(root / "models" / "digits" / "spec.yaml")
    digits = assemble(spec)
    load_weights(digits, root / "models" / "digits" / "weights.safetensors")
    arm = MLPSpec.model_validate(ARM)
    torch.manual_seed(0)
    made = {"digits": (digits.eval(), spec), "arm": (randomised(assemble(arm), 1), arm), "policy": (Policy(), None)}
    made["delays"] = delays()[::-1]
    write = partial(publish, device="cpu", page=False)
    return {name: write(module, folder / f"{name}.onnx", spec=given)[0].path for name, (module, given) in made.items()}


@pytest.fixture(scope="module")
def pages(files: dict[str, Path], npm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, file in files.items():
        package(file, "browser", folder / name, onnxruntime_web=npm)
    return {name: folder / name / "index.html" for name in files}


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    with Page() as page:
        yield page


@pytest.fixture
def show(tab: Page) -> Callable[[str], Page]:
    def at(address: str) -> Page:
        tab.requests.clear()
        tab.errors.clear()
        tab.open(address)
        tab.wait(READY)
        return tab

    return at


class Held(SimpleHTTPRequestHandler):
    """A static server with a policy of its own, that of the page."""

    policy, paths = "", list[str]()

    def end_headers(self) -> None:
        self.paths.append(self.path)
        self.send_header("Content-Security-Policy", self.policy)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def rows_of(certificate: Path) -> int:
    answers = read_certificate(certificate).answers
    assert answers is not None
    return answers.rows


def test_it_runs_from_a_static_server_behind_its_policy(pages: dict[str, Path], show: Callable[[str], Page]) -> None:
    page = pages["digits"]
    found = re.search('Content-Security-Policy" content="([^"]*)"', page.read_text(encoding="utf-8"))
    assert found is not None
    policy, paths = unescape(found[1]), list[str]()
    assert "unsafe-eval" not in policy.replace("'wasm-unsafe-eval'", "")
    assert "unsafe-inline" not in policy
    handler = type("Handler", (Held,), {"policy": policy, "paths": paths})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(page.parent))) as server:
        Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        seen = show(address)
        assert seen.text("#verdict").startswith("Proved.")
        assert f"{10 * rows_of(page.parent / 'digits.parity.json')} outputs" in seen.text("#verdict")
        server.shutdown()
    assert paths == ["/index.html"]
    assert seen.requests == [address]
    assert seen.errors == []


@pytest.mark.parametrize("name", ["digits", "arm", "policy", "delays"])
def test_it_opens_from_a_disk_and_asks_for_nothing(
    name: str, pages: dict[str, Path], show: Callable[[str], Page]
) -> None:
    seen = show(pages[name].as_uri())
    assert seen.text("#verdict").startswith("Proved.")
    assert "has the SHA-256 that the certificate names" in seen.text("#verdict")
    assert seen.requests == [pages[name].as_uri()]
    assert seen.errors == []


def certificate_of(file: Path) -> Certificate:
    return read_certificate(file.with_name(f"{file.stem}.parity.json"))


def same(page: Page, file: Path, rows: dict[str, list[Any]]) -> None:
    """Whether the page shows what ONNX Runtime gives here, within the proved bound of both."""
    with Session(file, "cpu") as session:
        expected = session.run({name: [row] for name, row in rows.items()})
    answers = certificate_of(file).answers
    assert answers is not None
    for name, values in expected.items():
        page.wait(f"{SHOWN % name}.length === {values.size}")
        bound = 2 * answers.bound[name].max()
        close = f"{SHOWN % name}.every((v, i) => Math.abs(v - {json.dumps(values[0].tolist())}[i]) <= {bound})"
        page.wait(close)


def test_sliders_and_numbers_change_the_outputs(
    files: dict[str, Path], pages: dict[str, Path], show: Callable[[str], Page]
) -> None:
    seen = show(pages["arm"].as_uri())
    assert "rad, -3.2 to 3.2" in seen.text("#inputs")
    assert "kg, 0 to 5" in seen.text("#inputs")
    assert "<b>'elbow'</b>" in seen.text("#outputs")
    same(seen, files["arm"], {"observation": [0, 2.5, 0]})
    seen.type("input[type=range][aria-label=shoulder_angle]", 1.25)
    same(seen, files["arm"], {"observation": [1.25, 2.5, 0]})
    seen.type("input[type=number][aria-label=last_action]", -0.7)
    same(seen, files["arm"], {"observation": [1.25, 2.5, -0.7]})
    assert seen.text("#inputs .warn") == ""
    seen.type("input[type=number][aria-label='payload, kg']", 7)
    same(seen, files["arm"], {"observation": [1.25, 7, -0.7]})
    assert "payload is 7, beyond its declared range 0 to 5" in seen.text("#inputs .warn")


def test_words_are_chosen_and_gaps_left_empty(
    files: dict[str, Path], pages: dict[str, Path], show: Callable[[str], Page]
) -> None:
    seen, file = show(pages["delays"].as_uri()), files["delays"]
    same(seen, file, {"numbers": [0.0, 0.0], "words": ["AA", "EWR"]})
    seen.type("select[aria-label=carrier]", 3)
    same(seen, file, {"numbers": [0.0, 0.0], "words": ["Ü 2", "EWR"]})
    seen.type("input[type=number][aria-label='distance, mi']", "")
    same(seen, file, {"numbers": [float("nan"), 0.0], "words": ["Ü 2", "EWR"]})
    seen.type("[data-input=words] textarea", "1, 7")
    seen.click("[data-input=words] .tools button")
    seen.wait("document.querySelector('#distance').innerText.startsWith('The model does not take this row')")
    seen.type("#row", 2)
    seen.wait("document.querySelector('#distance').innerText.startsWith('Row 3: within the bound')")
    assert seen.errors == []


def test_a_picture_is_drawn_with_mouse_and_keys(
    files: dict[str, Path], pages: dict[str, Path], show: Callable[[str], Page]
) -> None:
    seen = show(pages["digits"].as_uri())
    seen.click("#inputs summary")
    drawn = [0.0] * 64
    seen.press("canvas", 0.99, 0.01)
    drawn[7] = 16
    drawn[6] = drawn[15] = 4.8
    same(seen, files["digits"], {"pixels": drawn})
    seen.evaluate("document.querySelector('canvas').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", " "):
        seen.key(key)
    drawn[16] = 16
    same(seen, files["digits"], {"pixels": drawn})
    for key in ("ArrowUp", "ArrowLeft", "Delete"):
        seen.key(key)
    drawn[15] = 0
    same(seen, files["digits"], {"pixels": drawn})
    assert seen.evaluate("JSON.parse(document.querySelector('textarea').value)") == drawn


def test_rows_are_pasted_and_taken_from_the_certificate(
    files: dict[str, Path], pages: dict[str, Path], show: Callable[[str], Page]
) -> None:
    seen = show(pages["policy"].as_uri())
    area = "[data-input=obs] textarea"
    seen.click("[data-input=obs] summary")
    for text, expected in (("1 2", "takes 3 numbers, and 2 were"), ("1, 2, x", "'x' is not"), ("1;2;1e39", "'1e39'")):
        seen.type(area, text)
        seen.click("[data-input=obs] details button")
        assert expected in seen.text("[data-input=obs] [role=alert]")
    seen.type(area, "[1, -2.5,\t0.1]")
    seen.click("[data-input=obs] details button")
    same(seen, files["policy"], {"obs": [1, -2.5, 0.1], "goal": [0, 0]})
    answers = certificate_of(files["policy"]).answers
    assert answers is not None
    seen.type("#row", 5)
    same(seen, files["policy"], {name: rows[5].tolist() for name, rows in answers.inputs.items()})
    seen.wait("document.querySelector('#distance').innerText.startsWith('Row 6: within the bound')")


def changed(page: Path, folder: Path, change: Callable[[onnx.ModelProto], None], *, told: bool = False) -> str:
    """The page with its model changed, and with the certificate's hash too where ``told``; its address."""
    text = page.read_text(encoding="utf-8")
    found = re.search('id="model">([^<]*)<', text)
    assert found is not None
    before = base64.b64decode(found[1])
    model = onnx.load_from_string(before)
    change(model)
    after = model.SerializeToString()
    text = text.replace(found[1], base64.b64encode(after).decode())
    if told:
        text = text.replace(sha256(before).hexdigest(), sha256(after).hexdigest())
    (folder / "index.html").write_text(text, encoding="utf-8")
    return (folder / "index.html").as_uri()


def one_weight(model: onnx.ModelProto) -> None:
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 2)
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= 1.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_a_changed_weight_is_not_proved(pages: dict[str, Path], show: Callable[[str], Page], tmp_path: Path) -> None:
    verdict = show(changed(pages["digits"], tmp_path, one_weight)).text("#verdict")
    assert verdict.startswith("Not proved.")
    assert "logits[" in verdict
    assert "its SHA-256 is another" in verdict
    verdict = show(changed(pages["digits"], tmp_path, one_weight, told=True)).text("#verdict")
    assert verdict.startswith("Not proved.")
    assert "beyond their bound" in verdict
    assert "names" in verdict


def test_another_file_and_none_are_not_proved(
    pages: dict[str, Path], show: Callable[[str], Page], tmp_path: Path
) -> None:
    verdict = show(changed(pages["arm"], tmp_path, lambda model: setattr(model, "doc_string", "other"))).text(
        "#verdict"
    )
    assert verdict.startswith("Not proved.")
    assert "its SHA-256 is another" in verdict
    assert "beyond" not in verdict
    verdict = show(changed(pages["arm"], tmp_path, lambda model: model.graph.ClearField("node"))).text("#verdict")
    assert verdict.startswith("Not proved.")
    assert "cannot be run" in verdict


def test_a_file_of_a_fixed_batch(npm: Path, show: Callable[[str], Page], tmp_path: Path) -> None:
    spec = MLPSpec.model_validate(ARM)
    module = randomised(assemble(spec), 1)
    file = publish(module, tmp_path / "arm.onnx", spec=spec, device="cpu", page=False)[0].path
    model = onnx.load(file)
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 5
    model.ClearField("metadata_props")
    onnx.save(model, file)
    verify(module, file, device="cpu").write(tmp_path / "arm.parity.json")
    package(file, "browser", tmp_path / "page", onnxruntime_web=npm)
    seen = show((tmp_path / "page" / "index.html").as_uri())
    assert seen.text("#verdict").startswith("Proved.")
    assert f"{rows_of(tmp_path / 'arm.parity.json')} rows" in seen.text("#verdict")
    assert seen.wait(f"{SHOWN % 'joint_target'}.length === 2")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_cut_off_or_faint(width: int, dark: bool, pages: dict[str, Path]) -> None:
    with Page(width, dark=dark) as page:
        for name in ("digits", "arm"):
            page.open(pages[name].as_uri())
            page.wait("document.querySelector('.value')?.innerText")
            seen = page.look()
            assert seen["width"] == width
            assert seen["texts"] > 30
            assert seen["cut"] == seen["faint"] == []
            assert seen["scroll"] <= width


def test_the_package_says_what_is_in_it(run: Run, files: dict[str, Path], npm: Path, tmp_path: Path) -> None:
    done = run("package", files["arm"], "--for", "browser", "--onnxruntime-web", npm, "-o", tmp_path / "p")
    assert done.code == 0, done.err
    assert "MIT License" in (tmp_path / "p" / "onnxruntime-web.LICENSE").read_text()
    vendored = json.loads((tmp_path / "p" / "onnxruntime-web.json").read_text())
    assert vendored["version"] == json.loads((npm / "package.json").read_text())["version"]
    for path, digest in vendored["files"].items():
        assert sha256((npm / path).read_bytes()).hexdigest() == digest
    assert "double click" in (tmp_path / "p" / "README.md").read_text()
    assert not (tmp_path / "p" / "smoke").exists()
