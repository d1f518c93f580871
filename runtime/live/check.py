"""Checks whether a live server computes what a certificate proves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from runtime.errors import InputError, UnreachableError
from runtime.model.certificate import Answers, Certificate, read_certificate

from .causes import causes_of
from .connection import Connection, parse_url
from .judge import USUAL_RATIO, Judgement, fixed_batch, joined, judge, judge_interface
from .probe import Exchange, Probe, connect, largest_batch
from .protocol import Client, ModelInfo, Response, ServerError, ServerInfo
from .report import Finding, LiveReport
from .sight import Sight, requests_for, sight_of

TENSORS: dict[str, tuple[str, ...]] = {"json": ("JSON",), "binary": ("bytes",), "auto": ()}
"""How tensors may travel; "auto": as JSON, and as bytes too if the server's metadata says that it can."""
_ACCESS_DENIED = 401, 403, 407
_MAX_FIXED_BATCH = 65_536
_CHUNK = 400
"""Requests that are judged at a time, of those that are repeated."""
_MAX_VERSIONS = 8
"""Other versions that are tried if the answers are not the proved file's."""

Progress = Callable[[int, int], object]
"""Called with the number of requests that were sent, and of all."""


def _no_progress(_done: int, _total: int) -> None:
    """The progress of a check that nobody follows."""


def check_live(
    url: str,
    certificate: Certificate | str | Path,
    *,
    tensors: str = "auto",
    timeout: float = 30.0,
    token: str | None = None,
    ca_file: str | Path | None = None,
    confidence: float | None = None,
    rate: float | None = None,
    progress: Progress = _no_progress,
) -> LiveReport:
    """Send the rows of a certificate to a server of the Open Inference Protocol (V2) or of MLflow; judge its answers.

    ``url`` is ``http://host:port/v2/models/NAME``, optionally followed by ``/versions/V``; https, grpc and grpcs too.
    MLflow's is ``http://host:port/invocations``, for a model that was logged with tensors.
    ``tensors``: "json", "binary" or "auto" (over REST: both if the server can; over gRPC always bytes). A request
    may take ``timeout`` seconds. ``token`` is sent as a bearer token. ``ca_file``: the PEM file of the authority that
    signed the server's certificate; by default the system's. ``report.proved`` is the verdict.

    With ``rate`` so many requests are sent that a fault in this share of them, at random, is found with the
    ``confidence`` (default 0.95), until the first fault. ``progress`` is called with how many were sent, and with how
    many there are.

    Raises InputError: an invalid URL or option, or a certificate without answers; UnreachableError: nothing answers
    there, or not without a token; MissingPackageError: for gRPC, the packages of mlpx[serve].

    Examples:
        >>> from runtime import check_live
        >>> report = check_live(url, "comfort.parity.json", tensors="json")
        >>> report.proved
        True
    """
    start = time.monotonic()
    address = parse_url(url)
    if not isinstance(certificate, Certificate):
        certificate = read_certificate(certificate)
    answers = _answers(certificate)
    if tensors not in TENSORS:
        raise InputError(f"tensors: expected {', '.join(TENSORS)}, got '{tensors}'")
    if address.grpc and tensors == "json":
        hint = "leave tensors out, or give an http:// URL"
        raise InputError(f"{address}: tensors are never JSON over gRPC. What to do: {hint}")
    if address.mlflow and tensors == "binary":
        raise InputError(f"{address}: tensors are always JSON at MLflow. What to do: leave tensors out")
    if not 0 < timeout < 1e6:
        raise InputError(f"timeout: expected seconds, more than 0, got {timeout:g}")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        problem = "it is empty, or holds a space around it, a line break or a character beyond ASCII"
        raise InputError(f"the token cannot be sent: {problem}. What to do: set it again")
    if ca_file is not None and not address.encrypted:
        raise InputError(f"a CA file goes with https:// or grpcs://, and the URL is {address}")
    max_response = 2**20 + 64 * largest_batch(answers) * sum(exact[0].size for exact in answers.exact.values())
    confidence, requests = requests_for(confidence, rate)
    connection = Connection(address, timeout, token, None if ca_file is None else Path(ca_file), max_response)
    with closing(connect(connection)) as client:
        check = _Check(certificate, answers, connection, client, requests, progress)
        return check.report(tensors, start, confidence)


def _answers(certificate: Certificate) -> Answers:
    if certificate.answers is not None and certificate.proved:
        return certificate.answers
    reason = f"its verdict is not 'proved': {certificate.why}"
    if certificate.proved:
        reason = "it holds no answers to compare with: an older version of mlpx made it, or no row has a finite answer"
    hint = "make it again with mlpx build, export or verify -o"
    raise InputError(f"{certificate.path}: {reason}. What to do: {hint}")


