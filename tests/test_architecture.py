"""The house stands: imports go one way, public names hold still, and the wheel ships what it should."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import builder
import export
import mlpx
import mlpx.errors
import mlpx.mlflow
import runtime

ROOMS = ("builder", "export", "runtime", "mlpx")
MAY_IMPORT = {"builder": set(), "runtime": set(), "export": {"builder", "runtime"}, "mlpx": set(ROOMS)}
NEVER = {"runtime": {"torch", "onnx", "pandas", "onnx_ir", "onnxscript"}}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, inside functions too; relative imports stay in their room."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            found.add("a parent package")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_arrows(room: str, root: Path) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for path in [*(root / room).rglob("*.py"), *(root / room).rglob("*.pyi")]:
        found = imports(path)
        assert found & (set(ROOMS) | {"models", "tests", "benchmarks", "a parent package"}) <= allowed, path
        assert not found & NEVER.get(room, set()), path


def test_a_backward_import_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "def f():\n    from export.trace import trace\n    import mlpx.errors\n    from ..export import y\n"
    )
    assert imports(path) == {"export", "mlpx", "a parent package"}


def file_imports(root: Path) -> dict[str, set[str]]:
    """The files that each file of the rooms imports, inside functions too, by dotted names.

    A name that a package gathers in its ``__init__.pyi`` is followed to the file that it is at home in.
    """
    files: dict[str, Path] = {}
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        stub = path.with_suffix(".pyi")
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        files[name] = stub if stub.exists() else path
    sources: dict[str, dict[str, str]] = {}
    for file, path in files.items():
        package = file if path.stem == "__init__" else file.rpartition(".")[0]
        sources[file] = names = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = ".".join(part for part in (package if node.level else "", node.module) if part)
                for alias in node.names:
                    submodule = f"{source}.{alias.name}"
                    names[alias.name] = submodule if submodule in files else source

    def home(source: str, name: str) -> str:
        while source in files and files[source].suffix == ".pyi" and name in sources[source]:
            source = sources[source][name]
        return source

    return {
        file: {home(source, name) for name, source in sources[file].items()} & (files.keys() - {file})
        for file, path in files.items()
        if path.suffix == ".py"
    }


def circle(imports: dict[str, set[str]]) -> list[str] | None:
    """Files that import each other in a circle; None where there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_files_import_each_other_in_a_circle(root: Path) -> None:
    imports = file_imports(root)
    assert "runtime.session.session" in imports["export.versions"]  # through the names that ``runtime`` gathers
    assert circle(imports) is None


def test_a_circle_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    sources = {
        "__init__.py": "",
        "__init__.pyi": "from .a import A as A",
        "a.py": "def f():\n    from .b import B",
        "b.py": "from runtime import A",
    }
    for name, source in sources.items():
        (tmp_path / "runtime" / name).write_text(source)
    assert set(circle(file_imports(tmp_path)) or ()) == {"runtime.a", "runtime.b"}
    (tmp_path / "runtime" / "b.py").write_text("import runtime.errors")
    assert circle(file_imports(tmp_path)) is None


PUBLIC = {
    mlpx: """Artifact BoundReport ClusterError Contract ExportError InputError MLPSpec MissingPackageError
        ModelError OutputError ParityReport ProofError ProviderError RecoveryError Session SignatureError
        SpecError TargetError UnreachableError UnsupportedError WeightsError __version__ assemble bound compare
        contract export inspect json_schema load_spec load_weights package publish pull push recover sign tune
        verify""",
    mlpx.mlflow: "FLAVOR_NAME load_model log_model save_model",
    builder: """BLOCKS Block Impute InputSpec MLPSpec OutputSpec PortSpec Problem RecoveryError Residual Scale
        SpecError Standardize WeightsError WeightsWarning assemble json_schema load_port_specs load_spec
        load_weights""",
    export: """Artifact BoundReport ExportError Inspection Package ParityReport ProofError Pulled Pushed PushedFile
        Recovered Recovery TargetError UnsupportedError Variant bound compare export inspect load_module package
        publish pull push read_checkpoint read_network read_onnx read_report recover tune verify write_variant""",
    runtime: """Answers AnswersReport Asked BatchFigures BenchReport BlockSummary Certificate Choice ClusterError
        Comparison ContenderFigures Contract DeviceReport Finding FolderReport Header InputError LiveReport
        Machine MissingPackageError ModelError NonFinite OutputError Outside Part Port ProviderError ScoreReport
        Scores Session SignatureError Summary Tuning TuningWarning UnreachableError VERSION bench check_answers
        check_device check_live choose columns_of contract imported missing_package read_certificate
        read_contract read_header read_inputs read_rows read_tuning require_signature score score_file
        score_folder score_table sha256 sign signature_path summary_of this_machine through_link tuning_for
        whole_file whole_files whole_folder write_whole""",
}


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_the_public_names_hold_still(package: object) -> None:
    names = PUBLIC[package].split()  # type: ignore[index]
    assert sorted(package.__all__) == sorted(names)  # type: ignore[attr-defined]
    for name in names:
        value = getattr(package, name)
        assert name.isupper() or name == "__version__" or value.__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_no_public_function_bears_the_name_of_a_submodule(package: object, root: Path) -> None:
    name = package.__name__  # type: ignore[attr-defined]
    modules = {path.stem for path in (root / name.replace(".", "/")).iterdir()}
    assert not modules & set(PUBLIC[package].split())  # type: ignore[index]


def test_every_error_has_its_exit_code() -> None:
    homes = {"builder.errors": builder, "export.errors": export, "runtime.errors": runtime}
    for home in homes:
        for error in vars(importlib.import_module(home)).values():
            if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, Warning):
                assert error in mlpx.errors.EXIT_CODES
                assert error.__name__ in (mlpx.errors.__doc__ or "")
                assert getattr(mlpx, error.__name__) is error


def test_importing_mlpx_is_light(root: Path) -> None:
    heavy = ["torch", "onnx", "onnxruntime", "numpy", "pydantic", "polars", "typer"]
    code = f"import sys, mlpx; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_ships_the_rooms_and_nothing_else(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.splitlines():
        if (root / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((root / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    tops = {name.partition("/")[0] for name in names}
    info = next(top for top in tops if top.endswith(".dist-info"))
    assert tops == {*ROOMS, info}
    assert info.startswith("mlpx-")
    code = [
        n for n in tracked.stdout.splitlines() if n.startswith(tuple(f"{r}/" for r in ROOMS)) and (root / n).exists()
    ]
    assert {name for name in names if not name.startswith(info)} == set(code)
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert {line.split()[1].partition(">")[0] for line in base} == {
        *("lazy-loader", "numpy", "packaging", "pydantic", "pyelftools", "PyYAML", "rich", "typer")
    }


def test_the_extras(root: Path) -> None:
    with (root / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    expected = {"cpu", "gpu", "cuda", "build", "inspect", "files", "serve", "otel", "ray", "report", "mlflow", "hub"}
    expected |= {"sign", "dev", "docs"}
    assert set(extras) == expected
    assert "torch==2.13.0" in (root / "constraints.txt").read_text().splitlines()


def test_no_file_imports_from_a_file_of_tests(root: Path) -> None:
    """What files of tests share is in ``tests/support``."""
    for path in [path for folder in ("tests", "benchmarks", "models") for path in (root / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                assert not any(name.startswith("test_") for name in names), path


def test_no_file_is_long(root: Path) -> None:
    for folder in (*ROOMS, "tests", "benchmarks", "models", "website"):
        for path in (root / folder).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
