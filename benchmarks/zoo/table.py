"""The records of a run as text: totals, a page for the documents, and the operators that networks call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.zoo.exporters import GOOD, OUTCOMES

Record = dict[str, Any]
TITLES = {"mlpx": "mlpx", "torch": "torch.onnx"}
WORDS = {"proved": "proved, and agrees with eager PyTorch", "agrees": "agrees with eager PyTorch, checked by nobody"}


def totals(records: Sequence[Record], steps: Sequence[str]) -> str:
    """How often each outcome came."""
    ran = [record for record in records if "failed" not in record]
    lines = []
    for step in steps:
        counts = Counter(record[step]["outcome"] for record in ran)
        parts = [f"{counts[outcome]} {WORDS.get(outcome, outcome)}" for outcome in OUTCOMES[step] if counts[outcome]]
        lines.append(f"{TITLES[step]:<10} of {len(ran)}: {', '.join(parts)}")
    return "\n".join(lines)


INTRODUCTION = """\
Dense networks of published packages, as their authors wrote them, with seeded weights. mlpx publishes a file only if
it is proved; `torch.onnx.export(dynamo=True)` writes a file with a free batch size. Each file was then run at batches
1 and 7, and its outputs were compared with those of eager PyTorch. *Not proved* means that mlpx wrote a file, could
not prove it and did not publish it."""


def markdown(results: dict[str, Any]) -> str:
    """The page of a run, as ``--json`` writes it."""
    records, steps = results["networks"], results["steps"]
    ran = [record for record in records if "failed" not in record]
    machine = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    packages = {record["package"] for record in ran}
    parts = ["# Coverage", INTRODUCTION]
    parts += [f"{len(ran)} networks of {len(packages)} packages, {machine}. `{results['command']}`"]
    parts += [_table(["", *(TITLES[step] for step in steps)], _outcomes(ran, steps))]
    parts += [_table(["package", "version", "networks", *(TITLES[step] for step in steps)], _packages(ran, steps))]
    if lost := [record for record in ran if any(record[step]["outcome"] != GOOD[step] for step in steps)]:
        header = ["network", *(part for step in steps for part in (TITLES[step], "reason"))]
        parts += ["What was not exported:", _table(header, [_lost(record, steps) for record in lost])]
    if failed := [record for record in records if "failed" in record]:
        rows = [[f"{record['package']} {record['network']}", _cell(record["failed"])] for record in failed]
        parts += ["What could not be built here:", _table(["network", "reason"], rows)]
    if results["absent"]:
        parts += ["Packages that could not be tried:", _table(["package", "reason"], results["absent"])]
    return "\n\n".join(parts) + "\n"


def _outcomes(ran: Sequence[Record], steps: Sequence[str]) -> list[list[str]]:
    counts = {step: Counter(record[step]["outcome"] for record in ran) for step in steps}
    rows = [["exported, and agrees", *(str(counts[step].pop(GOOD[step], 0)) for step in steps)]]
    for outcome in dict.fromkeys(outcome for step in steps for outcome in OUTCOMES[step]):
        if any(outcome in counts[step] for step in steps):
            rows.append([outcome, *(str(counts[step].get(outcome, 0)) for step in steps)])
    return rows


def _packages(ran: Sequence[Record], steps: Sequence[str]) -> list[list[str]]:
    rows = []
    for package in dict.fromkeys(record["package"] for record in ran):
        own = [record for record in ran if record["package"] == package]
        good = [str(sum(record[step]["outcome"] == GOOD[step] for record in own)) for step in steps]
        rows.append([package, own[0]["version"], str(len(own)), *good])
    return rows


def _lost(record: Record, steps: Sequence[str]) -> list[str]:
    cells = [
        f"{record['package']} {record['network']}{'' if record['rows_apart'] else ', whose rows depend on each other'}"
    ]
    for step in steps:
        cells += [record[step]["outcome"], _cell(record[step]["message"])]
    return cells


def _cell(text: str, most: int = 160) -> str:
    """One line that a table can hold."""
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    text = text.partition(" What to do:")[0]
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def operators(records: Sequence[Record]) -> str:
    """Every operator under ``torch.inference_mode``, by the number of networks that use it, with up to three names."""
    users: dict[str, list[str]] = {}
    for record in records:
        for operator in record.get("operators", ()):
            users.setdefault(operator, []).append(f"{record['package']} {record['network']}")
    rows = sorted(users.items(), key=lambda item: (-len(item[1]), item[0]))
    return "\n".join(f"{len(names):>4}  {operator:<48} {', '.join(names[:3])}" for operator, names in rows)
