"""What the package for Ray Serve holds."""

from __future__ import annotations

from pathlib import Path

import yaml

from export import package
from tests.support.servers.asking import policy


def test_ray_serves_config_has_the_replicas_that_were_asked_for(tmp_path: Path) -> None:
    options = {"instances": 2, "threads": 3, "device": "cuda", "delay_us": 500, "verify_every": 5}
    made = package(policy(tmp_path), "ray-serve", tmp_path / "package", **options)
    (application,) = yaml.safe_load((made.folder / "serve.yaml").read_text())["applications"]
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"]["min_replicas"] == 2
    assert deployment["autoscaling_config"]["max_replicas"] == 8
    assert deployment["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 1}
    assert application["args"]["settings"] == {
        "threads": 3,
        "max_batch": 1024,
        "delay_us": 500,
        "device": "cuda",
        "verify_every": 5,
    }
    assert "onnxruntime-gpu>=1.18" in (made.folder / "requirements.txt").read_text()
