"""One version of a model, loaded: its session, its queue, and what is known of its proof."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time
from typing import Any

from runtime.data.indices import allowed_rows
from runtime.data.scoring import input_ports
from runtime.errors import InputError, ModelError, SignatureError
from runtime.files import sha256
from runtime.model.certificate import Certificate, read_certificate
from runtime.model.signing import require_signature
from runtime.session.session import Session
from runtime.session.trial import trial

from .dynamic_batching import Arrays, Called, DynamicBatcher, measure_cost
from .options import Options
from .refusals import Defect, Malformed, Refusal
from .signature import Signature, Tensor, signature_of
from .statistics import Statistics


class LoadedModel:
    """A version of a model that answers requests. ``load_model`` makes one, off the event loop."""

    name: str
    version: str
    session: Session
    sha256: str
    """Of the file."""
    certificate: Certificate | None
    """The one of exactly this file."""
    fault: str
    """What its answers to the rows of the certificate had wrong at the last check (``self_check``); "" for nothing."""

    def __init__(
        self,
        name: str,
        version: str,
        session: Session,
        digest: str,
        certificate: Certificate | None,
        cost: Callable[[int], float],
        options: Options,
    ):
        self.name, self.version, self.session, self.sha256 = name, version, session, digest
        self.certificate, self._cost, self._options = certificate, cost, options
        self.fault = ""
        self.signature: Signature = signature_of(input_ports(session), session.outputs, options.max_rows)
        self.statistics: Statistics = Statistics()
        self._batcher: DynamicBatcher | None = None

    @property
    def proved(self) -> bool:
        """Whether a certificate of exactly these bytes says so."""
        return self.certificate is not None and self.certificate.proved

    @property
    def batched(self) -> bool:
        """Whether rows of several requests may share a call."""
        return self._options.coalesce and self.session.divisible and self.signature.fixed

    @property
    def queue_rows(self) -> int:
        """The most rows that may wait."""
        return self._options.queue_rows

    @property
    def calling_seconds(self) -> float:
        """How long a call of the model that goes on now has taken so far; 0 for those of less than 2 ms."""
        return 0.0 if self._batcher is None else self._batcher.calling_seconds

    def infer(
        self, feed: Arrays, rows: int, timeout: float | None, called: Called | None = None
    ) -> asyncio.Future[Arrays]:
        """The outputs by name for float32 or int64 arrays (rows, *row); ``called`` is told of the call.

        Raises Busy; the future raises Late, Malformed, or the model's error.
        """
        options = self._options
        if self._batcher is None:
            limits = {"max_batch": options.max_batch if self.batched else 0, "queue_rows": options.queue_rows}
            self._batcher = DynamicBatcher(_runner(self.session), self._cost, self.statistics, **limits)
        timeout = options.timeout if timeout is None else min(timeout, options.timeout)
        return self._batcher.submit(feed, rows, timeout, called)

    def metadata(self) -> dict[str, Any]:
        """V2 metadata; "parameters" has what V2 has no field for."""
        summary = self.session.summary
        inputs = summary.inputs if summary is not None else self.session.inputs
        outputs = summary.outputs if summary is not None else self.session.outputs
        certificate = f"v2/models/{self.name}/versions/{self.version}/certificate"
        bound = None if self.certificate is None else self.certificate.bound
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "onnxruntime_onnx",
            "inputs": _metadata_tensors(self.signature.inputs),
            "outputs": _metadata_tensors(self.signature.outputs),
            "parameters": {
                "sha256": self.sha256,
                "proved": self.proved,
                "certificate": certificate if self.certificate is not None else None,
                "certificate_page": f"{certificate}.html" if self.certificate_page() is not None else None,
                "bound": None if bound is None else bound.to_record(),
                "device": self.session.device,
                "coalesced": self.batched,
                "inputs": [port.to_record() for port in inputs],
                "outputs": [port.to_record() for port in outputs],
            },
        }

    def config(self) -> dict[str, Any]:
        """Triton's ``ModelConfig``; https://github.com/triton-inference-server/common, model_config.proto."""
        fixed = self.signature.fixed
        kind = "KIND_CPU" if self.session.device == "cpu" else "KIND_GPU"
        record: dict[str, Any] = {
            "name": self.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": self._options.max_rows if fixed else 0,
            "input": _config_tensors(self.signature.inputs, fixed),
            "output": _config_tensors(self.signature.outputs, fixed),
            "instance_group": [{"name": self.name, "kind": kind, "count": 1}],
            "default_model_filename": "" if self.session.path is None else self.session.path.name,
        }
        if self.batched:
            record["dynamic_batching"] = {"max_queue_delay_microseconds": 0}
        return record

    def certificate_page(self) -> Path | None:
        """The certificate as an HTML file, if it lies beside the certificate."""
        if self.certificate is None:
            return None
        page = self.certificate.path.with_suffix(".html")
        return page if page.is_file() else None

    def count_answer(self, start: float) -> None:
        """Count a request that came at ``start`` (``perf_counter``) and was answered with tensors."""
        self.statistics.last = time()
        self.statistics.requests.add(perf_counter() - start)

    def count_refusal(self, error: Exception) -> None:
        """Count a request that was answered with an error."""
        self.statistics.count_refusal(error.code if isinstance(error, Refusal) else Defect.code)

    def close(self) -> None:
        """Expect no more requests; those that wait are still answered."""
        if self._batcher is not None:
            self._batcher.close()


