"""The gallery's pages, made by mlpx itself: a report, the lab and a model in the browser.

``docs/gallery.md`` shows a picture of each, below a comment: ``<!-- live: report -->``. In the site the page itself
stands there.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .folders import ROOT, SiteError

WEB = ROOT / ".servers" / "onnxruntime-web" / "node_modules" / "onnxruntime-web"
_LIVE = re.compile(r"<!-- live: (\w+) -->\n+!\[([^\]]*)\]\([^)]*\)")


def make(pages: Path) -> list[str]:
    """Make the pages into ``pages/live`` and show them in the gallery; what could not be made, with the reason.

    Raises SiteError: the gallery asks for a page that is not made here.
    """
    live = pages / "live"
    live.mkdir(parents=True, exist_ok=True)
    artifact = _built(live)
    reasons: dict[str, str] = {}
    for name, maker in MAKERS.items():
        if reason := maker(live, artifact):
            reasons[name] = reason

    def frame(found: re.Match[str]) -> str:
        name, words = found[1], html.escape(found[2])
        if name not in MAKERS:
            raise SiteError(f"docs/gallery.md: there is no live page '{name}'. The pages are: {', '.join(MAKERS)}")
        if name in reasons:
            return found[0].partition("\n")[2]
        return (
            f'<iframe class="live" src="live/{name}.html" title="{words}" loading="lazy"></iframe>\n\n'
            f"[Open it alone](live/{name}.html)"
        )

    page = pages / "gallery.md"
    page.write_text(_LIVE.sub(frame, page.read_text(encoding="utf-8")), encoding="utf-8")
    return [f"{name}: {reason}" for name, reason in reasons.items()]


def _built(live: Path) -> Path:
    """The digits of ``models/``, proved."""
    folder = live.parent.parent / "digits"
    digits = ROOT / "models" / "digits"
    _mlpx("build", digits / "spec.yaml", "--data", digits / "heldout.parquet", "-o", folder)
    return folder / "digits.onnx"


def _mlpx(*words: object) -> None:
    """Run a command, as a reader would."""
    done = subprocess.run([sys.executable, "-m", "mlpx", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SiteError(f"mlpx {words[0]} failed, and the gallery needs it:\n{done.stdout}{done.stderr}")


def _report(live: Path, model: Path) -> None:
    (live / "report.html").write_bytes(model.with_suffix(".parity.html").read_bytes())


def _lab(live: Path, _: Path) -> None:
    _mlpx("lab", "-o", live / "lab.html")


def _browser(live: Path, model: Path) -> str | None:
    if not WEB.is_dir():
        return "onnxruntime-web is not installed. What to do: make servers, which needs npm"
    folder = model.parent / "browser"
    shutil.rmtree(folder, ignore_errors=True)
    _mlpx("package", model, "--for", "browser", "--onnxruntime-web", WEB, "-o", folder)
    (live / "browser.html").write_bytes((folder / "index.html").read_bytes())
    return None


MAKERS: dict[str, Callable[[Path, Path], str | None]] = {"report": _report, "lab": _lab, "browser": _browser}
