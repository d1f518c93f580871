"""What a repository of a proved file holds, and the folder of it, as it is pushed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import MLPSpec, load_spec
from builder.documents import as_yaml
from export.errors import ProofError, TargetError
from runtime import imported
from runtime.model.signing import has_signature

from .card import model_card
from .model import CERTIFICATE, PAGE, SIGNATURE, ProvedModel, find_model, read_model

CARD, SPEC, WEIGHTS = "README.md", "spec.yaml", "weights.safetensors"


@dataclass(frozen=True)
class Contents:
    """The files of a repository by their names: a path to copy, or a text."""

    model: ProvedModel
    files: Mapping[str, Path | str]
    notes: tuple[str, ...]
    """What is left out and why, a line each."""

    def write(self, folder: Path) -> None:
        """Copy and write all files to an empty folder. Raises ProofError: the model changed in the meantime."""
        for name, content in self.files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_bytes(content.encode())
        copy = folder / self.model.path.name
        if not self.model.certificate.is_of(copy):
            raise ProofError(f"{self.model.path} was replaced while it was read. What to do: push it again")


def contents_of(
    path: Path,
    repo: str,
    *,
    weights: Path | None = None,
    readme: Path | None = None,
    licence: str | None = None,
    trusted_keys: Sequence[str | Path] | None = None,
) -> Contents:
    """The model of a folder, or a file, with all that belongs to it, and the card.

    Spec and weights are those of the file: the spec is in its metadata, and the hash of the weights is in its
    certificate. Raises TargetError: no model, several, or a spec, weights or a README that do not fit; ProofError,
    SignatureError, InputError, ModelError: as ``read_model``; MissingPackageError: weights need torch and safetensors.
    """
    model = read_model(find_model(path), trusted_keys)
    stem = model.path.stem
    files: dict[str, Path | str] = {model.path.name: model.path}
    what = {model.path.name: "the model"}
    for name in model.certificate.data:
        files[name], what[name] = model.path.parent / name, "its weights, which the model reads"
    files[f"{stem}{CERTIFICATE}"] = model.certificate.path
    what[f"{stem}{CERTIFICATE}"] = "the certificate: hashes, verdict, and rows with their exact answers and bounds"
    notes: list[str] = []
    if (signature := model.beside(SIGNATURE)).is_file():
        if has_signature(model.certificate):
            files[signature.name], what[signature.name] = signature, "the signature of the certificate"
        else:
            notes.append(f"{signature.name} is not the signature of this certificate, and is left out")
    if (page := model.beside(PAGE)).is_file():
        if model.certificate.sha256 in page.read_text(encoding="utf-8", errors="replace"):
            files[page.name], what[page.name] = page, "the certificate as a page"
        else:
            notes.append(f"{page.name} is the page of another file, and is left out")
    spec = MLPSpec(**model.summary.spec) if model.summary.spec is not None else None
    if spec is not None:
        files[SPEC] = _spec(model, spec)
        what[SPEC] = "the network, for `mlpx build`"
    if (weights := _weights(model, spec, weights)) is not None:
        files[WEIGHTS], what[WEIGHTS] = weights, "the trained weights of the module"
    else:
        notes.append(f"{WEIGHTS} is left out: name the trained weights with --weights")
    if licence is None and readme is None:
        notes.append("the card states no licence: name it with --license")
    own = None if readme is None else _text(readme)
    files[CARD] = model_card(repo, model, what.items(), licence=licence, own=own)
    return Contents(model, files, tuple(notes))


def _spec(model: ProvedModel, spec: MLPSpec) -> Path | str:
    """The ``spec.yaml`` beside the file, or its text. Raises TargetError: it is another spec than the file's."""
    beside = model.path.parent / SPEC
    if not beside.is_file():
        return as_yaml(spec)
    if load_spec(beside) != spec:
        message = f"{beside} is not the spec that {model.path.name} was made of"
        raise TargetError(f"{message}. What to do: build the file again, or move one of the two to another folder")
    return beside


def _weights(model: ProvedModel, spec: MLPSpec | None, given: Path | None) -> Path | None:
    """The file of the trained weights, if there is one. Raises TargetError: it does not hold those of the module."""
    path = model.path.parent / WEIGHTS if given is None else given
    if given is None and not path.is_file():
        return None
    if path.suffix != ".safetensors":
        hint = "mlpx recover writes a checkpoint as spec.yaml and weights.safetensors"
        raise TargetError(f"{path}: expected a .safetensors file, which can hold no code. What to do: {hint}")
    purpose = "pushing weights, which are compared with the certificate,"
    imported("torch", purpose)
    imported("safetensors", purpose)
    from builder import assemble, load_weights
    from builder.assembly import read_tensors
    from export.artifact import tensors_hash

    if spec is not None:
        module = assemble(spec)
        load_weights(module, path)
        tensors: Any = module.state_dict()
    else:
        tensors = read_tensors(path)
    if tensors_hash(tensors) != model.certificate.weights_sha256:
        message = f"{path} does not hold the weights that {model.path.name} was proved with"
        raise TargetError(f"{message}. What to do: name those with --weights, or build the file again with these")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} cannot be read: {error}. What to do: name a Markdown file with --readme") from None
