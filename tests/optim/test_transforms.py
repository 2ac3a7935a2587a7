"""``transforms=``: of every optimizer, and of ``@thalweg.optimizer``; their options and states."""

from __future__ import annotations

import copy
import inspect
import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg
import thalweg.optim as optim
import thalweg.transforms
from tests.optim.exact import bits, snapshot
from thalweg.optim.catalogue import classes
from thalweg.optim.lr_scheduler import ScheduledHyperparameters
from thalweg.optim.swa_utils import CarriedAverage
from thalweg.ranges import POSITIVE
from thalweg.rule import State, Transform
from thalweg.schedules import Linear
from thalweg.transforms import averaged, decoupled_decay, l2_decay, maximized

WITH_RULE = [name for name, cls in classes().items() if hasattr(cls, "rule")]
DENSE = [name for name in WITH_RULE if name != "SparseAdam"]


def scaling(update):
    def rule(p, g, s, h):
        return update(p, h.scale * g, s, h)

    return rule


def counting(update):
    """Keep the sum of gradients, and a count of its own."""

    def rule(p, g, s, h):
        s.total = s.total + g
        s.seen = s.seen + 1
        return update(p, g, s, h)

    return rule


def scaled(scale: float = 1.0) -> Transform:
    return Transform(scaling, options={"scale": scale}, ranges={"scale": POSITIVE}, name="scaled")


COUNTED = Transform(counting, states={"total": 0.0, "seen": State(scalar=True)})


def parameters(*sizes: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(n, generator=generator)) for n in sizes]


