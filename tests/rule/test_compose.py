"""Functions from rules to rules: each is the identity it claims, and leaves no trace when off."""

from __future__ import annotations

import pytest
import torch

from thalweg.rule import Rule
from thalweg.rule.compose import (
    decoupled_decayed,
    l2_regularized,
    maximizable,
    weight_decayed,
)


def descent(p, g, s, h):
    return p - h.lr * g


OFF = {"lr": 0.5, "maximize": False, "weight_decay": 0.0, "decoupled_weight_decay": False}


def value(update, p: float, g: float, **options: object) -> float:
    """The rule as it stands, on plain numbers."""
    h = type("h", (), {**OFF, **options})
    return float(update(torch.tensor(p, dtype=torch.float64), torch.tensor(g), None, h))


def size(update, **options: object) -> int:
    program = Rule(update).program({**OFF, **options}, [1.0])
    return len(program.stages[0].body)


@pytest.mark.parametrize("wrap", [maximizable, l2_regularized, decoupled_decayed, weight_decayed])
def test_off_leaves_no_trace(wrap) -> None:
    assert size(wrap(descent)) == size(descent)
    assert value(wrap(descent), 3.0, 2.0) == 2.0


def test_maximizing_sees_the_negative_gradient() -> None:
    assert value(maximizable(descent), 3.0, 2.0, maximize=True) == 4.0


def test_l2_adds_the_parameter_to_the_gradient() -> None:
    assert value(l2_regularized(descent), 3.0, 2.0, weight_decay=0.5) == 3.0 - 0.5 * (2.0 + 1.5)


def test_decoupled_decay_shrinks_the_parameter() -> None:
    assert value(decoupled_decayed(descent), 3.0, 2.0, weight_decay=0.5) == 3.0 * 0.75 - 1.0


@pytest.mark.parametrize(
    ("decoupled", "same_as"), [(True, decoupled_decayed), (False, l2_regularized)]
)
def test_weight_decay_by_switch(decoupled, same_as) -> None:
    options = dict(weight_decay=0.25, decoupled_weight_decay=decoupled)
    assert value(weight_decayed(descent), 3.0, 2.0, **options) == value(
        same_as(descent), 3.0, 2.0, **options
    )


def test_compositions_keep_order_and_name() -> None:
    rule = maximizable(l2_regularized(descent))
    assert rule.__name__ == "descent"
    assert Rule(rule).name == "descent"
    # Maximizing flips the gradient, not the decay.
    assert value(rule, 3.0, 2.0, maximize=True, weight_decay=0.5) == 3.0 - 0.5 * (-2.0 + 1.5)


def test_each_setting_is_one_program() -> None:
    rule = Rule(maximizable(weight_decayed(descent)))
    for weight_decay in (0.1, 0.2, 0.0):
        for maximize in (False, True):
            rule.program({**OFF, "weight_decay": weight_decay, "maximize": maximize}, [1.0])
    assert len(rule._programs) == 4
