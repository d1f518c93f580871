"""The pictures of ``docs/parity.md``: measured while this runs, and from the results of ``benchmarks.faults``.

Run it with ``python -m benchmarks.pictures FAULTS.jsonl``; it writes ``docs/images/*.svg``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from benchmarks.faults import FAULTS, read
from benchmarks.networks import network
from benchmarks.planted.edits import tf32
from export import export, verify
from export.graph import Node, Rows, Tensor
from export.proof.probes import EXPONENTS
from export.proof.rules import RULES
from runtime import Session

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
INK, GOOD, BAD, SOFT = "#1c1f23", "#17744a", "#b3261e", "#5c6670"
STYLE: Any = {"svg.hashsalt": "mlpx", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def picture(name: str, size: tuple[float, float], draw: Callable[[Any], None], panels: int = 1) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        draw(figure.subplots(1, panels))
        IMAGES.mkdir(parents=True, exist_ok=True)
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


def tolerance(axes: Any) -> None:
    """One linear layer of every width: what rounding does, what the bound allows, what a wrong weight does."""
    widths = [2**k for k in range(2, 13)]
    found: dict[str, list[float]] = {"rounding": [], "bound": [], "fault": [], "tolerance": []}
    for width in widths:
        torch.manual_seed(0)
        layer = nn.Linear(width, 32)
        x = np.random.default_rng(0).standard_normal((256, width), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder, Session(export(layer, Path(folder) / "l.onnx").path, "cpu") as s:
            y = s.predict(x).astype(np.float64)
        weight, bias = layer.weight.detach(), layer.bias.detach()
        z = torch.from_numpy(x).double()
        exact = z @ weight.double().T + bias.double()
        tensors = {"weight": Tensor("weight", weight.numpy()), "bias": Tensor("bias", bias.numpy())}
        node = Node("linear", "", ("x",), "y", (Rows(), 32), tensors=tensors)
        radius = RULES["linear"](node, [z], [None], exact)
        found["rounding"].append(float(np.median(np.abs(y - exact.numpy()))))
        found["bound"].append(float(radius.median()))
        found["fault"].append(float(z.abs().median() * weight.abs().median() * 1e-3))
        found["tolerance"].append(1e-5 + 1e-3 * float(exact.abs().median()))
    lines = {
        "tolerance": ("allclose(rtol=1e-3, atol=1e-5)", SOFT, "--"),
        "fault": ("one weight wrong by 1e-3", BAD, "-"),
        "bound": ("the bound of rounding", GOOD, "-"),
        "rounding": ("rounding, as measured", GOOD, ":"),
    }
    for key, (label, colour, dash) in lines.items():
        axes.plot(widths, found[key], dash, color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="inputs of the layer", ylabel="difference in one output")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def layers(axes: Any) -> None:
    """The file and the module side by side: the module's layer gets the input that the file's layer had."""
    axes.set(xlim=(0, 10), ylim=(-0.2, 7.2))
    axes.axis("off")
    for y, name in ((5.2, "linear"), (3.0, "relu"), (0.8, "linear")):
        for x, colour in ((0.4, INK), (6.4, GOOD)):
            style = "round,pad=0,rounding_size=0.15"
            axes.add_patch(FancyBboxPatch((x, y - 0.45), 3.2, 0.9, boxstyle=style, fc="white", ec=colour, lw=1.5))
            axes.text(x + 1.6, y, name if x < 1 else f"{name}, float64", ha="center", va="center", color=colour)
        axes.annotate("", (2.0, y + 0.45), (2.0, y + 1.3), arrowprops={"arrowstyle": "->", "color": INK})
        axes.annotate("", (8.0, y + 0.45), (2.05, y + 1.05), arrowprops={"arrowstyle": "->", "color": GOOD})
        axes.annotate("", (6.35, y - 0.1), (3.65, y - 0.1), arrowprops={"arrowstyle": "<->", "color": BAD})
        axes.text(5.0, y, "within the bound?", color=BAD, ha="center", va="bottom", fontsize=9)
        axes.text(6.0, y + 0.85, "the same input", color=GOOD, ha="left", va="bottom", fontsize=9)
    axes.text(2.0, 7.1, "the file, on the device", ha="center", va="top", weight="bold")
    axes.text(8.0, 7.1, "the module", ha="center", va="top", weight="bold", color=GOOD)


def band(axes: Any) -> None:
    """The element of digits that came nearest its bound in the first linear layer, in its true proportions."""
    spec, module = network("digits")
    with tempfile.TemporaryDirectory() as folder:
        report = verify(module, export(module, Path(folder) / "digits.onnx", spec=spec), device="cpu")
    e = next(layer.worst for layer in report.layers if layer.op == "linear" and layer.worst is not None)
    unit = float(np.spacing(np.float32(e.exact)))
    places = {"exact": 0.0, "the file": (e.file - e.exact) / unit, "eager PyTorch": (e.eager - e.exact) / unit}
    reach = e.bound / unit
    axes.axvspan(-reach, reach, color=GOOD, alpha=0.15)
    axes.axvline(0, color=INK, lw=1)
    for (label, place), height in zip(places.items(), (0.75, 0.5, 0.25), strict=True):
        axes.plot([place], [height], "o", color=INK if label == "exact" else GOOD)
        axes.text(place + 0.03 * reach, height, f"{label}: {e.exact + place * unit:.9g}", va="center")
    axes.set(xlim=(-1.4 * reach, 1.4 * reach), ylim=(0, 1), yticks=[], xlabel="distance from the exact value, in ulp")
    axes.text(0, 0.97, f"allowed: ± {reach:.0f} ulp", ha="center", va="top", color=GOOD)
    axes.spines["left"].set_visible(False)


def probes(axes: Any) -> None:
    """What the unit-vector probes of one small layer show: right weights, one wrong by an ulp, all rounded to TF32."""
    _, module = network("breast_cancer")
    weight = next(part for part in module.modules() if isinstance(part, nn.Linear)).weight.detach().numpy()
    one = weight.copy()
    one[5, 12] = np.nextafter(one[5, 12], np.float32(np.inf))
    for axis, (title, used) in zip(
        axes, {"right": weight, "one weight by 1 ulp": one, "TF32": tf32(weight)}.items(), strict=True
    ):
        scale = np.float32(2.0 ** EXPONENTS[-1])
        wrong = weight * scale != used * scale
        axis.imshow(wrong, cmap=ListedColormap(["#dfe4e8", BAD]), vmin=0, vmax=1, aspect="auto")
        axis.set_title(f"{title}: {int(wrong.sum())} of {wrong.size}", size=9)
        axis.set(xlabel="input", ylabel="output", xticks=[], yticks=[])


def caught(records: list[dict[str, Any]]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        gates = {"mlpx": GOOD, "torch.testing.assert_close": "#8a6d00", "allclose 1e-3, 1e-5": BAD}
        for row, fault in enumerate(FAULTS):
            found = [r["faults"][fault]["caught"] for r in records if fault in r.get("faults", {})]
            for shift, (gate, colour) in enumerate(gates.items()):
                asked = [one[gate] if gate in one else one["mlpx, in the runtime"] for one in found]
                share = 100 * sum(asked) / max(1, len(asked))
                axes.barh(row + 0.28 * (shift - 1), share, 0.26, color=colour, label=gate if row == 0 else None)
        axes.set_yticks(range(len(FAULTS)), list(FAULTS))
        axes.set(xlim=(0, 100), ylim=(-0.6, len(FAULTS) - 0.4), xlabel="% of the planted faults that were caught")
        axes.invert_yaxis()
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=9)

    return draw


def main() -> None:
    records = read(Path(sys.argv[1]))
    picture("tolerance", (7.2, 3.0), tolerance)
    picture("layers", (6.4, 3.6), layers)
    picture("band", (6.4, 1.9), band)
    picture("probes", (6.4, 2.4), probes, panels=3)
    picture("caught", (6.4, 12.5), caught(records))


if __name__ == "__main__":
    main()
