"""What a package holds besides the code: CMake files, the program of the self-test, and an example for ros2_control."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files as resources
from math import prod
from typing import Any

from runtime import Port, Summary

from .text import identifier
from .writing import CSource

_BUILD = ("CMakeLists.txt", "self_test.c")
_EXAMPLE = ("CMakeLists.txt", "package.xml", "controller_plugin.xml", "controller.hpp", "controller.cpp")
_KINDS = {"position": ("pos", "joint_target", "action"), "velocity": ("vel",), "effort": ("effort", "torque")}
"""Parts of the name of a term that say which interface of a joint it is likely to be."""


def build_files(source: CSource, summary: Summary) -> Mapping[str, str]:
    """The files by their paths in the package; the example only for a network of one input and one output."""
    made = {name: _filled(name, source.name) for name in _BUILD}
    if len(summary.inputs) == len(summary.outputs) == 1:
        made |= {f"ros2_control/{name}": _filled(f"ros2_control/{name}", source.name) for name in _EXAMPLE}
        made["ros2_control/controllers.yaml"] = _parameters(source.name, summary)
    return made


def _filled(path: str, name: str) -> str:
    text = resources("export.csource").joinpath("files", path).read_text(encoding="utf-8")
    return text.replace("@NAME@", name).replace("@CAPITAL@", name.upper())


def _parameters(name: str, summary: Summary) -> str:
    """The parameters of the controller, with the interfaces that the names of joints suggest."""
    import yaml  # 30 ms

    (taken,), (given,) = summary.inputs, summary.outputs
    interfaces = {"state_interfaces": _interfaces(taken), "command_interfaces": _interfaces(given)}
    rate = {} if summary.period is None else {"update_rate": round(1 / summary.period)}
    kind = {"type": f"{name}_controller/Controller"}
    record = {
        "controller_manager": {"ros__parameters": {**rate, f"{name}_controller": kind}},
        f"{name}_controller": {"ros__parameters": interfaces},
    }
    comment = (
        "# An example: set the interfaces, in the order of the network's inputs and outputs. Names with SET are not\n"
        "# known; the others are suggested by the names of the features.\n"
    )
    return comment + yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def _interfaces(port: Port) -> list[str]:
    count = prod(size for size in port.shape[1:] if isinstance(size, int))
    return [_interface(name) for name in port.features or [str(place) for place in range(count)]]


def _interface(feature: str) -> str:
    term, colon, joint = feature.partition(":")
    kinds = (kind for kind, parts in _KINDS.items() if any(part in term for part in parts))
    kind = next(kinds, None)
    return f"{joint}/{kind}" if colon and kind is not None and "@" not in joint else f"SET/{feature}"


def proof_in_words(record: Mapping[str, Any]) -> str:
    """The section of a package's README that says what ``proof.json`` records."""
    if record["proved"]:
        return """## What was proved of the code

`proof.json` has each build that was proved, and on which machine: the code was compiled, once as it is and once with
the values of all layers as outputs, and every layer was held to its bound on the rows of the proof, its weights to
exact probes, both builds to the same bits. Other compilers, options and processors were not tried; the self-test tells
whether they compute the proved answers."""
    tested = """\
Its self-test passed in the builds that `proof.json` has under `self_tested`; no layer was compared, and no weight
probed.""" if record["self_tested"] else "Not even its self-test was run."  # fmt: skip
    return f"""## What was proved of the code

Nothing: the notes above and `proof.json` say why. The ONNX file is proved, and the code is made of it. {tested}
Run the self-test with your compiler before you rely on the code: it tells whether it computes the proved answers."""


def usage(name: str, summary: Summary) -> list[str]:
    """Paragraphs for the README of a package."""
    name = identifier(name)
    capital = name.upper()
    single = len(summary.inputs) == len(summary.outputs) == 1
    call = f"{name}_infer(x, y);" if single else f"{name}_infer(...);  /* the arrays in the order of {name}.h */"
    arrays = f"float x[{capital}_INPUTS], y[{capital}_OUTPUTS];\n" if single else ""
    parts = [
        f"""## Use it

```c
#include "{name}.h"

{arrays}{call}
```

`{name}.h` says what each value is, in which unit and range, and holds the same as constants. Values are passed raw: the
normaliser, clips and scales of the network are applied inside. `{name}_infer_rows(n, ...)` computes n rows.

Nothing is allocated and nothing is kept between calls, so any number of threads may call it. Constants are `const`,
and stay in flash; what is computed lies on the stack, or in memory of your own with `{name}_infer_in`. `{name}.h` gives
the bytes of both. `-D{capital}_NO_SELF_TEST` leaves the self-test out, and its rows. From C++ it is used as it is.

`{name}_self_test()` returns 0 where a build is right, on any machine: it checks how NaN and sums are treated, every bit
of every constant, the library's functions at points whose exact values are known, and rows whose answers are proved,
each against its proved bound. Call it once at the start.

`-ffast-math` is refused: with it, neither NaN nor the bounds hold.""",
    ]
    if single:
        parts.append("""\
## ros2_control

`ros2_control/` is an example of a controller, for Jazzy or newer, to be adapted. It was never compiled against ROS 2,
which was not there: build it with `colcon build --base-paths ros2_control`. `controllers.yaml` names the interfaces,
and `observe()` in `controller.cpp` fills the network's input.""")
    return parts
