"""The model card: README.md of a repository, for whoever finds the model on the Hub."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TypeVar

from runtime import Port, Summary
from runtime.model.bound import format_bound, format_up
from runtime.model.port import Vocabulary, format_range, threshold

from .metadata import front_matter, metadata_of
from .model import ProvedModel

T = TypeVar("T")
_MAX_FEATURES = 200
"""A table of features has at most so many rows."""


def model_card(
    repo: str,
    model: ProvedModel,
    files: Iterable[tuple[str, str]],
    *,
    licence: str | None = None,
    own: str | None = None,
) -> str:
    """The Markdown of the card, with its metadata.

    Args:
        repo: the repository's name, for the commands.
        model: the file, with what it says of itself and its certificate.
        files: the other files of the repository, and what each is.
        licence: its name on the Hub, such as "apache-2.0".
        own: a text of the author's, which comes first and whose metadata win; it may bring a title of its own.
    """
    front, text = front_matter(metadata_of(model, licence), own)
    summary = model.summary
    has_title = re.search(r"^# ", text, re.MULTILINE) is not None
    sections = [
        *([] if has_title else [f"# {summary.name}"]),
        *([text] if text else []),
        f"{'## The file' if has_title else ''}\n\n{_overview(model)}".strip(),
        _inputs_and_outputs(summary),
        *_features(summary),
        _run(repo, model),
        _proof(model),
        "## Files\n\n" + _table(("file", "what it is"), [(_code(name), what) for name, what in files]),
    ]
    return front + "\n" + "\n\n".join(sections) + "\n"


def _overview(model: ProvedModel) -> str:
    summary, certificate = model.summary, model.certificate
    size = f"{summary.parameters:,} parameters, {summary.multiply_adds:,} multiply-adds a row"
    period = f"\nIt is a controller that is called every {summary.period:g} s." if summary.period is not None else ""
    return (
        f"A dense network as an ONNX file (opset {summary.opset}, IR {summary.ir_version}): {size}. The file was "
        f"proved to compute what\nits PyTorch module computes, by mlpx {certificate.mlpx_version} on "
        f"{certificate.device}, {certificate.made}.{period}"
    )


def _inputs_and_outputs(summary: Summary) -> str:
    rows: list[Sequence[str]] = []
    for side, ports in (("input", summary.inputs), ("output", summary.outputs)):
        for port in ports:
            shape = f"[{', '.join(map(str, port.shape))}]"
            rows.append((side, _code(port.name), _code(shape), port.dtype, "; ".join(_values(port))))
    table = _table(("", "name", "shape", "type", "values"), rows)
    batch = "A row's result depends on the other rows of its batch." if summary.rows_depend else ""
    labelled = [port for port in summary.outputs if port.labels]
    return "\n\n".join([f"## Inputs and outputs\n\n{table}", *([batch] if batch else []), *map(_labels, labelled)])


def _values(port: Port) -> list[str]:
    words = [format_range(port.range)] if port.range is not None else []
    if port.scores is not None and port.labels is not None:
        words.append(f"{port.scores} of {len(port.labels)} labels")
    if port.features is not None:
        words.append(f"{len(port.features)} features, {_code(port.features[0])} to {_code(port.features[-1])}")
    if port.indices is not None and port.features is None:
        words.append("whole numbers: " + ", ".join("any" if i is None else format_range(i) for i in port.indices[:12]))
    return words + (["NaN where a value is missing"] if port.missing else [])


def _labels(port: Port) -> str:
    labels = port.labels or ()
    if len(labels) == 2 and port.shape[-1] != 2:
        said = f"above {threshold(port):g} is {_code(labels[1])}, otherwise {_code(labels[0])}"
        return f"Labels of {_code(port.name)}: {said}."
    listed = ", ".join(f"{index}: {_code(label)}" for index, label in enumerate(labels))
    return f"Labels of {_code(port.name)}, in order: {listed}."


def _features(summary: Summary) -> list[str]:
    """A table for each input or output whose features have more than names."""
    tables: list[str] = []
    for port in (*summary.inputs, *summary.outputs):
        details = (port.units, port.ranges, port.indices, port.descriptions, port.categories)
        if port.features is None or not any(details):
            continue
        rows = list(_feature_rows(port))
        kept = [column for column in range(5) if column == 0 or any(row[column] for row in rows)]
        titles = ("name", "unit", "range", "description", "words, by code")
        table = _table([titles[c] for c in kept], [[row[c] for c in kept] for row in rows[:_MAX_FEATURES]])
        more = f"\n\n{len(rows) - _MAX_FEATURES:,} more are in the file." if len(rows) > _MAX_FEATURES else ""
        tables.append(f"### Features of {_code(port.name)}\n\n{table}{more}")
    return tables


def _feature_rows(port: Port) -> Iterable[Sequence[str]]:
    for place, name in enumerate(port.features or ()):
        unit, description = _at(port.units, place), _at(port.descriptions, place)
        words = _at(port.categories, place)
        limits = _at(port.indices, place) or _at(port.ranges, place) or port.range
        shown = "" if limits is None or words is not None else format_range(limits)
        yield _code(name), _plain(unit or ""), shown, _plain(description or ""), _words(words)


def _at(values: Sequence[T | None] | None, place: int) -> T | None:
    return None if values is None else values[place]


def _words(vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return ""
    listed = ", ".join(f"{code}: {_code(word)}" for code, word in enumerate(vocabulary.words[:50]))
    more = f" and {len(vocabulary.words) - 50:,} more" if len(vocabulary.words) > 50 else ""
    others = "any other is refused" if vocabulary.unknown is None else f"any other is {vocabulary.unknown}"
    return f"{listed}{more}; {others}"


def _run(repo: str, model: ProvedModel) -> str:
    summary, file = model.summary, model.path.name
    folder = repo.rpartition("/")[2]
    arrays = [
        f"np.zeros({(1, *(size if isinstance(size, int) else 1 for size in port.shape[1:]))}, np.{port.dtype})"
        for port in summary.inputs
    ]
    names = [json.dumps(port.name, ensure_ascii=False) for port in summary.inputs]
    named = ", ".join(f"{name}: {array}" for name, array in zip(names, arrays, strict=True))
    call = f"session.predict({arrays[0]})" if len(arrays) == len(summary.outputs) == 1 else f"session.run({{{named}}})"
    return f"""## How to run it

