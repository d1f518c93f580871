"""MLServer's runtime for the ONNX file of this package."""

# pyright: reportMissingModuleSource=false
from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, ResponseOutput
from mlserver.utils import get_model_uri
from onnx_model import OnnxModel, RequestTensor, WrongRequestError


class OnnxRuntime(MLModel):
    """``parameters.extra`` of model-settings.json holds the settings of ``OnnxModel``.

    It batches waiting requests itself, after it has checked each: MLServer's adaptive batching merges them before, and
    an invalid request would spoil the answers of its neighbours.
    """

    async def load(self) -> bool:
        """Open the file that model-settings.json names."""
        parameters = self.settings.parameters
        self.model = OnnxModel(await get_model_uri(self.settings), **(parameters.extra if parameters else None) or {})
        self.inputs = [MetadataTensor(**port.metadata) for port in self.model.inputs.values()]
        self.outputs = [MetadataTensor(**port.metadata) for port in self.model.outputs.values()]
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


def _data(data: Any) -> Any:
    return getattr(data, "root", data)
