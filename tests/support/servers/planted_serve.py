"""``mlpx serve`` with the faults of the folder PLANTED in its sessions, also those of its workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from runtime.session.session import Session
from tests.support.servers.planted import Planted


def plant_sessions(planted: Planted) -> None:
    """Have every session of this process compute with the faults."""
    run, predict = Session.run, Session.predict

    def faulty_run(self: Session, feed: Any) -> Any:
        return planted.compute(dict(feed), lambda feed: run(self, feed))

    def faulty_predict(self: Session, x: Any) -> np.ndarray:
        name = self.outputs[0].name
        return planted.compute({self.inputs[0].name: x}, lambda feed: {name: predict(self, next(iter(feed.values())))})[
            name
        ]

    Session.run, Session.predict = faulty_run, faulty_predict  # type: ignore[method-assign]


if "PLANTED" in os.environ:
    plant_sessions(Planted(Path(os.environ["PLANTED"])))

if __name__ == "__main__":
    from mlpx.cli import main

    main()
