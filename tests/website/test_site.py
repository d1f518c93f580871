"""The documentation site is whole: it builds strictly, and what is wrong with it is found."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT
from website import checking, gallery, reference, sources
from website.building import render
from website.folders import PUBLISHED, REPOSITORY, SiteError

PAGE = (
    '<html><head><link rel="canonical" href="https://x/{version}"></head><body><h1 id="top">{body}</h1></body></html>'
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, but for the gallery's own pages, in place of which it shows pictures."""
    pytest.importorskip("zensical", reason='the site needs pip install "mlpx[docs]"')
    work = tmp_path_factory.mktemp("website")
    sources.gather(ROOT, work / "pages")
    reference.write(work / "pages")
    render(work)
    return work


def test_the_site_has_no_faults(work: Path) -> None:
    assert checking.faults(work) == []


def test_the_readme_links_into_the_site() -> None:
    linked = set(re.findall(re.escape(PUBLISHED) + r"([\w-]+)/", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"install", "first-model", "gallery", "reference", "export", "parity", "serving"} <= linked


@pytest.mark.usefixtures("work")
def test_a_broken_link_and_a_name_that_does_not_exist_end_the_build(tmp_path: Path) -> None:
    for text, words in {
        "[there](nowhere.md)": "nowhere.md",
        "[there](running.md#no-such-heading)": "no-such-heading",
        "::: mlpx.no_such_name": "no_such_name",
    }.items():
        pages = tmp_path / "pages"
        pages.mkdir(exist_ok=True)
        (pages / "running.md").write_text("# Running\n", encoding="utf-8")
        (pages / "index.md").write_text(f"# Home\n\n{text}\n", encoding="utf-8")
        with pytest.raises(SiteError, match=words):
            render(tmp_path)


def test_links_are_moved_with_the_pages(tmp_path: Path) -> None:
    root, pages = tmp_path / "root", tmp_path / "pages"
    for name in sources.BESIDE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("[parity](docs/parity.md#bounds)" if name == "CONTRIBUTING.md" else "")
    (root / "docs/images").mkdir(parents=True)
    (root / "docs/images/a.svg").write_text("")
    (root / "docs/parity.md").write_text(
        "`a long piece of code, of a line or so` and `--short` "
        "[rules](../CONTRIBUTING.md) [code](../models/digits/README.md) [make](../LICENSE) ![a](images/a.svg)\n"
        "```text\n[left](alone.md)\n```\n"
    )
    (root / "LICENSE").write_text("")
    assert "parity.md" in sources.gather(root, pages)
    assert (pages / "parity.md").read_text() == (
        "`a long piece of code, of a line or so` and `--short`{.short} "
        f"[rules](project/contributing.md) [code](models/digits.md) [make]({REPOSITORY}/LICENSE) ![a](images/a.svg)\n"
        "```text\n[left](alone.md)\n```\n"
    )
    assert (pages / "project/contributing.md").read_text() == "[parity](../parity.md#bounds)"
    (root / "docs/parity.md").write_text("[lost](lost.md)")
    with pytest.raises(SiteError, match=r"docs/parity.md: the link to lost.md leads nowhere"):
        sources.gather(root, pages)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda names: {**names, "mlpx.new": ["mlpx.new"]}, "mlpx.new is public and on no page"),
        (lambda names: {n: v for n, v in names.items() if n != "mlpx.bound"}, "mlpx.bound is on a page and not public"),
    ],
)
def test_a_public_name_is_on_one_page(
    change: Callable[[dict[str, list[str]]], dict[str, list[str]]], words: str
) -> None:
    with pytest.raises(SiteError, match=words):
        reference.complain_of_names(change(reference.public()), reference.TOPICS)
    with pytest.raises(SiteError, match=r"mlpx\.MLPSpec is on two pages"):
        reference.complain_of_names(reference.public(), (*reference.TOPICS, reference.TOPICS[0]))


