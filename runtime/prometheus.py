"""Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections.abc import Iterator

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def head(name: str, kind: str, description: str) -> Iterator[str]:
    """The lines before a metric's values; ``kind`` is counter, gauge or histogram."""
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} {kind}"


def line(name: str, value: float, **labels: str) -> str:
    """One value. The labels' texts must have no character that would need escaping."""
    text = ",".join(f'{label}="{content}"' for label, content in labels.items())
    return f"{name}{{{text}}} {value}" if labels else f"{name} {value}"
