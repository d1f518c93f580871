"""The layer-wise forward error bound: how far any correct float32 evaluation of a module can be from the exact one.

Written apart from the product, in float64 numpy. For a value z known up to e, each rule gives the value after the
layer, by PyTorch in float64, and the radius around it that holds every result of float32 arithmetic with rounding to
nearest: sums in any order, with or without FMA (Higham, Accuracy and Stability of Numerical Algorithms, 2002, ch. 3),
activations with the error constants a (absolute), r (relative to the result), m (relative to the argument), in units of
u = 2^-24.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from builder import Impute, Residual, Scale, Standardize
from builder.modules import Clip
from tests.support.rounded import TINY, U

Rule = Callable[..., np.ndarray]


def gamma(k: float) -> float:
    """The relative error of k roundings in a row."""
    return k * U / (1 - k * U)


def array(tensor: torch.Tensor | None, default: float = 0.0) -> np.ndarray:
    return np.asarray(default) if tensor is None else tensor.detach().double().numpy()


def exact(module: nn.Module, z: np.ndarray) -> np.ndarray:
    """The module in float64. A LeakyReLU's slope is the float32 that PyTorch and ONNX use."""
    reference = copy.deepcopy(module).double()
    for name in ("negative_slope", "alpha", "min_val", "max_val"):
        if hasattr(reference, name):
            setattr(reference, name, float(np.float32(getattr(reference, name))))
    with torch.inference_mode():
        return reference(torch.from_numpy(z)).numpy()


def linear(module: nn.Linear, z: np.ndarray, e: np.ndarray, _y: np.ndarray) -> np.ndarray:
    """γ_k(|W||z| + |b|), k = n + 1, and 2 more for a BatchNorm that was folded in and rounded."""
    g, w, b = gamma(module.in_features + 3), np.abs(array(module.weight)), np.abs(array(module.bias))
    return ((1 + g) * e + g * np.abs(z)) @ w.T + g * b


