"""Packages in C: what they hold and say, built by CMake, used from C and C++, with names that try to break out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from torch import nn

from builder import MLPSpec, assemble
from export import ProofError, TargetError, export, package, publish
from export.csource.compilers import Compiler, compilers, load
from export.csource.writing import c_source
from tests.support.cases import randomised
from tests.support.commands import Run
from tests.support.policy import SHAPES, Policy
from tests.support.stubs import ros

ARM: dict[str, Any] = {
    "name": "arm",
    "input": {
        "name": "observation",
        "features": [
            {"name": "joint_pos:left_knee", "unit": "rad", "range": [-3.2, 3.2]},
            {"name": "joint_vel:left_knee", "unit": "rad/s"},
            {"name": "base_ang_vel[0]", "unit": "°/s"},
            {"name": "base_ang_vel(0)"},
        ],
    },
    "blocks": ["standardize", {"linear": 16}, "elu", {"linear": 2}, {"scale": {"factor": 0.25, "offset": [0.5, -0.5]}}],
    "output": {"name": "joint_target", "features": ["joint_pos:left_knee", "joint_pos:right_knee"]},
}


def published(folder: Path, **changes: Any) -> Path:
    spec = MLPSpec.model_validate(ARM | changes)
    path = folder / "arm.onnx"
    publish(randomised(assemble(spec, seed=0), 1), path, spec=spec, device="cpu", page=False, bound=False)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package; where no compiler is, its code is not proved."""
    return package(model, "c", tmp_path_factory.mktemp("out") / "arm").folder


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not on the PATH")
    return path


def gcc() -> Compiler:
    found, missing = compilers()
    if not found:
        pytest.skip("; ".join(missing))
    return found[0]


