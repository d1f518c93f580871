"""One version of a model, loaded: its session, its queue, and what is known of its proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time
from typing import Any

from runtime.data.integers import allowed_rows
from runtime.errors import InputError, ModelError
from runtime.files import sha256
from runtime.model.certificate import Certificate, read_certificate
from runtime.session.session import Session

from .cost import measured
from .dynamic_batching import Arrays, Coalescer
from .options import Options
from .refusals import Defect, Malformed, Refusal
from .signature import Signature, signature_of
from .statistics import Statistics


class Served:
    """A version of a model that answers requests. ``load`` makes one, off the event loop."""

    def __init__(
        self,
        name: str,
        version: str,
        session: Session,
        digest: str,
        certificate: Certificate | None,
        seconds: Callable[[int], float],
        options: Options,
    ):
        self.name, self.version, self.session, self.sha256 = name, version, session, digest
        self.certificate, self._seconds, self._options = certificate, seconds, options
        self.signature: Signature = signature_of(session.inputs, session.outputs, options.max_rows)
        self.statistics = Statistics()
        self._queue: Coalescer | None = None

    @property
    def proved(self) -> bool:
        """Whether a certificate of these very bytes says so."""
        return self.certificate is not None and self.certificate.proved

    @property
    def together(self) -> bool:
        """Whether rows of several requests share a call."""
        return self._options.coalesce and self.session.divisible and self.signature.fixed

    def infer(self, feed: Arrays, rows: int, timeout: float | None) -> asyncio.Future[Arrays]:
        """The outputs by name for float32 or int64 arrays (rows, *row).

        Raises Busy; the future raises Late, Malformed, or the model's error.
        """
        if self._queue is None:
            limits = {"most_rows": self._options.max_batch, "queue_rows": self._options.queue_rows}
            run = _runner(self.session)
            self._queue = Coalescer(run, self._seconds, self.statistics, together=self.together, **limits)
        longest = self._options.timeout
        return self._queue.submit(feed, rows, longest if timeout is None else min(timeout, longest))

    def metadata(self) -> dict[str, Any]:
        """V2 metadata, with what else a client may want to know under "parameters"."""
        summary = self.session.summary
        inputs = summary.inputs if summary is not None else self.session.inputs
        outputs = summary.outputs if summary is not None else self.session.outputs
        place = f"v2/models/{self.name}/versions/{self.version}/certificate"
        page = self.certificate is not None and self.page() is not None
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "onnxruntime_onnx",
            "inputs": self._tensors(self.signature.inputs),
            "outputs": self._tensors(self.signature.outputs),
            "parameters": {
                "sha256": self.sha256,
                "proved": self.proved,
                "certificate": place if self.certificate is not None else None,
                "certificate_page": f"{place}.html" if page else None,
                "device": self.session.device,
                "coalesced": self.together,
                "inputs": [port.to_record() for port in inputs],
                "outputs": [port.to_record() for port in outputs],
            },
        }

    @staticmethod
    def _tensors(tensors: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": name, "datatype": held.datatype, "shape": held.shape} for name, held in tensors.items()]

    def page(self) -> Path | None:
        """The certificate as a page, where it lies beside."""
        if self.certificate is None:
            return None
        page = self.certificate.path.with_suffix(".html")
        return page if page.is_file() else None

    def answered(self, start: float) -> None:
        """Count a request that came at ``start`` (``perf_counter``) and was answered with tensors."""
        self.statistics.last = time()
        self.statistics.requests.add(perf_counter() - start)

    def refused(self, error: Exception) -> None:
        """Count a request that was answered with an error."""
        self.statistics.refuse(error.code if isinstance(error, Refusal) else Defect.code)

    def close(self) -> None:
        """No request will come any more; those that wait are still answered."""
        if self._queue is not None:
            self._queue.close()


def _runner(session: Session) -> Callable[[Arrays], Arrays]:
    """One call of the model. It knows the session alone: so a version that is taken out is freed at once."""
    one = session.inputs[0].name if len(session.inputs) == len(session.outputs) == 1 else None

    def run(feed: Arrays) -> Arrays:
        try:
            return session.run(feed) if one is None else {session.outputs[0].name: session.predict(feed[one])}
        except InputError as error:
            raise Malformed(str(error)) from None

    return run


def load(name: str, version: str, file: Path, options: Options) -> Served:
    """Open a file, try it and measure a call.

    Raises ModelError: it cannot be opened or run, or is not proved and ``only_proved`` says that it must be.
    """
    before = sha256_of(file)
    session = Session(file, options.device, threads=options.threads)
    certificate = _certificate(file, options.folder)
    if options.only_proved and (certificate is None or not certificate.proved):
        raise ModelError(
            f"{file.name} has no certificate that proves these bytes, and --only-proved asks for one. "
            f"What to do: put its NAME.parity.json beside it, or make one with mlpx verify"
        )
    sizes = [(port, tuple(s if isinstance(s, int) else 1 for s in port.shape[1:])) for port in session.inputs]

    def run(rows: int) -> object:
        counts = [port.shape[0] if isinstance(port.shape[0], int) else rows for port, _ in sizes]
        given = zip(sizes, counts, strict=True)
        return session.run({port.name: allowed_rows(port, (count, *row)) for (port, row), count in given})

    seconds = measured(run, divisible=session.divisible)
    if sha256_of(file) != before:
        raise ModelError(f"{file.name} was changed while it was loaded. What to do: load it again")
    return Served(name, version, session, before, certificate, seconds, options)


def sha256_of(file: Path) -> str:
    """Raises ModelError: the file cannot be read."""
    try:
        return sha256(file)
    except OSError as error:
        raise ModelError(f"{file.name} cannot be read: {error.strerror}") from None


def _certificate(file: Path, top: Path) -> Certificate | None:
    """Of these very bytes, beside the file or a folder above, and never above ``top``; one of other bytes is none."""
    places = [file.parent, *([file.parent.parent] if top in file.parent.parents else [])]
    for folder in places:
        for path in sorted(folder.glob("*.parity.json")):
            try:
                found = read_certificate(path)
            except InputError:
                continue
            if found.is_of(file):
                return found
    return None
