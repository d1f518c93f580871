"""Features: what a column of an input or an output is called, and what its values are."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from .block import FLOAT32_MAX, MAX_FEATURES, Strict

FEATURE = "<feature>"
"""The tag of a feature in pydantic's error paths; it is not a key of a document."""
MAX_ONE_HOT = 1024
"""Words of a category without an embedding: each is a row and a column of a table in the file."""


def _ordered(limits: list[float]) -> list[float]:
    if not -FLOAT32_MAX <= limits[0] < limits[1] <= FLOAT32_MAX:
        raise PydanticCustomError("range", "expected [lowest, highest], lowest below highest, both within float32")
    return limits


def _trimmed(unit: str) -> str:
    if unit != unit.strip():
        raise PydanticCustomError("unit", "a unit has no space before or after it")
    return unit


def _one_line(text: str) -> str:
    if text != text.strip() or len(text.splitlines()) != 1:
        raise PydanticCustomError("description", "a description is one line, without space before or after it")
    return text


def _word(text: str) -> str:
    if text != text.strip() or len(text.splitlines()) != 1:
        raise PydanticCustomError("category", "a category is one line, without space before or after it")
    return text


Name = Annotated[str, Field(min_length=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
Label = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema({"type": ["string", "integer"]}),
]
"""Text, or a whole number that stands for its digits."""


class FeatureSpec(Strict):
    """One feature: ``{name: speed, unit: m/s, range: [0, 30]}``; the name alone stands for ``{name: ...}``.

    With ``categories`` its values are words, which the file takes as their positions in the list, counted from 0.
    """

    name: Name = Field(description="The feature's name: that of its column in a table.")
    unit: Annotated[Name, AfterValidator(_trimmed)] | None = Field(
        None, description="The unit of its values, as in 'm/s'."
    )
    range: Range | None = Field(None, description="The lowest and the highest value that the feature takes.")
    description: Annotated[Name, AfterValidator(_one_line)] | None = Field(
        None, description="What the feature is, in a line, as in 'relative to the default position 0.4'."
    )
    categories: (
        Annotated[
            list[Annotated[Label, Field(min_length=1), AfterValidator(_word)]],
            Field(min_length=1, max_length=MAX_FEATURES),
        ]
        | None
    ) = Field(None, description="The words that its values are, in the order of their codes: 0, 1 and so on.")
    unknown: Label | None = Field(
        None,
        description="What stands for any other word: 'error' (default), 'first', or one of the categories.",
    )
    embedding: Annotated[int, Field(gt=0, le=MAX_FEATURES)] | None = Field(
        None, description="The width of the embedding of its categories; without it they are one-hot."
    )

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSpec:
        if self.categories is None:
            if self.unknown is not None or self.embedding is not None:
                raise PydanticCustomError("categories", "unknown and embedding are for a feature with categories")
            return self
        if self.unit is not None or self.range is not None:
            raise PydanticCustomError("categories", "a feature with categories has neither unit nor range")
        refuse_duplicates(self.categories)
        if self.unknown in ("error", "first") and self.unknown in self.categories:
            message = "'{word}' is a category too, so that unknown: {word} has two meanings; rename the category"
            raise PydanticCustomError("unknown", message, {"word": self.unknown})
        if self.unknown not in (None, "error", "first", *self.categories):
            message = "unknown is 'error', 'first' or one of the categories, not '{word}'"
            raise PydanticCustomError("unknown", message, {"word": self.unknown})
        return self

    @property
    def unknown_code(self) -> int | None:
        """The code of a word that is not among the categories; None if that is an error."""
        if self.categories is None or self.unknown in (None, "error"):
            return None
        return 0 if self.unknown == "first" else self.categories.index(self.unknown)


def _feature_tag(value: Any) -> str:
    return FEATURE if isinstance(value, dict | FeatureSpec) else "<name>"


def _form(value: Any) -> str | None:
    return "<number>" if type(value) is int else "<list>" if isinstance(value, list) else None


FeatureList = Annotated[
    list[Annotated[Annotated[Name, Tag("<name>")] | Annotated[FeatureSpec, Tag(FEATURE)], Discriminator(_feature_tag)]],
    Field(min_length=1, max_length=MAX_FEATURES),
]
"""Names, or mappings of a name with a unit, a range, a description or categories."""

Features = Annotated[
    Annotated[Annotated[int, Field(gt=0, le=MAX_FEATURES)], Tag("<number>")] | Annotated[FeatureList, Tag("<list>")],
    Discriminator(
        _form,
        custom_error_type="features",
        custom_error_message="features are a number, or a list of their names",
    ),
]
"""The number of features, or a list of them."""


def feature_specs(features: int | list[str | FeatureSpec] | None) -> list[FeatureSpec] | None:
    """One entry per feature, where they are listed."""
    if not isinstance(features, list):
        return None
    return [FeatureSpec.model_validate({"name": item}) if isinstance(item, str) else item for item in features]


def refuse_duplicates(values: list[str]) -> None:
    """Raise PydanticCustomError for a value that is listed twice."""
    duplicates = [value for value, count in Counter(values).items() if count > 1]
    if duplicates:
        raise PydanticCustomError("distinct", "'{name}' appears more than once", {"name": min(duplicates)})


def refuse_categories(features: list[FeatureSpec] | None) -> None:
    """Raise PydanticCustomError for an output's feature that has categories."""
    named = next((feature.name for feature in features or () if feature.categories is not None), None)
    if named is not None:
        message = "'{name}' is an output, which is a number; the classes of an output are its labels"
        raise PydanticCustomError("categories", message, {"name": named})


def are_categories(features: list[FeatureSpec] | None) -> bool:
    """Whether the features are categories, not numbers. Raises PydanticCustomError where both stand in one input."""
    of_each = [feature.categories is not None for feature in features or ()]
    if any(of_each) and not all(of_each):
        number, category = (next(f.name for f in features or () if (f.categories is None) == is_) for is_ in (1, 0))
        message = "'{number}' is a number and '{category}' a category: each kind is an input of its own, under inputs"
        raise PydanticCustomError("categories", message, {"number": number, "category": category})
    return any(of_each)
