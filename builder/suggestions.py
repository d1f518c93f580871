"""What a person who misspelt a name most likely meant."""

from collections.abc import Sequence
from difflib import get_close_matches


def suggestion(name: str, known: Sequence[str], what: str, shown: Sequence[str] | None = None) -> str:
    """``did you mean 'relu'? The blocks are: …``: the nearest of ``known``, if one is near, and all of ``shown``."""
    near = get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    meant = [k for k in known if near and k.lower() == near[0]]
    guess = f"did you mean '{meant[0]}'? " if meant else ""
    return f"{guess}The {what} are: {', '.join(shown if shown is not None else known)}"
