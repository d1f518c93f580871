"""Pages of one file that work without a network: a template, its parts, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="@POLICY@">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>@NAME@</title>
<link rel="icon" href="data:,">
<style>@STYLE@</style>
</head>
"""


def policy(scripts: Sequence[str], style: str, *sources: str) -> str:
    """A Content-Security-Policy by which a page runs its own scripts and style, and connects to nothing.

    ``scripts`` and ``style`` are identified by their hashes; ``sources`` are further ones for scripts.
    """
    allowed = " ".join([*map(_hash, scripts), *sources])
    rules = f"script-src {allowed}; style-src {_hash(style)}; img-src data:"
    return f"default-src 'none'; {rules}; base-uri 'none'; form-action 'none'"


def offline_page(body: str, parts: Mapping[str, str]) -> str:
    """A page with that body; each ``@NAME@`` is replaced by that part, and the head has POLICY, NAME and STYLE."""
    return re.sub("@([A-Z]+)@", lambda match: parts[match[1]], _HEAD + body)


def embedded(record: object) -> str:
    """A record as JSON that may stand in a script element."""
    return json.dumps(record, ensure_ascii=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
