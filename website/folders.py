"""Where the site is built, and where its repository is."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "out" / "website"
PAGES = WORK / "pages"
"""The Markdown that Zensical reads."""
SITE = WORK / "site"
"""What it writes."""
REPOSITORY = "https://github.com/mlpx/mlpx/blob/main"
PUBLISHED = "https://mlpx.github.io/mlpx/latest/"
"""Where the site of the latest release is."""


class SiteError(Exception):
    """The site cannot be built, or is not what it should be."""
