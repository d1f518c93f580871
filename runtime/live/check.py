"""A live server and a certificate: does the one still compute what the other proves?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError, UnreachableError
from runtime.model.certificate import Answers, Certificate, read_certificate

from .causes import causes_of
from .interface import compared, fixed_batch
from .judge import USUAL, Heard, Judgement, judge
from .probe import Asking, Line
from .protocol import Client, Fault, ModelInfo, Reply, ServerInfo
from .report import Finding, LiveReport
from .url import Address, address_of

TENSORS = {"json": ("JSON",), "binary": ("bytes",), "auto": ()}
"""How tensors may be asked to travel; "auto": as JSON, and as bytes too where the server says that it can."""
_NO_ENTRY = 401, 403, 407
_MOST_ROWS = 65_536
"""Of a batch that metadata fixes."""
_MOST_VERSIONS = 8
"""That are asked where the one that was named is not the certified file."""


def check_live(
    url: str,
    certificate: Certificate | str | Path,
    *,
    tensors: str = "auto",
    timeout: float = 30.0,
    token: str | None = None,
    ca_file: str | Path | None = None,
) -> LiveReport:
    """Ask a server of the Open Inference Protocol (V2) for the rows of a certificate, and judge its answers.

    ``url`` is ``http://host:port/v2/models/NAME``, with ``/versions/V`` behind it or not; https, grpc and grpcs too.
    ``tensors``: "json", "binary" or "auto" (over REST: both where the server can; over gRPC always bytes). A request
    may take ``timeout`` seconds. ``token`` is sent as a bearer token. ``ca_file``: the PEM file of the authority of the
    server's certificate; the system's where left out. ``report.proved`` is the verdict.

    Raises InputError: a URL or option that is none, or a certificate that holds no answers; UnreachableError: nobody
    answers there, or not without a token; MissingPackageError: for gRPC, the packages of mlpx[serve].
    """
    start = time.monotonic()
    address = address_of(url)
    known = certificate if isinstance(certificate, Certificate) else read_certificate(certificate)
    answers = _answers(known)
    if tensors not in TENSORS:
        raise InputError(f"tensors: expected {', '.join(TENSORS)}, got '{tensors}'")
    if address.grpc and tensors == "json":
        raise InputError(
            f"{address}: tensors never are JSON over gRPC. What to do: leave it out, or give an http:// URL"
        )
    if not 0 < timeout < 1e6:
        raise InputError(f"timeout: expected seconds, more than 0, got {timeout:g}")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token and token):
        raise InputError("the token holds a space, a line break or a character beyond ASCII. What to do: set it anew")
    if ca_file is not None and not address.encrypted:
        raise InputError(f"a file of an authority goes with https:// or grpcs://, and the URL is {address}")
    values = sum(held[0].size for held in answers.exact.values())
    line = Line(address, timeout, token, None if ca_file is None else Path(ca_file), 2**20 + 64 * answers.rows * values)
    client = line.client()
    try:
        return _Check(known, answers, line, client, start).report(tensors)
    finally:
        client.close()


def _answers(certificate: Certificate) -> Answers:
    if certificate.answers is not None and certificate.proved:
        return certificate.answers
    why = f"its verdict is not that the file is proved: {certificate.why}"
    if certificate.proved:
        why = "it holds no answers to compare with: an older version of mlpx made it, or no row has a finite answer"
    raise InputError(f"{certificate.path}: {why}. What to do: make it anew with mlpx build, export or verify -o")


def _plain(text: str) -> str:
    """A server's words in one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