def test_what_a_package_holds_and_says(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    example = {f"ros2_control/{name}" for name in ("CMakeLists.txt", "controller.cpp", "controller.hpp", "package.xml")}
    example |= {"ros2_control/controller_plugin.xml", "ros2_control/controllers.yaml"}
    own = {"arm.c", "arm.h", "CMakeLists.txt", "self_test.c", "proof.json"}
    assert names == {*own, *example, "README.md", "arm.parity.json", "mlpx-package.json"}
    gcc()
    proof, readme = json.loads((folder / "proof.json").read_text()), (folder / "README.md").read_text()
    manifest = json.loads((folder / "mlpx-package.json").read_text())
    assert proof["proved"] is True
    assert {build["flags"] for build in proof["builds"]} == {"-O0", "-O2", "-O3 -march=native"}
    assert len({build["bits"] for build in proof["builds"]}) == 1
    (note, *others) = manifest["notes"]
    assert note.startswith("proved as compiled by ")
    assert "all builds give the same bits" in note
    assert proof["machine"]["processor"] in note
    assert others == [f"not proved with {line}" for line in proof["left_out"]]
    assert note in readme
    assert "float x[ARM_INPUTS], y[ARM_OUTPUTS];" in readme


def test_the_contract_is_in_the_header(folder: Path) -> None:
    header = (folder / "arm.h").read_text(encoding="utf-8")
    for line in (
        "#define ARM_INPUTS 4",
        "#define ARM_OUTPUTS 2",
        "    ARM_INPUT_JOINT_POS_LEFT_KNEE = 0,",
        "    ARM_INPUT_BASE_ANG_VEL_0 = 2,",
        "    ARM_INPUT_BASE_ANG_VEL_0_2 = 3",
        " *     [0]  joint_pos:left_knee  rad    -3.2 to 3.2",
        " *     [2]  base_ang_vel[0]      °/s",
        " *   scale: factor 0.25, offset [0.5, -0.5]",
        "void arm_infer(const float *x, float *y);",
        "void arm_infer_rows(size_t n, const float *x, float *y);",
        "int arm_self_test(void);",
    ):
        assert f"{line}\n" in header
    assert '#define ARM_MODEL_SHA256 "' in header


def test_cmake_builds_and_tests_it_and_installs_it(folder: Path, tmp_path: Path) -> None:
    cmake, _ = need("cmake"), need("gcc")
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    ran(cmake, "-S", folder, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}")
    assert "CMAKE_BUILD_TYPE" in (build / "CMakeCache.txt").read_text()
    ran(cmake, "--build", build)
    tested = ran("ctest", "--test-dir", build, "--output-on-failure")
    assert "100% tests passed" in tested
    ran(cmake, "--install", build)
    user = tmp_path / "user"
    user.mkdir()
    (user / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.14)\nproject(user C)\nfind_package(arm REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user PRIVATE arm)\n"
    )
    (user / "main.c").write_text(
        "#include <arm.h>\nint main(void) { float x[ARM_INPUTS] = {0}, y[ARM_OUTPUTS]; arm_infer(x, y);"
        " return y[ARM_OUTPUT_JOINT_POS_RIGHT_KNEE] < 9.0f ? arm_self_test() : 1; }\n"
    )
    ran(cmake, "-S", user, "-B", user / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    ran(cmake, "--build", user / "build")
    ran(user / "build" / "user")


def ran(*command: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_used_from_cpp_and_compiled_as_cpp(folder: Path, tmp_path: Path) -> None:
    cpp = need("g++")
    (tmp_path / "main.cpp").write_text(
        "#include <cstring>\n#include <string>\n#include <array>\n#include <vector>\n#include \"arm.h\"\n"
        "int main() { std::vector<float> x(2 * ARM_INPUTS, 0.5f); std::array<float, 2 * ARM_OUTPUTS> y{};\n"
        "arm_infer_rows(2, x.data(), y.data());\n"
        "if (std::string(arm_input_names[ARM_INPUT_JOINT_VEL_LEFT_KNEE]) != \"joint_vel:left_knee\") return 5;\n"
        "if (std::string(arm_input_units[2]) != \"\\u00b0/s\" || arm_input_ranges[0][1] != 3.2f) return 6;\n"
        "return std::memcmp(&y[0], &y[ARM_OUTPUTS], sizeof(float) * ARM_OUTPUTS) == 0 ? arm_self_test() : 7; }\n"
    )  # fmt: skip
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O1")
    objects = {"c": tmp_path / "c.o", "c++": tmp_path / "cpp.o"}
    ran(need("gcc"), "-std=c99", *warnings, "-c", folder / "arm.c", "-o", objects["c"])
    ran(cpp, "-std=c++17", *warnings, "-x", "c++", "-c", folder / "arm.c", "-o", objects["c++"])
    for library in objects.values():
        ran(cpp, "-std=c++17", *warnings, "-I", folder, tmp_path / "main.cpp", library, "-o", tmp_path / "main")
        ran(tmp_path / "main")


def test_nothing_in_it_can_be_written_to(folder: Path, tmp_path: Path) -> None:
    """No variable lives between calls, so that threads cannot disturb each other, and all constants fit into flash."""
    ran(need("gcc"), "-std=c99", "-O1", "-fno-pic", "-c", folder / "arm.c", "-o", tmp_path / "arm.o")
    kinds = {line.split()[-2] for line in ran(need("nm"), tmp_path / "arm.o").splitlines()}
    assert kinds <= {"T", "t", "R", "r", "U"}
    assert kinds >= {"T", "r"}


def test_it_needs_nothing_but_libm(folder: Path, tmp_path: Path) -> None:
    ran(need("gcc"), "-std=c99", "-O1", "-c", folder / "arm.c", "-o", tmp_path / "arm.o")
    needed = {line.split()[-1] for line in ran(need("nm"), "--undefined-only", tmp_path / "arm.o").splitlines()}
    assert needed <= {"expm1f", "memcpy", "__stack_chk_fail"}


def test_the_example_for_ros2_control_is_cpp(folder: Path, tmp_path: Path) -> None:
    """Against stand-ins for the classes of ROS 2 that it uses: its own syntax and types, and nothing of ROS."""
    cpp = need("g++")
    for name, text in ros().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    options = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", tmp_path, "-I", folder)
    ran(cpp, *options, folder / "ros2_control" / "controller.cpp")
    parameters = yaml.safe_load((folder / "ros2_control" / "controllers.yaml").read_text(encoding="utf-8"))
    interfaces = parameters["arm_controller"]["ros__parameters"]
    assert interfaces["state_interfaces"] == [
        *("left_knee/position", "left_knee/velocity", "SET/base_ang_vel[0]", "SET/base_ang_vel(0)")
    ]
    assert interfaces["command_interfaces"] == ["left_knee/position", "right_knee/position"]


HOSTILE = ["*/ int x; /*", "a\nb", "\\", '"); system("x', "??/", "ä" * 3, "%s", "\u202e", "#define", "int"]


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)


def test_names_cannot_break_out_of_comments_and_strings(
    tmp_path: Path, no_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    del no_compiler
    features = [{"name": f"{name}{i}", "unit": name} for i, name in enumerate(HOSTILE)]
    changes = {"input": {"name": "*/ x", "features": features}, "output": {"name": '"', "labels": ["*/", '"']}}
    module = nn.Sequential(nn.Linear(len(HOSTILE), 2)).eval()
    spec = MLPSpec.model_validate({**ARM, "blocks": [{"linear": 2}], **changes})
    path = publish(module, tmp_path / "arm.onnx", spec=spec, device="cpu", page=False, bound=False)[0].path
    made = package(path, "c", tmp_path / "p", name="int").folder
    monkeypatch.undo()
    warnings = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    ran(need("gcc"), *warnings, made / "int.c", made / "self_test.c", "-o", tmp_path / "int", "-lm")
    assert "int: passed" in ran(tmp_path / "int")


def test_without_a_compiler_it_says_that_nothing_is_proved(
    run: Run, model: Path, folder: Path, tmp_path: Path, no_compiler: None
) -> None:
    """The code is the same, byte for byte."""
    del no_compiler
    done = run("package", model, "--for", "c", "-o", tmp_path / "p", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    words = "THE C CODE IS NOT PROVED: no C compiler is here (gcc: not on the PATH; clang: neither"
    assert record["url"] == ""
    assert record["notes"][0].startswith(words)
    readme = (tmp_path / "p" / "README.md").read_text()
    assert words in readme
    assert "Not even its self-test was run." in readme
    assert "held to its bound" not in readme
    proof = json.loads((tmp_path / "p" / "proof.json").read_text())
    assert (proof["proved"], proof["builds"], proof["self_tested"]) == (False, [], [])
    assert len(proof["left_out"]) == 2
    for name in ("arm.c", "arm.h"):
        assert (tmp_path / "p" / name).read_bytes() == (folder / name).read_bytes()
    done = run("package", model, "--for", "c", "-o", tmp_path / "q")
    assert f"note: {words}" in " ".join(done.err.split())


def test_a_network_that_cannot_be_read_back_is_not_proved_but_tests_itself(tmp_path: Path) -> None:
    path = publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, device="cpu", page=False)[0].path
    made = package(path, "c", tmp_path / "p")
    proof = json.loads((made.folder / "proof.json").read_text())
    assert proof["proved"] is False
    if compilers()[0]:
        assert made.notes[0].startswith("THE C CODE IS NOT PROVED: its network cannot be read from the file")
        assert made.notes[1].startswith("the self-test passed as compiled by ")
        assert {build["flags"] for build in proof["self_tested"]} == {"-O0", "-O2", "-O3 -march=native"}
        readme = (made.folder / "README.md").read_text()
        assert "Its self-test passed in the builds that `proof.json` has" in readme
        assert "held to its bound" not in readme
    assert not (made.folder / "ros2_control").exists()
    objects = tmp_path / "m"
    ran(need("gcc"), made.folder / "m.c", made.folder / "self_test.c", "-o", objects, "-lm")
    assert "passed" in ran(objects)


@pytest.fixture
def wrong_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gcc that swaps the sign of every sum."""
    wrapper = tmp_path / "gcc"
    real = need("gcc")
    swap = 'sed -i "s/ xi;/ -xi;/; s/rest += /rest -= /" "$f"'
    wrapper.write_text(f'#!/bin/sh\nfor f in "$@"; do case "$f" in *.c) {swap};; esac; done\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_a_build_that_is_not_proved_is_no_package(run: Run, model: Path, tmp_path: Path, wrong_compiler: None) -> None:
    del wrong_compiler
    done = run("package", model, "--for", "c", "-o", tmp_path / "p")
    assert done.code == 1
    assert "arm.c, compiled by gcc -O0, fails its self-test with 3" in done.err
    assert not (tmp_path / "p").exists()


def test_a_build_that_fails_its_self_test_is_no_package_where_nothing_can_be_proved(
    tmp_path: Path, wrong_compiler: None
) -> None:
    del wrong_compiler
    path = publish(Policy(), tmp_path / "m.onnx", input_shape=SHAPES, device="cpu", page=False)[0].path
    with pytest.raises(ProofError, match=r"m.c, compiled by gcc -O0, fails its self-test with 3\. What to do: "):
        package(path, "c", tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_options_of_servers_are_refused(run: Run, model: Path, tmp_path: Path) -> None:
    for options in (("--threads", "2"), ("--device", "cuda"), ("--max-batch", "7"), ("--instances", "2")):
        done = run("package", model, "--for", "c", "-o", tmp_path / "p", *options)
        assert done.code == 2
        assert "C code computes rows one by one" in done.err
        assert f"What to do: leave {options[0]} out" in done.err
    done = run("package", model, "--for", "c:11", "-o", tmp_path / "p")
    assert done.code == 2
    assert "C11 was asked for, and C99 is written" in done.err
    assert not (tmp_path / "p").exists()


def test_an_operator_that_c_cannot_hold(run: Run, tmp_path: Path) -> None:
    from tests.support.hand_written import Written

    module = Written(lambda _, x: x.sort(1)[0] * 2).eval()
    path = publish(module, tmp_path / "m.onnx", input_shape=(4,), device="cpu", page=False)[0].path
    done = run("package", path, "--for", "c", "-o", tmp_path / "p")
    assert done.code == 2
    assert "m.onnx: C cannot hold TopK 'sort/TopK' of the module 'sort' yet" in done.err
    assert "What to do: " in done.err
    with pytest.raises(TargetError, match="TopK"):
        c_source(path, "m")


def test_a_fixed_batch_is_computed_row_by_row(tmp_path: Path) -> None:
    path = export(nn.Linear(4, 2).eval(), tmp_path / "m.onnx").path
    import onnx

    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(proto, path)
    running = load(c_source(path, "m"), gcc(), ("-O1",))
    (values,) = running.run({"input": np.zeros((6, 4), np.float32)}).values()
    assert values.shape == (6, 2)
    running.close()
