"""What inference servers read: the highest opset and IR version of each release, with the source of it.

ONNX Runtime reads whatever an earlier release read, so a release without published limits has those of the last release
before it that has them; it may read more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from builder.errors import suggestion

from .errors import ExportError


@dataclass(frozen=True)
class Server:
    """The highest opset and IR version that a release is known to read, and the address of the source."""

    opset: int
    ir_version: int
    source: str


_ONNX_RUNTIME = "https://onnxruntime.ai/docs/reference/compatibility.html"
_TRIED = "https://pypi.org/project/onnxruntime/1.31.1/ opens files of these versions and refuses newer ones"
_TRITON = "https://github.com/triton-inference-server/server"
_BACKEND = "https://github.com/triton-inference-server/onnxruntime_backend"
_MATRIX = f"{_TRITON}/blob/0f963c9a8c6913aa4cd9b57ee04f9c2b76ee8d2a/docs/introduction/compatibility.md"

_RUNTIMES = {
    **dict.fromkeys(("1.6", "1.7"), Server(13, 7, _ONNX_RUNTIME)),
    "1.8": Server(14, 7, _ONNX_RUNTIME),
    **dict.fromkeys(("1.9", "1.10"), Server(15, 8, _ONNX_RUNTIME)),
    "1.11": Server(16, 8, _ONNX_RUNTIME),
    **dict.fromkeys(("1.12", "1.13"), Server(17, 8, _ONNX_RUNTIME)),
    # The page has opset 19 and IR 8 for 1.15, but files of opset 19 have IR 9.
    **dict.fromkeys(("1.14", "1.15"), Server(18, 8, _ONNX_RUNTIME)),
    "1.16": Server(19, 9, _ONNX_RUNTIME),
    "1.17": Server(20, 9, _ONNX_RUNTIME),
    **dict.fromkeys(("1.18", "1.19", "1.20"), Server(21, 10, _ONNX_RUNTIME)),
    **dict.fromkeys((f"1.{minor}" for minor in range(21, 31)), Server(21, 10, f"{_ONNX_RUNTIME} (as 1.20)")),
    "1.31": Server(26, 13, _TRIED),
}
"""ONNX Runtime, by minor release."""

_TRITONS = {
    "21.12": ("1.10", f"{_TRITON}/releases/tag/v2.17.0"),
    "23.04": ("1.14", f"{_BACKEND}/blob/013d274504599ff36f0a9518322adb5b760c03d1/README.md"),
    "23.10": ("1.16", f"{_BACKEND}/pull/214"),
    "23.12": ("1.16", f"{_TRITON}/blob/35dc045fc7780765695102e9a9d6e379267dcb92/build.py"),
    "24.03": ("1.17", f"{_TRITON}/pull/6930"),
    "24.04": ("1.17", _MATRIX),
    **dict.fromkeys(("24.05", "24.06", "24.07", "24.08"), ("1.18", _MATRIX)),
    **dict.fromkeys(("24.09", "24.10", "24.11"), ("1.19", _MATRIX)),
    **dict.fromkeys(("24.12", "25.01", "25.02"), ("1.20", _MATRIX)),
    **dict.fromkeys(("25.03", "25.04"), ("1.21", _MATRIX)),
    **dict.fromkeys(("25.05", "25.06", "25.07"), ("1.22", _MATRIX)),
    **dict.fromkeys(("25.08", "25.09", "25.10", "25.11", "25.12", "26.01"), ("1.23", _MATRIX)),
    **dict.fromkeys(("26.02", "26.03", "26.04", "26.05", "26.06"), ("1.24", _MATRIX)),
    "26.07": ("1.27", _MATRIX),
    "26.08": ("1.28", _MATRIX),
}
"""Triton, by container release: the ONNX Runtime in it."""

_OPENED = "https://pypi.org/project/openvino/{tried}/ was tried: every block in opsets 7 to 26, IR 4 to 13"
_OPENVINOS = {
    # 2023.3 and 2024.0 read all of opset 26 but its Gelu, which is decomposed below opset 20.
    "2023.3": Server(19, 9, f"{_OPENED.format(tried='2023.3.0')}; of its operators Gelu (opset 20) is missing"),
    **dict.fromkeys(
        [f"2024.{minor}" for minor in range(6)],
        Server(19, 9, f"{_OPENED.format(tried='2024.0.0')}; of Gelu (opset 20) it has the tanh formula only"),
    ),
    "2024.6": Server(26, 13, _OPENED.format(tried="2024.6.0")),
    **dict.fromkeys([f"2025.{minor}" for minor in range(4)], Server(26, 13, _OPENED.format(tried="2025.0.0"))),
    **dict.fromkeys(
        ["2025.4", *(f"2026.{minor}" for minor in range(4))], Server(26, 13, _OPENED.format(tried="2025.4.0"))
    ),
    "2026.4": Server(26, 13, _OPENED.format(tried="2026.4.1")),
}
"""OpenVINO, and the Model Server of the same release."""

SERVERS: dict[str, Server] = {
    **{f"onnxruntime:{release}": row for release, row in _RUNTIMES.items()},
    **{
        f"triton:{release}": replace(
            _RUNTIMES[runtime], source=f"{source} has ONNX Runtime {runtime}, {_RUNTIMES[runtime].source}"
        )
        for release, (runtime, source) in _TRITONS.items()
    },
    **{f"openvino:{release}": row for release, row in _OPENVINOS.items()},
    # Its log says "max supported IR version: 8"; that came with ONNX 1.10, and so with opset 15.
    "triton:22.12": Server(15, 8, "https://github.com/ultralytics/ultralytics/issues/17378"),
}
"""Every server that a file can be written for, by the value of ``target``."""

_WITHOUT = {"triton:24.02": f"it has no ONNX Runtime in it ({_TRITON}/releases/tag/v2.43.0)"}
"""Releases that cannot run ONNX files, and why."""


def server(target: object) -> Server:
    """The row of a target, such as "triton:23.10" or "onnxruntime:1.16" (or 1.16.3).

    Raises ExportError: a server or a release that is not in the table; the message names the nearest older release.
    """
    if not isinstance(target, str):
        raise ExportError(f"a server is a name and a release, not {target!r}. What to do: write it as 'triton:23.10'")
    if target in _WITHOUT:
        raise ExportError(f"{target} cannot run the file: {_WITHOUT[target]}. What to do: give another release")
    name, _, release = target.partition(":")
    minor = ".".join(release.split(".")[:2]) if name == "onnxruntime" and number(release) else release
    row = SERVERS.get(f"{name}:{minor}")
    if row is not None:
        return row
    releases = _releases(name)
    if not releases:
        names = sorted({key.partition(":")[0] for key in SERVERS})
        examples = [f"{known}:{_releases(known)[-1]}" for known in names]
        message = f"no server is known as '{target}': {suggestion(name, names, 'servers', examples)}, among others"
        raise ExportError(f"{message}. What to do: give a server and its release (--for {examples[-1]})")
    older = [known for known in releases if number(release) and number(known) <= number(release)]
    nearest = f"--for {name}:{older[-1]}, the nearest older release; newer ones read its files too" if older else ""
    message = f"what {target} reads is not known, only what {', '.join(releases)} read"
    raise ExportError(f"{message}. What to do: {nearest or f'give one of these (--for {name}:{releases[0]})'}")


def oldest(name: str, opset: int, ir_version: int) -> str | None:
    """The first release of a server that is known to read files of an opset and an IR version; None where none is."""
    rows = ((release, SERVERS[f"{name}:{release}"]) for release in _releases(name))
    return next((r for r, row in rows if opset <= row.opset and ir_version <= row.ir_version), None)


def _releases(name: str) -> list[str]:
    """The known releases of a server, oldest first."""
    return sorted((key.partition(":")[2] for key in SERVERS if key.startswith(f"{name}:")), key=number)


def number(release: str) -> tuple[int, ...]:
    """A release as numbers, which sort; empty where it is not a version."""
    parts = release.split(".")
    return tuple(map(int, parts)) if all(re.fullmatch("[0-9]{1,4}", part) for part in parts) else ()
