"""A file on CUDA: reused device buffers, a CUDA graph per batch size, tensors that stay on the device."""

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

from .buffers import MAX_PADDED, DeviceBuffers, ThreadBuffers, new_outputs, padded_size
from .ort_session import ModelInfo, Providers, model_info, open_session, run_options
from .settings import ResolvedSettings, Settings, resolve


class GpuRunner:
    """Batches padded to powers of two, each with bound device buffers and a CUDA graph of its own.

    A CUDA graph is one launch for the whole network: it requires fixed shapes and addresses and every node on the
    device, and its replay is not safe in two threads, so calls take turns. ``graphs`` is False where ONNX Runtime
    refuses graphs for a file or cannot capture it, and the buffers are used without. Files that mlpx did not write,
    whose rows may depend on each other, are run as they are, without buffers. ``kind`` is "cpu" in tests on machines
    without a GPU.
    """

    graphs: bool
    model: ModelInfo
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    buffers: ThreadBuffers

    def __init__(
        self,
        path: str | Path | bytes,
        providers: Providers,
        settings: Settings,
        *,
        kind: str = "cuda",
        graphs: bool = True,
    ):
        (name, options), *others = providers
        self._device = (kind, int(options.get("device_id", "0")))
        self.graphs = False
        self._session: Any = None
        self._without_graphs = lambda: open_session(path, providers, None)
        if graphs and kind == "cuda":
            with_graphs = (name, options | {"enable_cuda_graph": "1"})
            with suppress(ProviderError):  # no kernel for a node; any other fault shows below
                self._session, self.graphs = open_session(path, (with_graphs, *others), None), True
        if not self.graphs:
            self._session = self._without_graphs()
        self.model = model_info(self._session, path)
        self.inputs, self.outputs = self.model.inputs, self.model.outputs
        self.settings: ResolvedSettings = resolve(settings, self.model.multiply_adds, 1)
        self._divisible = self.model.divisible
        if self.graphs and not self._divisible:  # shapes that change cannot be captured
            self._session, self.graphs = self._without_graphs(), False
        self._options = run_options()
        self._sizes: dict[int, DeviceBuffers] = {}
        self._lock = threading.Lock()
        self.buffers = ThreadBuffers()

    def run(self, names: list[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs ``names`` for a feed from the host, of any number of rows."""
        rows = len(next(iter(feed.values())))
        if not self._divisible:
            return self._session.run(names, feed, self._options)
        results = new_outputs(names, self.outputs, rows)
        with self._lock:
            for start, stop in _pieces(rows):
                buffers = self._padded(stop - start)
                buffers.put({name: np.ascontiguousarray(array[start:stop]) for name, array in feed.items()})
                buffers.run()
                for result, name in zip(results, names, strict=True):
                    result[start:stop] = buffers.get(name, stop - start)
        return results

    def takes(self, x: Any) -> bool:
        """Whether ``x`` is a torch tensor on this kind of device, for ``predict_tensor``."""
        return (
            type(x).__module__.partition(".")[0] == "torch"
            and self._divisible
            and getattr(x, "device", None) is not None
            and x.device.type == self._device[0]
        )

    def predict_tensor(self, x: Any) -> Any:
        """The only output for a tensor on the device, as a tensor there; neither is copied to the host.

        torch reads the buffers through DLPack; its stream is synchronised before ONNX Runtime reads them, and before
        another call may change them. Values are not checked: whole numbers are the caller's to check. Raises
        InputError: another device, shape or dtype.
        """
        torch = sys.modules["torch"]  # the caller's, who has a tensor of it
        port, name = self.inputs[0], self.outputs[0].name
        x = self._checked(x.detach(), port)
        rests: Any = self.outputs[0].shape[1:]
        result = x.new_empty((len(x), *rests), dtype=torch.float32)
        with self._lock:
            for start, stop in _pieces(len(x)):
                buffers, rows = self._padded(stop - start), stop - start
                torch.from_dlpack(buffers.inputs[port.name])[:rows].copy_(x[start:stop])
                self._wait(torch, x.device)
                buffers.run()
                result[start:stop].copy_(torch.from_dlpack(buffers.outputs[name])[:rows])
                self._wait(torch, x.device)
        return result

    def tie(self, x: np.ndarray, out: np.ndarray) -> None:
        """Does nothing: arrays of the host are copied to the device in any case."""

    def close(self) -> None:
        """Free the session and the buffers."""
        self._sizes, self.buffers, self._session = {}, ThreadBuffers(), None

    def _padded(self, rows: int) -> DeviceBuffers:
        size = padded_size(rows)
        if size not in self._sizes and self.graphs:
            try:
                buffers = self._new_buffers(size, graph=len(self._sizes) + 1)
                buffers.run()  # captures the graph
                self._sizes[size] = buffers
            except Exception:  # an operator that draws random numbers, among others; any other fault shows again below
                self._sizes, self._session, self.graphs = {}, self._without_graphs(), False
        if size not in self._sizes:
            self._sizes[size] = self._new_buffers(size)
        return self._sizes[size]

    def _new_buffers(self, size: int, graph: int | None = None) -> DeviceBuffers:
        return DeviceBuffers(self._session, self.inputs, self.outputs, size, self._device, graph)

    def _checked(self, x: Any, port: Port) -> Any:
        kind, index = self._device
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
            hint = "x.float() rounds it on the device; x.cpu() has every value checked"
            raise InputError(f"a tensor of {name} on {x.device}: the model takes float32. What to do: {hint}")
        return x.float()

    def _wait(self, torch: Any, device: Any) -> None:
        if self._device[0] == "cuda":  # pragma: no cover - needs a GPU
            torch.cuda.current_stream(device).synchronize()


def _pieces(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, MAX_PADDED):
        yield start, min(start + MAX_PADDED, rows)
