"""Checks on this device whether it computes a file as its certificate says, without torch and onnx."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.extras import installed_version
from runtime.files import through_link
from runtime.live.judge import USUAL_RATIO, Judgement
from runtime.live.report import Finding
from runtime.model.certificate import Certificate, read_certificate
from runtime.session.providers import DISTRIBUTIONS, choose, this_machine

from .causes import causes_of
from .linear_layers import Graph
from .probes import Probed, probe
from .report import DeviceReport
from .rows import run_rows
from .running import Opener, on_device
from .unchanged import PROVE, compare, identities


def check_device(
    path: str | Path, certificate: Certificate | str | Path, device: str = "auto", *, opener: Opener | None = None
) -> DeviceReport:
    """Check that a file is the proved one, and that this device computes it as its certificate says.

    First the hashes of the file and of its external data; a file that has changed is not opened. Then every linear
    layer alone on exact probes (``runtime.device.probes``), made from the file's weights. Then the rows of the
    certificate, as users run them. ``opener`` opens files in place of ONNX Runtime on ``device``.
    ``report.proved`` is the verdict.

    Raises InputError: a certificate or a device that cannot be read; ModelError: no ONNX file, or one that cannot be
    run here; ProviderError: the device is not available.

    Examples:
        >>> from runtime import check_device
        >>> check_device("comfort.onnx", "comfort.parity.json", device="cpu").proved
        True
    """
    start, path = time.monotonic(), through_link(path)
    if not isinstance(certificate, Certificate):
        certificate = read_certificate(certificate)
    check = _Check(path, certificate)
    check.run(device, opener)
    return replace(check.report(), seconds=time.monotonic() - start)


class _Check:
    """One check, and its results so far."""

    def __init__(self, path: Path, certificate: Certificate):
        self.path, self.certificate = path, certificate
        self.device, self.unchanged = "", False
        self.findings: list[Finding] = []
        self.causes: list[str] = []
        self.warnings: list[str] = []
        self.judgement: Judgement | None = None
        self.layers: list[Probed] = []
        self.left_out: list[str] = []

    def run(self, device: str, opener: Opener | None) -> None:
        """The hashes, the probes, then the rows."""
        before = identities(self.path, self.certificate)
        model = self._read()
        if self.findings:
            return
        if opener is None:
            device = choose(device, this_machine(cuda=device != "cpu")).device
            opener = on_device(self.path, device)
        graph = Graph(model, self.path.parent)
        with opener(self.path) as running:
            self.device = running.device
            self._probe(graph, opener, running.multiply_adds)
            if self.certificate.answers is not None and self.certificate.answers.rows:
                self.judgement = run_rows(
                    running, self.certificate.answers, graph.fixed_batch, self.certificate.largest
                )
                self.findings += self.judgement.findings
        self.causes += causes_of(self.layers, self.judgement)
        if identities(self.path, self.certificate) != before:
            self.unchanged = False
            self.findings.append(Finding("file", f"{self.path} was replaced while it was checked"))
        self._warn_of_limits()

    def _read(self) -> Any:
        """The file as a ModelProto, once it is known to be the proved one."""
        known = self.certificate
        model, findings, causes = compare(self.path, known)
        self.unchanged = not findings
        self.findings, self.causes = findings, causes
        if not known.proved:
            words = f"{known.path.name} gives {known.file} the verdict '{known.verdict}': {known.why}"
            self.findings.append(Finding("certificate", words))
            self.causes.append(f"only a proved file can be checked; {PROVE}")
        return model

    def _probe(self, graph: Graph, opener: Opener, multiply_adds: int) -> None:
        for layer in graph.linear_layers():
            probed = probe(layer, graph.model, opener, multiply_adds, graph.fixed_batch)
            self.layers.append(probed)
            if probed.wrong:
                n, out = layer.weight.shape
                count = f"{probed.wrong:,} of {probed.elements:,} results of exact probes are wrong"
                words = f"'{layer.name}', a linear layer of {n:,} to {out:,}: {count}; the first, {probed.first}"
                self.findings.append(Finding("product", words))
        self.left_out = graph.left_out

    def _warn_of_limits(self) -> None:
        """What a device that passes could still have wrong."""
        answers, judgement = self.certificate.answers, self.judgement
        if answers is None or judgement is None:
            reason = "rows of this network depend on each other, no row has a finite answer, or an older mlpx made it"
            self.warnings.append(
                f"{self.certificate.path.name} holds no rows, so only the file and its linear layers were checked: "
                f"{reason}"
            )
        elif not judgement.findings:
            similar = [name for name in answers.reduced if name not in judgement.told_apart]
            if similar and not self.layers:  # otherwise the probes tell it
                precisions = ", ".join(dict.fromkeys(name.partition(",")[0] for name in similar))
                self.warnings.append(f"{precisions} would pass too: these rows do not distinguish it from float32")
            at_proof = self.certificate.largest
            usual = max(at_proof or 0.0, 2.0**-24)
            if at_proof is not None and judgement.largest > USUAL_RATIO * usual:
                ratio = f"the largest difference is {judgement.largest / usual:.0f} times that at proof time"
                self.warnings.append(f"{ratio}: within the bound, but more than another order of the sums explains")
        if self.left_out:
            self.warnings.append(f"not run alone, so checked by the rows only: {'; '.join(self.left_out[:5])}")

    def report(self) -> DeviceReport:
        """What was found."""
        known, judgement = self.certificate, self.judgement
        versions = (installed_version(name) for name in DISTRIBUTIONS)
        return DeviceReport(
            path=str(self.path),
            certificate=str(known.path),
            sha256=known.sha256,
            made=known.made,
            proved_on=known.device,
            device=self.device,
            runtime=next((version for version in versions if version is not None), ""),
            unchanged=self.unchanged,
            findings=tuple(self.findings),
            causes=tuple(dict.fromkeys(self.causes)),
            warnings=tuple(self.warnings),
            asked=() if judgement is None else judgement.asked,
            rows=0 if judgement is None or known.answers is None else known.answers.rows,
            largest=0.0 if judgement is None else judgement.largest,
            share=0.0 if judgement is None else judgement.share,
            at_proof=known.largest,
            told_apart=() if judgement is None else judgement.told_apart,
            linear_layers=len(self.layers),
            products=sum(probed.elements for probed in self.layers),
            skipped=sum(probed.skipped for probed in self.layers),
            left_out=tuple(self.left_out),
            seconds=0.0,
        )
