"""Files made to look like a module that they do not compute. None may be proved.

By name; the docstring of each maker says what it tries.
"""

from __future__ import annotations

from .constants import CONSTANTS
from .hidden import HIDDEN
from .making import Maker
from .ranges import RANGES
from .shapes import SHAPES

ATTACKS: dict[str, Maker] = {**SHAPES, **CONSTANTS, **RANGES, **HIDDEN}
