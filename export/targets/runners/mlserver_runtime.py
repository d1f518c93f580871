"""A runtime of MLServer for ONNX files: ``"implementation": "mlpx_mlserver.OnnxRuntime"`` in model-settings.json.

This folder is all of it: beside any ONNX file of float32 or int64 inputs it serves that. Where the certificate
NAME.parity.json is beside NAME.onnx, the model is ready only while it answers as was proved.
"""

# pyright: reportMissingModuleSource=false
from __future__ import annotations

from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.metrics import REGISTRY
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, ResponseOutput
from mlserver.utils import get_model_uri
from prometheus_client import Gauge

from .onnx_model import OnnxModel, RequestTensor, WrongRequestError
from .proved import Proved
from .self_check import SelfCheck

_METRIC = "mlpx_model_right"


class OnnxRuntime(MLModel):
    """``parameters.extra`` of model-settings.json may hold the arguments of ``OnnxModel``, and ``verify_every``.

    That is the seconds between two checks that it answers as was proved, 60 by default; 0 for none.

    It batches waiting requests itself, after it has checked each: MLServer's adaptive batching merges them before, and
    an invalid request would spoil the answers of its neighbours.
    """

    async def load(self) -> bool:
        """Open the file that model-settings.json names; whether it answers as was proved is the model's readiness."""
        parameters = self.settings.parameters
        settings: dict[str, Any] = {"verify_every": 60.0, **((parameters.extra if parameters else None) or {})}
        every = settings.pop("verify_every")
        file = Path(await get_model_uri(self.settings))
        self.model = OnnxModel(file, **settings)
        known = file.with_suffix(".parity.json").is_file()
        proved = Proved(file, self.model.batch, self.model.max_batch) if known else None
        self._checked = SelfCheck(proved, self.model.run, every, self._report)
        self.inputs = [MetadataTensor(**port.metadata) for port in self.model.inputs.values()]
        self.outputs = [MetadataTensor(**port.metadata) for port in self.model.outputs.values()]
        await self._checked.check()
        self._checked.keep_checking()
        return not self._checked.fault

    def _report(self, right: bool) -> None:
        self.ready = right
        _gauge().labels(self.name, self.version or "").set(right)

    async def unload(self) -> bool:
        """Check no more."""
        self._checked.end()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The outputs that the request names, or all. Raises InferenceError, which is sent with status 400."""
        try:
            feed = self.model.feed(RequestTensor(t.name, t.datatype, t.shape, _data(t.data)) for t in payload.inputs)
            names = self.model.requested(output.name for output in payload.outputs or [])
        except WrongRequestError as error:
            raise InferenceError(str(error)) from None
        results = await self.model.run(feed)
        outputs = [
            ResponseOutput(
                name=name,
                datatype=self.model.outputs[name].datatype,
                shape=list(results[name].shape),
                data=results[name].ravel().tolist(),  # over REST, NaN and infinity become null
            )
            for name in names
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


def _gauge() -> Gauge:
    """Made once, since MLServer imports a runtime more than once: its registry keeps it, the client's shows it."""
    if _METRIC not in REGISTRY:
        description = "1 where the answers to the certificate's rows are those proved."
        REGISTRY.register(Gauge(_METRIC, description, ["model", "version"]))
    return REGISTRY[_METRIC]


def _data(data: Any) -> Any:
    return getattr(data, "root", data)
