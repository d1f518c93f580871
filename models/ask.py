"""Serve a folder, ask the server with tritonclient, verify it live: ``python -m models.ask digits out/digits``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from mlpx import Session
from runtime import read_inputs
from runtime.data.scoring import input_ports

HERE = Path(__file__).parent
COUNT = 8  # of the rows that are asked
MLPX = [sys.executable, "-m", "mlpx"]


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """``mlpx serve`` on free ports, until the block ends; the record that it prints when it is ready."""
    command = [*MLPX, "serve", str(folder), "--port", "0", "--grpc-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            lines = ""
            for line in server.stdout:
                lines += line
                if line == "}\n":
                    break
            yield json.loads(lines)
        finally:
            server.terminate()


def ask(kind: Any, address: str, name: str, session: Session, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The server's answer to the rows of every input; ``kind`` is tritonclient's module http or grpc."""
    with kind.InferenceServerClient(address) as client:
        tensors = list[Any]()
        for port, values in rows.items():
            tensors.append(kind.InferInput(port, list(values.shape), np_to_triton_dtype(values.dtype)))
            tensors[-1].set_data_from_numpy(values)
        return client.infer(name, tensors).as_numpy(session.outputs[0].name)


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    file = folder / f"{name}.onnx"
    with Session(file, "cpu") as session:
        data = next((HERE / name).glob("heldout.*"))
        read, _ = read_inputs(data, input_ports(session))
        rows = {port: np.ascontiguousarray(values[:COUNT]) for port, values in read.items()}
        expected = session.predict(rows)
    with serving(folder) as server:
        print(f"serving   {server['url']} and {server['grpc']}")
        for kind, url in ((tritonclient.http, server["url"]), (tritonclient.grpc, server["grpc"])):
            answer = ask(kind, url.partition("://")[2], name, session, rows)
            difference = float(np.abs(answer - expected).max())
            print(f"asked     {COUNT} rows by {kind.__name__}: within {difference:.2g} of a session in this process")
        sys.stdout.flush()
        done = subprocess.run([*MLPX, "verify", str(file), "--url", f"{server['url']}/v2/models/{name}"])
    sys.exit(done.returncode)
