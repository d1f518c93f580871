"""Activations as ONNX files spell them, in one operator and in several."""

from __future__ import annotations

from math import pi, sqrt

from .onnx_patterns import Anything, Call, Constant, Either, Input, Number, Pattern

X = Input()


def call(kind: str, *inputs: Pattern | float) -> Call:
    """An operator; a number stands for a constant."""
    return Call(kind, tuple(Number(part) if isinstance(part, float | int) else part for part in inputs))


def _gelu(one_more: Pattern) -> Pattern:
    """x·one_more / 2, in any order of the factors."""

    def half(value: Pattern) -> Pattern:
        return Either((call("Mul", value, 0.5), call("Div", value, 2.0)))

    return Either(
        (
            half(call("Mul", X, one_more)),
            call("Mul", X, half(one_more)),
            call("Mul", half(X), one_more),
        )
    )


def _tanh_argument() -> Pattern:
    """sqrt(2 / pi)·(x + 0.044715·x³), multiplied out and factored."""
    slope, root = 0.044715, sqrt(2 / pi)
    square = Either((call("Mul", X, X), call("Pow", X, 2.0)))
    cube = Either((call("Pow", X, 3.0), call("Mul", square, X)))
    cubic = Either((call("Mul", cube, slope), call("Mul", call("Mul", X, slope), square)))
    factor = call("Add", call("Mul", square, slope), 1.0)
    inner = Either((call("Add", X, cubic), call("Mul", X, factor)))
    return Either((call("Mul", inner, root), call("Mul", call("Mul", X, root), factor)))


_SIGMA = Call("Sigmoid", (X,))
_ONE_PLUS = call("Add", call("Exp", call("Neg", X)), 1.0)
_ERF = call("Add", Call("Erf", (Either((call("Div", X, sqrt(2)), call("Mul", X, sqrt(0.5)))),)), 1.0)
_TANH = call("Add", call("Tanh", _tanh_argument()), 1.0)
_SHIFTED = call("Clip", call("Add", X, 3.0), 0.0, 6.0)
_SLOPED = Either((call("Mul", X, 1 / 6), call("Div", X, 6.0)))

PLAIN: dict[str, Pattern] = {
    "silu": Either((call("Mul", X, _SIGMA), call("Div", X, _ONE_PLUS))),
    "hardsigmoid": Either(
        (
            call("Div", _SHIFTED, 6.0),
            call("Mul", _SHIFTED, 1 / 6),
            call("Clip", call("Add", _SLOPED, 0.5), 0.0, 1.0),
        )
    ),
    "relu6": Either(
        (
            call("Min", Either((Call("Relu", (X,)), call("Max", X, 0.0))), 6.0),
            call("Max", call("Min", X, 6.0), 0.0),
            call("Clip", Call("Relu", (X,)), 0.0, 6.0),
        )
    ),
    "sigmoid": Either((_SIGMA, call("Div", Number(1.0), _ONE_PLUS), call("Reciprocal", _ONE_PLUS))),
    "relu": Call("Relu", (X,)),
    "tanh": Call("Tanh", (X,)),
}
"""Activations without options, by the name of their block."""

GELU: dict[str, Pattern] = {"none": _gelu(_ERF), "tanh": _gelu(_TANH)}
"""GELU in several operators, by its option ``approximate``."""


def _softplus(x: Pattern) -> Pattern:
    return Either((call("Softplus", x), call("Log", call("Add", call("Exp", x), 1.0))))


_BETA, _THRESHOLD = Constant("beta"), Constant("threshold")
_TIMES = call("Mul", X, _BETA)
_DIVIDED = call("Div", _softplus(_TIMES), _BETA)
SOFTPLUS: tuple[Pattern, ...] = (
    call("Where", call("Greater", _TIMES, _THRESHOLD), X, _DIVIDED),
    call("Where", call("Greater", X, _THRESHOLD), X, _softplus(X)),
    _DIVIDED,
    _softplus(X),
)
"""Softplus; the constants are its options, which have torch's defaults where there are none."""

_E = Either((call("Exp", call("Sub", X, call("ReduceMax", X))), call("Exp", X)))
SOFTMAX = call("Div", _E, call("ReduceSum", _E))
"""Softmax in several operators."""

_OFF = call("Sub", X, call("ReduceMean", X))
_VARIANCE = call("ReduceMean", Either((call("Pow", _OFF, 2.0), call("Mul", _OFF, _OFF))))
_DEVIATION = call("Sqrt", call("Add", _VARIANCE, Constant("eps")))
LAYER_NORM = Either((call("Div", _OFF, _DEVIATION), call("Mul", _OFF, call("Reciprocal", _DEVIATION))))
"""LayerNorm without its weights in several operators."""

LEAKY = call("Max", X, call("Mul", X, Constant("slope")))
"""Leaky ReLU as the larger of two lines."""

CLIPS: tuple[Pattern, ...] = (
    call("Min", call("Max", X, Constant("low")), Constant("high")),
    call("Max", call("Min", X, Constant("high")), Constant("low")),
    call("Max", X, Constant("low")),
    call("Min", X, Constant("high")),
    call("Clip", X, Anything(), Anything()),
)
"""Between two bounds, or on one side of one."""

_RAMP = Either((call("HardSigmoid", X), call("Clip", call("Add", X, 3.0), 0.0, 6.0)))
OTHERS: dict[str, Pattern] = {
    "a Hard Swish": call("Mul", X, Either((_RAMP, call("Div", _RAMP, 6.0), call("Mul", _RAMP, 1 / 6)))),
    "a Mish": call("Mul", X, call("Tanh", _softplus(X))),
    "a SiLU with a factor": call("Mul", X, call("Sigmoid", call("Mul", X, Constant("beta")))),
}
"""Activations that no block has, by what they are."""
