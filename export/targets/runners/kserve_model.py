"""A server of the KServe SDK for the ONNX file of this package: python kserve_model.py --model_name=NAME."""

# pyright: reportMissingModuleSource=false
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer, logging, model_server
from kserve.errors import InvalidInput
from onnx_model import OnnxModel, RequestTensor, WrongRequestError

HERE = Path(__file__).resolve().parent


class OnnxPredictor(Model):
    """Answers requests of the Open Inference Protocol, over REST and gRPC."""

    def load(self) -> bool:
        """Open the file with the settings beside it."""
        settings = json.loads((HERE / "model-settings.json").read_text(encoding="utf-8"))
        self.model = OnnxModel(HERE / "model.onnx", **settings)
        self.ready = True
        return self.ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs, as the protocol's metadata has them."""
        return [port.metadata for port in self.model.inputs.values()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs, in the same way."""
        return [port.metadata for port in self.model.outputs.values()]

    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        _headers: dict[str, str] | None = None,
        _response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """The outputs that the request names, or all. Raises InvalidInput, which is sent with status 400."""
        if not isinstance(payload, InferRequest):
            raise InvalidInput("a request of the Open Inference Protocol (v2) is expected")
        try:
            feed = self.model.feed(RequestTensor(t.name, t.datatype, t.shape, _data(t)) for t in payload.inputs)
            names = self.model.requested(output.name for output in payload.request_outputs or [])
        except WrongRequestError as error:
            raise InvalidInput(str(error)) from None
        results = await self.model.run(feed)
        outputs: list[InferOutput] = []
        for name in names:
            outputs.append(
                InferOutput(name, list(results[name].shape), self.model.outputs[name].datatype, results[name])
            )
            if payload.from_grpc:  # the SDK's constructor cannot take an array as bytes
                outputs[-1].set_data_from_numpy(results[name], binary_data=True)
        return InferResponse(
            response_id=payload.id or str(uuid4()),  # the SDK answers 500 without one
            model_name=self.name,
            infer_outputs=outputs,
            from_grpc=payload.from_grpc,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def _data(tensor: InferInput) -> Any:
    raw = tensor._raw_data  # pyright: ignore[reportPrivateUsage] the SDK has no other way to the bytes
    return tensor.data if raw is None else raw


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    if arguments.configure_logging:
        logging.configure_logging(arguments.log_config_file)
    predictor = OnnxPredictor(arguments.model_name)
    predictor.load()
    ModelServer().start([predictor])
