"""A page as a browser lays it out: what is cut off, and what is hard to read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]
LOOK = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")


def look(page: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """Script errors, texts beyond the page's ``width`` pixels, and texts whose contrast is below WCAG's AA (4.5)."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        watch = "<script>window.failed = []; window.onerror = m => window.failed.push(m);</script>"
        text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{watch}", 1)
        looking = f"<script>addEventListener('load', () => {{{LOOK}\n}})</script></body>"
        (home / "page.html").write_text(text.replace("</body>", looking), encoding="utf-8")
        # A headless window has at least 500 pixels; a frame in it may be as narrow as a phone.
        frame = (
            f"<body style=margin:0><iframe id=f src=page.html style='border:0;width:{width}px;height:3000px'></iframe>"
        )
        copy = "setInterval(() => document.title = f.contentDocument.body.textContent, 100)"
        (home / "frame.html").write_text(f"{frame}<script>{copy}</script>", encoding="utf-8")
        flags = [*_FLAGS, f"--user-data-dir={home / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
        flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = [CHROMIUM, *flags, (home / "frame.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r"LOOKED(.*?)END", unescape(done.stdout), re.DOTALL)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(found[1])