def train(optimizer: Any, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def values(optimizer: Any) -> list[Tensor]:
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("name", thalweg.transforms.__all__)
def test_all_of_them_are_in_the_documentation(name: str) -> None:
    page = Path(__file__).parents[2] / "docs/transforms.md"
    assert f"::: thalweg.transforms.{name}\n" in page.read_text(encoding="utf-8")


ORDERS = list(permutations([scaled(0.5), COUNTED, decoupled_decay(0.1), averaged(0.9, every=2)]))


@pytest.mark.parametrize("order", ORDERS[::3], ids=str)
@pytest.mark.parametrize("name", ["Rprop", "Adadelta"])
def test_kernels_and_eager_agree_in_any_order(name: str, order: Any) -> None:
    if name == "Adadelta":  # which has a weight decay of its own
        order = [each for each in order if each.name != "decoupled_decay"]
    runs = []
    for fused in (True, False):
        optimizer = classes()[name](
            [{"params": parameters(40)}, {"params": parameters(9), "average_start": 2}],
            transforms=order, fused=fused,
        )  # fmt: skip
        begun = bits(values(optimizer))
        train(optimizer, 5)
        assert bits(values(optimizer)) != begun
        runs.append([values(optimizer), list(optimizer.state.values())])
    torch.testing.assert_close(*runs, rtol=1e-6, atol=1e-7)


def test_a_carried_average_of_groups_that_differ() -> None:
    a, b = parameters(3, 3)
    groups = [{"params": [a], "average_decay": 0.5}, {"params": [b]}]
    optimizer = optim.SGD(groups, transforms=[averaged(0.25)])
    average = CarriedAverage(optimizer, 0.25)
    train(optimizer, 3)
    for p in (a, b):
        assert torch.equal(average.of(p), optimizer.state[p]["average"])
    with pytest.raises(ValueError, match="of other options already"):
        CarriedAverage(optimizer, 0.75)


# ------------------------------------------------------------------------------------ what it does


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("name", DENSE)
def test_every_optimizer_takes_them(name: str, fused: bool) -> None:
    """A gradient scaled by 2 is as twice the gradient, whatever the rule."""
    make = classes()[name]
    assert list(inspect.signature(make).parameters)[-1] in ("extras", "transforms")
    around = make(parameters(40), transforms=[scaled(2.0), COUNTED], fused=fused)
    plain = make(parameters(40), fused=fused)
    for step in range(3):
        g = torch.randn(40, generator=torch.Generator().manual_seed(step))
        around.param_groups[0]["params"][0].grad = g
        plain.param_groups[0]["params"][0].grad = 2 * g
        around.step()
        plain.step()
    assert bits(values(around)) == bits(values(plain))
    (state,) = around.state.values()
    assert state["seen"] == 3
    assert {"total", "seen"} == state.keys() - next(iter(plain.state.values()), {}).keys()


@pytest.mark.parametrize("name", WITH_RULE)
def test_nothing_changes_without(name: str) -> None:
    plain, empty = (classes()[name](parameters(3), **o) for o in ({}, {"transforms": ()}))
    assert plain.param_groups[0].keys() == empty.param_groups[0].keys()
    assert plain.composed_rule is empty.composed_rule


def test_one_kernel_of_all() -> None:
    optimizer = optim.RMSprop(parameters(40), transforms=[scaled(2.0), averaged(0.9)])
    train(optimizer, 1)
    text = str(thalweg.explain(optimizer))
    assert "average'" in text
    assert "back end   cpu" in text
    (unit,) = optimizer._engine.units
    assert len(unit.program.stages) == 1


def test_decoupled_decay_makes_adamw_of_an_adam_of_ones_own() -> None:
    from thalweg.optim.adam import STATES, adam

    own = thalweg.optimizer(
        lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=False, states=STATES,
        transforms=[decoupled_decay(0.1)],
    )(adam)  # fmt: skip
    ours, theirs = own(parameters(40)), optim.AdamW(parameters(40), weight_decay=0.1)
    for optimizer in (ours, theirs):
        train(optimizer, 5)
    assert bits(values(ours)) == bits(values(theirs))


def test_l2_decay_and_maximizing_of_an_optimizer_without() -> None:
    def plain(p, g, s, h):
        return p - h.lr * g

    cls = thalweg.optimizer(lr=0.1)(plain)
    ours = cls(parameters(40), transforms=[l2_decay(0.1)], maximize=True)
    theirs = optim.SGD(parameters(40), lr=0.1, weight_decay=0.1)
    for step in range(3):
        g = torch.randn(40, generator=torch.Generator().manual_seed(step))
        # The decay stands outside here, so that it is turned around as well.
        ours.param_groups[0]["params"][0].grad = -g - 0.2 * values(ours)[0]
        theirs.param_groups[0]["params"][0].grad = g
        ours.step()
        theirs.step()
    torch.testing.assert_close(values(ours), values(theirs))


def test_groups_differ() -> None:
    a, b, c = parameters(3, 3, 3)
    optimizer = optim.SGD(
        [{"params": [a], "scale": 3.0}, {"params": [b]}], lr=1.0, transforms=[scaled(2.0)]
    )
    optimizer.add_param_group({"params": [c]})
    before = [p.detach().clone() for p in (a, b, c)]
    for p in (a, b, c):
        p.grad = torch.ones(3)
    optimizer.step()
    moved = [float((x - p.detach()).mean()) for p, x in zip((a, b, c), before, strict=True)]
    assert moved == pytest.approx([3.0, 2.0, 2.0])


def test_a_group_whose_average_is_far_away_has_no_trace_of_it() -> None:
    a, b = parameters(8, 8)
    groups = [{"params": [a], "average_start": 10**6}, {"params": [b]}]
    optimizer = optim.SGD(groups, transforms=[averaged(0.9)])
    train(optimizer, 2)
    assert "average" not in optimizer.state[a]
    assert "average" in optimizer.state[b]
    by_size = {len(unit.program.states) for unit in optimizer._engine.units}
    assert by_size == {0, 1}


def test_options_are_scheduled() -> None:
    (p,) = parameters(1)
    optimizer = optim.SGD([p], lr=1.0, transforms=[scaled(1.0)])
    scheduler = ScheduledHyperparameters(optimizer, scale=Linear(1.0, 4.0, steps=3))
    moved = []
    for _ in range(4):
        before = p.item()
        p.grad = torch.ones(1)
        optimizer.step()
        scheduler.step()
        moved.append(before - p.item())
    assert moved == pytest.approx([1.0, 2.0, 3.0, 4.0], rel=1e-5)


def test_added_later() -> None:
    optimizer = optim.SGD(parameters(5, 5), lr=0.1)
    train(optimizer, 2)
    optimizer.add_transform(COUNTED)
    optimizer.add_transform(scaled(2.0))
    assert [group["scale"] for group in optimizer.param_groups] == [2.0]
    train(optimizer, 3, start=2)
    assert all(state["seen"] == 3 for state in optimizer.state.values())
    assert [each.name for each in optimizer.added_transforms] == ["counting", "scaled"]


def test_a_carried_average_is_the_transform() -> None:
    built = optim.Adam(parameters(9), transforms=[averaged(0.5, every=2)])
    attached = optim.Adam(parameters(9))
    CarriedAverage(attached, 0.5, every=2)
    for optimizer in (built, attached):
        train(optimizer, 5)
    assert built.composed_rule is attached.composed_rule
    average = CarriedAverage(built, 0.5, every=2)
    (p,) = built.param_groups[0]["params"]
    (q,) = attached.param_groups[0]["params"]
    assert torch.equal(average.of(p), attached.state[q]["average"])
    with pytest.raises(ValueError, match="of other options already"):
        CarriedAverage(built, 0.6)


# ----------------------------------------------------------------------------- checkpoints, copies


def duplicate_by_pickle(optimizer: Any) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, duplicate_by_pickle])
def test_copies_and_pickles_go_on_alone(duplicate: Any) -> None:
    optimizer = optim.Adam(parameters(7), transforms=[scaled(2.0), COUNTED, averaged(0.5)])
    train(optimizer, 2)
    other = duplicate(optimizer)
    assert other.added_transforms == optimizer.added_transforms
    assert other.composed_rule is optimizer.composed_rule
    for each in (optimizer, other):
        train(each, 2, start=2)
    assert bits(values(other)) == bits(values(optimizer))
    assert [s["seen"] for s in other.state.values()] == [4]


