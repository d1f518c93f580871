"""``mlpx package``: a proved file into the folder that an inference server wants."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json, note, print_json


def command(
    file: Annotated[Path, typer.Argument(help="The proved ONNX file, with its NAME.parity.json beside it.")],
    target: Annotated[
        str,
        typer.Option(
            "--for", help="The server: triton, kserve, openvino, mlserver, ray-serve, browser; or triton:23.10."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")],
    target_version: Annotated[
        str | None, typer.Option(help="The server's release; a file that is too new for it is written anew and proved.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="NAME.parity.json, where it lies elsewhere.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name at the server; the file's if left out.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="How the server runs it, where it can in several ways: python for triton.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    max_batch: Annotated[
        int | None, typer.Option(help="The most rows that the server takes or puts together; 1024 if left out.")
    ] = None,
    delay_us: Annotated[
        int, typer.Option(help="How long a request may wait for others to share a batch with, microseconds.")
    ] = 0,
    instances: Annotated[int, typer.Option(help="Copies of the model that run side by side.")] = 1,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime, in each of them.")] = 1,
    onnxruntime_web: Annotated[
        Path | None, typer.Option(help="For the browser: the npm package; ./node_modules/onnxruntime-web if left out.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let the package that is in the folder go.")] = False,
    as_json: Json = False,
) -> None:
    """Write everything that an inference server needs to run FILE to a folder, with a smoke test."""
    from export import package

    made = package(
        file,
        target,
        output,
        release=target_version,
        certificate=certificate,
        name=name,
        backend=backend,
        device=device,
        max_batch=max_batch,
        delay_us=delay_us,
        instances=instances,
        threads=threads,
        onnxruntime_web=onnxruntime_web,
        replace=replace,
    )
    deployment, url = made.deployment, made.url
    if as_json:
        keys = ("name", "release", "backend", "device", "max_batch", "delay_us", "instances", "threads")
        record = {"folder": made.folder, "target": made.target.name}
        record |= {key: getattr(deployment, key) for key in keys} | {"sha256": deployment.certificate.sha256}
        print_json(record | {"start": made.start, "url": url, "files": made.files, "notes": made.notes})
        return
    for line in made.notes:
        note(f"note: {line}")
    how = f", backend {deployment.backend}" if deployment.backend else ""
    fixed = deployment.fixed_batch
    rows = f"exactly {fixed} rows a request" if fixed else f"at most {deployment.max_batch:,} rows a batch"
    print(f"packaged  {made.folder}: {len(made.files)} files for {made.target.name} {deployment.release}{how}")
    print(f"model     {deployment.name}, {rows}, SHA-256 {deployment.certificate.sha256[:16]}…")
    print(f"start     cd {made.folder}")
    for line in made.start.splitlines():
        print(f"          {line}")
    if made.target.speaks_v2:
        print(f"check     python3 smoke/check.py {url}")
        print(f"verify    mlpx verify --url {url} --certificate {deployment.name}.parity.json")
