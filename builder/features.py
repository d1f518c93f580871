"""What a spec says of single features: their names, units and ranges."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from .block import LARGEST, MOST

STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
FEATURE = "<feature>"
"""Where pydantic's path to an error enters a feature; no key in a document is called so."""


def _ordered(limits: list[float]) -> list[float]:
    if not -LARGEST <= limits[0] < limits[1] <= LARGEST:
        raise PydanticCustomError("range", "is [lowest, highest], lowest below highest, both within float32")
    return limits


def _trimmed(unit: str) -> str:
    if unit != unit.strip():
        raise PydanticCustomError("unit", "a unit has no space before or behind it")
    return unit


Name = Annotated[str, Field(min_length=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class FeatureSpec(BaseModel):
    """One feature: ``{name: speed, unit: m/s, range: [0, 30]}``; the name alone stands for ``{name: ...}``."""

    model_config = STRICT
    name: Name = Field(description="The feature's name: that of its column in a table.")
    unit: Annotated[Name, AfterValidator(_trimmed)] | None = Field(
        None, description="What its values are measured in, as in 'm/s'."
    )
    range: Range | None = Field(None, description="The lowest and the highest value that the feature takes.")


def _item(value: Any) -> str:
    return FEATURE if isinstance(value, dict | FeatureSpec) else "<name>"


def _form(value: Any) -> str | None:
    return "<number>" if type(value) is int else "<list>" if isinstance(value, list) else None


FeatureList = Annotated[
    list[Annotated[Annotated[Name, Tag("<name>")] | Annotated[FeatureSpec, Tag(FEATURE)], Discriminator(_item)]],
    Field(min_length=1, max_length=MOST),
]
"""Names, or mappings of a name with a unit and a range."""

Features = Annotated[
    Annotated[Annotated[int, Field(gt=0, le=MOST)], Tag("<number>")] | Annotated[FeatureList, Tag("<list>")],
    Discriminator(
        _form, custom_error_type="features", custom_error_message="features are a number, or a list of their names"
    ),
]
"""The number of features, or a list of them."""


def listed(features: int | list[str | FeatureSpec] | None) -> list[FeatureSpec] | None:
    """One entry per feature, where they are listed."""
    if not isinstance(features, list):
        return None
    return [FeatureSpec(name=given, unit=None, range=None) if isinstance(given, str) else given for given in features]


def distinct(values: list[str]) -> list[str]:
    """The values, each of which stands there once. Raises PydanticCustomError."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise PydanticCustomError("distinct", "'{name}' stands there more than once", {"name": sorted(twice)[0]})
    return values
