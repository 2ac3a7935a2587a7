"""Transforms and the rules that they make: order, names, states; equal ones make the same rule."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Rule, State, Transform, transformed
from thalweg.transforms import (
    averaged,
    decoupled_decay,
    l2_decay,
    maximized,
    switchable_decay,
)


def descent(p, g, s, h):
    return p - h.lr * g


OFF = {"lr": 0.5, "maximize": False, "weight_decay": 0.0, "decoupled_weight_decay": False}


def doubling(update):
    def rule(p, g, s, h):
        return update(p, 2 * g, s, h)

    return rule


def value(*transforms: Transform, p: float = 3.0, g: float = 2.0, **options: object) -> float:
    """What the transformed rule makes of plain numbers, called as it stands."""
    h = type("h", (), {**OFF, **options})
    update = transformed(Rule(descent), transforms).update
    return float(update(torch.tensor(p, dtype=torch.float64), torch.tensor(g), None, h))


def test_each_wraps_what_stands_before_it() -> None:
    options = dict(maximize=True, weight_decay=0.5)
    # The last sees the gradient first: it flips the gradient alone, or the decay with it.
    assert value(l2_decay(), maximized(), **options) == 3.0 - 0.5 * (-2.0 + 1.5)
    assert value(maximized(), l2_decay(), **options) == 3.0 - 0.5 * (-2.0 - 1.5)


def test_the_rule_keeps_its_name_and_kind() -> None:
    rule = Rule(descent, {"m": 1.0}, counted=False, name="plain")
    around = transformed(rule, [l2_decay(), averaged()])
    assert (around.name, around.counted, around.every_row) == ("plain", False, True)
    assert list(around.states) == ["m", "average", "averaged_steps", "averaged_models"]
    assert list(rule.states) == ["m"]
    assert not transformed(rule, [l2_decay()]).every_row


def test_each_setting_is_one_program() -> None:
    rule = transformed(Rule(descent), [switchable_decay(), maximized()])
    for weight_decay in (0.1, 0.2, 0.0):
        for maximize in (False, True):
            rule.program({**OFF, "weight_decay": weight_decay, "maximize": maximize}, [1.0])
    assert len(rule._programs) == 4


def test_equal_transforms_give_the_same_rule_whatever_their_options() -> None:
    rule = Rule(descent)
    around = transformed(rule, [decoupled_decay(0.1), averaged(0.9)])
    assert transformed(rule, [decoupled_decay(0.2), averaged(None, every=3)]) is around
    assert transformed(rule, [averaged(0.9), decoupled_decay(0.1)]) is not around
    assert transformed(rule, [decoupled_decay(0.1)]) is not around
    assert transformed(Rule(descent), [decoupled_decay(0.1), averaged(0.9)]) is not around
    assert transformed(rule, []) is rule


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
@pytest.mark.parametrize("make", [averaged, maximized, l2_decay, decoupled_decay, switchable_decay])
def test_copies_and_pickles_are_equal_and_give_the_same_rule(make, duplicate) -> None:
    rule, transform = Rule(descent), make()
    around = transformed(rule, [transform])
    again = duplicate(transform)
    assert again == transform
    assert transformed(rule, [again]) is around


def test_what_was_given_may_change_afterwards() -> None:
    options, states = {"scale": 1.0}, {"m": 0.0}
    transform = Transform(doubling, states=states, options=options)
    options["scale"], states["n"] = 2.0, 0.0
    assert dict(transform.options) == {"scale": 1.0}
    assert list(transform.states) == ["m"]


# ------------------------------------------------------------------------------------------- misuse


def test_two_owners_of_a_state() -> None:
    one = Transform(doubling, states={"m": 0.0}, name="one")
    two = Transform(doubling, states={"m": State(scalar=True)}, name="two")
    with pytest.raises(
        ValueError,
        match=r"plain: the transform one needs the state 'm'.*the rule plain has already",
    ):
        transformed(Rule(descent, {"m": 0.0}, name="plain"), [one])
    rule = Rule(descent)
    with pytest.raises(
        ValueError, match=r"transform two needs the state 'm' .*the transform one has already"
    ):
        transformed(rule, [one, two])
    assert transformed(rule, [one]).states.keys() == {"m"}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Transform(None), TypeError, "wrap must be a function from update to update"),
        (
            lambda: Transform(doubling, states={"step": 0.0}),
            ValueError,
            "doubling: every rule has `step` already",
        ),
        (
            lambda: Transform(doubling, options={"a": 1.0}, ranges={"b": NON_NEGATIVE}),
            ValueError,
            r"doubling: there is a range for 'b', which is none of its options \(a\)",
        ),
        (lambda: averaged(start=0.5), TypeError, "averaged: start must be an integer"),
        (
            lambda: transformed(Rule(descent), [maximized(), doubling]),
            TypeError,
            r"descent: transforms\[1\] must be a Transform, .*; call it: doubling\(\.\.\.\)",
        ),
        (
            lambda: transformed(Rule(descent), maximized()),
            TypeError,
            r"transforms must be a list .*; write \[maximized\(maximize=False\)\]",
        ),
        (lambda: transformed(Rule(descent), 3), TypeError, "must be a list of transforms, got 3"),
        (lambda: transformed(Rule(descent), "l2"), TypeError, "must be a list of transforms"),
    ],
)
def test_misuse(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
