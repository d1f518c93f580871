"""The type of what comes from JSON."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any] | list[Any] | str | int | float | bool | None
"""A value whose own type has to be looked at; what it holds is ``Json`` again, and written Any."""