def test_a_shallow_copy_has_them_too() -> None:
    optimizer = optim.SGD(parameters(3), transforms=[scaled(2.0)])
    assert copy.copy(optimizer).added_transforms == optimizer.added_transforms


@pytest.mark.parametrize("name", DENSE)
def test_a_state_dict_carries_options_and_states(name: str) -> None:
    def made() -> Any:
        return classes()[name](parameters(7), transforms=[scaled(2.0), COUNTED, averaged(0.5)])

    whole, first, second = made(), made(), made()
    train(whole, 5)
    train(first, 3)
    first.param_groups[0]["scale"] = 2.5
    saved = copy.deepcopy(first.state_dict())
    assert saved["param_groups"][0]["scale"] == 2.5
    second.load_state_dict(saved)
    assert second.param_groups[0]["scale"] == 2.5
    second.param_groups[0]["scale"] = 2.0
    for p, q in zip(values(second), values(first), strict=True):
        p.copy_(q)
    train(second, 2, start=3)
    assert bits(values(second)) == bits(values(whole))


def test_states_of_another_transform_are_kept_as_a_users_own() -> None:
    one, other = (optim.Adam(parameters(3), **o) for o in ({"transforms": [COUNTED]}, {}))
    train(one, 1)
    other.load_state_dict(one.state_dict())
    assert bits(other.state_dict()["state"]) == bits(one.state_dict()["state"])
    other.add_transform(COUNTED)
    train(one, 1, start=1)
    train(other, 1, start=1)
    assert bits(other.state_dict()["state"]) == bits(one.state_dict()["state"])


def test_a_state_dict_from_before_the_transform_was_added_has_no_states_of_it() -> None:
    late = optim.Adam(parameters(3))
    train(late, 2)
    late.add_transform(COUNTED)
    fresh = optim.Adam(parameters(3), transforms=[COUNTED])
    fresh.load_state_dict(late.state_dict())
    train(fresh, 1)
    assert [s["seen"] for s in fresh.state.values()] == [1]
    train(late, 1)
    saved = late.state_dict()
    del saved["state"][0]["total"]
    with pytest.raises(ValueError, match="lacks the state 'total'"):
        fresh.load_state_dict(saved)


def test_a_state_dict_without_an_option_of_a_transform() -> None:
    plain = optim.SGD(parameters(3))
    around = optim.SGD(parameters(3), transforms=[scaled(2.0)])
    with pytest.raises(ValueError, match="no option of the transform scaled"):
        around.load_state_dict(plain.state_dict())


