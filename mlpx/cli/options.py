"""Options that several commands share, and groups of options."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, BadParameter, Option

FORMATS = (".npy", ".npz", ".csv", ".parquet", ".arrow")
"""Of data and of results, as ``runtime`` reads and writes them; a table of its own, since that one needs NumPy."""
LISTED = ", ".join(FORMATS)
ONE_OF = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"

File = Annotated[Path, "An ONNX file."]
AnyFile = Annotated[Path, "An ONNX file, of mlpx or of any other tool."]
Json = Annotated[bool, "--json", "Print one JSON object, for machines."]
Device = Annotated[str, "auto, cpu, cuda or cuda:N. What is asked for is what runs."]
Dtype = Annotated[str | None, "float32 allows rounding to it; without, values that float32 cannot hold are an error."]
Data = Annotated[Path | None, f"Rows of your own to prove it on, besides seeded ones ({LISTED})."]
_PAGE = "Write the report as a page too, NAME.parity.html; if mlpx\\[report] is there, by default."
Page = Annotated[bool | None, "--html/--no-html", _PAGE]
Weights = Annotated[
    Path | None, "Trained weights, safetensors or torch.save; weights.safetensors beside the spec if left out."
]


@dataclass
class Publishing:
    """Options of a command that writes a file and proves it, by their names in ``export.publish``."""

    data: Data = None
    device: Device = "auto"
    dtype: Dtype = None
    fold_affine: Annotated[bool, "Make affine blocks that follow each other one."] = False
    external_data: Annotated[bool | None, "--external-data", "Write the weights to NAME.onnx.data beside it."] = None
    opset: Annotated[int | None, "The opset of the file, 7 or later; 17 if left out."] = None
    ir_version: Annotated[int | None, "The IR version of the file, 4 or later; 8 if left out."] = None
    target: Annotated[str | None, "--for", "The server to write for, such as triton:23.10 or onnxruntime:1.16."] = None
    page: Page = None


def refuse(*mistakes: tuple[bool, str]) -> None:
    """End the command with the first mistake that was made, if any: whether it was, and what to say of it."""
    for was_made, words in mistakes:
        if was_made:
            raise BadParameter(words)


def declared(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer takes it.

    A parameter that is a dataclass is replaced by one for each of its fields. A text in an annotation is the help of
    an argument or, where there is a default, of an option; before it may stand the option's names, and behind it the
    least and the greatest value. An option that is False by default has no ``--no-`` form, and ``--output`` is ``-o``
    too.
    """
    parameters = signature(command).parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in parameters if is_dataclass(each.annotation)}

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    flat: list[Parameter] = []
    for each in parameters:
        flat += signature(each.annotation).parameters.values() if each.name in groups else [each]
    run.__signature__ = Signature([_declared(each) for each in flat])  # type: ignore[attr-defined]
    return run


def _declared(parameter: Parameter) -> Parameter:
    name, annotation, default = parameter.name, parameter.annotation, parameter.default
    metadata = getattr(annotation, "__metadata__", ())
    if texts := [each for each in metadata if isinstance(each, str)]:
        *names, text = texts
        limits: dict[str, Any] = dict(zip(("min", "max"), metadata[len(texts) :], strict=False))
        if not names and name == "output":
            names = ["-o", "--output"]
        elif not names and default is False:
            names = [f"--{name.replace('_', '-')}"]
        is_option = bool(names) or default is not Parameter.empty
        described = Option(*names, help=text, **limits) if is_option else Argument(help=text, **limits)
        annotation = Annotated[annotation.__origin__, described]
    return parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=annotation)
