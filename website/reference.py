"""The reference: which public name is on which page, in a newcomer's order.

``mlpx`` has the names that most programs need, and these are shown as ``mlpx.NAME``; the others as
``mlpx.mlflow.NAME``, ``builder.NAME``, ``export.NAME`` and ``runtime.NAME``. Every name is on one page.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .folders import SiteError

PACKAGES = ("mlpx", "mlpx.mlflow", "builder", "export", "runtime")
CONSTANTS = {
    "mlpx.__version__": "The version, from the same place as the package's metadata.",
    "mlpx.mlflow.FLAVOR_NAME": "The name of the flavour in an MLmodel file.",
}
"""What the reference says of texts, which have no docstrings."""


@dataclass(frozen=True)
class Topic:
    """A page of the reference."""

    page: str
    title: str
    about: str
    names: tuple[str, ...]


def _topic(page: str, title: str, about: str, names: str) -> Topic:
    return Topic(page, title, about, tuple(names.split()))


TOPICS = (
    _topic(
        "specs",
        "Specs and modules",
        "A spec, and the `torch.nn` module that it describes. See [Writing a spec](../spec.md).",
        """mlpx.MLPSpec mlpx.load_spec builder.load_port_specs mlpx.json_schema mlpx.assemble mlpx.load_weights
        builder.InputSpec builder.OutputSpec builder.PortSpec builder.Block builder.BLOCKS builder.Standardize
        builder.Scale builder.Residual builder.Impute""",
    ),
    _topic(
        "exporting",
        "Exporting and proving",
        "From a module to a proved file. See [Exporting](../export.md), [Parity](../parity.md) and "
        "[Bounds](../bounds.md).",
        """mlpx.publish mlpx.export mlpx.Artifact export.load_module mlpx.verify mlpx.ParityReport export.read_report
        mlpx.bound mlpx.BoundReport""",
    ),
    _topic(
        "recovering",
        "Recovering",
        "From a checkpoint or an ONNX file to a spec and weights. See [Recovering](../recovering.md).",
        """mlpx.recover export.Recovery export.Recovered export.read_checkpoint export.read_onnx export.read_network
        mlpx.compare runtime.Comparison""",
    ),
    _topic(
        "running",
        "Running",
        "A file on this machine. See [Running](../running.md).",
        "mlpx.Session runtime.Port runtime.this_machine runtime.Machine runtime.choose runtime.Choice",
    ),
    _topic(
        "data",
        "Rows, tables and files of data",
        "Rows in and results out. See [Running](../running.md#from-the-shell) and [tables](../tables.md).",
        """runtime.score runtime.score_table runtime.Scores runtime.columns_of runtime.score_file runtime.ScoreReport
        runtime.NonFinite runtime.Outside runtime.read_rows runtime.read_inputs runtime.score_folder
        runtime.FolderReport runtime.Part""",
    ),
    _topic(
        "files",
        "What a file says about itself",
        "Inputs, contract, certificate and signature of a file. See [Inspecting](../inspecting.md) and "
        "[Security](../security.md).",
        """mlpx.inspect export.Inspection runtime.summary_of runtime.Summary runtime.BlockSummary runtime.read_header
        runtime.Header mlpx.contract mlpx.Contract runtime.read_contract runtime.read_certificate runtime.Certificate
        runtime.Answers mlpx.sign runtime.require_signature runtime.signature_path""",
    ),
    _topic(
        "deploying",
        "Deploying and checking",
        "Packages for servers, and checks of servers and devices. See [Deploying](../deploy.md).",
        """mlpx.package export.Package runtime.check_live runtime.LiveReport runtime.Asked runtime.Finding
        runtime.check_device runtime.DeviceReport runtime.check_answers runtime.AnswersReport""",
    ),
    _topic(
        "registries",
        "Registries",
        "The Hugging Face Hub and MLflow. See [The Hub](../hub.md) and [MLflow](../mlflow.md).",
        """mlpx.push export.Pushed export.PushedFile mlpx.pull export.Pulled mlpx.mlflow.log_model
        mlpx.mlflow.save_model mlpx.mlflow.load_model mlpx.mlflow.FLAVOR_NAME""",
    ),
    _topic(
        "tuning",
        "Measuring and tuning",
        "Times, settings and reduced precision. See [Tuning](../tuning.md) and [Benchmarks](../benchmarks.md).",
        """mlpx.tune runtime.Tuning runtime.read_tuning runtime.tuning_for runtime.TuningWarning export.write_variant
        export.Variant runtime.bench runtime.BenchReport runtime.BatchFigures runtime.ContenderFigures""",
    ),
    _topic(
        "errors",
        "Errors",
        "Every error says what was expected, what came, where, and what to do. The exit codes of the commands are in "
        "`mlpx.errors`.",
        """builder.Problem mlpx.SpecError mlpx.WeightsError builder.WeightsWarning mlpx.RecoveryError mlpx.ExportError
        mlpx.UnsupportedError mlpx.ProofError mlpx.TargetError mlpx.InputError mlpx.ModelError mlpx.OutputError
        mlpx.ProviderError mlpx.SignatureError mlpx.MissingPackageError mlpx.ClusterError mlpx.UnreachableError""",
    ),
    _topic(
        "writing",
        "Helpers",
        "Files that are written whole or not at all, hashes, optional packages and the version.",
        """runtime.write_whole runtime.whole_file runtime.whole_files runtime.whole_folder runtime.through_link
        runtime.sha256 runtime.imported runtime.missing_package mlpx.__version__""",
    ),
)


def public() -> dict[str, list[str]]:
    """The shown name of every public name, such as ``mlpx.publish``, with all names that it has."""
    found: dict[str, list[str]] = {}
    shown: dict[int, str] = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            value = getattr(package, name)
            key = shown.setdefault(id(value), f"{package.__name__}.{name}")
            found.setdefault(key, []).append(f"{package.__name__}.{name}")
    return found


def write(pages: Path) -> list[str]:
    """Write the pages of the reference; their names. Raises SiteError: a public name is on no page, or on two."""
    complain_of_names(public(), TOPICS)
    folder = pages / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for topic in TOPICS:
        shown = "\n\n".join(f"::: {name}" for name in topic.names)
        text = f"# {topic.title}\n\n{topic.about}\n\n{shown}\n"
        (folder / f"{topic.page}.md").write_text(text, encoding="utf-8")
    start = (Path(__file__).parent / "reference.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(start + "\n" + "\n".join(_tables()), encoding="utf-8")
    return ["reference/index.md", *(f"reference/{topic.page}.md" for topic in TOPICS)]


def complain_of_names(names: dict[str, list[str]], topics: tuple[Topic, ...]) -> None:
    """Raise SiteError where the topics are not exactly the public names."""
    listed = [name for topic in topics for name in topic.names]
    faults = [f"{name} is public and on no page" for name in names if name not in listed]
    faults += [f"{name} is on a page and not public" for name in dict.fromkeys(listed) if name not in names]
    faults += [f"{name} is on two pages" for name in dict.fromkeys(listed) if listed.count(name) > 1]
    if faults:
        raise SiteError("; ".join(faults) + ". What to do: correct TOPICS in website/reference.py")


def value(name: str) -> object:
    """What a shown name, ``PACKAGE.NAME`` or ``PACKAGE.NAME.METHOD``, names."""
    package = max((each for each in PACKAGES if name.startswith(f"{each}.")), key=len)
    found: object = importlib.import_module(package)
    for part in name.removeprefix(f"{package}.").split("."):
        found = getattr(found, part)
    return found


def documented(name: str) -> str:
    """The docstring of a public name; of a constant, what the reference says in place of one."""
    return CONSTANTS.get(name) or inspect.getdoc(value(name)) or ""


def is_constant(name: str) -> bool:
    """Whether a public name is neither a class nor a function."""
    return not (inspect.isclass(value(name)) or inspect.isroutine(value(name)))


def methods(name: str) -> Iterator[str]:
    """The public functions and properties that a public class defines itself."""
    found = value(name)
    if isinstance(found, type):
        for attribute, member in vars(found).items():
            function: object = getattr(member, "__func__", member)  # of a classmethod or staticmethod
            if not attribute.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
                yield f"{name}.{attribute}"


def _tables() -> Iterator[str]:
    where = {name: topic for topic in TOPICS for name in topic.names}
    every = public()
    for package in PACKAGES:
        about = (_module(package).__doc__ or "").strip().splitlines()[0]
        yield f"## `{package}`\n\n{about}\n\n| name | what it is |\n| --- | --- |"
        for shown, names in sorted(every.items(), key=lambda item: item[0].rpartition(".")[2].lower()):
            if any(name.startswith(f"{package}.") for name in names):
                first = documented(shown).strip().split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
                short = shown.rpartition(".")[2]
                yield f"| [`{short}`]({where[shown].page}.md#{shown}) | {first.replace('``', '`')} |"
        yield ""


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)
