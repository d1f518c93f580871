"""Whatever operators stand in a file and however they are wired: what is read back computes what the file computes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import RecoveryError
from export import read_onnx
from tests.support.onnx_drafts import Draft, agree
from tests.support.outcomes import outcome
from tests.support.repeats import examples

ROWS = [("n", 6), (1, 6), (1, 2, 3), ("n", 2, 3), ("n", 6, 1), (6,), (6, 6), (1, 1, 1, 6), (4, 6), (1, 1), ("n", 1)]
SHAPES = [(6,), (1, 6), (1,), (), (6, 1), (2, 1), (3,), (1, 1, 6), (2, 3), (6, 6), (4,), (4, 1)]
MATRICES = [(6, 6), (6, 4), (4, 6), (6,), (1, 6), (6, 1), (3, 3), (1, 6, 6)]
SIZES = [[-1, 6], [0, -1], [1, -1], [1, 6], [6], [-1], [0, 2, 3], [-1, 2, 3], [6, 1], [0, 6, 1], [4, 6], [1, 4, 6]]
ORDERS = [[1, 0], [0, 2, 1], [1, 0, 2], [2, 0, 1]]


class Wild:
    """Draws operators that fit their opset, and often nothing else."""

    def __init__(self, seed: int):
        self.source = random.Random(seed)
        self.draft = Draft(self.source.choice([9, 11, 12, 13, 17, 18, 20]), self.source.choice(ROWS))

    def constant(self, shapes: list[tuple[int, ...]]) -> np.ndarray:
        generator = np.random.default_rng(self.source.randrange(2**32))
        values = generator.uniform(0.3, 1.5, size=self.source.choice(shapes)) * self.source.choice([1, -1])
        return np.asarray(values, np.float32)

    def axis(self) -> int:
        return self.source.choice([0, 1, -1, 2, -2])

    def either_way(self, value: str, constant: np.ndarray) -> list[str | np.ndarray]:
        return [value, constant] if self.source.random() < 0.7 else [constant, value]

    def elementwise(self, x: str) -> str:
        kind = self.source.choice(["Add", "Mul", "Sub", "Div"])
        return self.draft(kind, *self.either_way(x, self.constant(SHAPES)))

    def matmul(self, x: str) -> str:
        return self.draft("MatMul", *self.either_way(x, self.constant(MATRICES)))

    def gemm(self, x: str) -> str:
        turns = {name: self.source.choice([0, 1]) for name in ("transA", "transB")}
        factors = {name: self.source.choice([1.0, 0.5, 0.3]) for name in ("alpha", "beta")}
        both = self.either_way(x, self.constant(MATRICES))
        return self.draft("Gemm", *both, self.constant(SHAPES), **turns, **factors)

    def flatten(self, x: str) -> str:
        return self.draft("Flatten", x, axis=self.source.choice([0, 1, 1, 2]))

    def reshape(self, x: str) -> str:
        return self.draft("Reshape", x, np.array(self.source.choice(SIZES)))

    def transpose(self, x: str) -> str:
        return self.draft("Transpose", x, perm=self.source.choice(ORDERS))

    def unsqueeze(self, x: str) -> str:
        return self.draft.axes("Unsqueeze", x, [self.source.choice([0, 1, 2])], 13)

    def squeeze(self, x: str) -> str:
        return self.draft.axes("Squeeze", x, [self.source.choice([0, 1, 2])], 13)

    def softmax(self, x: str) -> str:
        return self.draft("Softmax", x, axis=self.axis())

    def softmax_in_steps(self, x: str) -> str:
        raised = self.draft("Exp", x)
        return self.draft("Div", raised, self.draft.axes("ReduceSum", raised, [self.axis()], 13))

    def batch_norm(self, x: str) -> str:
        return self.draft("BatchNormalization", x, *[np.abs(self.constant([(6,), (1,), (2,)]))] * 4)

    def layer_norm(self, x: str) -> str:
        off = self.draft("Sub", x, self.draft.axes("ReduceMean", x, [self.axis()], 18))
        variance = self.draft.axes("ReduceMean", self.draft("Mul", off, off), [self.axis()], 18)
        return self.draft("Div", off, self.draft("Sqrt", self.draft("Add", variance, np.float32(0.01))))

    def slope(self, x: str) -> str:
        return self.draft("Max", x, self.draft("Mul", x, np.float32(self.source.choice([0.1, 2, -1]))))

    def bound(self, x: str) -> str:
        return self.draft(self.source.choice(["Min", "Max"]), x, self.constant([(), (1,), (6,), (1, 1, 1)]))

    def silu(self, x: str) -> str:
        return self.draft("Mul", x, self.draft("Sigmoid", self.source.choice([x, x, "x"])))

    def residual(self, x: str) -> str:
        return self.draft("Add", x, self.source.choice([self.draft("Tanh", x), "x"]))


DRAWN: list[Callable[[Wild, str], str]] = [
    *(Wild.elementwise, Wild.matmul, Wild.gemm, Wild.flatten, Wild.reshape, Wild.transpose, Wild.unsqueeze),
    *(Wild.squeeze, Wild.softmax, Wild.softmax_in_steps, Wild.batch_norm, Wild.layer_norm, Wild.slope),
    *(Wild.bound, Wild.silu, Wild.residual),
]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=examples(150, of=500), deadline=None)
def test_what_is_read_computes_what_the_file_computes(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    wild, value = Wild(seed), "x"
    for _ in range(wild.source.randint(1, 4)):
        value = wild.source.choice(DRAWN)(wild, value)
    path = wild.draft.save(tmp_path_factory.getbasetemp() / "wild.onnx", value)
    recovered = outcome(RecoveryError, read_onnx, path)
    if isinstance(recovered, RecoveryError):
        assert str(path) in str(recovered)
    else:
        dims = wild.draft.input.type.tensor_type.shape.dim
        agree(path, recovered, tuple(dim.dim_value or 5 for dim in dims), seed)
