"""Options that several commands share, and how commands print."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N. What is asked for is what runs.")]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 allows rounding to it; without, values that float32 cannot hold are an error."),
]
FoldAffine = Annotated[bool, typer.Option("--fold-affine", help="Make affine blocks that follow each other one.")]
ExternalData = Annotated[bool, typer.Option("--external-data", help="Write the weights to NAME.onnx.data beside it.")]
Opset = Annotated[int | None, typer.Option(help="The opset of the file, 7 or later; 17 if left out.")]
IrVersion = Annotated[int | None, typer.Option(help="The IR version of the file, 4 or later; 8 if left out.")]
Target = Annotated[
    str | None,
    typer.Option("--for", help="The server to write for, such as triton:23.10 or onnxruntime:1.16."),
]
Data = Annotated[
    Path | None,
    typer.Option(help="Rows of your own to prove it on, besides seeded ones (.npy, .npz, .csv, .parquet, .arrow)."),
]
Html = Annotated[
    bool | None,
    typer.Option(
        "--html/--no-html",
        help="Write the report as a page too, NAME.parity.html; if mlpx\\[report] is there, by default.",
    ),
]


def note(text: str) -> None:
    """Something said beside the result, on standard error."""
    print(text, file=sys.stderr)


def print_json(record: dict[str, Any]) -> None:
    """The result for machines, on standard output."""
    print(json.dumps(record, indent=2, ensure_ascii=False, default=str), flush=True)


def print_aligned(rows: Sequence[Sequence[object]], indent: str = "  ") -> None:
    """Rows as columns of equal width; numbers to the right."""
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))]
    for row, cells in zip(texts, rows, strict=True):
        padded = [t.rjust(w) if isinstance(c, int) else t.ljust(w) for t, w, c in zip(row, widths, cells, strict=True)]
        print((indent + "  ".join(padded)).rstrip())
