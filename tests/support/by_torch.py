"""PyTorch's own exporter."""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from torch import nn


def by_torch(module: nn.Module, *, free_batch: bool = False) -> onnx.ModelProto:
    """What ``torch.onnx.export(dynamo=True)`` makes of a module of five features."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = ({0: torch.export.Dim("batch")},) if free_batch else None
            program = torch.onnx.export(module, (torch.zeros(2, 5),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    return program.model_proto
