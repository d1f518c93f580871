"""``mlpx package``: a proved file into the folder that an inference server wants; ``mlpx serve``: our own server."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter

from .options import Device, Json
from .terminal import note, print_json, tell


@dataclass
class Deployment:
    """Options by their names in ``export.package``."""

    folder: Annotated[Path, "-o", "--output", "The folder to write."]
    release: Annotated[
        str | None,
        "--target-version",
        "The server's release; a file that is too new for it is written anew and proved.",
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


def package(
    file: Annotated[Path, "The proved ONNX file, with its NAME.parity.json beside it."],
    target: Annotated[
        str, "--for", "The server: triton, kserve, openvino, mlserver, ray-serve, browser; or triton:23.10."
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


@dataclass
class Serving:
    """Options by their names in ``runtime.server.Options``; gRPC may be left out, and the token is in a file."""

    folder: Annotated[Path, "A folder of models, or one .onnx file."]
    host: Annotated[str, "The address to listen on; 0.0.0.0 for every one."] = "127.0.0.1"
    port: Annotated[int, "Of REST; 0: any free one.", 0, 65535] = 8000
    grpc_port: Annotated[int, "Of gRPC; 0: any free one.", 0, 65535] = 8001
    grpc: Annotated[bool, "Serve gRPC too."] = True
    workers: Annotated[int, "Processes, each with its own copy of the models.", 1, 1024] = 1
    device: Device = "auto"
    threads: Annotated[int | None, "Of a call; if left out, by the model's size.", 1, 1024] = None
    coalesce: Annotated[bool, "--coalescing/--no-coalescing", "Requests that wait together share a call."] = True
    max_batch: Annotated[int, "The most rows of a call that requests share.", 1] = 1024
    max_rows: Annotated[int, "The most rows of one request.", 1] = 65_536
    max_body: Annotated[int, "The most bytes of a request's body.", 1] = 16 * 2**20
    max_head: Annotated[int, "The most bytes of a request's head.", 1024] = 16 * 2**10
    queue_rows: Annotated[int, "Rows that may wait for a model; a request beyond gets 429.", 1] = 131_072
    timeout: Annotated[float, "Seconds that a request may wait for its call; then it gets 504.", 0.001] = 30.0
    read_timeout: Annotated[float, "Seconds that a request may take to arrive, or an answer to be taken.", 0.1] = 30.0
    connections: Annotated[int, "The most connections of a worker.", 1] = 12_000
    grace: Annotated[float, "Seconds for requests in progress at the end.", 0.1] = 30.0
    poll: Annotated[float | None, "Look at the folder every so many seconds; without, on SIGHUP.", 0.1] = None
    only_proved: Annotated[bool, "Refuse files without a certificate that proves their bytes."] = False
    control: Annotated[bool, "Clients may load and unload models of the folder."] = True
    token_file: Annotated[Path | None, "A file with the bearer token that clients must send; or MLPX_TOKEN is set."] = (
        None
    )
    certificate: Annotated[Path | None, "--tls-cert", "TLS: the certificate chain, PEM."] = None
    key: Annotated[Path | None, "--tls-key", "TLS: the private key, PEM."] = None
    log_requests: Annotated[bool, "Log every request, not only those that fail."] = False


def serve(serving: Serving, as_json: Json = False) -> None:
    """Serve the models of FOLDER over REST and gRPC until it is told to stop."""
    if (serving.certificate is None) != (serving.key is None):
        raise BadParameter("--tls-cert and --tls-key go together")
    from runtime.server import Options, Started, serve

    values: dict[str, Any] = {**vars(serving), "grpc_port": serving.grpc_port if serving.grpc else None}
    del values["grpc"]
    options = Options(token=_token(values.pop("token_file")), **values)

    def started(server: Started) -> None:
        if as_json:
            print_json(server)
        else:
            tell("serving", f"{server.url}{f' and {server.grpc}' if server.grpc else ''}")
            for model in server.models:
                state = model["state"].lower() + (f": {model['reason']}" if model["reason"] else "")
                tell("model", f"{model['name']} {model['version']}: {state}")
        if options.host not in ("127.0.0.1", "::1", "localhost") and options.token is None:
            reached = f"{options.host} can be reached from other machines"
            note(f"warning: {reached}, and no token is asked for (--token-file)")

    serve(options, started)


def _token(file: Path | None) -> str | None:
    """From a file, or the environment: never from the command line, which other users can read."""
    if file is None:
        return os.environ.get("MLPX_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameter(f"--token-file {file} cannot be read: {error}") from None
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise BadParameter(f"--token-file {file} holds no token: one line of printable ASCII is expected")
    return token
