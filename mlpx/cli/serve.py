"""``mlpx serve``: answer requests over the V2 protocol."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter, Option

from .options import Device, Json
from .terminal import note, print_json, tell


@dataclass
class Serving:
    """Options by their names in ``runtime.serving.Options``; gRPC may be left out, and the token is in a file."""

    folder: Annotated[Path, "A folder of models, or one .onnx file."]
    host: Annotated[str, "The address to listen on; 0.0.0.0 for every one."] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, help="Of REST; 0: any free one.")] = 8000
    grpc_port: Annotated[int, Option(min=0, max=65535, help="Of gRPC; 0: any free one.")] = 8001
    grpc: Annotated[bool, "Serve gRPC too."] = True
    workers: Annotated[int, Option(min=1, max=1024, help="Processes, each with its own copy of the models.")] = 1
    device: Device = "auto"
    threads: Annotated[int | None, Option(min=1, max=1024, help="Of a call; if left out, by the model's size.")] = None
    coalesce: Annotated[
        bool, Option("--coalescing/--no-coalescing", help="Requests that wait together share a call.")
    ] = True
    max_batch: Annotated[int, Option(min=1, help="The most rows of a call that requests share.")] = 1024
    max_rows: Annotated[int, Option(min=1, help="The most rows of one request.")] = 65_536
    max_body: Annotated[int, Option(min=1, help="The most bytes of a request's body.")] = 16 * 2**20
    max_head: Annotated[int, Option(min=1024, help="The most bytes of a request's head.")] = 16 * 2**10
    queue_rows: Annotated[int, Option(min=1, help="Rows that may wait for a model; a request beyond gets 429.")] = (
        131_072
    )
    timeout: Annotated[
        float, Option(min=0.001, help="Seconds that a request may wait for its call; then it gets 504.")
    ] = 30.0
    read_timeout: Annotated[
        float, Option(min=0.1, help="Seconds that a request may take to arrive, or an answer to be taken.")
    ] = 30.0
    connections: Annotated[int, Option(min=1, help="The most connections of a worker.")] = 12_000
    grace: Annotated[float, Option(min=0.1, help="Seconds for requests in progress at the end.")] = 30.0
    poll: Annotated[
        float | None, Option(min=0.1, help="Look at the folder every so many seconds; without, on SIGHUP.")
    ] = None
    only_proved: Annotated[bool, "Refuse files without a certificate that proves their bytes."] = False
    control: Annotated[bool, "Clients may load and unload models of the folder."] = True
    token_file: Annotated[Path | None, "A file with the bearer token that clients must send; or MLPX_TOKEN is set."] = (
        None
    )
    certificate: Annotated[Path | None, Option("--tls-cert", help="TLS: the certificate chain, PEM.")] = None
    key: Annotated[Path | None, Option("--tls-key", help="TLS: the private key, PEM.")] = None
    log_requests: Annotated[bool, "Log every request, not only those that fail."] = False


def command(serving: Serving, as_json: Json = False) -> None:
    """Serve the models of FOLDER over REST and gRPC until it is told to stop."""
    if (serving.certificate is None) != (serving.key is None):
        raise BadParameter("--tls-cert and --tls-key go together")
    from runtime.serving import Options, Started, serve

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
