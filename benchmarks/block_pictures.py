"""The pictures of ``docs/blocks.md``, computed by PyTorch while this runs: ``docs/images/block_*.svg``.

Run it with ``python -m benchmarks.block_pictures``, in seconds, or with the names of some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks.pictures import BAD, GOOD, IMAGES, INK, SOFT, STYLE
from builder import MLPSpec, assemble

SMALL = STYLE | {
    "svg.fonttype": "none",
    "path.simplify_threshold": 0.5,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 10,
}
"""Texts stay texts, so that a picture has a few kilobytes."""
ACTIVATIONS = {"Sigmoid": "sigmoid", "ReLU": "relu", "LeakyReLU, slopes 0.01 and 0.2": "leaky_relu"}
OTHERS: dict[str, Any] = {
    "ELU": "elu",
    "Tanh": "tanh",
    "GELU": "gelu",
    "SiLU": "silu",
    "Softplus": "softplus",
    "ReLU6": "relu6",
    "Hardsigmoid": "hardsigmoid",
    "Clip, -2 to 3": {"clip": [-2, 3]},
}


def curve(block: Any, x: torch.Tensor) -> torch.Tensor:
    """What a block makes of each number."""
    module = assemble(MLPSpec(name="one", input={"features": 1}, blocks=[block]), seed=0).eval()
    with torch.inference_mode():
        return module(x[:, None])[:, 0]


def axes_through_zero(axis: Any, title: str) -> None:
    axis.axhline(0, color=SOFT, lw=0.6)
    axis.axvline(0, color=SOFT, lw=0.6)
    axis.set_title(title)


def activations(axes: Any) -> None:
    for axis, (title, block) in zip(axes, ACTIVATIONS.items(), strict=True):
        x = torch.linspace(-6, 6, 121)
        axis.plot(x, curve(block, x), color=GOOD, lw=1.8)
        if block == "leaky_relu":
            axis.plot(x, curve({block: 0.2}, x), color=BAD, lw=1.2, ls="--")
        axes_through_zero(axis, title)


def others(axes: Any) -> None:
    for axis, (title, block) in zip(axes.reshape(-1), OTHERS.items(), strict=True):
        x = torch.linspace(-8, 8, 161) if block == "relu6" else torch.linspace(-5, 5, 101)
        axis.plot(x, curve(block, x), color=GOOD, lw=1.8)
        axes_through_zero(axis, title)


def affine(axes: Any) -> None:
    """One linear, two of them in a row, and two with a ReLU between, of one number each."""
    x = torch.linspace(-3, 3, 61)
    shapes: dict[str, list[Any]] = {
        "one Linear": [{"linear": 1}],
        "two in a row: a line again": [{"linear": 8}, {"linear": 1}],
        "a ReLU between them": [{"linear": 8}, "relu", {"linear": 1}],
    }
    for axis, (title, blocks) in zip(axes, shapes.items(), strict=True):
        for seed, colour in zip((1, 2, 3), (GOOD, BAD, INK), strict=True):
            module = assemble(MLPSpec(name="one", input={"features": 1}, blocks=blocks), seed=seed)
            with torch.inference_mode():
                axis.plot(x, module(x[:, None])[:, 0], color=colour, lw=1.4)
        axes_through_zero(axis, title)


def dropout(axes: Any) -> None:
    """Sixteen entries of 1 in three calls: zeros and 1 / (1 - p) in training, the entries themselves in evaluation."""
    torch.manual_seed(0)
    module, ones = torch.nn.Dropout(0.3), torch.ones(16)
    for axis, title in zip(axes, ("training", "training, the next call", "evaluation"), strict=True):
        y = module.train(title != "evaluation")(ones)
        axis.bar(range(16), y, color=GOOD, width=0.7)
        axis.axhline(float(y.mean()), color=BAD, lw=1, ls="--")
        axis.set(title=f"{title}: mean {float(y.mean()):.2f}", ylim=(0, 1.6), xticks=[], xlabel="entries")


PICTURES: Mapping[str, tuple[tuple[float, float], Callable[[Any], None], tuple[int, int]]] = {
    "block_affine": ((8.0, 2.3), affine, (1, 3)),
    "block_activations": ((8.0, 2.3), activations, (1, 3)),
    "block_dropout": ((8.0, 2.0), dropout, (1, 3)),
    "block_others": ((8.0, 3.9), others, (2, 4)),
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PICTURES:
        size, draw, panels = PICTURES[name]
        with matplotlib.rc_context(SMALL):
            figure = Figure(figsize=size, layout="constrained", facecolor="white")
            draw(figure.subplots(*panels))
            figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
