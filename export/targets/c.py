"""C: the network as one C99 file and a header, proved as compiled, with its self-test, CMake and a controller."""

from __future__ import annotations

import json

from export.errors import TargetError

from .target import Deployment, Files, Target, json_text

PROOF = "proof.json"
"""Which builds were proved, on which machine."""
_RELEASE = "99"
"""The C standard that the code keeps to."""
_ALONE = "C code computes rows one by one, on the processor and in the caller's thread"
_SERVERS = ("device", "max_batch", "delay_us", "instances", "threads")
"""Options of a server."""


def _files(deployment: Deployment) -> Files:
    """The code, what builds and tests it, an example for ros2_control, and the record of its proof.

    Raises TargetError: int64 inputs, or an operator that C cannot hold yet; ProofError: a build is not proved.
    """
    from export.csource.build_files import build_files  # torch and onnx, which listing the targets does without
    from export.csource.proving import nan_outputs, prove_c
    from export.csource.writing import Contract, c_source

    path, certificate, summary = deployment.file, deployment.certificate, deployment.summary
    if deployment.release != _RELEASE:
        raise TargetError(f"C{deployment.release} was asked for, and C{_RELEASE} is written. What to do: --for c")
    if summary.rows_depend:
        hint = "package it for a server"
        raise TargetError(f"{path.name}: a row's result depends on the rows beside it. What to do: {hint}")
    if integers := [port.name for port in summary.inputs if port.dtype != "float32"]:
        message = f"{path.name}: the input '{integers[0]}' is int64, and C computes float32 alone"
        hint = "package it for a server or a browser, or run it with ONNX Runtime's own C interface"
        raise TargetError(f"{message}. What to do: {hint}")
    assert certificate.answers is not None  # packaging refuses others
    nan = nan_outputs(path, certificate, deployment.fixed_batch or 1)
    source = c_source(path, deployment.name, Contract(summary, certificate.sha256, certificate.answers, nan))
    proof = prove_c(path, source, certificate)
    return {**source.files(), **build_files(source, summary), PROOF: json_text(proof.record(source))}


def _notes(files: Files) -> list[str]:
    from export.csource.proving import summed_up

    return summed_up(json.loads(str(files[PROOF])))


def _remarks(deployment: Deployment) -> list[str]:
    from export.csource.build_files import usage

    return usage(deployment.name, deployment.summary)


def _sections(files: Files) -> list[str]:
    from export.csource.build_files import proof_in_words

    return [proof_in_words(json.loads(str(files[PROOF])))]


TARGET = Target(
    name="c",
    title="the network as one C99 file and a header, without any library but libm",
    files=_files,
    start=lambda _: "cmake -S . -B build\ncmake --build build\nctest --test-dir build --output-on-failure",
    ports={},
    path="",
    release=_RELEASE,
    server="",
    fixed={option: (_ALONE, f"leave --{option.replace('_', '-')} out") for option in _SERVERS},
    notes=_notes,
    remarks=_remarks,
    sections=_sections,
)
