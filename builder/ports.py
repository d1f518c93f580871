"""The inputs and the output of a spec, and what may be said of those of a module that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError, ValidationError

from .block import MAX_FEATURES, Shape, ShapeMismatch, Strict, chain_output_shape, products_of
from .blocks import AnyBlock
from .errors import SpecError
from .features import (
    FEATURE,
    MAX_ONE_HOT,
    FeatureList,
    Features,
    FeatureSpec,
    Label,
    Name,
    Range,
    are_categories,
    feature_specs,
    refuse_categories,
    refuse_duplicates,
)
from .problems import problems_of
from .values import is_list

Labels = Annotated[list[Label], Field(min_length=2)]
Scores = Literal["probabilities", "logits", "values"]
"""What an output with labels holds."""


class InputSpec(Strict):
    """An input: (batch, features), or (batch, *shape) if the first block is a flatten.

    Examples:
        >>> from builder import InputSpec
        >>> InputSpec(name="obs", features=["speed", "angle"], range=[-1, 1]).row_shape
        (2,)
    """

    name: Name = Field("input", description="The input's name in the ONNX file.")
    features: Features | None = Field(
        None,
        description="The number of features, or a list: names, or mappings of name, unit, range and so on.",
    )
    shape: Annotated[list[Annotated[int, Field(gt=0, le=MAX_FEATURES)]], Field(min_length=1)] | None = Field(
        None, description="The shape of one row without the batch dimension, instead of features."
    )
    range: Range | None = Field(
        None, description="The lowest and the highest value of every feature that has no range of its own."
    )
    blocks: Annotated[list[AnyBlock], Field(min_length=1)] | None = Field(
        None, description="Blocks for this input alone, before all inputs are joined."
    )

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if (self.features is None) == (self.shape is None):
            raise PydanticCustomError("input", "takes either features or shape")
        refuse_duplicates(self.feature_names or [])
        if are_categories(self.listed):
            if self.range is not None or self.blocks is not None:
                raise PydanticCustomError("categories", "an input of categories has neither a range nor blocks")
            for feature in self.listed or ():
                if feature.embedding is None and len(feature.categories or ()) > MAX_ONE_HOT:
                    message = "'{name}' has more than {most} categories; give it an embedding"
                    context = {"name": feature.name, "most": f"{MAX_ONE_HOT:,}"}
                    raise PydanticCustomError("categories", message, context)
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every feature by its name, where the spec lists them."""
        return feature_specs(self.features)

    @property
    def feature_names(self) -> list[str] | None:
        """The names of the features, where the spec gives them."""
        return None if self.listed is None else [feature.name for feature in self.listed]

    @property
    def row_shape(self) -> Shape:
        """The shape of one row, without the batch dimension."""
        if self.shape is not None:
            return tuple(self.shape)
        return (len(self.features) if isinstance(self.features, list) else self.features or 0,)

    @property
    def is_categories(self) -> bool:
        """Whether its features are categories."""
        return are_categories(self.listed)

    @property
    def dtype(self) -> str:
        """float32 for numbers, int64 for categories."""
        return "int64" if self.is_categories else "float32"

    @property
    def is_plain(self) -> bool:
        """Whether its rows go into the blocks of the spec as they are."""
        return not self.is_categories and self.blocks is None

    def joined_width(self) -> int:
        """How many values of a row the blocks of the spec get of this input. Raises ShapeMismatch."""
        if self.is_categories:
            return sum(each.embedding or len(each.categories or ()) for each in self.listed or ())
        shape = chain_output_shape(self.blocks or [], self.row_shape, f"the input '{self.name}'")
        if len(shape) != 1:
            raise ShapeMismatch("gives no flat rows, which inputs are joined from (put a flatten in its blocks)")
        return prod(shape)

    def weights(self) -> int:
        """The weights of its embeddings and of the matrices in its blocks."""
        if self.is_categories:
            sizes = ((each.embedding or 0) * len(each.categories or ()) for each in self.listed or ())
            return sum(sizes)
        return products_of(self.blocks or [], self.row_shape)


def _consistent_output(labels: list[str] | None, features: list[FeatureSpec] | None) -> None:
    """Raise PydanticCustomError where an output's labels and features contradict each other."""
    if labels is not None and features is not None:
        raise PydanticCustomError("output", "takes either labels (classes) or features (values)")
    names = [feature.name for feature in features or ()]
    refuse_duplicates(labels or [])
    refuse_duplicates(names)


class OutputSpec(Strict):
    """The output: (batch, features of the last block).

    Examples:
        >>> from builder import OutputSpec
        >>> OutputSpec(name="logits", labels=["cat", "dog"]).labels
        ['cat', 'dog']
    """

    name: Name = Field("output", description="The output's name in the ONNX file.")
    labels: Labels | None = Field(
        None,
        description="The classes, one per output feature; two for a single output that scores the second.",
    )
    features: FeatureList | None = Field(
        None,
        description="The outputs if they are not classes: names, or mappings of name, unit, range and description.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> OutputSpec:
        _consistent_output(self.labels, self.listed)
        refuse_categories(self.listed)
        if "label" in [feature.name for feature in self.listed or ()]:
            message = "'label' is a column that predict writes for labels; choose another name for the feature"
            raise PydanticCustomError("output", message)
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every output by its name, where the spec lists them."""
        return feature_specs(self.features)


class PortSpec(Strict):
    """What is said of an input or an output of a module without a spec.

    Examples:
        >>> from builder import PortSpec
        >>> said = PortSpec(features=["speed", "angle"], range=[-1, 1])
        >>> said.features, said.range
        (['speed', 'angle'], [-1.0, 1.0])
    """

    features: FeatureList | None = Field(
        None, description="Names, or mappings of name, unit, range, description and categories."
    )
    range: Range | None = Field(None, description="Of every feature of an input that has no range of its own.")
    missing: bool = Field(
        False, description="Whether the module takes NaN for a value of this input that is not known."
    )
    labels: Labels | None = Field(None, description="The classes of an output.")
    scores: Scores | None = Field(
        None, description="What an output with labels holds; by default what its last operator gives."
    )

    @model_validator(mode="after")
    def _consistent(self) -> PortSpec:
        if self.model_dump(exclude_defaults=True) == {}:
            raise PydanticCustomError("port", "says nothing")
        _consistent_output(self.labels, self.listed)
        if self.scores is not None and self.labels is None:
            raise PydanticCustomError("port", "scores are those of labels, and there are none")
        if any(feature.embedding for feature in self.listed or ()):
            raise PydanticCustomError("port", "embedding is for a spec: the module has its own")
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every feature by its name, where they are listed."""
        return feature_specs(self.features)


def port_specs(given: Mapping[str, Any]) -> dict[str, PortSpec]:
    """What is said of inputs and outputs by their names: a list of features, or a mapping of the keys of PortSpec.

    Raises SpecError with all problems.
    """
    record = {name: {"features": value} if is_list(value) else value for name, value in given.items()}
    try:
        return TypeAdapter(dict[str, PortSpec]).validate_python(record)
    except ValidationError as error:
        parts: dict[str | int, type[Strict]] = {FEATURE: FeatureSpec}
        parts.update(dict.fromkeys(given, PortSpec))
        problems = problems_of(error, record, (), parts)
        listed = {name for name, value in given.items() if is_list(value)}
        problems = [
            replace(problem, path=(problem.path[0], *problem.path[2:]))
            if problem.path[:1] and problem.path[0] in listed
            else problem
            for problem in problems
        ]
        raise SpecError(problems, "features") from None
