"""``mlpx shadow``: a proxy that answers from one server, and says where another one would answer differently."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import BadParameter, Exit

from mlpx.exit_codes import UNPROVED

from .options import Json
from .repeating import metrics_address
from .terminal import print_field, print_line

if TYPE_CHECKING:
    from runtime.shadow import Tally

_BOUND = "What the {0} model may be off by, if its server shows no certificate."


@dataclass
class ShadowOptions:
    """Options by their names in ``runtime.shadow.Options``, but for those of a side and ``metrics``."""

    old: Annotated[str, "--old", "URL", "The server that answers: http://host:port, or the URL of one model there."]
    new: Annotated[str, "--new", "URL", "The server that is asked too."]
    host: Annotated[str, "ADDRESS", "The address to listen on; 0.0.0.0 for all."] = "127.0.0.1"
    port: Annotated[int, "PORT", "The port that clients ask; 0 picks a free one.", 0, 65535] = 8010
    old_certificate: Annotated[Path | None, "NAME.parity.json of the old model, instead of the server's."] = None
    new_certificate: Annotated[Path | None, "NAME.parity.json of the new model, instead of the server's."] = None
    old_bound: Annotated[float | None, "X", _BOUND.format("old")] = None
    new_bound: Annotated[float | None, "X", _BOUND.format("new")] = None
    share: Annotated[float, "F", "The share of the requests to mirror, at random, 0 to 1.", 0, 1] = 1.0
    parallel: Annotated[int, "Requests that the new server has at once, at most.", 1, 256] = 4
    queue: Annotated[int, "REQUESTS", "Requests that may wait for the new server; others are counted.", 1] = 1000
    max_body: Annotated[int, "BYTES", "Larger requests and answers are not mirrored.", 1] = 64 * 2**20
    timeout: Annotated[float, "SECONDS", "Seconds allowed to the new server per request.", 0.001] = 10.0
    grace: Annotated[float, "SECONDS", "Seconds for requests in progress to finish at the end.", 0.0] = 30.0
    ca_file: Annotated[Path | None, "The PEM file of the servers' certificate authority."] = None
    metrics: Annotated[str | None, "PORT", "Answer /metrics on 127.0.0.1:PORT; ADDRESS:PORT for another address."] = (
        None
    )


def shadow(options: ShadowOptions, as_json: Json = False) -> None:
    """Answer clients from the old server, ask the new one too, and tell where they differ beyond their bounds."""
    values = vars(options).copy()
    metrics = metrics_address(values.pop("metrics"))
    from runtime.shadow import Options, Outcome, Started, parse_side, shadow

    for name in ("old", "new"):
        certificate, bound = values.pop(f"{name}_certificate"), values.pop(f"{name}_bound")
        values[name] = parse_side(values[name], certificate=certificate, bound=bound)
    asked = Options(**values, metrics=metrics, token=os.environ.get("MLPX_TOKEN") or None)
    if str(asked.old) == str(asked.new):
        raise BadParameter("--old and --new are the same server: there is nothing to compare")

    def started(proxy: Started) -> None:
        if as_json:
            print_line(json.dumps({"event": "started", "old": options.old, "new": options.new, **asdict(proxy)}))
            return
        print_field("shadow", f"{proxy.url}: answers of {options.old}, compared with those of {options.new}")
        if proxy.metrics:
            print_field("metrics", f"{proxy.metrics}/metrics")

    def told(outcome: Outcome) -> None:
        time = datetime.now(UTC)
        if as_json:
            stamp = time.isoformat(timespec="milliseconds")
            print_line(json.dumps({"event": "outcome", "time": stamp, **asdict(outcome)}))
            return
        request = f" (request {outcome.request})" if outcome.request else ""
        print_line(f"{time:%Y-%m-%dT%H:%M:%SZ} {outcome.kind:<9} {outcome.model}: {outcome.words}{request}")

    tally = shadow(asked, started, told)
    _summary(tally, as_json)
    if tally.differences:
        raise Exit(UNPROVED)


def _summary(tally: "Tally", as_json: bool) -> None:
    if as_json:
        print_line(json.dumps({"event": "summary", **tally.record()}))
    else:
        print_field("summary", *tally.words())
