"""``python -m website``: gathers, makes, renders and checks the site."""

from __future__ import annotations

import sys
import time

from . import checking, gallery, reference, sources
from .building import render
from .folders import PAGES, ROOT, WORK, SiteError


def main() -> int:
    """Build the site; the exit code."""
    began = time.monotonic()
    try:
        sources.gather(ROOT, PAGES)
        reference.write(PAGES)
        missing = gallery.make(PAGES)
        site = render(WORK)
        if faults := checking.faults(WORK):
            raise SiteError("\n".join([f"the site has {len(faults)} faults", *faults]))
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    for reason in missing:
        print(f"left out  {reason}")
    pages = len(list(PAGES.rglob("*.md")))
    print(f"site      {site}: {pages} pages, {len(reference.public())} public names, {time.monotonic() - began:.0f} s")
    print(f"try       {sys.executable} -m http.server --bind 127.0.0.1 --directory {site}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
