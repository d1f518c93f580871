"""The page of ``mlpx lab``: what its checks say is what NumPy, PyTorch and a proof say of the same numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.faults import logged, not_close, not_either
from builder import MLPSpec, RecoveryError, assemble
from export import ExportError, export
from export.lab.page import MOST_PARAMETERS, write_lab
from runtime import Session
from tests.support.browser import CHROMIUM
from tests.support.cases import randomised
from tests.support.commands import Run
from tests.support.devtools import Page
from tests.support.words import delays

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
READY = "document.querySelectorAll('#all tbody tr').length === 8"
FAULTS = ("none", "ulp", "relative", "slope", "float16", "tf32", "dropout", "normaliser")
CHECKS = ("allclose", "torchOnnx", "polygraphy", "mlpx")
BLOCKS = [
    {"standardize": {"mean": [1, 2, 3], "std": 0.5}},
    {"linear": {"features": 6, "bias": False}},
    {"leaky_relu": 0.2},
    {"clip": [-2, 3]},
    {"linear": 5},
    {"elu": 1.5},
    "tanh",
    {"dropout": 0.5},
    {"linear": 4},
    "silu",
    {"linear": 3},
    "relu",
    {"linear": 2},
    "sigmoid",
    {"scale": {"factor": [2, 0.25], "offset": -1}},
]
Opened = Callable[[Path], Page]


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture
def opened(tab: Page) -> Opened:
    def at(file: Path) -> Page:
        tab.requests.clear()
        tab.errors.clear()
        tab.open(file.as_uri())
        tab.wait(READY)
        return tab

    return at


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lab(tmp_path_factory.mktemp("lab") / "lab.html").path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = {"features": [{"name": name, "range": [low, 4]} for low, name in enumerate(("a", "<b>", "c"))]}
    spec = MLPSpec(name="arm", input=given, blocks=BLOCKS)
    return export(randomised(assemble(spec, seed=0), 1), tmp_path_factory.mktemp("m") / "arm.onnx", spec=spec).path


@pytest.fixture(scope="module")
def with_file(model: Path) -> Path:
    return write_lab(model.with_suffix(".html"), model).path


def answers(page: Page) -> dict[str, list[str]]:
    """Of every fault, what each check answers."""
    code = "[...r.querySelectorAll('td')].map(d => d.querySelector('strong')?.innerText ?? d.innerText)"
    return page.evaluate(
        f"Object.fromEntries([...document.querySelectorAll('#all tbody tr')].map(r => [r.dataset.fault, {code}]))"
    )


@needs_chromium
def test_the_faults_and_who_notices_them(blank: Path, opened: Opened) -> None:
    page = opened(blank)
    found = answers(page)
    assert tuple(found) == FAULTS
    assert [found[fault][3] for fault in FAULTS] == ["quiet", *["notices"] * 7]
    assert [found[fault][1] for fault in FAULTS] == ["quiet", *["misses"] * 5, *["notices"] * 2]
    assert found["ulp"][:3] == ["alarm, as without a fault", "misses", "misses"]
    assert found["relative"][2] == "misses"
    assert page.requests == [blank.as_uri()]
    assert page.errors == []


@needs_chromium
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_say_what_the_tools_say_of_the_same_outputs(fault: str, blank: Path, opened: Opened) -> None:
    page = opened(blank)
    run = "networks.run(layers, x, rows, how).at(-1)"
    code = f"""(() => {{
      const made = lab.network(), planted = faults.plant("{fault}", {{...made, place: 0, seed: 0}});
      const of = (layers, x, rows, how) => [...{run}], right = {{order: "sequence", isTf32: false}};
      const how = {{order: "four", isTf32: planted.isTf32}};
      const x = making.rows(made, 100, 2), row = making.uniformRow(made, 3);
      return {{
        file: of(planted.layers, x, 100, how), module: of(made.layers, x, 100, right),
        one: [of(planted.layers, row, 1, how), of(made.layers, row, 1, right)], row: [...row],
        found: lab.judged("{fault}", made).found,
      }};
    }})()"""
    held: dict[str, Any] = page.evaluate(code)
    file, module = (np.array(held[name], np.float32).reshape(100, 3) for name in ("file", "module"))
    one = [np.array(values, np.float32) for values in held["one"]]
    found = held["found"]
    assert found["allclose"]["finds"] == not_close(1e-5, 1e-8)(file, module)
    assert found["allclose"]["finds"] != torch.allclose(torch.from_numpy(file), torch.from_numpy(module))
    assert found["torchOnnx"]["finds"] == logged(file[:2], module[:2])
    assert found["polygraphy"]["finds"] == not_either(1e-5)(*one)
    assert np.all((np.array(held["row"]) >= 0) & (np.array(held["row"]) < 1))
    off = np.abs(file.astype(float) - module)
    assert found["allclose"]["share"] == pytest.approx((off / (1e-8 + 1e-5 * np.abs(module.astype(float)))).max())
    largest = max(off[:2].max() / 5e-3, (off[:2] / (np.abs(module[:2].astype(float)) + 1e-7)).max() / 1e-1)
    assert found["torchOnnx"]["share"] == pytest.approx(largest)


@needs_chromium
def test_which_question_of_mlpx_finds_which_fault(blank: Path, opened: Opened) -> None:
    page = opened(blank)
    parts = "made => fault => lab.judged(fault, made).found.mlpx.parts.filter(p => p.finds).map(p => p.name)"
    found = {fault: page.evaluate(f"({parts})(lab.network())('{fault}')") for fault in FAULTS}
    assert found == {
        "none": [],
        "ulp": ["constants", "exact probes"],
        "relative": ["constants", "exact probes", "layer bounds"],
        "slope": ["constants", "layer bounds"],
        "float16": ["constants", "exact probes", "layer bounds"],
        "tf32": ["exact probes", "layer bounds"],  # the file is right
        "dropout": ["structure"],
        "normaliser": ["structure"],
    }


@needs_chromium
def test_a_network_is_built_and_a_fault_without_a_place_cannot_be_chosen(blank: Path, opened: Opened) -> None:
    page = opened(blank)
    page.click("[value=slope]")
    assert page.text("#planted") == "Planted: slope of '2': 0.011 for 0.01."
    page.type("[aria-label='block 2']", "tanh")
    assert "standardize → linear 16 → tanh → linear 16" in page.text("#shape")
    assert page.evaluate("document.querySelector('[value=slope]').disabled")
    assert page.evaluate("document.querySelector('[name=fault]:checked').value") == "none"
    assert "no leaky_relu" in page.text("#faults")
    assert answers(page)["slope"] == ["not planted"] * 4
    page.type("[aria-label='outputs of block 1']", 20)
    page.click("[aria-label='Remove block 0']")
    page.click("[aria-label='Add a block behind block 4']")
    assert page.text("#shape").startswith("8 → linear 20 → tanh → linear 16 → relu → relu → linear 3")
    assert "no standardize" in page.text("#faults")
    page.type("[aria-label='outputs of block 0']", 0)  # not allowed: nothing changes
    assert page.evaluate("document.querySelector('[aria-invalid=true]') !== null")
    assert page.text("#shape").startswith("8 → linear 20")
    assert page.errors == []


@needs_chromium
def test_in_the_order_of_the_module_only_faults_change_outputs(blank: Path, opened: Opened) -> None:
    page = opened(blank)
    page.type("#option-order", "sequence")
    shares = "['none', 'ulp'].map(fault => lab.judged(fault, lab.network()).found.allclose.share)"
    for rows, seen in ((10, False), (100, True)):
        page.type("#option-rows", rows)
        none, ulp = page.evaluate(shares)
        assert none == 0
        assert (ulp > 0) == seen


@needs_chromium
def test_everything_has_a_name_and_the_focus_stays(blank: Path, opened: Opened) -> None:
    page = opened(blank)
    named = "e => e.labels?.length || e.getAttribute('aria-label') || e.innerText"
    assert page.evaluate(f"[...document.querySelectorAll('input, select, button')].every({named})")
    for selector, value in (("#option-place", 1), ("[aria-label='block 5']", "silu")):
        page.type(selector, value)
        assert page.evaluate(f"document.activeElement === document.querySelector({json.dumps(selector)})")
    page.click("[aria-label='Remove block 3']")
    assert page.evaluate("document.querySelectorAll('.blocks li').length") == 6
    page.evaluate("document.querySelector('[value=ulp]').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="ArrowDown", code="ArrowDown", windowsVirtualKeyCode=40)
    assert page.evaluate("document.activeElement.value") == "relative"
    assert "Planted: weight" in page.text("#planted")


@needs_chromium
def test_the_network_of_a_file(model: Path, with_file: Path, opened: Opened) -> None:
    page = opened(with_file)
    assert page.text("#shape").startswith("3 → standardize → linear 6 → leaky_relu → clip → linear 5 → elu → tanh")
    assert page.requests == [with_file.as_uri()]
    code = """(() => {
      const made = lab.network(), x = making.rows(made, 50, 0);
      return [[...x], [...networks.run(made.layers, x, 50, {order: "sequence", isTf32: false}).at(-1)]];
    })()"""
    x, y = (np.array(values, np.float32).reshape(50, -1) for values in page.evaluate(code))
    assert (x.min(axis=0) >= [0, 1, 2]).all()
    assert (x.max(axis=0) <= 4).all()
    assert np.ptp(x, axis=0).min() > 1.5
    with Session(model, "cpu") as session:
        np.testing.assert_allclose(y, session.predict(x), rtol=0, atol=2e-6)
    assert [row[3] for row in answers(page).values()] == ["quiet", *["notices"] * 7]
    page.click("#builder button")
    assert page.text("#shape").startswith("8 → standardize")
    page.click("#builder .tools button")
    assert page.text("#shape").startswith("3 → standardize")
    assert page.errors == []


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_is_cut_off_or_faint(width: int, dark: bool, blank: Path) -> None:
    with Page(width, dark=dark) as page:
        page.open(blank.as_uri())
        page.wait(READY)
        seen = page.look()
    assert seen["width"] == width
    assert seen["texts"] > 100
    assert seen["cut"] == seen["faint"] == []
    assert seen["scroll"] <= width


def test_the_page_is_one_file_that_may_run_its_own_script_only(with_file: Path) -> None:
    text = with_file.read_text(encoding="utf-8")
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in text.replace("http-equiv", "")
    assert "`mlpx verify`" in text.replace("<code>", "`").replace("</code>", "`")


@pytest.mark.parametrize(
    ("blocks", "wrong"),
    [
        ([{"linear": 4}, "gelu"], "block 1 is a gelu, and the page computes only linear, standardize, scale, relu"),
        (
            [{"clip": [[-1, None], 1]}],
            "block 0 is a clip whose limits differ between features, and the page computes only",
        ),
        ([{"linear": 200}, "relu", {"linear": 200}], "has 40,800 weights, and the page computes networks of at most"),
    ],
)
def test_a_network_that_the_page_does_not_compute(blocks: list[Any], wrong: str, tmp_path: Path) -> None:
    spec = MLPSpec(name="m", input={"features": 2}, blocks=blocks)
    path = export(assemble(spec, seed=0), tmp_path / "m.onnx", spec=spec).path
    (tmp_path / "lab.html").write_text("before")
    with pytest.raises(ExportError, match=re.escape(wrong)) as caught:
        write_lab(tmp_path / "lab.html", path)
    assert "What to do: " in str(caught.value)
    assert (tmp_path / "lab.html").read_text() == "before"
    assert MOST_PARAMETERS == 20_000


def test_a_file_of_several_inputs_is_not_for_the_page(tmp_path: Path) -> None:
    spec, module = delays()
    path = export(module, tmp_path / "delays.onnx", spec=spec).path
    with pytest.raises(ExportError, match="takes 'numbers', 'words', and the page computes networks of one input"):
        write_lab(tmp_path / "lab.html", path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(RecoveryError):
        write_lab(tmp_path / "lab.html", tmp_path / "m.onnx")
    assert not (tmp_path / "lab.html").exists()
    with pytest.raises(ExportError, match="is FILE itself"):
        write_lab(tmp_path / "m.onnx", tmp_path / "m.onnx")


def test_the_command(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("lab")
    assert (done.code, done.out) == (0, "written to lab.html: open it in a browser\n")
    assert (tmp_path / "lab.html").stat().st_size < 100_000
    done = run("lab", model, "-o", tmp_path / "arm.html")
    assert done.out.splitlines()[0] == f"network of {model}: 16 operators, 110 weights"
    record = json.loads(run("lab", model, "-o", tmp_path / "arm.html", "--json").out)
    assert record == {"path": str(tmp_path / "arm.html"), "file": str(model), "operators": 16, "parameters": 110}
    assert run("lab", tmp_path / "missing.onnx").code == 2
