"""The bounds of a file over a box of inputs, as they stand in its certificate."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, computed_field

MEANING = (
    "For every row in the box, whatever a correct float32 evaluation of the file gives (rounding to nearest, sums and "
    "matrix products in any order, with or without fused multiply-add, activations within the stated constants) is "
    "within the bound of the file's network in real arithmetic, with its float32 constants. Two such evaluations "
    "differ by at most twice as much.",
    "It says nothing of rows outside the box, and nothing of whether the network is good.",
)
"""What a bound means, and what it does not."""


class _Record(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, ser_json_inf_nan="strings", allow_inf_nan=True, extra="ignore"
    )


class OutputBound(_Record):
    """One output of the file: a number for each of its values, in C order.

    ``bound``: no correct float32 evaluation is further from the exact value, anywhere in the box. ``seen``: the largest
    error of ONNX Runtime and PyTorch in a search for bad rows. ``interval``: what encloses the exact value over the
    box. ``folding``: how far folding layers moved the file's network from the module's; None if the module is not
    known, nothing is folded, or finding it takes longer than the budget.
    """

    bound: list[float]
    seen: list[float]
    interval: list[tuple[float, float]]
    folding: list[float] | None = None


class StepRecord(_Record):
    """A step of the computation: the largest bound of any output after it, and the seconds that it took."""

    name: str
    words: str
    bound: float
    seconds: float


class LayerShare(_Record):
    """How much of the largest bound comes from the roundings of one layer, over the whole box."""

    path: str
    op: str
    error: float


class LabelRecord(_Record):
    """For a classifier: no correct runtime can change the label of a row whose exact margin is above ``margin``.

    Of ``rows`` rows of data in the box, ``above`` have such a margin; None without data.
    """

    margin: float
    rows: int | None = None
    above: int | None = None


class BoundReport(_Record):
    """The bounds of one file over one box of inputs.

    Examples:
        >>> from mlpx import bound
        >>> report = bound("comfort.onnx", seconds=0.2, device="cpu")
        >>> report.box["air"]
        [(0.0, 40.0), (0.0, 100.0)]
        >>> len(report.outputs["comfort"].bound)
        2
    """

    file: str
    sha256: str
    box: dict[str, list[tuple[float, float]]]
    """For each input the lowest and the highest value of each feature; one pair if all have the same."""
    shapes: dict[str, list[int]] = {}
    """The shape of a row of each input and output."""
    outputs: dict[str, OutputBound]
    """Empty where there is no bound."""
    why: str | None = None
    """Why there is no bound: the layer, and what happens there; None where there is one."""
    steps: list[StepRecord] = []
    layers: list[LayerShare] = []
    """In the file's order; their errors add up to about the bound of the output with the largest, before splitting."""
    boxes: int = 1
    """Into how many parts the box was split."""
    labels: LabelRecord | None = None
    seconds: float = 0.0

    @computed_field
    @property
    def largest(self) -> float:
        """The largest bound of any value; infinite where there is none."""
        return max((value for output in self.outputs.values() for value in output.bound), default=float("inf"))

    @computed_field
    @property
    def ratio(self) -> float | None:
        """The largest bound over the largest error seen; None where there is no bound, or no error was seen."""
        seen = max((value for output in self.outputs.values() for value in output.seen), default=0.0)
        return self.largest / seen if seen > 0 else None
