"""Weights and ranges as integers: the arithmetic of the files of reduced precision, in numpy.

Every scale is a float32; a value v is held as the integer q nearest to v / scale (ties to even), and read back as
q · scale. Sources: the ONNX operators QuantizeLinear and DequantizeLinear, and com.microsoft.MatMulNBits.
"""

from __future__ import annotations

import numpy as np

S8 = 127
"""The largest magnitude of a signed weight; -128 is left out so that the scale is symmetric."""


def per_column(weight: np.ndarray, least: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix (in, out) as int8 (in, out) in -127..127 and a float32 scale for each column (out,).

    ``least`` (out,) is the smallest scale that a column may have.
    """
    scale = np.abs(weight).max(axis=0) / np.float32(S8)
    scale = scale if least is None else np.maximum(scale, least.astype(np.float32))
    scale = _nonzero(scale)
    return np.clip(np.rint(weight / scale), -S8, S8).astype(np.int8), scale


def per_block(weight: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix (in, out) as MatMulNBits holds it: uint8 (out, blocks, block·bits/8), float32 (out, blocks).

    A block of ``block`` weights of one output shares a scale: its weight of the largest magnitude becomes the lowest
    integer exactly. The integers are unsigned with the zero point 2^(bits-1); two of 4 bits make a byte, the first in
    its low half. The last block is filled with zeros.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block)
    padded = np.zeros((columns, blocks * block), np.float32)
    padded[:, :rows] = weight.T
    padded = padded.reshape(columns, blocks, block)
    half = 2 ** (bits - 1)
    place = np.abs(padded).argmax(axis=2)[:, :, None]
    scale = _nonzero(np.take_along_axis(padded, place, axis=2)[:, :, 0] / np.float32(-half))
    held = np.clip(np.rint(padded / scale[:, :, None]) + half, 0, 2**bits - 1).astype(np.uint8)
    if bits == 4:
        held = held[:, :, 0::2] | held[:, :, 1::2] << 4
    return np.ascontiguousarray(held), scale


def activation_range(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The float32 scale and the int8 zero point of values from ``low`` to ``high``; 0 is among them, held exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _nonzero(np.asarray((high - low) / 255, np.float32))
    return scale, np.asarray(np.clip(np.rint(-128 - low / scale), -128, 127), np.int8)


def _nonzero(scale: np.ndarray) -> np.ndarray:
    """Where all values are 0 any scale holds them."""
    return np.where(scale == 0, np.float32(1), scale).astype(np.float32)