def activation(a: float = 0, r: float = 0, m: float = 0, lipschitz: float | None = None) -> Rule:
    """a·u + r·u·|y| + m·u·|z|, and what the error of z makes of a monotone f, or lipschitz·e of another."""

    def rule(module: nn.Module, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
        if lipschitz is None:
            p = np.maximum(np.abs(exact(module, z + e) - y), np.abs(y - exact(module, z - e)))
        else:
            p = lipschitz * e
        return p + U * (a + r * (np.abs(y) + p) + m * (np.abs(z) + e))

    return rule


def leaky(module: nn.LeakyReLU, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    slope = max(1.0, abs(module.negative_slope)) if module.negative_slope < 0 else None
    return activation(r=1, lipschitz=slope)(module, z, e, y)


def elu(module: nn.ELU, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    """alpha·(e^z - 1): the exponential to 3 u of at most 1, the difference and the product rounded, times alpha."""
    return activation(a=5 * abs(module.alpha), r=1)(module, z, e, y)


def softplus(module: nn.Softplus, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log(1 + e^(beta z)) to 4 u, over beta; beta z is rounded, and the slope is at most 1."""
    return activation(a=4 / module.beta, r=4, m=2, lipschitz=1.0)(module, z, e, y) + 2 * jump(module, z, e)


def jump(module: nn.Softplus, z: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Within rounding of the threshold either branch is right; they differ by log1p(e^-threshold) / beta."""
    near = np.abs(module.beta * z - module.threshold) <= module.beta * e + 4 * U * np.abs(module.threshold)
    return near * np.log1p(np.exp(-module.threshold)) / module.beta


def softsign(_module: nn.Softsign, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|z| + 1 and the quotient are rounded; z and |z| may be off by e each, in the worst way."""
    low = 1 + np.maximum(np.abs(z) - e, 0)
    return (e + (np.abs(z) + e) * e / low) / low + 3 * U * (np.abs(y) + e)


def softmax(_module: nn.Softmax, z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each e^(z - max) has a relative error of (z_max - z + 4) u; their sum adds n u, the quotient u."""
    depth = z.max(axis=1, keepdims=True) - z
    relative = U * (depth + (y * depth).sum(axis=1, keepdims=True) + z.shape[1] + 12)
    return y * (np.expm1(e + e.max(axis=1, keepdims=True)) + relative)


def layer_norm(module: nn.LayerNorm, z: np.ndarray, e: np.ndarray, _y: np.ndarray) -> np.ndarray:
    """Mean and mean square summed with γ_n each; their difference may cancel; then one root, quotient, product, sum."""
    n, g = z.shape[1], gamma(z.shape[1] + 4)
    mean = z.mean(axis=1, keepdims=True)
    centred = np.abs(z - mean)
    moved = e + e.mean(axis=1, keepdims=True) + g * (np.abs(z).mean(axis=1, keepdims=True)) + 2 * U * centred
    variance = (centred**2).mean(axis=1, keepdims=True) + module.eps
    slack = g * ((z**2).mean(axis=1, keepdims=True) + mean**2 + module.eps)
    slack = slack + (2 * centred * moved + moved**2).sum(axis=1, keepdims=True) / n
    left = np.maximum(variance - slack, 1e-200)  # where all of it may cancel, nothing is bounded
    growth = np.sqrt(variance / left) - 1
    w, b = np.abs(array(module.weight, 1.0)), np.abs(array(module.bias))
    unit = 1 / np.sqrt(variance)
    return w * unit * (moved * (1 + growth) + centred * (growth + 6 * U)) + 4 * U * b


def batch_norm(module: nn.BatchNorm1d, z: np.ndarray, e: np.ndarray, _y: np.ndarray) -> np.ndarray:
    """One factor and one shift per feature, each to 6 u."""
    factor = np.abs(array(module.weight, 1.0)) / np.sqrt(array(module.running_var) + module.eps)
    terms = factor * (np.abs(z) + e + np.abs(array(module.running_mean))) + np.abs(array(module.bias))
    return factor * e + 8 * U * terms


def standardize(module: Standardize, _z: np.ndarray, e: np.ndarray, y: np.ndarray) -> np.ndarray:
    return e / np.abs(array(module.std)) * (1 + 3 * U) + 2 * U * np.abs(y)


def scale(module: Scale, z: np.ndarray, e: np.ndarray, _y: np.ndarray) -> np.ndarray:
    factor = np.abs(array(module.factor))
    return factor * e + 2 * U * (factor * (np.abs(z) + e) + np.abs(array(module.offset)))


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Sigmoid: activation(a=4),
    nn.ReLU: activation(),
    nn.LeakyReLU: leaky,
    nn.Dropout: activation(),
    nn.ELU: elu,
    nn.Tanh: activation(r=6),
    nn.GELU: activation(r=1, m=8, lipschitz=1.13),
    nn.SiLU: activation(r=1, m=5, lipschitz=1.10),
    nn.Softplus: softplus,
    nn.Softmax: softmax,
    nn.ReLU6: activation(),
    nn.Hardsigmoid: activation(a=2, m=1),
    nn.Softsign: softsign,
    nn.Hardtanh: activation(),
    nn.BatchNorm1d: batch_norm,
    nn.LayerNorm: layer_norm,
    nn.Flatten: activation(),
    nn.Identity: activation(),
    Standardize: standardize,
    Scale: scale,
    Clip: activation(),
    Impute: activation(),
}


def bounded(
    module: nn.Module, z: np.ndarray, e: np.ndarray, seen: Mapping[str, np.ndarray], path: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The exact output and its radius; a layer whose value was ``seen`` must lie in its own, and goes on from it."""
    if isinstance(module, nn.Sequential):
        y, radius = z, e
        for name, part in module.named_children():
            y, radius = bounded(part, y, radius, seen, f"{path}.{name}".lstrip("."))
        if isinstance(module, Residual):
            y = z + y
            radius = (e + radius) * (1 + U) + U * np.abs(y)
            y, radius = _taken(f"{path}.add", y, radius, seen)
        return y, radius
    y = exact(module, z)
    radius = RULES[type(module)](module, z, e, y) * (1 + 2.0**-20) + (z.shape[-1] + 2) * TINY
    return _taken(path, y, radius, seen)


def _taken(
    path: str, y: np.ndarray, radius: np.ndarray, seen: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    if path not in seen:
        return y, radius
    within(seen[path], y, radius, path)
    return seen[path].astype(np.float64), np.zeros_like(y)


def within(found: np.ndarray, expected: np.ndarray, radius: np.ndarray, where: str) -> None:
    """Assert that NaN and infinities agree, and then that every element lies within its radius."""
    assert found.shape == expected.shape, f"{where}: shape {found.shape}, not {expected.shape}"
    for name, mask in (("NaN", np.isnan), ("infinities", np.isinf)):
        assert np.array_equal(mask(found), mask(expected)), f"{where}: the {name} differ"
    finite = np.isfinite(expected)
    apart = np.abs(found.astype(np.float64)[finite] - expected[finite])
    allowed = radius[finite]
    if apart.size and not (apart <= allowed).all():
        worst = int(np.argmax(apart - allowed))
        raise AssertionError(f"{where}: off by {apart[worst]:.3g}, and {allowed[worst]:.3g} is allowed")
