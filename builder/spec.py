"""What a model is: its input, its chain of blocks, its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError, ValidationError

from .block import LARGEST, MOST, Shape, ShapeMismatch, Strict, fit, words
from .blocks import BLOCKS, AnyBlock
from .errors import Problem, SpecError, suggestion

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


class FeatureSpec(Strict):
    """One feature: ``{name: speed, unit: m/s, range: [0, 30]}``; the name alone stands for ``{name: ...}``."""

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


Label = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema({"type": ["string", "integer"]}),
]


def _only_an_integer(value: Any) -> Any:
    return value if type(value) is int else str(value)  # True and 1.0 equal 1


class InputSpec(Strict):
    """What goes in: (batch, features), or (batch, *shape) where a flatten comes first."""

    name: Name = Field("input", description="The input's name in the ONNX file.")
    features: Features | None = Field(
        None, description="The number of features, or a list: names, or mappings of name, unit and range."
    )
    shape: Annotated[list[Annotated[int, Field(gt=0, le=MOST)]], Field(min_length=1)] | None = Field(
        None, description="The shape of one row without the batch dimension, instead of features."
    )
    range: Range | None = Field(
        None, description="The lowest and the highest value of every feature that has no range of its own."
    )

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if (self.features is None) == (self.shape is None):
            raise PydanticCustomError("input", "takes features or shape, one of the two")
        distinct(self.feature_names or [])
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every feature by its name, where the spec lists them."""
        return listed(self.features)

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


class OutputSpec(Strict):
    """What comes out: (batch, features of the last block)."""

    name: Name = Field("output", description="The output's name in the ONNX file.")
    labels: Annotated[list[Label], Field(min_length=2)] | None = Field(
        None, description="The classes, one per output feature; two for a single output that is the second's score."
    )
    features: FeatureList | None = Field(
        None, description="What the outputs are where they are no classes: names, or mappings of name, unit and range."
    )

    @model_validator(mode="after")
    def _consistent(self) -> OutputSpec:
        if self.labels is not None and self.features is not None:
            raise PydanticCustomError("output", "takes labels (classes) or features (values), one of the two")
        distinct(self.labels or [])
        names = distinct([feature.name for feature in self.listed or ()])
        if "label" in names:
            message = "'label' is a column that predict writes for labels; choose another name for the feature"
            raise PydanticCustomError("output", message)
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every output by its name, where the spec lists them."""
        return listed(self.features)


class MLPSpec(Strict):
    """A dense network: format 1 of the spec. Raises SpecError with every problem found.

    The same keys as in a file: ``MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmoid"])``.
    """

    format: Annotated[Literal[1], BeforeValidator(_only_an_integer)] = Field(
        1, description="The version of this format."
    )
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The model's name, and its file's.")
    input: InputSpec
    blocks: Annotated[list[AnyBlock], Field(min_length=1)]
    output: OutputSpec = OutputSpec(name="output", labels=None, features=None)

    def __init__(self, /, **data: Any):
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise SpecError(_problems(error, data)) from None
        if problems := list(self._chain_problems()):
            raise SpecError(problems)

    @property
    def output_shape(self) -> Shape:
        """The shape of one row of the output, without the batch dimension."""
        return fit(self.blocks, self.input.row_shape, "the input")

    @property
    def scores(self) -> Literal["probabilities", "logits", "values"]:
        """What the outputs are, judged by the last block that does something in evaluation."""
        last = next((b.kind for b in reversed(self.blocks) if b.kind not in ("dropout", "identity")), "")
        return "probabilities" if last in ("softmax", "sigmoid") else "logits" if last == "linear" else "values"

    def _chain_problems(self) -> Iterator[Problem]:
        name, labels, features = self.output.name, self.output.labels, self.output.features
        if self.input.name == name:
            yield Problem(("output", "name"), f"'{name}' is the input's name too")
        if labels and (name == "label" or name.startswith("probability_")):
            message = f"'{name}' is a column that predict writes for the labels; choose another name"
            yield Problem(("output", "name"), message)
        try:
            shape = fit(self.blocks, self.input.row_shape, f"the input '{self.input.name}'")
        except ShapeMismatch as mismatch:
            yield Problem(("blocks", *mismatch.path), mismatch.message)
            return
        gives, width = f"but the last block gives {words(shape)}", prod(shape)
        if labels is not None and len(labels) != width and (len(labels), width) != (2, 1):
            yield Problem(("output", "labels"), f"{len(labels)} labels, {gives}")
        elif labels is not None and width == 1 and self.scores == "values":
            message = "a single output with two labels ends in sigmoid (a probability) or linear (a logit)"
            yield Problem(("output", "labels"), message)
        if features is not None and len(features) != width:
            yield Problem(("output", "features"), f"{len(features)} features are listed, {gives}")


_PARTS: dict[str | int, type[Strict]] = {"input": InputSpec, "output": OutputSpec, FEATURE: FeatureSpec, **BLOCKS}
"""The parts of a spec, by their names in pydantic's path to an error."""


def _problems(error: ValidationError, data: Any) -> list[Problem]:
    """pydantic's findings, one per place in the document, in words."""
    messages: dict[tuple[str | int, ...], dict[str, None]] = {}
    for item in error.errors(include_url=False):
        messages.setdefault(_path(item["loc"], data), {})[_message(item)] = None  # a set in the order of pydantic
    return [Problem(path, "; or ".join(each)) for path, each in messages.items()]


def _path(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The path in the document that an error's location stands for."""
    path: list[str | int] = []
    for part in loc:
        if part in BLOCKS and isinstance(data, dict) and len(data) == 1:
            part = next(iter(data))  # the block's name as it is written
        if part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int):
            data = cast(Any, data)[part]
            path.append(part)
    return tuple(path)


def _message(item: Any) -> str:
    *around, name = item["loc"]
    keys = list(next((_PARTS[part] for part in reversed(around) if part in _PARTS), MLPSpec).model_fields)
    if item["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(name), keys, 'keys')}"
    if item["type"] == "missing":
        return f"the key '{name}' is missing; the keys are: {', '.join(keys)}"
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] in ("unknown_block", "not_a_block") or isinstance(item["input"], dict):
        return message
    return f"{message}, not {item['input']!r}"
