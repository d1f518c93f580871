"""The pages that people write: ``docs/``, notebooks and a few files beside, with links that hold in the site.

On GitHub a page of ``docs/`` links to ``../CONTRIBUTING.md``. Here that is a page too, elsewhere in the site; what is
no page, such as a file of code, is a link to the repository.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .folders import REPOSITORY, SiteError
from .notebooks import markdown

BESIDE = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changes.md",
    "SECURITY.md": "project/reporting.md",
    "models/digits/README.md": "models/digits.md",
    "models/breast_cancer/README.md": "models/breast_cancer.md",
    "models/diabetes/README.md": "models/diabetes.md",
    "models/flights/README.md": "models/flights.md",
}
"""Pages outside ``docs/``, and where they are in the site."""

_LINK = re.compile(r"(?<=\])\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_SHORT = 24
"""Characters of code that fit on a line of a phone."""
_FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


def gather(root: Path, pages: Path) -> list[str]:
    """Write every page, with its pictures, into ``pages``; the names of the pages.

    Raises SiteError: a link leads nowhere, or a page beside ``docs/`` is missing.
    """
    shutil.rmtree(pages, ignore_errors=True)
    names = [path.relative_to(root / "docs").as_posix() for path in _docs(root)]
    homes = {f"docs/{name}": name for name in names}
    homes |= BESIDE | {f"examples/{path.name}": f"examples/{path.stem}.md" for path in _notebooks(root)}
    for source, page in homes.items():
        if not (root / source).is_file():
            raise SiteError(f"{source} is missing. What to do: take its row out of BESIDE in website/sources.py")
        target = pages / page
        target.parent.mkdir(parents=True, exist_ok=True)
        file = root / source
        text = markdown(file) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8")
        moved = _outside_code(text, partial(_relinked, source, homes, root))
        target.write_text(_outside_code(moved, _kept_together), encoding="utf-8")
    if (root / "docs" / "images").is_dir():
        shutil.copytree(root / "docs" / "images", pages / "images")
    return sorted(homes.values())


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    """A page with ``change`` made to what is not in a fence of code."""
    parts: list[str] = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _docs(root: Path) -> list[Path]:
    return sorted((root / "docs").rglob("*.md"))


def _notebooks(root: Path) -> list[Path]:
    return sorted((root / "examples").glob("*.ipynb"))


def _relinked(source: str, homes: dict[str, str], root: Path, text: str) -> str:
    """A page's text with links from its place in the site."""

    def place(link: re.Match[str]) -> str:
        target, hash_sign, anchor = link[1].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in homes and path != source:  # a notebook's page links to the notebook itself
            here = posixpath.dirname(homes[source])
            return f"({posixpath.relpath(homes[path], here or '.')}{hash_sign}{anchor})"
        if path.startswith("docs/images/"):
            here = posixpath.dirname(homes[source])
            return f"({posixpath.relpath(path.removeprefix('docs/'), here or '.')})"
        if not (root / path).exists():
            raise SiteError(f"{source}: the link to {link[1]} leads nowhere")
        return f"({REPOSITORY}/{path}{hash_sign}{anchor})"

    return _LINK.sub(place, text)


def _kept_together(text: str) -> str:
    """A page's text with a class on short pieces of code, which the style keeps on one line."""
    return _CODE.sub(lambda code: code[0] + ("{.short}" if len(code[1]) <= _SHORT else ""), text)
