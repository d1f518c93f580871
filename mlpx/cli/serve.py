"""``mlpx serve``: answer requests over the V2 protocol."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Json, note, print_json


def command(
    folder: Annotated[Path, typer.Argument(help="A folder of models, or one .onnx file.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of REST; 0: any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Of gRPC; 0: any free one.")] = 8001,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Serve gRPC too.")] = True,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes, each with its own copy of the models.")] = 1,
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Of a call; if left out, by the model's size.")
    ] = None,
    coalescing: Annotated[
        bool, typer.Option("--coalescing/--no-coalescing", help="Requests that wait together share a call.")
    ] = True,
    max_batch: Annotated[int, typer.Option(min=1, help="The most rows of a call that requests share.")] = 1024,
    max_rows: Annotated[int, typer.Option(min=1, help="The most rows of one request.")] = 65_536,
    max_body: Annotated[int, typer.Option(min=1, help="The most bytes of a request's body.")] = 16 * 2**20,
    max_head: Annotated[int, typer.Option(min=1024, help="The most bytes of a request's head.")] = 16 * 2**10,
    queue_rows: Annotated[
        int, typer.Option(min=1, help="Rows that may wait for a model; a request beyond gets 429.")
    ] = 131_072,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a request may wait for its call; then it gets 504.")
    ] = 30.0,
    read_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request may take to arrive, or an answer to be taken.")
    ] = 30.0,
    connections: Annotated[int, typer.Option(min=1, help="The most connections of a worker.")] = 12_000,
    grace: Annotated[float, typer.Option(min=0.1, help="Seconds for requests in progress at the end.")] = 30.0,
    poll: Annotated[
        float | None, typer.Option(min=0.1, help="Look at the folder every so many seconds; without, on SIGHUP.")
    ] = None,
    only_proved: Annotated[
        bool, typer.Option("--only-proved", help="Refuse files without a certificate that proves their bytes.")
    ] = False,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Clients may load and unload models of the folder.")
    ] = True,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the bearer token that clients must send; or MLPX_TOKEN is set.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="TLS: the certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS: the private key, PEM.")] = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log every request, not only those that fail.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve the models of FOLDER over REST and gRPC until it is told to stop."""
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    from runtime.serving import Options, Started, serve

    options = Options(
        folder=folder,
        host=host,
        port=port,
        grpc_port=grpc_port if grpc else None,
        workers=workers,
        device=device,
        threads=threads,
        coalesce=coalescing,
        max_batch=max_batch,
        max_rows=max_rows,
        queue_rows=queue_rows,
        max_body=max_body,
        max_head=max_head,
        timeout=timeout,
        read_timeout=read_timeout,
        connections=connections,
        grace=grace,
        poll=poll,
        only_proved=only_proved,
        control=control,
        token=_token(token_file),
        certificate=tls_cert,
        key=tls_key,
        log_requests=log_requests,
    )

    def started(server: Started) -> None:
        if as_json:
            print_json(asdict(server))
        else:
            print(f"serving   {server.url}{f' and {server.grpc}' if server.grpc else ''}")
            for model in server.models:
                state = model["state"].lower() + (f": {model['reason']}" if model["reason"] else "")
                print(f"model     {model['name']} {model['version']}: {state}", flush=True)
        if options.host not in ("127.0.0.1", "::1", "localhost") and options.token is None:
            note(f"warning: {host} can be reached from other machines, and no token is asked for (--token-file)")

    serve(options, started)


def _token(file: Path | None) -> str | None:
    """From a file, or the environment: never from the command line, which other users can read."""
    if file is None:
        return os.environ.get("MLPX_TOKEN") or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--token-file {file} cannot be read: {error}") from None
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise typer.BadParameter(f"--token-file {file} holds no token: one line of printable ASCII is expected")
    return token
