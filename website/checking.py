"""Reads the built site: links, anchors, pictures, what pages load, and the docstrings behind the reference."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.values import is_dict, is_list

from . import reference
from .folders import PUBLISHED, ROOT

_LOADED = {
    "img": "src",
    "script": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "link": "href",
}
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}
"""What a ``link`` is to a page that only names another."""
_FOREIGN = re.compile(r"(?:url\(\s*|@import\s+)['\"]?(https?:[^)'\"]+)")
_UNRENDERED = re.compile(r"```|\{\.short\}|\]\([^)]*\)|^\s*\|[ :|-]+\|\s*$", re.MULTILINE)
"""Markdown that GitHub renders and this site did not."""


@dataclass
class Page(HTMLParser):
    """What a page has and where it leads."""

    path: Path
    ids: set[str] = field(default_factory=set[str])
    links: list[str] = field(default_factory=list[str])
    loaded: list[str] = field(default_factory=list[str])
    text: list[str] = field(default_factory=list[str])
    canonical: str = ""

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self._verbatim = 0
        self.feed(self.path.read_text(encoding="utf-8"))

    __hash__ = object.__hash__

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links and what is loaded."""
        values = {name: value or "" for name, value in attrs}
        self._verbatim += tag in ("pre", "code", "script", "style")
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif values.get("rel") == "canonical":
            self.canonical = values.get("href", "")
        elif (name := _LOADED.get(tag, "")) in values and values.get("rel") not in _NOT_LOADED:
            self.loaded.append(values[name])

    def handle_endtag(self, tag: str) -> None:
        """Leave code."""
        self._verbatim -= tag in ("pre", "code", "script", "style")

    def handle_data(self, data: str) -> None:
        """Keep the text outside code."""
        if not self._verbatim:
            self.text.append(data)


def faults(work: Path) -> list[str]:
    """Everything that is wrong with the site that was built in a folder, in words."""
    site = (work / "site").resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    own = {path: page for path, page in pages.items() if "live" not in path.relative_to(site).parts}
    checks: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: links_that_lead_nowhere(site, own, pages),
        lambda: loads_from_elsewhere(site, pages),
        lambda: pictures_that_no_page_shows(work),
        lambda: markdown_that_was_not_rendered(site, own),
        lambda: pages_outside_the_navigation(work),
        lambda: links_of_the_readme(site, pages, (ROOT / "README.md").read_text(encoding="utf-8")),
        lambda: names_that_are_not_documented({name for page in own.values() for name in page.ids}),
    )
    return [fault for check in checks for fault in check()]


def links_that_lead_nowhere(site: Path, own: dict[Path, Page], pages: dict[Path, Page]) -> Iterator[str]:
    """Links to files and anchors of the site that are not there."""
    front = urlsplit(own[site / "index.html"].canonical).path  # "/mlpx/", with the version where it has one
    for path, page in own.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            file = unquote(parts.path)
            base, file = (site, file.removeprefix(front)) if file.startswith("/") else (path.parent, file)
            target = (base / file).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{path.relative_to(site).as_posix()}: {link} leads nowhere"
            elif target in own and not has_anchor(pages[target], unquote(parts.fragment)):
                yield f"{path.relative_to(site).as_posix()}: {link}: the page has no such anchor"


def has_anchor(page: Page, anchor: str) -> bool:
    """Whether a page has an anchor; those of the theme's own parts begin with two underscores."""
    return not anchor or anchor.startswith("__") or anchor in page.ids


def loads_from_elsewhere(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Scripts, styles, pictures and frames from another host."""
    for path, page in pages.items():
        for link in page.loaded:
            if urlsplit(link).netloc:
                yield f"{path.relative_to(site).as_posix()} loads {link}, from another host"
    for path in sorted(site.rglob("*.css")):
        for link in re.findall(
            r"url\(\s*['\"]?(https?:[^)'\"]+)|@import\s+['\"](https?:[^'\"]+)", path.read_text("utf-8")
        ):
            yield f"{path.relative_to(site).as_posix()} loads {''.join(link)}, from another host"


def pictures_that_no_page_shows(work: Path) -> Iterator[str]:
    """Files of ``docs/images/`` that no page has."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    for path in sorted((work / "pages" / "images").glob("*")):
        if f"](images/{path.name})" not in text:
            yield f"docs/images/{path.name}: no page shows it. What to do: remove it, or show it"


def markdown_that_was_not_rendered(site: Path, own: dict[Path, Page]) -> Iterator[str]:
    """Fences, links and tables that are text in the site: their indentation is GitHub's alone."""
    for path, page in own.items():
        if found := _UNRENDERED.search("".join(page.text)):
            yield f"{path.relative_to(site).as_posix()}: {found[0].strip()!r} was not rendered"


def pages_outside_the_navigation(work: Path) -> Iterator[str]:
    """Pages that a reader cannot come to, and rows of the navigation without a page."""
    with (work / "zensical.toml").open("rb") as file:
        named = set(_pages_of(tomllib.load(file)["project"]["nav"]))
    there = {path.relative_to(work / "pages").as_posix() for path in (work / "pages").rglob("*.md")}
    for page in sorted(there - named):
        yield f"{page} is not in the navigation. What to do: add it to nav in website/zensical.toml"
    for page in sorted(named - there):
        yield f"{page} is in the navigation of website/zensical.toml, and there is no such page"


def links_of_the_readme(site: Path, pages: dict[Path, Page], text: str) -> Iterator[str]:
    """Links from the README into the site that lead nowhere."""
    for link, anchor in re.findall(re.escape(PUBLISHED) + r"([\w/.-]*)(?:#([\w-]+))?", text):
        target = site / link / "index.html"
        if target not in pages:
            yield f"README.md: {PUBLISHED}{link} is no page of the site"
        elif anchor and anchor not in pages[target].ids:
            yield f"README.md: {PUBLISHED}{link}#{anchor}: the page has no such anchor"


def _pages_of(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif is_dict(nav):
        for below in nav.values():
            yield from _pages_of(below)
    elif is_list(nav):
        for below in nav:
            yield from _pages_of(below)


def names_that_are_not_documented(ids: set[str]) -> Iterator[str]:
    """Public names that the reference does not show, or shows without a docstring or an example."""
    for name in reference.public():
        text = reference.documented(name)
        if name not in ids:
            yield f"{name} is public, and the reference does not show it"
        if not text:
            yield f"{name} has no docstring"
        elif ">>> " not in text and not reference.is_constant(name):
            yield f"{name} has no example in its docstring"
        for method in reference.methods(name):
            if not reference.documented(method):
                yield f"{method} has no docstring"
