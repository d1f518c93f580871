"""The bounds of operators whose results jump, and of whole numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from export.evaluation import evaluate
from export.proof.rules import RULES
from tests.support.operator_cases import CASES


def test_a_jump_is_bounded_by_its_size() -> None:
    def radius(name: str, *values: float, e: float = 0.1) -> float:
        one = CASES[name]
        z = [torch.tensor([[value]], dtype=torch.float64) for value in values]
        y = evaluate(one.node, z)
        return float(RULES[one.node.op](one.node, z, [torch.full((1, 1), e).double()] * len(z), y))

    assert radius("floor", 2.5) == 0
    assert radius("floor", 2.05) == 1
    assert radius("ceil", 2.0) == 1
    assert radius("sign", 0.5) == 0
    assert radius("sign", 0.05) == 2
    assert radius("sign", 0.0) == 1
    assert radius("round", 2.45) == 1
    assert radius("round", 2.3) == 0
    assert radius("gt a number", 0.35) == 1
    assert radius("gt a number", 0.45) == 0
    assert radius("eq", 1.0, 1.15) == 1
    assert radius("eq", 1.0, 1.25) == 0
    assert radius("to whole numbers", 2.95) == 1
    assert radius("to whole numbers", -0.95) == 1
    assert radius("to whole numbers", 0.95, e=0.01) == 0
    assert radius("sqrt", 0.05) == np.inf
    assert radius("log", 0.05) == np.inf
    assert radius("reciprocal", 0.05) == np.inf
    assert radius("isnan", 1.0) == 0


def test_a_choice_that_is_open_is_bounded_by_its_distance() -> None:
    node = CASES["where"].node
    z = [
        torch.tensor([True, True, False]),
        torch.tensor([1.0, 1.0, 1.0]).double(),
        torch.tensor([4.0, 4.0, 4.0]).double(),
    ]
    e = [
        torch.tensor([0.0, 1.0, 0.0]).double(),
        torch.tensor([0.1, 0.1, 0.1]).double(),
        torch.tensor([0.25, 0.25, 0.25]).double(),
    ]
    found = RULES["where"](node, z, e, torch.where(*z))
    np.testing.assert_allclose(found, [0.1, 3.25, 0.25], rtol=1e-6)
    taken = RULES["argmax"](
        CASES["argmax"].node,
        [torch.tensor([[[5.0, 4.95, 1.0, 4.9]]]).double()],
        [torch.full((1, 1, 4), 0.06).double()],
        torch.tensor([[0]]),
    )
    assert taken.item() == 3
    table = CASES["gather"].node
    lost = RULES["gather"](
        table,
        [torch.ones(1, 4).double(), torch.tensor([[1, 2]])],
        [None, torch.ones(1, 2).double()],
        torch.ones(1, 2).double(),
    )
    assert lost.isinf().all()


def test_whole_numbers_are_exact_until_float32_has_them() -> None:
    big = torch.tensor([[2**24, 2**24 + 1, 2**40 + 1]])
    whole = CASES["add whole numbers"].node
    assert not RULES["add"](whole, [big, big], [None, None], big + big).any()
    radius = RULES["_to_copy"](CASES["to float"].node, [big], [None], big.double())
    assert radius[0, 0] == 0
    assert (radius[0, 1:] > 0).all()
    assert ((big.float().double() - big.double()).abs() <= radius).all()
    mixed = replace(whole, dtype="float32")
    assert (RULES["add"](mixed, [big, big], [None, None], (big + big).double())[0, 1:] > 1).all()
    beyond = torch.tensor([[1e19, np.nan, 1.5]]).double()
    y = torch.zeros(1, 3, dtype=torch.int64)
    assert RULES["_to_copy"](CASES["to whole numbers"].node, [beyond], [None], y).tolist() == [[np.inf, np.inf, 0.0]]
