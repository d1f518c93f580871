"""A server of the KServe SDK for the ONNX file of this package: python kserve_model.py --model_name=NAME."""

# pyright: reportMissingModuleSource=false
from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer, logging, model_server
from kserve.errors import InvalidInput
from onnx_model import OnnxModel, RequestTensor, WrongRequestError
from prometheus_client import Gauge
from proved import Proved
from self_check import SelfCheck

HERE = Path(__file__).resolve().parent
RIGHT = Gauge("mlpx_model_right", "1 where the answers to the certificate's rows are those proved.", ["model"])


class OnnxPredictor(Model):
    """Answers requests of the Open Inference Protocol, over REST and gRPC."""

    def load(self) -> bool:
        """Open the file with the settings beside it, and check it; the SDK calls this again where it is not healthy.

        ``ready`` stays true, or the SDK would end a server whose only model is not: ``healthy`` is the readiness.
        """
        if not self.ready:
            settings = json.loads((HERE / "model-settings.json").read_text(encoding="utf-8"))
            every = settings.pop("verify_every")
            self.model = OnnxModel(HERE / "model.onnx", **settings)
            proved = Proved(HERE / "model.onnx", self.model.batch, self.model.max_batch)
            self.checked = SelfCheck(proved, self.model.run, every, lambda right: RIGHT.labels(self.name).set(right))
            _run(self.checked.check())
            self.ready = True
        return self.ready

    async def healthy(self) -> bool:
        """Whether the last check held; the SDK asks for every probe, and before every request over REST."""
        self.checked.keep_checking()
        return not self.checked.fault

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


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, and leave the loop that the SDK will start alone, which ``asyncio.run`` does not."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


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