def made(work: Path, body: str, other: str = "") -> Path:
    """A site of two pages."""
    (work / "site/other").mkdir(parents=True)
    (work / "site/index.html").write_text(PAGE.format(version="v/", body=body), encoding="utf-8")
    (work / "site/other/index.html").write_text(PAGE.format(version="v/other/", body=other), encoding="utf-8")
    (work / "pages/images").mkdir(parents=True)
    (work / "pages/index.md").write_text("")
    (work / "zensical.toml").write_text('[project]\nnav = [{ "Home" = "index.md" }]\n')
    return work


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('<a href="nowhere/">x</a>', "index.html: nowhere/ leads nowhere"),
        ('<a href="other/#bottom">x</a>', "index.html: other/#bottom: the page has no such anchor"),
        ('<img src="https://cdn.example/x.png">', "index.html loads https://cdn.example/x.png, from another host"),
        ("<p>```text</p>", "index.html: '```' was not rendered"),
        ("<p>see [this](that.md)</p>", "index.html: '](that.md)' was not rendered"),
    ],
)
def test_what_is_wrong_with_a_page_is_said(body: str, words: str, tmp_path: Path) -> None:
    assert words in checking.faults(made(tmp_path, body))


def test_what_is_right_is_not_a_fault(tmp_path: Path) -> None:
    body = '<a href="other/#top">a</a><a href="/v/other/">b</a><a href="https://x/">c</a><code>[a](b) ```</code>'
    found = checking.faults(made(tmp_path, body, '<a href="../#top">d</a>'))
    assert not [fault for fault in found if fault.startswith(("index.html", "other/"))]


def test_pages_outside_the_navigation_and_unused_pictures_are_said(tmp_path: Path) -> None:
    work = made(tmp_path, "")
    (work / "pages/images/unused.png").write_bytes(b"")
    (work / "pages/lost.md").write_text("")
    (work / "pages/index.md").unlink()
    found = checking.faults(work)
    assert "docs/images/unused.png: no page shows it. What to do: remove it, or show it" in found
    assert "lost.md is not in the navigation. What to do: add it to nav in website/zensical.toml" in found
    assert "index.md is in the navigation of website/zensical.toml, and there is no such page" in found


def test_a_name_without_docstring_example_or_place_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "documented", lambda name: {"mlpx.bound": ""}.get(name, "Says what it does."))
    found = list(checking.names_that_are_not_documented({"mlpx.bound"}))
    assert "mlpx.bound has no docstring" in found
    assert "mlpx.export has no example in its docstring" in found
    assert "mlpx.export is public, and the reference does not show it" in found
    assert "mlpx.bound is public, and the reference does not show it" not in found


def test_the_gallery_asks_only_for_pages_that_are_made() -> None:
    asked = re.findall(r"<!-- live: (\w+) -->", (ROOT / "docs/gallery.md").read_text(encoding="utf-8"))
    assert asked == list(gallery.MAKERS)


def test_every_extra_is_on_the_page_that_installs() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"]) - {"dev", "docs"}
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/install.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == extras


def test_versions_lie_beside_each_other_on_a_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing = pytest.importorskip("website.publishing", reason="versions need mike")
    monkeypatch.chdir(tmp_path)
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@x")
    for words in (("init", "--quiet"), ("commit", "--quiet", "--allow-empty", "-m", "x")):
        subprocess.run([*git, *words], check=True)
    for name, value in {"NAME": "x", "EMAIL": "x@x"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    for name, value in {"WORK": tmp_path, "PAGES": tmp_path / "pages", "SITE": tmp_path / "site"}.items():
        monkeypatch.setattr(publishing, name, value)
    with pytest.raises(SiteError, match="What to do: make docs"):
        publishing.publish("0.1", ["latest"])
    (tmp_path / "pages/live").mkdir(parents=True)
    (tmp_path / "pages/live/browser.html").write_text("")
    (tmp_path / "pages/index.md").write_text("# Home\n")
    publishing.publish("0.1", ["latest"])
    publishing.publish("dev", [])

    def shown(path: str) -> str:
        return subprocess.run(["git", "show", f"gh-pages:{path}"], capture_output=True, text=True, check=True).stdout

    assert [(each["version"], each["aliases"]) for each in json.loads(shown("versions.json"))] == [
        ("dev", []),
        ("0.1", ["latest"]),
    ]
    assert 'url=latest/"' in shown("index.html")
    assert f'href="{PUBLISHED.replace("latest", "dev")}"' in shown("dev/index.html")
    assert "<title>" in shown("0.1/index.html")
