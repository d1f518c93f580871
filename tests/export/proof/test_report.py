"""The parity report: a record that can be read again, and a page that needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import ParityReport, export, publish, read_report, verify
from export.bounds.report import BoundReport, LabelRecord, LayerShare, OutputBound, StepRecord
from export.proof import write_page
from export.proof.report import CheckRecord
from runtime import InputError, MissingPackageError
from tests.support.browser import CHROMIUM, look
from tests.support.cases import network


class Skip(nn.Module):
    """Long names, letters that HTML and matplotlib give a meaning, and a value that is read again later."""

    def __init__(self) -> None:
        super().__init__()
        self.an_encoder_with_quite_a_long_name = nn.Sequential(nn.Linear(6, 6), nn.GELU())
        self.add_module("<b>$x_1$ & 'ä'</b>", nn.Linear(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.get_submodule("<b>$x_1$ & 'ä'</b>")(self.an_encoder_with_quite_a_long_name(x))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ParityReport]:
    """A proved file, a hand-written one, one with a wrong weight, and one whose module holds NaN."""
    folder = tmp_path_factory.mktemp("reports")
    spec, module = network(["standardize", {"linear": 32}, "tanh", {"dropout": 0.1}, {"linear": 5}, "softmax"])
    path = export(module, folder / "model.onnx", spec=spec).path
    torch.manual_seed(0)
    skip = Skip()
    found = {"proved": verify(module, path, device="cpu"), "skip": verify(skip, export(skip, folder / "s.onnx"))}
    with torch.no_grad():
        module[1].weight[3, 2] += 1  # type: ignore[index]
    found["failed"] = verify(module, path, device="cpu")
    with torch.no_grad():
        module[1].weight[3, 2] = float("nan")  # type: ignore[index]
    found["not proved"] = verify(module, path, device="cpu")
    return found


def with_bound(report: ParityReport, **changes: Any) -> ParityReport:
    """The report with a bound of 30 values, or what is changed of it: figures to be shown, which nothing computed."""
    bounds = [(100 + index) / 1e5 for index in range(30)]
    fields: dict[str, Any] = {
        "file": report.file.name,
        "sha256": report.file.sha256,
        "box": {"<i>pixels</i>": [(0, 16)]},
        "outputs": {
            "scores": OutputBound(
                bound=bounds,
                seen=[bound / 16 for bound in bounds],
                interval=[(-27.25, 30.5)] * 30,
                folding=[0.0] * 29 + [2e-7],
            )
        },
        "steps": [
            StepRecord(name="intervals", words="of every value", bound=0.0166, seconds=0.0125),
            StepRecord(name="splitting", words="along two features", bound=0.00129, seconds=9.25),
        ],
        "layers": [LayerShare(path=f"{index}.$layer$", op="linear", error=index / 1000) for index in range(30)],
        "boxes": 1357,
        "labels": LabelRecord(margin=0.01309, rows=1797, above=1780),
    }
    return report.model_copy(update={"bound": BoundReport(**(fields | changes))})


def test_a_report_is_read_as_it_was_written(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    for report in [*reports.values(), with_bound(reports["proved"])]:
        report.write(tmp_path / "r.parity.json")
        assert read_report(tmp_path / "r.parity.json") == report
        assert json.loads((tmp_path / "r.parity.json").read_text())["format"] == 1
    assert [reports[key].verdict for key in ("proved", "failed", "not proved")] == ["proved", "failed", "not proved"]


def test_numbers_that_json_lacks_survive(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    assert reports["failed"].failure is not None
    element = reports["failed"].failure.model_copy(update={"ratio": np.inf, "file": -np.inf})
    reports["failed"].model_copy(update={"failure": element}).write(tmp_path / "r.json")
    read = read_report(tmp_path / "r.json").failure
    assert read is not None
    assert read.ratio == np.inf
    assert read.file == -np.inf


@pytest.mark.parametrize("content", ["", "{}", "[]", "no JSON", '{"format": 1}'])
def test_what_is_no_report_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError, match="not a parity report"):
        read_report(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_report(tmp_path / "none.json")


def test_a_newer_format_is_refused_and_newer_keys_are_not(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    record = json.loads(reports["proved"].model_dump_json())
    (tmp_path / "r.json").write_text(json.dumps({**record, "later": 1}))
    assert read_report(tmp_path / "r.json") == reports["proved"]
    (tmp_path / "r.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(InputError, match="format 2"):
        read_report(tmp_path / "r.json")


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.mark.parametrize("name", ["proved", "skip", "failed", "not proved"])
def test_the_page_needs_nothing_else_and_says_what_was_found(
    name: str, reports: dict[str, ParityReport], tmp_path: Path
) -> None:
    report = reports[name]
    write_page(report, tmp_path / "p.html")
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "img", "iframe", "b"} & set(page.tags)
    assert {"proved": "Proved.", "failed": "Failed.", "not proved": "Not proved."}[report.verdict] in page.text
    for layer in report.layers:
        assert layer.path[:16] in page.text
        assert layer.path[-16:] in page.text
    for part in (
        report.file.sha256,
        report.device,
        *report.versions.values(),
        *(given.words for given in report.inputs),
    ):
        assert part in page.text
    if report.failure is not None:
        assert "first layer that diverges" in page.text
        assert f"{report.failure.exact:.9g}" in page.text
    assert page.tags.count("svg") >= (2 if report.layers else 0)


def shown(report: ParityReport, path: Path) -> Page:
    write_page(report, path)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_shows_the_bound_for_every_input(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    plain = shown(reports["proved"], tmp_path / "p.html")
    assert "A bound for every input" not in plain.text
    page = shown(with_bound(reports["proved"]), tmp_path / "b.html")
    assert page.tags.count("svg") == plain.tags.count("svg") + 2
    for words in (
        "For every input with <i>pixels</i> 0 to 16, no correct float32 evaluation",
        "largest bound 0.00129",
        "largest error seen 8.06e-05; the bound is 16 times as large",
        "moved the file's network from the module's by at most 2e-07",
        "split into 1,357",
        "label cannot change where the exact margin exceeds 0.0131: 1,780 of 1,797 rows of the data are above it",
        "intervals of every value 0.0166 0.0125 splitting along two features 0.00129 9.25",
        "rounding to nearest",
    ):
        assert words in page.text


def test_the_page_draws_the_largest_bounds_and_says_what_the_others_are(
    reports: dict[str, ParityReport], tmp_path: Path
) -> None:
    text = shown(with_bound(reports["proved"]), tmp_path / "b.html").text
    rows = {index: f" {index}: ± {(100 + index) / 1e5:.3g}, seen " for index in range(30)}
    assert [index for index, row in rows.items() if row in text] == list(range(6, 30))
    assert "29: ± 0.00129, seen 8.06e-05, in -27.2 to 30.5" in text
    assert "Those of the other 6 are at most 0.00105, and errors of at most 6.56e-05 were seen." in text
    layers = [index for index in range(30) if f"{index}.$layer$, linear: {index / 4.35:.1f} %, " in text]
    assert layers == list(range(6, 30))  # 24 of the 29 that add to it
    assert "The 24 largest are drawn; 5 others add 3.4 %." in text


def bars(text: str, colour: str) -> list[float]:
    """The widths of the bars of a colour in an SVG: rectangles that go from left to right."""
    paths = re.findall(rf'<path d="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]*" clip-path[^>]* style="fill: {colour}', text)
    return [float(right) - float(left) for left, right in paths]


def test_the_bars_are_on_a_log_scale(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    output = OutputBound(bound=[1e-3, 1e-2, 0.0], seen=[1e-5, 1e-4, 0.0], interval=[(0, 10), (-50, 50), (2, 2)])
    write_page(with_bound(reports["proved"], outputs={"y": output}, layers=[]), tmp_path / "b.html")
    text = (tmp_path / "b.html").read_text(encoding="utf-8")
    svg = text[text.index("<svg", text.index("y, value by value")) :]
    svg = svg[: svg.index("</svg>")]
    sizes = {name: bars(svg, rf"var\(--{name}\)") for name in ("good", "ink", "line")}
    decade = sizes["good"][1] - sizes["good"][0]
    assert decade > 5
    for name, powers in (("good", (-5, -4)), ("ink", (-3, -2)), ("line", (1, 2))):
        for size, power in zip(sizes[name], powers, strict=False):
            assert size == pytest.approx(sizes["good"][0] + (power + 5) * decade, abs=0.01)
        assert sizes[name][2] == 0  # exact, or always the same value


def test_the_page_shows_infinite_and_exact_values(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    infinite = OutputBound(bound=[np.inf, 0.5], seen=[0.0, 0.0], interval=[(-np.inf, np.inf), (-np.inf, 3.5)])
    exact = OutputBound(bound=[0.0], seen=[0.0], interval=[(0, 0)])
    extreme = OutputBound(bound=[1.7e308], seen=[5e-324], interval=[(-1.7e308, 1.7e308)])
    outputs = {"wide": infinite, "exact": exact, "extreme": extreme, **{f"y{index}": exact for index in range(4)}}
    report = with_bound(reports["proved"], outputs=outputs, layers=[], labels=None)
    page = shown(report, tmp_path / "b.html")
    assert "0: ± inf, seen 0, in -inf to inf" in page.text
    assert "1: ± 0.5, seen 0, in -inf to 3.5" in page.text
    assert "0: ± 0, seen 0, in 0 to 0" in page.text
    assert "0: ± 1.7e+308, seen 4.94e-324, in -1.7e+308 to 1.7e+308" in page.text
    assert "The first 6 of 7 outputs are drawn" in page.text
    assert "Where it comes from" not in page.text
    assert "times as large" not in page.text
    assert "exact margin" not in page.text


def test_the_page_says_why_there_is_no_bound(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    report = with_bound(reports["proved"], outputs={}, why="'3/log': the logarithm of 0", layers=[], labels=None)
    page = shown(report, tmp_path / "b.html")
    assert "There is no bound for inputs with <i>pixels</i> 0 to 16: '3/log': the logarithm of 0" in page.text
    assert "largest bound 0" not in page.text
    assert "intervals of every value" in page.text


def test_checks_that_need_no_explanation_are_shown_too(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    names = ["data", "blocks", "outputs", "running", "probabilistic bounds"]
    checks = [CheckRecord(name=name, outcome="warning", words=f"words of {name}") for name in names]
    write_page(reports["proved"].model_copy(update={"checks": checks}), tmp_path / "p.html")
    page = Page((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert all(f"words of {name}" in page.text for name in names)


def test_the_same_report_gives_the_same_page(reports: dict[str, ParityReport], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(reports["proved"], tmp_path / f"{name}.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["skip", "failed", "bound"])
def test_the_page_in_a_browser(name: str, dark: bool, reports: dict[str, ParityReport], tmp_path: Path) -> None:
    small = OutputBound(bound=[1.23e-5] * 200, seen=[1.23e-6] * 200, interval=[(-1.23e-5, 1.23e-5)] * 200)
    bounded = with_bound(reports["proved"], outputs={"an_output_with_quite_a_long_name_of_many_letters": small})
    write_page(bounded if name == "bound" else reports[name], tmp_path / "p.html")
    for width in (360, 1200):
        seen = look(tmp_path / "p.html", width, dark=dark)
        assert seen["width"] == width
        assert seen["texts"] > 50
        assert seen["errors"] == seen["cut"] == seen["faint"] == []
        assert seen["scroll"] <= width


def test_a_browser_would_see_what_is_wrong(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian's package chromium)")
    words = "faint and much longer than any phone is wide, whatever its letters are"
    wrong = f"<p style='color:#aaa;white-space:nowrap'>{words}</p>"
    (tmp_path / "p.html").write_text(f"<html><head></head><body>{wrong}<script>nothing()</script></body></html>")
    seen = look(tmp_path / "p.html", 360)
    assert seen["cut"]
    assert seen["faint"]
    assert seen["errors"]


def test_without_the_extra_the_record_is_written_and_the_page_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib.util
    import sys

    found = importlib.util.find_spec
    monkeypatch.setattr("export.proof.page.find_spec", lambda name: None if name == "matplotlib" else found(name))
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    spec, module = network([{"linear": 3}])
    publish(module, tmp_path / "m.onnx", spec=spec, device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.parity.json"]
    with pytest.raises(MissingPackageError, match=r'pip install "mlpx\[report\]"'):
        publish(module, tmp_path / "n.onnx", spec=spec, device="cpu", page=True)
    assert not (tmp_path / "n.onnx").exists()
