"""Browser: one page that runs the model by itself, for any static server or a double click."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import runtime.server
from export.errors import TargetError
from export.offline_page import embedded, offline_page, policy
from runtime import MissingPackageError, sha256
from runtime.model.bound import format_bound

from .target import Deployment, Files, Target, source

RELEASE = "1.30"
"""The release of onnxruntime-web by default; its versions are those of ONNX Runtime."""
_TESTED = {"1.24": "1.24.3", "1.25": "1.25.1", "1.26": "1.26.0", "1.27": "1.27.0", "1.29": "1.29.0", RELEASE: "1.30.0"}
"""The version of each release that the page was tested with; 1.22 loads a second file."""
_SCRIPT, _WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
"""The build with WebAssembly only, with one thread: it needs no special headers; 14 MB, compressed 3.7 MB."""
_EXPORTS = re.compile(r"export\{([^{}]*)\};")
_MAX_BYTES = 64 * 2**20
"""The largest model in a page; larger pages open slowly."""

_LICENCE = """\
MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""The licence that the npm package names but does not contain."""


def _files(deployment: Deployment) -> Files:
    """``index.html``, and a record of what it was made of.

    Raises MissingPackageError: no onnxruntime-web; TargetError: another release, or a model too large.
    """
    summary, certificate, model = deployment.summary, deployment.certificate, deployment.file
    size = model.stat().st_size
    if summary.external_data or size > _MAX_BYTES:
        reason = "its weights are in a file beside it" if summary.external_data else f"it has {size:,} bytes"
        limit = f"a page holds a model of one file and at most {_MAX_BYTES:,} bytes"
        raise TargetError(f"{model.name}: {limit}, and {reason}. What to do: package it for a server")
    folder, package = _onnxruntime_web(deployment.onnxruntime_web, deployment.release)
    licence_file = folder / "LICENSE"
    licence = licence_file.read_text(encoding="utf-8") if licence_file.is_file() else _LICENCE
    answers = json.loads(certificate.path.read_text(encoding="utf-8"))["answers"]
    record = {
        "name": deployment.name,
        "file": model.name,
        "sha256": certificate.sha256,
        "proved": certificate.proved,
        "made": certificate.made,
        "device": certificate.device,
        "mlpx": certificate.mlpx_version,
        "bound": None if certificate.bound is None else format_bound(certificate.bound),
        "runtime": package["version"],
        "inputs": [port.to_record() for port in summary.inputs],
        "outputs": [port.to_record() for port in summary.outputs],
        "answers": {key: answers[key] for key in ("rows", "inputs", "exact", "bound")},
    }
    shared = Path(runtime.server.__file__).parent
    style = (shared / "page.css").read_text(encoding="utf-8")
    scripts = {
        "WIDGETS": "".join((shared / name).read_text(encoding="utf-8") for name in ("ports.js", "form.js", "bars.js")),
        "RUNTIME": _as_object(folder / _SCRIPT),
        "PAGE": source("browser.js"),
    }
    parts = {
        "POLICY": policy([*scripts.values()], style, "'wasm-unsafe-eval'"),
        "NAME": html.escape(deployment.name),
        "STYLE": style,
        "LICENCE": html.escape(licence),
        "RECORD": embedded(record),
        "MODEL": base64.b64encode(model.read_bytes()).decode(),
        "WASM": base64.b64encode(gzip.compress((folder / _WASM).read_bytes(), mtime=0)).decode(),
        **scripts,
    }
    vendored = {
        "package": "onnxruntime-web",
        "version": package["version"],
        "license": package.get("license"),
        "files": {path: sha256(folder / path) for path in (_SCRIPT, _WASM)},
    }
    return {
        "index.html": offline_page(source("browser.html"), parts),
        "onnxruntime-web.json": json.dumps(vendored, indent=1) + "\n",
        "onnxruntime-web.LICENSE": licence,
    }


def _onnxruntime_web(folder: Path | None, release: str) -> tuple[Path, Mapping[str, Any]]:
    """The folder of the npm package, by default ./node_modules/onnxruntime-web, and its package.json."""
    minor = ".".join(release.split(".")[:2])
    if minor not in _TESTED:
        message = f"onnxruntime-web {release} is not known to run in a page without more files"
        raise TargetError(f"{message}, only {', '.join(_TESTED)} are. What to do: take --target-version {RELEASE}")
    folder = folder or Path("node_modules") / "onnxruntime-web"
    install = f"npm install onnxruntime-web@{release if release.count('.') > 1 else _TESTED[minor]}"
    hint = f"What to do: {install}, and name the folder with --onnxruntime-web node_modules/onnxruntime-web"
    try:
        package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        version = str(package["version"])
        if package["name"] != "onnxruntime-web":
            raise ValueError
    except OSError:
        raise MissingPackageError(f"{folder}: the npm package onnxruntime-web was not found. {hint}") from None
    except (KeyError, TypeError, ValueError):
        raise TargetError(f"{folder}: its package.json is not that of onnxruntime-web. {hint}") from None
    if version != release and not version.startswith(f"{release}."):
        raise TargetError(f"{folder} holds onnxruntime-web {version}, and {release} was requested. {hint}")
    missing = [path for path in (_SCRIPT, _WASM) if not (folder / path).is_file()]
    if missing:
        raise TargetError(f"{folder}: onnxruntime-web {version} lacks {' and '.join(missing)}. {hint}")
    return folder, package


def _as_object(path: Path) -> str:
    """The library's module as a script that sets the global ``ort``: an inline module cannot be imported from."""
    module = path.read_text(encoding="utf-8")
    exports = _EXPORTS.findall(module)
    if len(exports) != 1 or re.search("</script|<!--|\r", module):
        message = f"{path}: not built like the known releases"
        raise TargetError(f"{message}. What to do: take onnxruntime-web {RELEASE}")
    pairs = [pair.strip().split(" as ") for pair in exports[0].split(",")]
    names = ",".join(f'"{pair[-1]}":{pair[0]}' for pair in pairs)
    script = _EXPORTS.sub(lambda _: f"globalThis.ort={{{names}}};", module)
    return re.sub(r"\n//# sourceMappingURL=.*", "", script)


_REMARKS = """\
`index.html` is all that is needed: it also opens from a disk by a double click, and may be sent alone. It requests
nothing over the network. Chrome 97, Firefox 113 and Safari 16.4 are the oldest browsers that have what it needs.

Its Content-Security-Policy is in its head. A server that sends a policy of its own must allow the same: copy it from
there."""

TARGET = Target(
    name="browser",
    title="a page that runs the model in the browser, with ONNX Runtime Web in it",
    files=_files,
    start=lambda _: "python3 -m http.server 8080 --bind 127.0.0.1",
    ports={"HTTP": 8080},
    path="/",
    release=RELEASE,
    remarks=lambda _: (_REMARKS,),
)
