"""``python -m website.publishing VERSION [ALIAS ...]``: the built site, under its version, on the branch ``gh-pages``.

mike keeps the versions: one folder each, ``versions.json`` for the selector, and aliases such as ``latest``. It is used
as a library, since its command builds with MkDocs. The commit is local; ``git push origin gh-pages`` publishes it.
"""

from __future__ import annotations

import argparse
import sys

from mike import commands

from .building import render
from .folders import PAGES, SITE, WORK, SiteError

BRANCH = "gh-pages"


def publish(version: str, aliases: list[str], *, branch: str = BRANCH) -> None:
    """Render the gathered pages for a version, and commit them to the branch with its aliases.

    The alias ``latest`` becomes what the site's root leads to; before there is one, this version does.
    Raises SiteError: ``make docs`` has not been run, or left a page of the gallery out.
    """
    if not (PAGES / "live" / "browser.html").is_file():
        raise SiteError(f"{PAGES} has no gallery with every page. What to do: make docs, with npm installed")
    render(WORK, version=version)
    site = {"site_dir": str(SITE), "use_directory_urls": True}
    words = f"Documentation of {version}"
    with commands.deploy(site, version, aliases=aliases, update_aliases=True, branch=branch, message=words):
        pass
    known = commands.list_versions(branch)
    if default := next((name for name in ("latest", version) if known.find(name)), None):
        commands.set_default(default, branch=branch, message=f"{default} is the default", allow_empty=True)


def main() -> int:
    """Publish what the arguments say; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m website.publishing", description=__doc__)
    parser.add_argument("version", help="such as 0.2, or dev")
    parser.add_argument("aliases", nargs="*", help="such as latest")
    given = parser.parse_args()
    try:
        publish(given.version, given.aliases)
    except SiteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"committed {given.version} to {BRANCH}. What to do: git push origin {BRANCH}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
