"""The YAML at the top of a model card: what the Hub's search, filters and page read."""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

from builder.documents import yaml_nodes
from builder.errors import SpecError
from export.errors import TargetError
from runtime import Summary

from .model import ProvedModel

_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<metadata>.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_Pairs = list[tuple[Any, Any]]
"""The nodes of keys and values."""
_TAGS = ("onnx", "onnxruntime", "mlp")


def metadata_of(model: ProvedModel, licence: str | None = None) -> dict[str, Any]:
    """The metadata that file and certificate give. What nobody stated, such as a licence, is left out.

    ``model-index`` holds what was measured and proved: the largest difference on the rows of the certificate, and the
    bound for every input of the declared ranges.
    """
    task = pipeline_tag(model.summary)
    metadata: dict[str, Any] = {"library_name": "mlpx", "tags": list(_TAGS)}
    if licence is not None:
        metadata["license"] = licence
    if task is not None:
        metadata["pipeline_tag"] = task
    if results := _results(model, task):
        metadata["model-index"] = [{"name": model.summary.name, "results": results}]
    return metadata


def pipeline_tag(summary: Summary) -> str | None:
    """The task of the Hub that fits; None where none of them does.

    A controller, whose spec says how often it is called, is "robotics"; one row of features to the scores of labels is
    "tabular-classification", to numbers "tabular-regression". Rows of several dimensions may be anything.
    """
    if summary.period is not None:
        return "robotics"
    if any(len(port.shape) != 2 for port in summary.inputs) or len(summary.outputs) != 1:
        return None
    return "tabular-regression" if summary.outputs[0].labels is None else "tabular-classification"


def _results(model: ProvedModel, task: str | None) -> list[dict[str, Any]]:
    """Figures in the form of ``model-index``: a task, a dataset and its metrics each."""
    certificate = model.certificate
    results: list[dict[str, Any]] = []

    def add(kind: str, dataset: str, name: str, value: float) -> None:
        metric = {"type": "max_absolute_error", "name": name, "value": value}
        of = {"type": kind, "name": dataset}
        results.append({"task": {"type": task or "other"}, "dataset": of, "metrics": [metric]})

    if certificate.largest is not None:
        dataset = f"the rows of {model.path.stem}.parity.json"
        add("mlpx-certificate", dataset, "largest difference from float64", certificate.largest)
    if certificate.bound is not None and certificate.bound.largest is not None:
        name = "bound of the difference from the network in real arithmetic"
        add("mlpx-box", "every input of the declared ranges", name, certificate.bound.largest)
    return results


def front_matter(metadata: dict[str, Any], own: str | None = None) -> tuple[str, str]:
    """The YAML block at the top of a card, and the text of ``own`` without its block.

    ``own`` is a Markdown text, which may begin with metadata: its keys win, spelt as they are, and its tags are added.
    Raises TargetError: its metadata are not a YAML mapping.
    """
    root: Any = yaml_nodes(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
    text = own or ""
    if (found := _FRONT.match(text)) is not None:
        text = text[found.end() :]
        root.value = _merged(root.value, _mapping(found["metadata"]))
    written: Any = cast("Any", yaml).serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True)
    return f"---\n{written}---\n", text.strip()


def _merged(ours: _Pairs, theirs: _Pairs) -> _Pairs:
    """Their keys and values, and those of ours that they lack; tags of both."""
    tags = next(value.value for key, value in ours if key.value == "tags")
    for key, value in theirs:
        if key.value == "tags" and isinstance(value, yaml.SequenceNode):
            known = {tag.value for tag in value.value}
            value.value += [tag for tag in tags if tag.value not in known]
    named = {key.value for key, _ in theirs}
    return theirs + [(key, value) for key, value in ours if key.value not in named]


def _mapping(text: str) -> _Pairs:
    hint = "What to do: write key: value lines between the two lines of ---, as in the Hub's model cards"
    try:
        node = yaml_nodes(text)
    except SpecError as error:
        (problem,) = error.problems
        line = "" if problem.line is None else f", line {problem.line + 1}"  # after the first ---
        raise TargetError(f"the metadata of the README{line}: {problem.message}. {hint}") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise TargetError(f"the metadata of the README are not a mapping. {hint}")
    return list(node.value)
