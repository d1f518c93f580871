"""Options that several commands share, and how a command's parameters become options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from typer import Argument, BadParameter, Option

from export.targets import TARGETS
from runtime.data.file_formats import DATA_SUFFIXES, RESULTS_SUFFIXES

LISTED = ", ".join(DATA_SUFFIXES)
DATA_FILE, RESULTS_FILE = (f"{', '.join(each[:-1])} or {each[-1]}" for each in (DATA_SUFFIXES, RESULTS_SUFFIXES))
"""The formats of data and of results, such as ``.npy, .npz or .csv``."""

File = Annotated[Path, "An ONNX file."]
AnyFile = Annotated[Path, "An ONNX file, written by mlpx or by another tool."]
Json = Annotated[bool, "--json", "Print one JSON object, for machines."]
Device = Annotated[str, "DEVICE", "auto, cpu, cuda or cuda:N; there is no silent fallback."]
Dtype = Annotated[
    str | None, "DTYPE", "float32 rounds the data to it; by default values that float32 cannot hold are an error."
]
Name = Annotated[str | None, "NAME", "The model's name; default: the file's."]
Describe = Annotated[
    Path | None, "FILE", "A .yaml, .json or .toml file with the features, ranges and labels of inputs and outputs."
]
Seconds = Annotated[float, "SECONDS", "How long to measure in all."]
Data = Annotated[Path | None, f"Your own rows to prove the file on, besides seeded ones ({LISTED})."]
_PAGE = "Write the report as NAME.parity.html too; default: if mlpx[report] is installed."
Page = Annotated[bool | None, "--html/--no-html", _PAGE]
TrustedKeys = Annotated[
    list[Path] | None,
    "--require-signature",
    "KEY",
    "Require that the certificate is signed with this public key; may be given several times.",
]
Weights = Annotated[
    Path | None, "Trained weights, safetensors or torch.save; default: weights.safetensors beside the spec."
]


@dataclass
class PublishOptions:
    """Options of a command that writes a file and proves it, by their names in ``export.publish``."""

    data: Data = None
    device: Device = "auto"
    dtype: Dtype = None
    fold_affine: Annotated[bool, "Merge consecutive affine blocks into one."] = False
    external_data: Annotated[bool | None, "--external-data", "Write the weights to NAME.onnx.data beside it."] = None
    opset: Annotated[int | None, "The opset of the file, 7 or later; default: 17."] = None
    ir_version: Annotated[int | None, "The IR version of the file, 4 or later; default: 8."] = None
    target: Annotated[
        str | None, "--for", "SERVER", "The server to write for, such as triton:23.10 or onnxruntime:1.16."
    ] = None
    page: Page = None
    bound: Annotated[bool, "Bound the error for every input of the declared ranges, which takes up to 2 s."] = True


def refuse(*mistakes: tuple[bool, str]) -> None:
    """End the command with the message of the first mistake that was made, if any."""
    for was_made, message in mistakes:
        if was_made:
            raise BadParameter(message)


def declared(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer takes it.

    A parameter that is a dataclass is replaced by one for each of its fields. A text in an annotation is the help of
    an argument or, where there is a default, of an option. Before it may stand the option's names and its value's
    (``PORT``), and after it the lowest and the highest value. An option that is False by default has no ``--no-``
    form, and ``--output`` is ``-o`` too.
    """
    parameters = signature(command).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    flat: list[Parameter] = []
    for parameter in parameters:
        is_group = parameter.name in groups
        flat += signature(parameter.annotation).parameters.values() if is_group else [parameter]
    run.__signature__ = Signature([_declared(parameter) for parameter in flat])  # type: ignore[attr-defined]
    return run


def _declared(parameter: Parameter) -> Parameter:
    name, annotation, default = parameter.name, parameter.annotation, parameter.default
    metadata = getattr(annotation, "__metadata__", ())
    if texts := [text for text in metadata if isinstance(text, str)]:
        *words, text = texts
        names = [word for word in words if word.startswith("-")]
        limits: dict[str, Any] = dict(zip(("min", "max"), metadata[len(texts) :], strict=False))
        if not names and name == "output":
            names = ["-o", "--output"]
        elif not names and default is not Parameter.empty:  # some releases of typer would take it from the metavar
            flag = name.replace("_", "-")
            names = [f"--{flag}/--no-{flag}" if default is True else f"--{flag}"]
        is_option = bool(names)
        called = next((word for word in words if word not in names), None)
        if is_option:
            info = Option(*names, help=text, metavar=called or _metavar(annotation.__origin__), **limits)
        else:
            info = Argument(help=text, metavar=called or name.upper(), **limits)
        if choices := _choices(called):
            info.autocompletion = lambda: list(choices)
        annotation = Annotated[annotation.__origin__, info]
    return parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=annotation)


def _choices(called: str | None) -> Sequence[str]:
    """The values that a shell offers, by what a value is called: ``DEVICE``, ``cpu|cuda``."""
    named = {"DEVICE": ("auto", "cpu", "cuda"), "TARGET": TARGETS}
    return named.get(called or "") or (called.split("|") if called is not None and "|" in called else ())


def _metavar(annotation: Any) -> str | None:
    """What a value of the type is called in the help; a flag has none."""
    (kind, *_) = get_args(annotation) or (annotation,)
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    return {bool: None, Path: "FILE", int: "N", float: "X"}.get(get_args(kind)[0] if get_args(kind) else kind, "TEXT")
