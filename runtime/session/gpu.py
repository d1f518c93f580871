"""A file on CUDA: device buffers that are used again, CUDA graphs per batch size, tensors that stay on the device."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, ProviderError
from runtime.model.port import Port
from runtime.model.summary import rows_depend

from .buffers import LARGEST, Bucket, bucket_for, may_be_bound, nothing_of
from .cpu import Here
from .ort_session import Providers, open_session, ports_of, run_options
from .settings import Settings, Settled, settled


class OnGpu:
    """Batches padded to powers of two, each with bound device buffers and a CUDA graph of its own.

    A CUDA graph is one launch for the whole network: it wants fixed shapes and addresses and every node on the device,
    and its replay is not safe in two threads, so calls take turns. Where ONNX Runtime refuses graphs for a file,
    ``graphs`` is False and the buckets run without. Files that mlpx did not write, whose rows may depend on each other,
    are run as they come, without buckets. ``where`` is "cpu" in tests of the buckets on machines without a GPU.
    """

    def __init__(
        self,
        path: str | Path | bytes,
        providers: Providers,
        given: Settings,
        *,
        where: str = "cuda",
        graphs: bool = True,
    ):
        (name, options), *others = providers
        self._where = (where, int(options.get("device_id", "0")))
        self.graphs = False
        self._session: Any = None
        if graphs and where == "cuda":
            with_graphs = (name, options | {"enable_cuda_graph": "1"})
            with suppress(ProviderError):  # a node that the device has no kernel for; what else is wrong shows below
                self._session, self.graphs = open_session(path, (with_graphs, *others), None), True
        if not self.graphs:
            self._session = open_session(path, providers, None)
        self.inputs, self.outputs = ports_of(self._session, path)
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        told = self.metadata.get("mlpx.multiply_adds", "")
        self.multiply_adds = int(told) if told.isdecimal() else 0
        self.settled: Settled = settled(given, self.multiply_adds, 1)
        symbolic = not any(isinstance(port.shape[0], int) for port in (*self.inputs, *self.outputs))
        bindable = symbolic and may_be_bound(self.inputs, self.outputs)
        self.divisible = bool(told) and bindable and not rows_depend(self.metadata)
        if self.graphs and not self.divisible:  # shapes that change cannot be captured
            self._session, self.graphs = open_session(path, providers, None), False
        self._options = run_options()
        self._buckets: dict[int, Bucket] = {}
        self._lock = threading.Lock()
        self.here = Here()

    def run(self, names: list[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs ``names`` for a feed from the host, of any number of rows."""
        rows = len(next(iter(feed.values())))
        if not rows and self.divisible:
            return nothing_of(names, self.outputs)
        if not self.divisible:
            return self._session.run(names, feed, self._options)
        ports: dict[str, Any] = {port.name: port for port in self.outputs}
        results = [np.empty((rows, *ports[name].shape[1:]), ports[name].dtype) for name in names]
        with self._lock:
            for start, stop in _pieces(rows):
                bucket = self._bucket(stop - start)
                bucket.put({name: np.ascontiguousarray(array[start:stop]) for name, array in feed.items()})
                bucket.run()
                for whole, name in zip(results, names, strict=True):
                    whole[start:stop] = bucket.get(name, stop - start)
        return results

    def takes(self, x: Any) -> bool:
        """Whether it is a torch tensor on this kind of device, for ``predict_tensor``."""
        kind = type(x).__module__.partition(".")[0]
        return (
            kind == "torch"
            and self.divisible
            and getattr(x, "device", None) is not None
            and x.device.type == self._where[0]
        )

    def predict_tensor(self, x: Any) -> Any:
        """The only output for a tensor on the device, as a tensor there: neither passes through the host.

        The buffers are seen by torch through DLPack; torch's stream is waited for before ONNX Runtime reads them, and
        before another call may change them. Values are not looked at: whole numbers are the caller's to check. Raises
        InputError: another device, shape or dtype.
        """
        torch = sys.modules["torch"]  # the caller's: a tensor of it is there
        port, name = self.inputs[0], self.outputs[0].name
        x = self._checked(x.detach(), port)
        rests: Any = self.outputs[0].shape[1:]
        result = x.new_empty((len(x), *rests), dtype=torch.float32)
        with self._lock:
            for start, stop in _pieces(len(x)):
                bucket, rows = self._bucket(stop - start), stop - start
                torch.from_dlpack(bucket.inputs[port.name])[:rows].copy_(x[start:stop])
                self._wait(torch, x.device)
                bucket.run()
                result[start:stop].copy_(torch.from_dlpack(bucket.outputs[name])[:rows])
                self._wait(torch, x.device)
        return result

    def tie(self, x: np.ndarray, out: np.ndarray) -> None:
        """Nothing: arrays of the host are copied to the device in any case."""

    def close(self) -> None:
        """Free the session and the buffers."""
        self._buckets, self.here, self._session = {}, Here(), None

    def _bucket(self, rows: int) -> Bucket:
        size = bucket_for(rows)
        if size not in self._buckets:
            graph = len(self._buckets) + 1 if self.graphs else None
            self._buckets[size] = Bucket(self._session, self.inputs, self.outputs, size, self._where, graph)
        return self._buckets[size]

    def _checked(self, x: Any, port: Port) -> Any:
        kind, index = self._where
        row = port.shape[1:]
        if (x.device.index or 0) != index:
            raise InputError(
                f"the tensor is on {x.device} and the session on {kind}:{index}. What to do: x.to('{kind}:{index}')"
            )
        if tuple(x.shape[1:]) != row or not x.ndim:
            expected = ", ".join(["batch", *map(str, row)])
            raise InputError(f"'{port.name}' expects shape ({expected}), and got {tuple(x.shape)}")
        if port.dtype == "int64":
            return x.long()
        name = str(x.dtype).removeprefix("torch.")
        if name not in ("float32", "float16", "bfloat16"):
            hint = "x.float() rounds it there, x.cpu() has every value checked"
            raise InputError(f"a tensor of {name} on {x.device}: the model takes float32. What to do: {hint}")
        return x.float()

    def _wait(self, torch: Any, device: Any) -> None:
        if self._where[0] == "cuda":
            torch.cuda.current_stream(device).synchronize()


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, LARGEST):
        yield start, min(start + LARGEST, rows)