# ------------------------------------------------------------------------------------------ misuse


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: optim.AdamW(parameters(1), transforms=[decoupled_decay(0.1)]),
            ValueError,
            "AdamW: the transform decoupled_decay brings the option 'weight_decay', which AdamW",
        ),
        (
            lambda: optim.SGD(parameters(1), transforms=[maximized(True)]),
            ValueError,
            "SGD: the transform maximized brings the option 'maximize', which SGD has already",
        ),
        (
            lambda: optim.Rprop(parameters(1), transforms=[l2_decay(), decoupled_decay()]),
            ValueError,
            "decoupled_decay brings the option 'weight_decay', which the transform l2_decay has",
        ),
        (
            lambda: optim.SGD(
                parameters(1), transforms=[Transform(scaling, options={"params": 1})]
            ),
            ValueError,
            "brings the option 'params', which every parameter group has already",
        ),
        (
            lambda: optim.Adam(
                parameters(1), transforms=[Transform(counting, states={"exp_avg": 0.0})]
            ),
            ValueError,
            "adam: the transform counting needs the state 'exp_avg' .*, which the rule adam has",
        ),
        (
            lambda: optim.SGD(parameters(1), transforms=[averaged]),
            TypeError,
            r"SGD: transforms\[0\] must be a Transform, .*; call it: averaged\(\.\.\.\)",
        ),
        (
            lambda: optim.SGD(parameters(1), transforms=averaged()),
            TypeError,
            r"SGD: transforms must be a list of transforms.*; write \[averaged\(",
        ),
        (
            lambda: optim.SGD(parameters(1), transforms=[scaled(-1.0)]),
            ValueError,
            "SGD: scale must be > 0, got -1",
        ),
        (
            lambda: optim.SGD(parameters(1), transforms=[scaled("fast")]),
            TypeError,
            "SGD: scale must be a number, got str 'fast'",
        ),
        (
            lambda: optim.SGD([{"params": parameters(1), "scael": 2.0}], transforms=[scaled()]),
            TypeError,
            "the key 'scael'; did you mean scale",
        ),
        (
            lambda: optim.Rprop(parameters(1), transforms=[averaged(1.5)]),
            ValueError,
            "Rprop: average_decay must be >= 0 and <= 1, got 1.5",
        ),
        (
            lambda: optim.LBFGS(parameters(1), transforms=[averaged()]),
            TypeError,
            "LBFGS: there is no rule that the transforms .*averaged",
        ),
        (
            lambda: thalweg.optimizer(lr=0.1, weight_decay=0.0, transforms=[l2_decay()]),
            ValueError,
            "l2_decay brings the option 'weight_decay'",
        ),
        (
            lambda: thalweg.optimizer(lr=0.1, transforms=[l2_decay(), maximized()]),
            ValueError,
            "maximized brings the option 'maximize', which the transform maximized has already",
        ),
        (
            lambda: thalweg.optimizer(lr=0.1, transforms=[3]),
            TypeError,
            "must be a Transform, got 3",
        ),
        (
            lambda: thalweg.optimizer(lr=0.1, states={"m": 0.0}, transforms=[COUNTED, OWN_M])(step),
            ValueError,
            "step: the transform own_m needs the state 'm' for itself, which the rule step has",
        ),
    ],
)
def test_misuse(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


OWN_M = Transform(counting, states={"m": 0.0}, name="own_m")


def step(p, g, s, h):
    return p - h.lr * g


@pytest.mark.parametrize(
    ("transform", "error"),
    [
        (averaged, TypeError),
        (scaled(-1.0), ValueError),
        (l2_decay(), ValueError),
        (Transform(counting, states={"momentum_buffer": 0.0}), ValueError),
    ],
)
def test_what_cannot_be_added_changes_nothing(transform: Any, error: Any) -> None:
    optimizer = optim.SGD(parameters(3), momentum=0.9)
    train(optimizer, 1)
    before = snapshot(optimizer)
    with pytest.raises(error):
        optimizer.add_transform(transform)
    assert snapshot(optimizer) == before
    assert optimizer.added_transforms == ()
    train(optimizer, 1, start=1)


def test_a_key_of_the_users_own_is_not_written_over() -> None:
    optimizer = optim.SGD([{"params": parameters(3), "scale": "mine"}])
    with pytest.raises(ValueError, match="brings the option 'scale', which SGD has already"):
        optimizer.add_transform(scaled(2.0))
    assert optimizer.param_groups[0]["scale"] == "mine"


@pytest.mark.parametrize("make", [optim.SparseAdam, optim.Adagrad, optim.SGD])
def test_rows_that_a_sparse_gradient_leaves_out_are_not_forgotten(make: Any) -> None:
    table = nn.Parameter(torch.ones(4, 2))
    transform = COUNTED if make is not optim.SparseAdam else decoupled_decay(0.1)
    optimizer = make([table], lr=0.5, transforms=[transform])
    table.grad = torch.ones(4, 2).to_sparse(1)
    if make is optim.SparseAdam:
        with pytest.raises(RuntimeError, match="the weight_decay option is not compatible with"):
            optimizer.step()
        assert table.tolist() == [[1.0, 1.0]] * 4
        optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    assert (table != 1).all()
