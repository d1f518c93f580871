"""What the names in a checkpoint say of a part: whether it is the actor's, the critic's, or another network's."""

from __future__ import annotations

import re

_WORDS = (
    ("spread", r"log_?std|logstd|log_?var|sigma|std"),
    ("critic", r"critic|value|values|vf|qf|q|v|cost"),
    ("target", r"target"),
    ("teacher", r"teacher"),
    ("student", r"student"),
    ("discriminator", r"disc|discriminator|amp"),
    ("actor", r"actor|policy|pi|mu|mean|action|actions"),
)
"""A role, and the words that say it. A network and a normaliser, or a head, belong together unless roles differ."""
_ROLES = tuple((role, re.compile(rf"(?:{words})\d*", re.IGNORECASE)) for role, words in _WORDS)


def role_of(name: str) -> str:
    """The role in a dotted name, an empty text if no part of it says one. The last part that says one counts.

    A part that says two, such as ``actor_critic``, says nothing; but a spread of anything is a spread.
    """
    for part in reversed(name.split(".")):
        words = [word for word in re.split(r"[_\W]+", part) if word] + [part]
        roles = {role for role, pattern in _ROLES for word in words if pattern.fullmatch(word)}
        roles = {"spread"} if "spread" in roles and roles & {"actor", "critic"} and "mean" not in words else roles
        if len(roles) == 1:
            return roles.pop()
    return ""


def belong_together(role: str, other: str) -> bool:
    """Whether parts with these roles may be one network."""
    return not role or not other or role == other
