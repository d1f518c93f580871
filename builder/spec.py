"""The spec of a model: its inputs, its chain of blocks, its output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError, ValidationError
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from .block import FLOAT32_MAX, Shape, ShapeMismatch, Strict, chain_output_shape, format_shape, products_of
from .blocks import BLOCKS, AnyBlock
from .errors import Problem, SpecError
from .features import FEATURE, FeatureSpec
from .ports import InputSpec, OutputSpec, Scores
from .problems import problems_of
from .values import is_dict

_ACTS = ("dropout", "identity", "flatten")
"""Blocks that leave the values as they are in evaluation mode."""


def _only_an_integer(value: Any) -> Any:
    return value if type(value) is int else str(value)  # Literal[1] would accept True and 1.0


class MLPSpec(Strict):
    """A dense network: format 1 of the spec. Raises SpecError with all problems.

    The same keys as in a file: ``MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmoid"])``.

    Examples:
        >>> from mlpx import MLPSpec
        >>> spec = MLPSpec(name="and", input={"features": 2}, blocks=[{"linear": 1}, "sigmoid"])
        >>> spec.input.row_shape, spec.output_shape
        ((2,), (1,))
    """

    format: Annotated[Literal[1], BeforeValidator(_only_an_integer)] = Field(
        1, description="The version of this format."
    )
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The model's name, and its file's.")
    period: Annotated[float, Field(gt=0, le=FLOAT32_MAX)] | None = Field(
        None, description="The seconds between two calls of a controller."
    )
    inputs: Annotated[list[InputSpec], Field(min_length=1)] = Field(
        description="The inputs, whose rows are joined in this order; one alone may be written as input."
    )
    blocks: Annotated[list[AnyBlock], Field(min_length=1)]
    output: OutputSpec = OutputSpec(name="output", labels=None, features=None)

    def __init__(self, /, **data: Any):
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise SpecError(problems_of(error, data, KEYS, _PARTS)) from None
        if problems := list(self._chain_problems()):
            only = len(self.inputs) == 1 and "inputs" not in data
            raise SpecError([_of_only_input(problem) for problem in problems] if only else problems)

    @model_validator(mode="wrap")
    @classmethod
    def _one_input(cls, value: Any, handler: ModelWrapValidatorHandler[MLPSpec]) -> MLPSpec:
        if is_dict(value) and "input" in value:
            if "inputs" in value:
                raise PydanticCustomError("inputs", "takes either input or inputs")
            value = {key: part for key, part in value.items() if key != "input"} | {"inputs": [value["input"]]}
        return handler(value)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        record = handler(self)
        only = len(self.inputs) == 1
        return {
            "input" if key == "inputs" and only else key: part[0] if key == "inputs" and only else part
            for key, part in record.items()
        }

    @property
    def input(self) -> InputSpec:
        """The first input: the only one of most specs."""
        return self.inputs[0]

    @property
    def is_plain(self) -> bool:
        """Whether the network is one chain of blocks from one input."""
        return len(self.inputs) == 1 and self.input.is_plain

    @property
    def joined_shape(self) -> Shape:
        """The shape of a row that the blocks get: the only input's, or all inputs joined. Raises ShapeMismatch."""
        return self.input.row_shape if self.is_plain else (sum(each.joined_width() for each in self.inputs),)

    @property
    def output_shape(self) -> Shape:
        """The shape of one row of the output, without the batch dimension."""
        return chain_output_shape(self.blocks, self.joined_shape, "the input")

    @property
    def weights(self) -> int:
        """The weights of all matrices and embeddings."""
        return sum(each.weights() for each in self.inputs) + products_of(self.blocks, self.joined_shape)

    @property
    def scores(self) -> Scores:
        """What the outputs mean, from the last block that has an effect in evaluation mode."""
        last = next((b.kind for b in reversed(self.blocks) if b.kind not in ("dropout", "identity")), "")
        return "probabilities" if last in ("softmax", "sigmoid") else "logits" if last == "linear" else "values"

    def takes_missing(self, port: InputSpec) -> bool:
        """Whether an ``impute`` is the first block that acts on an input, so that NaN stands for a missing value."""
        blocks = (*(port.blocks or ()), *self.blocks)
        first = next((block.kind for block in blocks if block.kind not in _ACTS), "")
        return first == "impute" and not port.is_categories

    def _chain_problems(self) -> Iterator[Problem]:
        name, labels, features = self.output.name, self.output.labels, self.output.features
        yield from self._name_problems()
        if labels and (name == "label" or name.startswith("probability_")):
            message = f"'{name}' is a column that predict writes for the labels; choose another name"
            yield Problem(("output", "name"), message)
        for index, port in enumerate(() if self.is_plain else self.inputs):
            try:
                port.joined_width()
            except ShapeMismatch as mismatch:
                path = ("blocks", *mismatch.path) if mismatch.path else ()
                message = mismatch.message if mismatch.path else f"'{port.name}' {mismatch.message}"
                yield Problem(("inputs", index, *path), message)
                return
        source = f"the input '{self.input.name}'" if self.is_plain else "joining the inputs"
        try:
            shape = chain_output_shape(self.blocks, self.joined_shape, source)
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

    def _name_problems(self) -> Iterator[Problem]:
        """Names that two inputs, an input and the output, or two features of the inputs share."""
        names = [port.name for port in self.inputs]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Problem(("inputs", index, "name"), f"'{name}' is also the name of another input")
        if self.output.name in names:
            yield Problem(("output", "name"), f"'{self.output.name}' is also the input's name")
        columns = Counter(name for port in self.inputs for name in port.feature_names or ())
        if shared := [name for name, count in columns.items() if count > 1]:
            yield Problem(("inputs",), f"'{shared[0]}' is a feature of two inputs")


def _of_only_input(problem: Problem) -> Problem:
    """The problem at its place in a document with ``input``."""
    path = ("input", *problem.path[2:]) if problem.path[:2] == ("inputs", 0) else problem.path
    return Problem(path, problem.message)


KEYS = ("format", "name", "period", "input", "inputs", "blocks", "output")
"""The keys of a spec's document."""
_PARTS: dict[str | int, type[Strict]] = {"inputs": InputSpec, "output": OutputSpec, FEATURE: FeatureSpec, **BLOCKS}
"""The parts of a spec, by their names in pydantic's error paths."""