```console
$ pip install "mlpx[cpu,hub,files]"
$ mlpx pull {repo} -o {folder}
$ mlpx predict {shlex.quote(f"{folder}/{file}")} rows.csv -o scores.csv
```

`mlpx pull` checks the hash of every file and computes the rows of the certificate on your machine; if an answer is not
within its bound, it writes nothing. In Python:

```python
import numpy as np
from mlpx import Session, pull

pulled = pull("{repo}", "{folder}", replace=True)
with Session(pulled.path) as session:
    print({call})
```

With ONNX Runtime alone:

```python
import numpy as np
import onnxruntime
from huggingface_hub import snapshot_download

session = onnxruntime.InferenceSession(snapshot_download("{repo}") + {json.dumps(f"/{file}", ensure_ascii=False)})
print(session.run(None, {{{named}}}))
```

`mlpx serve {folder}`, which needs `mlpx[serve]`, serves {_code(model.path.stem)} over REST and gRPC."""


def _proof(model: ProvedModel) -> str:
    certificate = model.certificate
    lines = [
        "The file has the operators of its module, every weight bit for bit, and every operator's result was within "
        "the bound of float32\nrounding on the rows that were tried."
    ]
    if certificate.largest is not None:
        lines.append(f"The largest difference of an output from float64 was {certificate.largest:.2g}.")
    if (bound := certificate.bound) is not None:
        against = "Any correct float32 evaluation, against the network in real arithmetic"
        lines.append(f"{against}: {format_bound(bound)}.")
        if bound.largest is not None and bound.margin is not None:
            lines.append(f"It cannot change a label where the exact margin exceeds {format_up(bound.margin)}.")
        if bound.largest is not None:
            lines.append("It says nothing of inputs outside these ranges.")
    if certificate.names_checked is False:
        lines.append("The names of features and labels were not compared with a spec when it was proved.")
    lines.append(f"SHA-256 of `{model.path.name}`: `{certificate.sha256}`.")
    return "## What is proved\n\n" + "\n".join(lines)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (titles, ["---"] * len(titles), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """A name as code, with any characters."""
    text = " ".join(text.split())
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"


def _plain(text: str) -> str:
    """A text in which no character is Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#~])", r"\\\1", " ".join(text.split()))
