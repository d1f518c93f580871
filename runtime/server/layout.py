"""Which files of a folder are which models and versions.

    FOLDER/NAME.onnx               NAME, version 1
    FOLDER/NAME/NAME.onnx          NAME, version 1: what ``mlpx build -o FOLDER/NAME`` writes
    FOLDER/NAME/VERSION/FILE.onnx  NAME, version VERSION, a whole number: Triton's model repository

FOLDER may also be one file. A version's folder holds one .onnx file, or one called model.onnx.
"""

from __future__ import annotations

import re
from pathlib import Path

from runtime.errors import InputError

Versions = dict[str, Path | str]
"""The file of each version, or what is wrong with it."""
_VERSION = re.compile("[0-9]{1,9}")
_NAME = re.compile(r"[A-Za-z0-9._\- ]{1,200}")
_BAD_NAME = "its name has characters that a URL does not carry plainly"


def scan_models(folder: Path) -> dict[str, Versions]:
    """The versions of each model. Raises InputError: the folder cannot be read, or holds one model twice."""
    if folder.is_file():
        if not _NAME.fullmatch(folder.stem):
            hint = "What to do: name it with letters, digits, '.', '_' and '-'"
            raise InputError(f"{folder}: {_BAD_NAME}. {hint}")
        return {folder.stem: {"1": folder}}
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        hint = "What to do: name a folder with .onnx files, or one such file"
        raise InputError(f"{folder}: cannot be read: {error.strerror}. {hint}") from None
    models: dict[str, Versions] = {}
    for entry in entries:
        name, versions = _scan_entry(entry)
        if not versions:
            continue
        if name in models:
            sources = f"{name}.onnx and the folder {name}"
            raise InputError(f"{folder}: {sources} are both the model '{name}'. What to do: move one of them")
        if not _NAME.fullmatch(name):
            models[name] = dict.fromkeys(versions, _BAD_NAME)
        else:
            models[name] = versions
    return models


def _scan_entry(entry: Path) -> tuple[str, Versions]:
    """The model that a file or a folder is; without versions if it is not one."""
    if entry.suffix == ".onnx" and entry.is_file():
        return entry.stem, {"1": entry}
    try:
        return entry.name, _scan_versions(entry) if entry.is_dir() else {}
    except OSError as error:
        return entry.name, {"1": f"the folder cannot be read: {error.strerror}"}


def _scan_versions(folder: Path) -> Versions:
    versions: Versions = {}
    own = folder / f"{folder.name}.onnx"
    numbered = sorted((e for e in folder.iterdir() if e.is_dir() and _VERSION.fullmatch(e.name)), key=lambda e: e.name)
    if own.is_file() and not numbered:
        return {"1": own}
    if not numbered and any(file.suffix == ".onnx" for file in folder.iterdir()):
        return {"1": f"the folder has neither {own.name} nor folders of versions (1, 2, ...)"}
    for entry in numbered:
        version = str(int(entry.name))
        files = sorted(file for file in entry.iterdir() if file.suffix == ".onnx")
        if version in versions:
            versions[version] = f"two folders are version {version}"
        elif len(files) > 1 and entry / "model.onnx" not in files:
            versions[version] = f"the folder has {len(files)} .onnx files, and none is called model.onnx"
        elif files:
            versions[version] = entry / "model.onnx" if entry / "model.onnx" in files else files[0]
        else:
            versions[version] = "the folder has no .onnx file"
    return versions