def _metadata_tensors(tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": tensor.datatype, "shape": tensor.shape} for name, tensor in tensors.items()]


def _config_tensors(tensors: dict[str, Tensor], fixed: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "data_type": f"TYPE_{tensor.datatype}",
            "dims": list(tensor.row) if fixed else tensor.shape,
        }
        for name, tensor in tensors.items()
    ]


def _runner(session: Session) -> Callable[[Arrays], Arrays]:
    """One call of the model. It refers to the session alone, so that a model that is unloaded is freed at once."""
    only_input = session.inputs[0].name if len(session.inputs) == len(session.outputs) == 1 else None

    def run(feed: Arrays) -> Arrays:
        try:
            if only_input is None:
                return session.run(feed)
            return {session.outputs[0].name: session.predict(feed[only_input])}
        except InputError as error:
            raise Malformed(str(error)) from None

    return run


@dataclass(frozen=True)
class Checked:
    """What is known of a file before it is opened."""

    sha256: str
    certificate: Certificate | None
    """The one of exactly this file."""


def check_file(file: Path, options: Options) -> Checked:
    """The certificate of a file; one that is not proved is tried in a process of its own.

    Raises ModelError: it cannot be read, makes ONNX Runtime crash or hang, or is not proved or not signed although the
    options require it.
    """
    checked = Checked(_digest(file), _certificate(file, options))
    proved = checked.certificate is not None and checked.certificate.proved
    with trial(file, options.device, trusted=proved):
        pass
    return checked


def load_model(name: str, version: str, file: Path, options: Options, checked: Checked) -> LoadedModel:
    """Open a file that was checked, run it and measure a call. Raises ModelError: it cannot be opened or run."""
    session = Session(file, options.device, threads=options.threads)
    shapes = [(port, tuple(s if isinstance(s, int) else 1 for s in port.shape[1:])) for port in session.inputs]

    def run(rows: int) -> object:
        feed = {}
        for port, row in shapes:
            count = port.shape[0] if isinstance(port.shape[0], int) else rows
            feed[port.name] = allowed_rows(port, (count, *row))
        return session.run(feed)

    cost = measure_cost(run, divisible=session.divisible)
    known = checked.certificate
    if _digest(file) != checked.sha256 or (known is not None and known.data and not known.is_of(file)):
        raise ModelError(f"{file.name} was changed while it was loaded. What to do: load it again")
    return LoadedModel(name, version, session, checked.sha256, known, cost, options)


def _certificate(file: Path, options: Options) -> Certificate | None:
    """The certificate of a file's bytes, if there is one. Raises ModelError: not one such as the options require."""
    found = list(_find_certificates(file, options.folder))
    if not (options.only_proved or options.trusted_keys):
        return next(iter(found), None)
    problem = (
        f"{file.name} has no certificate that proves these bytes, and --only-proved asks for one. "
        f"What to do: put its NAME.parity.json beside it, or make one with mlpx verify"
    )
    for certificate in found:
        try:
            if certificate.proved:
                if options.trusted_keys:
                    require_signature(certificate, options.trusted_keys)
                return certificate
        except (SignatureError, InputError) as error:  # a key may have gone since the start
            problem = str(error)
    raise ModelError(problem)


def _digest(file: Path) -> str:
    """Raises ModelError: the file cannot be read."""
    try:
        return sha256(file)
    except OSError as error:
        raise ModelError(f"{file.name} cannot be read: {error.strerror}") from None


def _find_certificates(file: Path, top: Path) -> Iterator[Certificate]:
    """The certificates of exactly these bytes, beside the file or in the folder above, but never above ``top``."""
    folders = [file.parent, *([file.parent.parent] if top in file.parent.parents else [])]
    for path in (path for folder in folders for path in sorted(folder.glob("*.parity.json"))):
        with suppress(InputError):
            certificate = read_certificate(path)
            if certificate.is_of(file):
                yield certificate
