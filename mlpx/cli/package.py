"""``mlpx package``: a proved file into the folder that an inference server wants."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from .options import Json
from .terminal import note, print_json, tell


@dataclass
class Deployment:
    """Options by their names in ``export.package``."""

    folder: Annotated[Path, Option("-o", "--output", help="The folder to write.")]
    release: Annotated[
        str | None,
        Option(
            "--target-version",
            help="The server's release; a file that is too new for it is written anew and proved.",
        ),
    ] = None
    certificate: Annotated[Path | None, "NAME.parity.json, where it lies elsewhere."] = None
    name: Annotated[str | None, "The model's name at the server; the file's if left out."] = None
    backend: Annotated[str | None, "How the server runs it, where it can in several ways: python for triton."] = None
    device: Annotated[str, "cpu or cuda."] = "cpu"
    max_batch: Annotated[int | None, "The most rows that the server takes or puts together; 1024 if left out."] = None
    delay_us: Annotated[int, "How long a request may wait for others to share a batch with, microseconds."] = 0
    instances: Annotated[int, "Copies of the model that run side by side."] = 1
    threads: Annotated[int, "Of ONNX Runtime, in each of them."] = 1
    onnxruntime_web: Annotated[
        Path | None, "For the browser: the npm package; ./node_modules/onnxruntime-web if left out."
    ] = None
    replace: Annotated[bool, "Let the package that is in the folder go."] = False


def command(
    file: Annotated[Path, "The proved ONNX file, with its NAME.parity.json beside it."],
    target: Annotated[
        str,
        Option("--for", help="The server: triton, kserve, openvino, mlserver, ray-serve, browser; or triton:23.10."),
    ],
    options: Deployment,
    as_json: Json = False,
) -> None:
    """Write everything that an inference server needs to run FILE to a folder, with a smoke test."""
    from export import package

    made = package(file, target, **vars(options))
    deployment, url = made.deployment, made.url
    if as_json:
        keys = ("name", "release", "backend", "device", "max_batch", "delay_us", "instances", "threads")
        record = {"folder": made.folder, "target": made.target.name}
        record |= {key: getattr(deployment, key) for key in keys} | {"sha256": deployment.certificate.sha256}
        print_json(record | {"start": made.start, "url": url, "files": made.files, "notes": made.notes})
        return
    note(*(f"note: {line}" for line in made.notes))
    how = f", backend {deployment.backend}" if deployment.backend else ""
    fixed = deployment.fixed_batch
    rows = f"exactly {fixed} rows a request" if fixed else f"at most {deployment.max_batch:,} rows a batch"
    tell("packaged", f"{made.folder}: {len(made.files)} files for {made.target.name} {deployment.release}{how}")
    tell("model", f"{deployment.name}, {rows}, SHA-256 {deployment.certificate.sha256[:16]}…")
    tell("start", f"cd {made.folder}")
    tell("", *made.start.splitlines())
    if made.target.speaks_v2:
        tell("check", f"python3 smoke/check.py {url}")
        tell("verify", f"mlpx verify --url {url} --certificate {deployment.name}.parity.json")
