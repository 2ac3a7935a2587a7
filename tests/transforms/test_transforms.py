"""Each transform is the identity that it claims, and leaves no trace when it is off."""

from __future__ import annotations

import pytest
import torch

from thalweg.rule import Rule, Transform, transformed
from thalweg.transforms import averaged, decoupled_decay, l2_decay, maximized, switchable_decay
from thalweg.transforms.shipped import missing_transform


def descent(p, g, s, h):
    return p - h.lr * g


OFF = {"lr": 0.5, "maximize": False, "weight_decay": 0.0, "decoupled_weight_decay": False}


def value(*transforms: Transform, p: float = 3.0, g: float = 2.0, **options: object) -> float:
    """What the transformed rule makes of plain numbers, called as it stands."""
    h = type("h", (), {**OFF, **options})
    update = transformed(Rule(descent), transforms).update
    return float(update(torch.tensor(p, dtype=torch.float64), torch.tensor(g), None, h))


def size(*transforms: Transform, **options: object) -> int:
    program = transformed(Rule(descent), transforms).program({**OFF, **options}, [1.0])
    return len(program.stages[0].body)


@pytest.mark.parametrize("make", [maximized, l2_decay, decoupled_decay, switchable_decay])
def test_off_leaves_no_trace(make) -> None:
    assert size(make()) == size()
    assert value(make()) == 2.0


def test_an_average_that_has_not_begun_leaves_no_trace() -> None:
    rule = transformed(Rule(descent), [averaged(start=10)])
    program = rule.program({**OFF, **averaged(start=10).options}, [1.0, 0.0, 0.0])
    assert len(program.stages[0].body) == size()
    assert program.states == ()


def test_maximizing_sees_the_negative_gradient() -> None:
    assert value(maximized(), maximize=True) == 4.0


def test_l2_adds_the_parameter_to_the_gradient() -> None:
    assert value(l2_decay(), weight_decay=0.5) == 3.0 - 0.5 * (2.0 + 1.5)


def test_decoupled_decay_shrinks_the_parameter() -> None:
    assert value(decoupled_decay(), weight_decay=0.5) == 3.0 * 0.75 - 1.0


@pytest.mark.parametrize(("decoupled", "same_as"), [(True, decoupled_decay), (False, l2_decay)])
def test_weight_decay_by_switch(decoupled, same_as) -> None:
    options = dict(weight_decay=0.25, decoupled_weight_decay=decoupled)
    assert value(switchable_decay(), **options) == value(same_as(), **options)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_the_average_is_that_of_the_values(decay) -> None:
    """Of the third value on, of every second one: the mean, or by its decay."""
    transform = averaged(decay, start=2, every=2)
    h = type("h", (), {**OFF, **transform.options})
    s = type("s", (), {"averaged_steps": 0, "averaged_models": 0, "average": None})
    update = transformed(Rule(descent), [transform]).update
    p, seen = torch.tensor(4.0, dtype=torch.float64), []
    for k in range(9):
        p = update(p, torch.tensor(float(k)), s, h)
        if k in (3, 5, 7):
            seen.append(p)
        if k < 3:
            assert s.average is None
    assert (s.averaged_steps, s.averaged_models) == (9, 3)
    first, second, third = seen
    expected = (first + second + third) / 3 if decay is None else (first + second + 2 * third) / 4
    torch.testing.assert_close(s.average, expected)


def test_what_a_saved_group_was_made_with() -> None:
    saved = {"lr": 0.1, **averaged(0.5).options}
    assert missing_transform(saved, {"lr"}) == "averaged"
    assert missing_transform(saved, saved.keys()) is None
    assert missing_transform({"lr": 0.1, "average_decay": 0.5}, {"lr"}) is None
