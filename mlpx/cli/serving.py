"""``mlpx package``: the folder that runs a proved file on a server or in C; ``mlpx serve``: mlpx's own server."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter

from export.targets import TARGETS

from .options import Device, Json, TrustedKeys
from .terminal import note, print_command, print_field, print_json


@dataclass
class PackageOptions:
    """Options by their names in ``export.package``."""

    folder: Annotated[Path, "-o", "--output", "FOLDER", "The folder to write."]
    release: Annotated[
        str | None,
        "--target-version",
        "VERSION",
        "The server's release; a file that is too new is rewritten and proved again.",
    ] = None
    certificate: Annotated[Path | None, "NAME.parity.json, if it is not beside FILE."] = None
    trusted_keys: TrustedKeys = None
    name: Annotated[str | None, "NAME", "The model's name at the server; default: the file's."] = None
    backend: Annotated[
        str | None, "NAME", "How the server runs the file, if there are several ways: python for triton."
    ] = None
    device: Annotated[str, "cpu|cuda", "What the server computes on."] = "cpu"
    max_batch: Annotated[int | None, "ROWS", "The largest request and the largest batch, in rows; default: 1024."] = (
        None
    )
    delay_us: Annotated[
        int, "MICROSECONDS", "How long a request may wait for others to share a batch with, microseconds."
    ] = 0
    instances: Annotated[int, "Copies of the model that run side by side."] = 1
    threads: Annotated[int, "ONNX Runtime's threads in each copy."] = 1
    verify_every: Annotated[
        float | None, "SECONDS", "Seconds between checks that the model answers as proved; default: 60; 0: none."
    ] = None
    onnxruntime_web: Annotated[
        Path | None, "FOLDER", "npm package for browser; default: node_modules/onnxruntime-web."
    ] = None
    replace: Annotated[bool, "Replace the package that is in the folder."] = False


def package(
    file: Annotated[Path, "The proved ONNX file, with its NAME.parity.json beside it."],
    target: Annotated[str, "--for", "TARGET", f"The server: {', '.join(TARGETS)}; with a release, triton:23.10."],
    options: PackageOptions,
    as_json: Json = False,
) -> None:
    """Write what a server, a page or a C program needs to run FILE to a folder, with a test of its answers."""
    from export import package

    made = package(file, target, **vars(options))
    deployment, url = made.deployment, made.url
    if as_json:
        record = {"folder": made.folder, "target": made.target.name, **deployment.options}
        record |= {"sha256": deployment.certificate.sha256, "start": made.start, "url": url}
        print_json(record | {"files": made.files, "notes": made.notes})
        return
    note(*(f"note: {line}" for line in made.notes))
    how = f", backend {deployment.backend}" if deployment.backend else ""
    fixed = deployment.fixed_batch
    rows = f"exactly {fixed} rows a request" if fixed else f"at most {deployment.max_batch:,} rows a batch"
    rows = f"{rows}, " if made.target.ports else ""
    print_field("packaged", f"{made.folder}: {len(made.files)} files for {made.target.name} {deployment.release}{how}")
    print_field("model", f"{deployment.name}, {rows}SHA-256 {deployment.certificate.sha256[:16]}…")
    print_command("start" if made.target.ports else "build", f"cd {made.folder}")
    print_command("", *made.start.splitlines())
    if made.target.speaks_v2:
        print_command("check", f"python3 smoke/check.py {url}")
        print_command("verify", f"mlpx verify --url {url} --certificate {deployment.name}.parity.json")


@dataclass
class ServeOptions:
    """Options by their names in ``runtime.server.Options``, but for ``grpc`` and ``token_file``."""

    folder: Annotated[Path, "A folder of models, or one .onnx file."]
    host: Annotated[str, "ADDRESS", "The address to listen on; 0.0.0.0 for all."] = "127.0.0.1"
    port: Annotated[int, "PORT", "REST port; 0 picks a free one.", 0, 65535] = 8000
    grpc_port: Annotated[int, "PORT", "gRPC port; 0 picks a free one.", 0, 65535] = 8001
    grpc: Annotated[bool, "Serve gRPC too."] = True
    workers: Annotated[int, "Processes, each with its own copy of the models.", 1, 1024] = 1
    device: Device = "auto"
    threads: Annotated[int | None, "Threads per call; default depends on the model's size.", 1, 1024] = None
    coalesce: Annotated[bool, "--coalescing/--no-coalescing", "Run waiting requests in one call."] = True
    max_batch: Annotated[int, "ROWS", "The largest batch that requests share, in rows.", 1] = 1024
    max_rows: Annotated[int, "ROWS", "The largest request, in rows.", 1] = 65_536
    max_body: Annotated[int, "BYTES", "The largest request body, in bytes.", 1] = 16 * 2**20
    max_head: Annotated[int, "BYTES", "The largest request head, in bytes.", 1024] = 16 * 2**10
    queue_rows: Annotated[int, "ROWS", "Rows that may wait for a model; further requests get 429.", 1] = 131_072
    timeout: Annotated[float, "SECONDS", "Seconds that a request may wait for its call before it gets 504.", 0.001] = (
        30.0
    )
    read_timeout: Annotated[
        float, "SECONDS", "Seconds for a request to arrive, and for its answer to be received.", 0.1
    ] = 30.0
    connections: Annotated[int, "Connections per worker.", 1] = 12_000
    grace: Annotated[float, "SECONDS", "Seconds for requests in progress to finish at shutdown.", 0.1] = 30.0
    poll: Annotated[float | None, "SECONDS", "Seconds between checks of the folder; default: only on SIGUSR1.", 0.1] = (
        None
    )
    verify_every: Annotated[
        float, "SECONDS", "Seconds between checks that proved models answer as proved; 0: no checks.", 0
    ] = 60.0
    only_proved: Annotated[bool, "Refuse files without a certificate that proves their bytes."] = False
    trusted_keys: TrustedKeys = None
    control: Annotated[bool, "Clients may load and unload models of the folder."] = True
    token_file: Annotated[Path | None, "A file with the bearer token of the clients; default: MLPX_TOKEN."] = None
    certificate: Annotated[Path | None, "--tls-cert", "TLS: the certificate chain, PEM."] = None
    key: Annotated[Path | None, "--tls-key", "TLS: the private key, PEM."] = None
    otel: Annotated[bool, "Trace requests with OpenTelemetry, as the variables OTEL_* say."] = False
    uds: Annotated[Path | None, "PATH", "A Unix socket for REST as well, and PATH.grpc for gRPC."] = None
    shared_memory: Annotated[bool, "Clients may register shared memory of this machine for their tensors."] = False
    log_requests: Annotated[bool, "Log every request, not only those that fail."] = False


def serve(options: ServeOptions, as_json: Json = False) -> None:
    """Serve the models of FOLDER over REST and gRPC until SIGTERM, SIGHUP or Ctrl-C."""
    if (options.certificate is None) != (options.key is None):
        raise BadParameter("--tls-cert and --tls-key go together")
    from runtime.server import Options, Started, serve

    values: dict[str, Any] = {**vars(options), "grpc_port": options.grpc_port if options.grpc else None}
    del values["grpc"]
    values["trusted_keys"] = tuple(options.trusted_keys or ())
    token = _read_token(values.pop("token_file"))

    def started(server: Started) -> None:
        if as_json:
            print_json(server)
        else:
            print_field("serving", f"{server.url}{f' and {server.grpc}' if server.grpc else ''}")
            for model in server.models:
                state = model["state"].lower().replace("_", " ") + (f": {model['reason']}" if model["reason"] else "")
                proof = ", not proved" if model["proved"] is False else ""
                print_field("model", f"{model['name']} {model['version']}: {state}{proof}")
        if options.host not in ("127.0.0.1", "::1", "localhost") and token is None:
            note(f"warning: {options.host} is open to other machines, and no token is required (--token-file)")

    serve(Options(token=token, **values), started)


def _read_token(file: Path | None) -> str | None:
    """The token from a file or the environment, never from the command line, which other users can read."""
    if file is None:
        return os.environ.get("MLPX_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadParameter(f"--token-file {file} cannot be read: {error}") from None
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise BadParameter(f"--token-file {file} does not contain a token: expected one line of printable ASCII")
    return token
