"""``mlpx push`` and ``mlpx pull``: a proved file to the Hugging Face Hub, and from there."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .certificates import print_device
from .options import Device, Json, TrustedKeys, refuse
from .terminal import long_run, note, print_field, print_json

if TYPE_CHECKING:
    from export import Pushed


@dataclass
class PushOptions:
    """Options by their names in ``export.push``."""

    revision: Annotated[
        str | None, "BRANCH", "The branch to push to, created if it is missing; default: the main one."
    ] = None
    tag: Annotated[str | None, "NAME", "A new tag for the commit, such as v1."] = None
    private: Annotated[bool, "Create a private repository, or require that it is one."] = False
    license: Annotated[str | None, "NAME", "The licence of the model, by its name on the Hub: apache-2.0, mit …"] = None
    readme: Annotated[
        Path | None, "Your own Markdown, which comes first in the model card; its metadata win over mlpx's."
    ] = None
    weights: Annotated[
        Path | None, "The trained weights, safetensors; default: weights.safetensors beside the file, if it is there."
    ] = None
    message: Annotated[str | None, "TEXT", "The message of the commit."] = None
    trusted_keys: TrustedKeys = None
    replace: Annotated[bool, "Remove a model of another name from the repository, in the same commit."] = False


def push(
    folder: Annotated[Path, "The folder that mlpx build wrote, or the proved ONNX file in it."],
    repo: Annotated[str, "OWNER/NAME on the Hub; created if it is missing."],
    options: PushOptions,
    dry_run: Annotated[bool, "Upload nothing: write the repository's files to the folder of -o."] = False,
    output: Annotated[Path | None, "FOLDER", "With --dry-run: the folder to write."] = None,
    as_json: Json = False,
) -> None:
    """Push a proved file to the Hub with certificate, page, spec, weights and a model card, in one commit."""
    refuse((dry_run != (output is not None), "--dry-run and -o FOLDER go together"))
    from export import push

    with long_run():
        pushed = push(folder, repo, **vars(options), dry_run=output)
    if as_json:
        print_json({**asdict(pushed), "dry_run": output})
    else:
        _print_pushed(pushed, output)


def _print_pushed(pushed: "Pushed", output: Path | None) -> None:
    note(*(f"note: {line}" for line in pushed.notes))
    size = sum(file.size for file in pushed.files)
    where = f"{pushed.repo}{f', branch {pushed.branch}' if pushed.branch else ''}"
    tag = f", tag {pushed.tag}" if pushed.tag else ""
    if pushed.commit is None:
        print_field("written", f"{output}: {len(pushed.files)} files, {size:,} bytes; nothing was uploaded")
        print_field("would be", f"one commit of {where}{tag}")
    else:
        label, said = ("unchanged", "no new commit, still") if pushed.unchanged else ("pushed", "commit")
        print_field(label, f"{where}: {len(pushed.files)} files, {size:,} bytes, {said} {pushed.commit[:12]}{tag}")
    for file in pushed.files:
        print_field("", f"{file.name} ({file.size:,} bytes), SHA-256 {file.sha256[:16]}…")
    print_field("removed", *pushed.removed)
    if pushed.url is not None:
        print_field("page", pushed.url)


@dataclass
class PullOptions:
    """Options by their names in ``export.pull``."""

    folder: Annotated[Path, "-o", "--output", "FOLDER", "The folder to write."]
    revision: Annotated[str | None, "REVISION", "A branch, a tag or a commit; default: the main branch."] = None
    device: Device = "auto"
    trusted_keys: TrustedKeys = None
    replace: Annotated[bool, "Replace what an earlier pull wrote to the folder."] = False


def pull(
    repo: Annotated[str, "OWNER/NAME on the Hub."],
    options: PullOptions,
    as_json: Json = False,
) -> None:
    """Pull a proved file from the Hub, and write it only if hashes agree and this machine computes what was proved."""
    from export import pull

    with long_run():
        pulled = pull(repo, **vars(options))
    if as_json:
        print_json({"proved": True, **asdict(pulled)})
        return
    at = f"{pulled.revision}, " if pulled.revision and not pulled.commit.startswith(pulled.revision) else ""
    source = f"{pulled.repo} ({at}commit {pulled.commit[:12]})"
    print_field("pulled", f"{source} to {pulled.folder}: {len(pulled.files)} files")
    print_device(pulled.report)
