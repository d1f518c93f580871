"""The spec of a model: its input, its chain of blocks, its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError, ValidationError

from .block import FLOAT32_MAX, MAX_FEATURES, Shape, ShapeMismatch, Strict, chain_output_shape, format_shape
from .blocks import BLOCKS, AnyBlock
from .errors import Problem, SpecError, suggestion
from .values import is_dict, is_list

FEATURE = "<feature>"
"""The tag of a feature in pydantic's error paths; it is not a key of a document."""


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


Name = Annotated[str, Field(min_length=1)]
Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


class FeatureSpec(Strict):
    """One feature: ``{name: speed, unit: m/s, range: [0, 30]}``; the name alone stands for ``{name: ...}``."""

    name: Name = Field(description="The feature's name: that of its column in a table.")
    unit: Annotated[Name, AfterValidator(_trimmed)] | None = Field(
        None, description="The unit of its values, as in 'm/s'."
    )
    range: Range | None = Field(None, description="The lowest and the highest value that the feature takes.")
    description: Annotated[Name, AfterValidator(_one_line)] | None = Field(
        None, description="What the feature is, in a line, as in 'relative to the default position 0.4'."
    )


def _feature_tag(value: Any) -> str:
    return FEATURE if isinstance(value, dict | FeatureSpec) else "<name>"


def _form(value: Any) -> str | None:
    return "<number>" if type(value) is int else "<list>" if isinstance(value, list) else None


FeatureList = Annotated[
    list[Annotated[Annotated[Name, Tag("<name>")] | Annotated[FeatureSpec, Tag(FEATURE)], Discriminator(_feature_tag)]],
    Field(min_length=1, max_length=MAX_FEATURES),
]
"""Names, or mappings of a name with a unit, a range and a description."""

Features = Annotated[
    Annotated[Annotated[int, Field(gt=0, le=MAX_FEATURES)], Tag("<number>")] | Annotated[FeatureList, Tag("<list>")],
    Discriminator(
        _form,
        custom_error_type="features",
        custom_error_message="features are a number, or a list of their names",
    ),
]
"""The number of features, or a list of them."""


def _feature_specs(features: int | list[str | FeatureSpec] | None) -> list[FeatureSpec] | None:
    """One entry per feature, where they are listed."""
    if not isinstance(features, list):
        return None
    return [FeatureSpec.model_validate({"name": item}) if isinstance(item, str) else item for item in features]


def _refuse_duplicates(values: list[str]) -> None:
    duplicates = [value for value, count in Counter(values).items() if count > 1]
    if duplicates:
        raise PydanticCustomError("distinct", "'{name}' appears more than once", {"name": min(duplicates)})


Label = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema({"type": ["string", "integer"]}),
]


def _only_an_integer(value: Any) -> Any:
    return value if type(value) is int else str(value)  # Literal[1] would accept True and 1.0


