"""From a spec to a trainable module."""

import torch
from torch import nn

from .block import modules_of
from .spec import MLPSpec


def assemble(spec: MLPSpec, *, seed: int = 0) -> nn.Sequential:
    """The network of ``spec`` as a plain ``nn.Sequential`` of ``torch.nn`` modules, one per block, in training mode.

    It maps (N, *spec.input.row_shape) to (N, *spec.output_shape). Parameters are float32 and initialised as torch does,
    reproducibly from ``seed``; the caller's random state is left as it was.
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            return nn.Sequential(*modules_of(spec.blocks, spec.input.row_shape))
        finally:
            torch.set_default_dtype(default)
