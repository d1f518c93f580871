"""What ``build`` and ``export`` say of the file they wrote."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .options import print_json

if TYPE_CHECKING:
    from export import Artifact, Comparison


def tell_written(artifact: "Artifact", comparison: "Comparison | None", as_json: bool, **more: Any) -> None:
    """The file, what was folded, and how far it is from eager PyTorch on some rows."""
    summary = artifact.summary
    assert summary is not None and comparison is not None
    if as_json:
        record = {"path": artifact.path, "bytes": artifact.size, "proved": artifact.proved, **more}
        print_json(record | {"summary": asdict(summary), "compared": asdict(comparison)})
        return
    print(f"written   {artifact.path} ({artifact.size:,} bytes, opset {summary.opset}, IR {summary.ir_version})")
    for key, value in more.items():
        print(f"{key:<9} {value}")
    ports = [*summary.inputs, *summary.outputs]
    print(f"signature {' -> '.join(f'{port.name} {list(port.shape)}'.replace(chr(39), '') for port in ports)}")
    for kind, lines in (("folded", summary.folded), ("remark", summary.remarks)):
        for line in lines:
            print(f"{kind:<9} {line}")
    print(f"compared  with eager PyTorch on {comparison.rows:,} {comparison.origin}, {comparison.device}:")
    apart = f"{comparison.from_float32:.2g} from float32"
    if comparison.from_float64 is not None:
        apart += f", {comparison.from_float64:.2g} from float64"
    print(f"          largest difference {apart}; compared, not proved")