class InputSpec(Strict):
    """The input: (batch, features), or (batch, *shape) if the first block is a flatten."""

    name: Name = Field("input", description="The input's name in the ONNX file.")
    features: Features | None = Field(
        None, description="The number of features, or a list: names, or mappings of name, unit, range and description."
    )
    shape: Annotated[list[Annotated[int, Field(gt=0, le=MAX_FEATURES)]], Field(min_length=1)] | None = Field(
        None, description="The shape of one row without the batch dimension, instead of features."
    )
    range: Range | None = Field(
        None, description="The lowest and the highest value of every feature that has no range of its own."
    )

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if (self.features is None) == (self.shape is None):
            raise PydanticCustomError("input", "takes either features or shape")
        _refuse_duplicates(self.feature_names or [])
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every feature by its name, where the spec lists them."""
        return _feature_specs(self.features)

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
    """The output: (batch, features of the last block)."""

    name: Name = Field("output", description="The output's name in the ONNX file.")
    labels: Annotated[list[Label], Field(min_length=2)] | None = Field(
        None,
        description="The classes, one per output feature; two for a single output that scores the second.",
    )
    features: FeatureList | None = Field(
        None,
        description="The outputs if they are not classes: names, or mappings of name, unit, range and description.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> OutputSpec:
        if self.labels is not None and self.features is not None:
            raise PydanticCustomError("output", "takes either labels (classes) or features (values)")
        names = [feature.name for feature in self.listed or ()]
        _refuse_duplicates(self.labels or [])
        _refuse_duplicates(names)
        if "label" in names:
            message = "'label' is a column that predict writes for labels; choose another name for the feature"
            raise PydanticCustomError("output", message)
        return self

    @property
    def listed(self) -> list[FeatureSpec] | None:
        """Every output by its name, where the spec lists them."""
        return _feature_specs(self.features)


class MLPSpec(Strict):
    """A dense network: format 1 of the spec. Raises SpecError with all problems.

    The same keys as in a file: ``MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmoid"])``.
    """

    format: Annotated[Literal[1], BeforeValidator(_only_an_integer)] = Field(
        1, description="The version of this format."
    )
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The model's name, and its file's.")
    period: Annotated[float, Field(gt=0, le=FLOAT32_MAX)] | None = Field(
        None, description="The seconds between two calls of a controller."
    )
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
        return chain_output_shape(self.blocks, self.input.row_shape, "the input")

    @property
    def scores(self) -> Literal["probabilities", "logits", "values"]:
        """What the outputs mean, from the last block that has an effect in evaluation mode."""
        last = next((b.kind for b in reversed(self.blocks) if b.kind not in ("dropout", "identity")), "")
        return "probabilities" if last in ("softmax", "sigmoid") else "logits" if last == "linear" else "values"

    def _chain_problems(self) -> Iterator[Problem]:
        name, labels, features = self.output.name, self.output.labels, self.output.features
        if self.input.name == name:
            yield Problem(("output", "name"), f"'{name}' is also the input's name")
        if labels and (name == "label" or name.startswith("probability_")):
            message = f"'{name}' is a column that predict writes for the labels; choose another name"
            yield Problem(("output", "name"), message)
        try:
            shape = chain_output_shape(self.blocks, self.input.row_shape, f"the input '{self.input.name}'")
        except ShapeMismatch as mismatch:
            yield Problem(("blocks", *mismatch.path), mismatch.message)
            return
        gives, width = f"but the last block gives {format_shape(shape)}", prod(shape)
        if labels is not None and len(labels) != width and (len(labels), width) != (2, 1):
            yield Problem(("output", "labels"), f"{len(labels)} labels, {gives}")
        elif labels is not None and width == 1 and self.scores == "values":
            message = "with two labels a single output must come from sigmoid (a probability) or linear (a logit)"
            yield Problem(("output", "labels"), message)
        if features is not None and len(features) != width:
            yield Problem(("output", "features"), f"{len(features)} features are listed, {gives}")


_PARTS: dict[str | int, type[Strict]] = {"input": InputSpec, "output": OutputSpec, FEATURE: FeatureSpec, **BLOCKS}
"""The parts of a spec, by their names in pydantic's error paths."""


def _problems(error: ValidationError, data: Any) -> list[Problem]:
    """The errors of pydantic, as one problem per key of the document."""
    messages: dict[tuple[str | int, ...], dict[str, None]] = {}
    for item in error.errors(include_url=False):
        messages.setdefault(_path(item["loc"], data), {})[_message(item)] = None  # as a set that keeps its order
    return [Problem(path, "; or ".join(alternatives)) for path, alternatives in messages.items()]


def _path(loc: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """The path in the document for pydantic's location of an error."""
    path: list[str | int] = []
    for part in loc:
        if part in BLOCKS and is_dict(data) and len(data) == 1:
            part = next(iter(data))  # the block's name as in the document
        if part in data if is_dict(data) else is_list(data) and isinstance(part, int):
            data = cast(Any, data)[part]
            path.append(part)
    return tuple(path)


def _message(item: Any) -> str:
    *parents, name = item["loc"]
    keys = list(next((_PARTS[part] for part in reversed(parents) if part in _PARTS), MLPSpec).model_fields)
    if item["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(name), keys, 'keys')}"
    if item["type"] == "missing":
        return f"the key '{name}' is missing; the keys are: {', '.join(keys)}"
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] in ("unknown_block", "not_a_block") or isinstance(item["input"], dict):
        return message
    return f"{message}, not {item['input']!r}"
