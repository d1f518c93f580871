"""A model whose features have names, units and ranges, and rows for it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from builder import assemble, load_spec
from export import export
from runtime import Port

ARM = """name: arm
input:
  name: state
  range: [-10, 10]
  features:
    - {name: speed, unit: m/s, range: [0, 30]}
    - {name: pitch, unit: rad}
    - load
blocks: [{clip: [-20, 20]}, {standardize: {mean: [15, 0, 0], std: 3}}, {linear: 8}, tanh, {linear: 2}, {clip: [-5, 5]}]
output:
  name: torque
  features: [{name: shoulder, unit: Nm, range: [-5, 5]}, elbow]
"""
STATE = Port(
    "state",
    ("batch", 3),
    features=("speed", "pitch", "load"),
    units=("m/s", "rad", None),
    range=(-10, 10),
    ranges=((0, 30), None, None),
)
TORQUE = Port("torque", ("batch", 2), ("shoulder", "elbow"), ("Nm", None), ranges=((-5, 5), None))


def built_arm(folder: Path) -> Path:
    """Its file, beside ``arm.yaml``."""
    (folder / "arm.yaml").write_text(ARM)
    spec = load_spec(folder / "arm.yaml")
    return export(assemble(spec, seed=1), folder / "arm.onnx", spec=spec).path


def csv(folder: Path, text: str) -> Path:
    (folder / "rows.csv").write_text(text, encoding="utf-8")
    return folder / "rows.csv"


UNHURRIED = settings(deadline=None)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
UNITS = NAMES.filter(lambda text: text == text.strip())


ROWS = "pitch (rad),speed [m/s],load\n0,1,2\n0,31.5,nan\n0,40,-3\n"
WORDS = (
    "2 of the 3 rows of rows.csv are outside the declared ranges, "
    "in 2 features, first 'speed' in line 3: 31.5 m/s, and its range is 0 to 30 m/s"
)