def _visible(text: str) -> str:
    """A server's text without characters that control a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _version(exchange: Exchange) -> str:
    """The version that answered; "" if none did, or the server does not say."""
    return exchange.response.version if isinstance(exchange.response, Response) else ""


class _Check:
    """One check of one server, and its results so far."""

    def __init__(
        self,
        certificate: Certificate,
        answers: Answers,
        connection: Connection,
        client: Client,
        requests: int,
        progress: Progress,
    ):
        self.certificate, self.answers, self.connection, self.client = certificate, answers, connection, client
        self.requests, self.progress = requests, progress
        self.address = connection.address
        self.server, self.info = ServerInfo(), ModelInfo()
        self.findings: list[Finding] = []
        self.causes: list[str] = []
        self.warnings: list[str] = []
        self.exchanges: list[Exchange] = []
        self.versions: dict[str, None] = {}
        """Those that answered, in the order of their first answers."""

    def report(self, tensors: str, start: float, confidence: float) -> LiveReport:
        """Metadata first, then the rows, then the causes."""
        self.server = self._server_info()
        judgement = self._judge([])
        if self._model_exists() and self._interface_fits():
            judgement = self._check_rows(tensors)
        findings = (*self.findings, *judgement.findings)
        return LiveReport(
            url=str(self.address),
            protocol="gRPC" if self.address.grpc else "REST",
            server=_visible(" ".join(filter(None, (self.server.name, self.server.version)))),
            model=self.address.model,
            version=_visible(", ".join(self.versions)),
            versions=tuple(map(_visible, self.info.versions)),
            certificate=str(self.certificate.path),
            file=self.certificate.file,
            sha256=self.certificate.sha256,
            findings=tuple(Finding(finding.kind, _visible(finding.words)) for finding in findings),
            causes=tuple(dict.fromkeys(map(_visible, self.causes))),
            warnings=tuple(dict.fromkeys(map(_visible, self.warnings))),
            asked=judgement.asked,
            rows=self.answers.rows,
            largest=judgement.largest,
            share=judgement.share,
            at_proof=self.certificate.largest,
            told_apart=judgement.told_apart,
            sight=None if findings else self._sight(judgement, confidence),
            seconds=time.monotonic() - start,
        )

    def _sight(self, judgement: Judgement, confidence: float) -> Sight:
        requests = sum(asked.requests for asked in judgement.asked)
        return sight_of(self.answers.seen, requests, judgement.share, confidence)

    def _judge(self, exchanges: Sequence[Exchange]) -> Judgement:
        return judge(self.answers, exchanges, self.certificate.largest)

    def _server_info(self) -> ServerInfo:
        try:
            return self.client.server_info()
        except ServerError as error:
            self._raise_if_unreachable(error)
            return ServerInfo()  # some servers have no metadata of their own

    def _raise_if_unreachable(self, error: ServerError) -> None:
        server = f"{self.address.scheme}://{self.address.authority}"
        if error.status in _ACCESS_DENIED:
            hint = "set the environment variable MLPX_TOKEN to the server's token"
            problem = "does not accept the token of MLPX_TOKEN" if self.connection.token else "requires a token"
            raise UnreachableError(f"{server} {problem}: {error}. What to do: {hint}")
        if error.no_answer:
            hint = error.hint or "check the host, the port and the scheme, and that the server runs"
            raise UnreachableError(f"{server} cannot be reached: {error}. What to do: {hint}")

    def _model_exists(self) -> bool:
        try:
            self.info = self.client.model_info(self.address.version)
            return True
        except ServerError as error:
            self._raise_if_unreachable(error)
            model = f"model '{self.address.model}'"
            if self.address.version is not None:
                model = f"version '{self.address.version}' of {model}"
            self.findings.append(Finding("model", f"the server has no {model}: {error}"))
            self.causes += self._existing_models()
            return False

    def _existing_models(self) -> list[str]:
        if self.address.version is not None:
            try:
                versions = self.client.model_info(None).versions
            except ServerError:
                versions = ()
            if versions:
                return [f"the server's versions of '{self.address.model}' are {', '.join(versions)}"]
        try:
            models = list(dict.fromkeys(self.client.model_names()))
        except ServerError:  # listing models is an extension of the protocol
            return []
        return [f"the server's models are {', '.join(models[:20])}" if models else "the server has no models"]

    def _interface_fits(self) -> bool:
        """Compare the metadata; False if sending rows is of no use."""
        findings, warnings = judge_interface(self.info, self.answers)
        self.findings += findings
        self.warnings += warnings
        if findings:
            self.causes.append("another model, or a wrapper around it, has this name")
        if self.info.sha256 is not None and self.info.sha256 != self.certificate.sha256:
            served, proved = f"{self.info.sha256[:16]}…", f"{self.certificate.sha256[:16]}…"
            words = f"the server says that its file has the SHA-256 {served}, and the proved one has {proved}"
            self.findings.append(Finding("file", words))
            self.causes.append("another file is served: an older or a newer export, or a variant of it")
        return not findings

    def _check_rows(self, tensors: str) -> Judgement:
        batch = fixed_batch(self.info, self.answers)
        if batch is not None and batch > _MAX_FIXED_BATCH:
            words = f"every batch has {batch:,} rows by the metadata; at most {_MAX_FIXED_BATCH:,} are sent"
            self.findings.append(Finding("interface", words))
            return self._judge([])
        probe = Probe(self.answers, self.connection, self.client, self.address.version, batch)
        for encoding in self._encodings(tensors):
            exchanges = probe.all_at_once(encoding)
            self.exchanges += exchanges
            answered = [exchange for exchange in exchanges if isinstance(exchange.response, Response)]
            if [exchange.method.how for exchange in answered] == ["one by one"]:
                self.causes.append(f"a single row is answered, and a batch of {len(exchanges[0].rows)} is not")
            if answered:
                self.exchanges += probe.other_patterns(encoding)
        self._note_versions(self.exchanges)
        judgement = self._judge(self.exchanges)
        if self.requests and not judgement.findings and not probe.stopped:
            judgement = self._repeat(probe, judgement)
        if probe.refusal and probe.max_batch is not None and not probe.stopped and judgement.asked:
            words = f"it refuses batches of {self.answers.rows} rows, and takes {probe.max_batch} at a time"
            self.warnings.append(f"{words}: {probe.refusal}")
        if probe.stopped:
            self.warnings.append("a request got no answer, so the remaining ones were not sent")
        self._check_versions()
        if judgement.findings:
            self.causes += self._other_version(judgement) + causes_of(judgement)
        else:
            self._warn_of_limits(judgement, probe)
        return judgement

    def _repeat(self, probe: Probe, judgement: Judgement) -> Judgement:
        """Send more requests until there are as many as were asked for, or one is answered wrongly."""
        encodings = list(dict.fromkeys(exchange.method.tensors for exchange in self.exchanges))
        turn = 0
        while not judgement.findings and not probe.stopped:
            sent = sum(asked.requests for asked in judgement.asked)
            self.progress(min(sent, self.requests), self.requests)
            if sent >= self.requests:
                break
            exchanges = probe.repeats(encodings[turn % len(encodings)], min(_CHUNK, self.requests - sent))
            turn += 1
            self._note_versions(exchanges)
            part = self._judge(exchanges)
            if not part.findings:  # hundreds of thousands of answers would fill the memory
                part = replace(part, good=())
            judgement = joined(judgement, part)
        return judgement

    def _note_versions(self, exchanges: Sequence[Exchange]) -> None:
        self.versions |= {version: None for exchange in exchanges if (version := _version(exchange))}

    def _encodings(self, tensors: str) -> Sequence[str]:
        if self.address.grpc:
            return ["bytes"]
        binary = any("binary" in extension for extension in self.server.extensions)
        return TENSORS[tensors] or (("JSON", "bytes") if binary else ("JSON",))

    def _check_versions(self) -> None:
        """Whether the version in the URL answered, and always the same one."""
        versions = [*self.versions]
        wanted = self.address.version
        others = [repr(version) for version in versions if version != wanted]
        if wanted is not None and others:
            words = f"version '{wanted}' was asked, and {', '.join(others)} answered"
            self.findings.append(Finding("version", words))
        elif len(versions) > 1:
            self.warnings.append(f"versions {' and '.join(versions)} answered in turn: is one replacing the other?")

    def _other_version(self, judgement: Judgement) -> list[str]:
        """The version whose answers are those of the proved file, of those that the metadata names."""
        answered = {_version(exchange) for exchange in self.exchanges}
        if not any(finding.kind in ("bound", "precision", "form") for finding in judgement.findings):
            return []
        for version in self.info.versions[:_MAX_VERSIONS]:
            if version == self.address.version or version in answered:
                continue
            probe = Probe(self.answers, self.connection, self.client, version)
            exchanges = probe.all_at_once("bytes" if self.address.grpc else self.exchanges[0].method.tensors)
            if exchanges and not self._judge(exchanges).findings:
                here = ", ".join(sorted(answered - {""}))
                contrast = f"; the URL was answered by version {here}" if here else ""
                return [f"version {version} answers as the proved file does{contrast}"]
        return []

    def _warn_of_limits(self, judgement: Judgement, probe: Probe) -> None:
        """What a server that passes could still have wrong."""
        if self.answers.rows > 1 and len(probe.distinct) == 1:
            self.warnings.append("all rows have the same answer within their bounds, so mixed rows would pass")
        similar = [name for name in self.answers.reduced if name not in judgement.told_apart]
        if similar:
            precisions = ", ".join(dict.fromkeys(name.partition(",")[0] for name in similar))
            self.warnings.append(f"{precisions} would pass too: these rows do not distinguish it from float32")
        at_proof = self.certificate.largest
        usual = max(at_proof or 0.0, 2.0**-24)  # half a unit in float32's last place of 1
        if at_proof is not None and judgement.largest > USUAL_RATIO * usual:
            ratio = f"the largest difference is {judgement.largest / usual:.0f} times that at proof time"
            self.warnings.append(f"{ratio}: within the bound, but more than another order of the sums explains")