class _Check:
    def __init__(self, certificate: Certificate, answers: Answers, line: Line, client: Client, start: float):
        self.certificate, self.answers, self.line, self.client, self.start = certificate, answers, line, client, start
        self.address: Address = line.address
        self.server, self.info = ServerInfo(), ModelInfo()
        self.findings: list[Finding] = []
        self.causes: list[str] = []
        self.warnings: list[str] = []
        self.heard: list[Heard] = []

    def report(self, tensors: str) -> LiveReport:
        """Metadata first, then the rows, then the causes."""
        self.server = self._first_contact()
        judgement = judge(self.answers, [], self.certificate.largest)
        if self._metadata() and not self._wrong_interface():
            judgement = self._rows(tensors)
        versions = {h.came.version: None for h in self.heard if isinstance(h.came, Reply) and h.came.version}
        return LiveReport(
            url=str(self.address),
            protocol="gRPC" if self.address.grpc else "REST",
            server=_plain(" ".join(part for part in (self.server.name, self.server.version) if part)),
            model=self.address.model,
            version=_plain(", ".join(versions)),
            versions=tuple(map(_plain, self.info.versions)),
            certificate=str(self.certificate.path),
            file=self.certificate.file,
            sha256=self.certificate.sha256,
            findings=tuple(Finding(one.kind, _plain(one.words)) for one in (*self.findings, *judgement.findings)),
            causes=tuple(dict.fromkeys(map(_plain, self.causes))),
            warnings=tuple(dict.fromkeys(map(_plain, self.warnings))),
            asked=judgement.asked,
            rows=self.answers.rows,
            largest=judgement.largest,
            share=judgement.share,
            at_proof=self.certificate.largest,
            told_apart=judgement.told_apart,
            seconds=time.monotonic() - self.start,
        )

    def _first_contact(self) -> ServerInfo:
        try:
            return self.client.server()
        except Fault as fault:
            self._unreachable(fault)
            return ServerInfo()  # some servers have no metadata of their own

    def _unreachable(self, fault: Fault) -> None:
        at = f"{self.address.scheme}://{self.address.authority}"
        if fault.status in _NO_ENTRY:
            hint = "set the environment variable MLPX_TOKEN to the server's token"
            why = "does not accept the token of MLPX_TOKEN" if self.line.token else "lets nobody in without a token"
            raise UnreachableError(f"{at} {why}: {fault}. What to do: {hint}")
        if fault.where == "way" or fault.status == 504:
            hint = fault.hint or "check the host, the port and the scheme, and that the server runs"
            raise UnreachableError(f"{at} cannot be asked: {fault}. What to do: {hint}")

    def _metadata(self) -> bool:
        """Whether the server has the model."""
        try:
            self.info = self.client.model(self.address.version)
            return True
        except Fault as fault:
            self._unreachable(fault)
            what = f"model '{self.address.model}'"
            if self.address.version is not None:
                what = f"version '{self.address.version}' of {what}"
            self.findings.append(Finding("model", f"the server has no {what} to ask: {fault}"))
            self.causes += self._what_there_is()
            return False

    def _what_there_is(self) -> list[str]:
        if self.address.version is not None:
            try:
                versions = self.client.model(None).versions
            except Fault:
                versions = ()
            if versions:
                return [f"the versions of '{self.address.model}' there are {', '.join(versions)}"]
        try:
            models = list(dict.fromkeys(self.client.models()))
        except Fault:  # the repository index is an extension
            return []
        return [f"the models there are {', '.join(models[:20])}" if models else "there are no models at the server"]

    def _wrong_interface(self) -> bool:
        """Compare metadata; whether asking is of no use."""
        wrong, remarks = compared(self.info, self.answers)
        self.findings += wrong
        self.warnings += remarks
        if wrong:
            self.causes.append("another model, or a wrapper around it, has this name")
        if self.info.sha256 is not None and self.info.sha256 != self.certificate.sha256:
            found, known = f"{self.info.sha256[:16]}…", f"{self.certificate.sha256[:16]}…"
            words = f"the server says that its file has the SHA-256 {found}, and the certified one has {known}"
            self.findings.append(Finding("file", words))
            self.causes.append("another file is served: an older or a newer export, or a variant of it")
        return bool(wrong)

    def _rows(self, tensors: str) -> Judgement:
        asking = Asking(self.answers, self.line, self.client, self.address.version)
        asking.fixed = fixed_batch(self.info, self.answers)
        if asking.fixed is not None and asking.fixed > _MOST_ROWS:
            words = f"every batch has {asking.fixed:,} rows, by its metadata; {_MOST_ROWS:,} at most are asked"
            self.findings.append(Finding("interface", words))
            return judge(self.answers, [], self.certificate.largest)
        for travel in self._travels(tensors):
            first = asking.whole(travel)
            self.heard += first
            answered = [one.how for one in first if isinstance(one.came, Reply)]
            if answered == ["one by one"]:
                self.causes.append(f"a row alone is answered, and {len(first[0].rows)} at once are not")
            if answered:
                self.heard += asking.every_way(travel)
        judgement = judge(self.answers, self.heard, self.certificate.largest)
        if asking.refused and asking.largest is not None and not asking.broken and judgement.asked:
            said = f"it refuses batches of {self.answers.rows} rows, and takes {asking.largest} at a time"
            self.warnings.append(f"{said}: {asking.refused}")
        if asking.broken:
            self.warnings.append("a request got no answer, so the rest was not asked")
        self._versions_that_answered()
        if judgement.findings:
            self.causes += [words for words in (self._other_version(judgement),) if words is not None]
            self.causes += causes_of(judgement)
            return judgement
        if untold := [name for name in self.answers.reduced if name not in judgement.told_apart]:
            words = "answers computed in it would pass: these rows do not tell it from float32"
            kinds = dict.fromkeys(name.partition(",")[0] for name in untold)
            self.warnings.append(f"{', '.join(kinds)}: {words}")
        if self.certificate.largest is not None and judgement.largest > USUAL * self._usual():
            words = f"the largest difference is {judgement.largest / self._usual():.0f} times that at proof time"
            self.warnings.append(f"{words}: within the bound, and yet more than another order of the sums explains")
        return judgement

    def _usual(self) -> float:
        """The difference at proof time; half a unit in float32's last place of 1 where it was none."""
        return max(self.certificate.largest or 0.0, 2.0**-24)

    def _travels(self, tensors: str) -> Sequence[str]:
        if self.address.grpc:
            return ["bytes"]
        able = any("binary" in extension for extension in self.server.extensions)
        return TENSORS[tensors] or (("JSON", "bytes") if able else ("JSON",))

    def _versions_that_answered(self) -> None:
        versions = dict.fromkeys(heard.came.version for heard in self.heard if isinstance(heard.came, Reply))
        said = [version for version in versions if version]
        asked = self.address.version
        if asked is not None and any(version != asked for version in said):
            words = f"version '{asked}' was asked, and {', '.join(repr(v) for v in said if v != asked)} answered"
            self.findings.append(Finding("version", words))
        elif len(said) > 1:
            self.warnings.append(f"versions {' and '.join(said)} answered in turn: is one replacing the other?")

    def _other_version(self, judgement: Judgement) -> str | None:
        """The version whose answers are those of the certified file, of those that metadata names."""
        answered = {heard.came.version for heard in self.heard if isinstance(heard.came, Reply)}
        if not any(finding.kind in ("bound", "precision", "form") for finding in judgement.findings):
            return None
        for version in self.info.versions[:_MOST_VERSIONS]:
            if version == self.address.version or version in answered:
                continue
            asking = Asking(self.answers, self.line, self.client, version)
            heard = asking.whole("bytes" if self.address.grpc else self.heard[0].tensors)
            if heard and not judge(self.answers, heard, self.certificate.largest).findings:
                default = ", ".join(sorted(answered - {""}))
                now = f"; the version that was asked here is {default}" if default else ""
                return f"version {version} answers as the certified file does{now}"
        return None
