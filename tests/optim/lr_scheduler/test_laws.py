"""Random compositions against the law, evaluated directly; construction order; interruptions."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.optim.lr_scheduler.cases import (
    LRS,
    OPTIMIZERS,
    OURS,
    Chain,
    Leaf,
    Sequence,
    Tree,
    deprecated_epoch,
    follow,
    make_optimizer,
    rates,
)

STEPS = 40
quickly = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
thoroughly = settings(quickly, max_examples=1500)


# ------------------------------------------------------------------------------------------ the law


def step_shape(t: int, step_size: int, gamma: float) -> float:
    return gamma ** (t // step_size)


def multi_step_shape(t: int, milestones: list[int], gamma: float) -> float:
    return gamma ** sum(milestone <= t for milestone in milestones)


def constant_shape(t: int, factor: float, total_iters: int) -> float:
    return factor if t < total_iters else 1.0


def linear_shape(t: int, start_factor: float, end_factor: float, total_iters: int) -> float:
    x = min(t / total_iters, 1.0)
    return start_factor * (1 - x) + end_factor * x


def exponential_shape(t: int, gamma: float) -> float:
    return gamma**t


def multiplicative_shape(t: int, lr_lambda: Callable[[int], float]) -> float:
    return math.prod(lr_lambda(epoch) for epoch in range(1, t + 1))


def polynomial_shape(t: int, total_iters: int, power: float) -> float:
    return (1 - t / total_iters) ** power


def cosine_shape(t: int, T_max: int) -> float:
    return (1 + math.cos(math.pi * t / T_max)) / 2


SHAPES: dict[str, Callable[..., float]] = {
    "StepLR": step_shape, "MultiStepLR": multi_step_shape, "ConstantLR": constant_shape,
    "LinearLR": linear_shape, "ExponentialLR": exponential_shape,
    "MultiplicativeLR": multiplicative_shape, "PolynomialLR": polynomial_shape,
    "CosineAnnealingLR": cosine_shape,
}  # fmt: skip


def factor(tree: Tree, t: int) -> float:
    """What a scheduler multiplies the base rate by at epoch t."""
    if isinstance(tree, Chain):
        return math.prod(factor(part, t) for part in tree.parts)
    if isinstance(tree, Sequence):
        part = bisect_right(tree.milestones, t)
        start = tree.milestones[part - 1] if part else 0
        return factor(tree.parts[part], t - start)
    return SHAPES[tree.name](t, **tree.options)


def law(trees: tuple[Tree, ...], epochs: Any = range(STEPS + 1)) -> list[list[float]]:
    return [[lr * math.prod(factor(tree, t) for tree in trees) for lr in LRS] for t in epochs]


# --------------------------------------------------------------------------------------- strategies

share = st.floats(0.05, 1.0)
gamma = st.floats(0.5, 1.1)
epochs = st.integers(1, 30)
places = st.lists(st.integers(0, STEPS), max_size=4).map(sorted)


def power_of(base: float) -> Callable[[int], float]:
    return lambda epoch: base if epoch % 3 else 1.0 / base


def leaf(name: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Leaf]:
    return st.fixed_dictionaries(options).map(lambda chosen: Leaf(name, chosen))


# None reaches zero, where there is nothing left to multiply.
leaves = st.one_of(
    leaf("StepLR", step_size=epochs, gamma=gamma),
    leaf("MultiStepLR", milestones=places, gamma=gamma),
    leaf("ConstantLR", factor=share, total_iters=epochs),
    leaf("LinearLR", start_factor=share, end_factor=share, total_iters=epochs),
    leaf("ExponentialLR", gamma=gamma),
    leaf("MultiplicativeLR", lr_lambda=gamma.map(power_of)),
    leaf("PolynomialLR", total_iters=st.integers(STEPS + 5, 90), power=st.floats(0.5, 3.0)),
    leaf("CosineAnnealingLR", T_max=st.integers(STEPS + 5, 90)),
)  # fmt: skip


def sequences(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    def with_milestones(parts: list[Tree]) -> st.SearchStrategy[Tree]:
        count = len(parts) - 1
        places = st.lists(st.integers(0, STEPS), min_size=count, max_size=count).map(sorted)
        return places.map(lambda chosen: Sequence(tuple(parts), tuple(chosen)))

    return st.lists(inner, min_size=1, max_size=3).flatmap(with_milestones)


def chains(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.lists(inner, min_size=1, max_size=3).map(lambda parts: Chain(tuple(parts)))


trees: st.SearchStrategy[Tree] = st.recursive(
    leaves, lambda inner: sequences(inner) | chains(inner), max_leaves=8
)
compositions = sequences(trees) | chains(trees)


def build(tree: Tree, optimizer: Any, order: random.Random) -> Any:
    """The parts of every composition made in a random order, leaves of all depths first."""
    made: dict[Leaf, Any] = {}
    found = list(tree.leaves())
    for one in order.sample(found, len(found)):
        made[one] = one.build(OURS, optimizer)

    def compose(node: Tree) -> Any:
        if isinstance(node, Leaf):
            return made[node]
        parts: dict[int, Any] = {}
        for k in order.sample(range(len(node.parts)), len(node.parts)):
            parts[k] = compose(node.parts[k])
        return node.combine(OURS, optimizer, [parts[k] for k in range(len(node.parts))])

    return compose(tree)


def run(tree: Tree, kind: str = "float", order: int | None = None) -> list[list[float]]:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind)
    if order is None:
        scheduler = tree.build(OURS, optimizer)
    else:
        scheduler = build(tree, optimizer, random.Random(order))
    return [row[: len(LRS)] for row in follow(optimizer, [scheduler], STEPS)]


def assert_law(found: list[list[float]], expected: list[list[float]]) -> None:
    for t, (row, reference) in enumerate(zip(found, expected, strict=True)):
        assert row == pytest.approx(reference, rel=1e-12, abs=0.0), f"epoch {t}"


# --------------------------------------------------------------------------------------------- laws


def any_tree_follows_the_law(tree: Tree) -> None:
    assert_law(run(tree), law((tree,)))
    assert_law(run(tree, "float64"), law((tree,)))


def construction_order_does_not_matter(tree: Tree, order: int) -> None:
    assert_law(run(tree, order=order), law((tree,)))


def several_multiply(tree: Tree, others: list[Leaf]) -> None:
    """A composition and schedulers made after it, stepped back to back."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    schedulers = [one.build(OURS, optimizer) for one in (tree, *others)]
    found = [row[: len(LRS)] for row in follow(optimizer, schedulers, STEPS)]
    assert_law(found, law((tree, *others)))


def several_compositions_multiply(several: list[Tree], order: int) -> None:
    """Each made from parts in a random order, one composition after the other."""
    draw = random.Random(order)
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    schedulers = [build(tree, optimizer, draw) for tree in several]
    draw.shuffle(schedulers)
    found = [row[: len(LRS)] for row in follow(optimizer, schedulers, STEPS)]
    assert_law(found, law(tuple(several)))


def interruptions_change_nothing(tree: Tree, points: list[int], order: int) -> None:
    expected = run(tree)
    draw = random.Random(order)
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    scheduler = tree.build(OURS, optimizer)
    found = [rates(optimizer)]
    for step in range(STEPS):
        optimizer.step()
        scheduler.step()
        found.append(rates(optimizer))
        if step in points:
            own, state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
            optimizer = make_optimizer(OPTIMIZERS["thalweg"])
            loads = [lambda o=optimizer, s=own: o.load_state_dict(s)]
            if draw.random() < 0.3:
                loads.pop()()
            scheduler = tree.build(OURS, optimizer)
            loads.append(functools.partial(scheduler.load_state_dict, state))
            draw.shuffle(loads)
            for load in loads:
                load()
    assert found == expected


def any_epoch_can_be_set(tree: Tree, chosen: list[int]) -> None:
    """From anywhere to anywhere, and on from there."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    scheduler = tree.build(OURS, optimizer)
    optimizer.step()
    found = []
    for epoch in chosen:
        scheduler.step(epoch)
        found.append(rates(optimizer))
        scheduler.step()
        found.append(rates(optimizer))
    assert_law(found, law((tree,), [t for epoch in chosen for t in (epoch, epoch + 1)]))


def a_sequence_is_resumed_by_last_epoch(tree: Tree, last_epoch: int) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
        group["lr"] = 0.777
    parts = [part.build(OURS, optimizer) for part in tree.parts]  # type: ignore[union-attr]
    scheduler = tree.combine(OURS, optimizer, parts, last_epoch=last_epoch)  # type: ignore[union-attr]
    found = [row[: len(LRS)] for row in follow(optimizer, [scheduler], STEPS - last_epoch - 1)]
    assert_law(found, law((tree,), range(last_epoch + 1, STEPS + 1)))


def wrapping_is_the_identity(tree: Tree, wraps: list[bool]) -> None:
    wrapped = tree
    for in_chain in wraps:
        wrapped = Chain((wrapped,)) if in_chain else Sequence((wrapped,), ())
    assert run(wrapped) == run(tree)


seeds = st.integers(0, 2**32)
LAWS: dict[Callable[..., None], tuple[Any, ...]] = {
    any_tree_follows_the_law: (trees,),
    construction_order_does_not_matter: (compositions, seeds),
    several_multiply: (trees, st.lists(leaves, min_size=1, max_size=3)),
    several_compositions_multiply: (st.lists(trees, min_size=2, max_size=3), seeds),
    interruptions_change_nothing: (
        trees, st.lists(st.integers(0, STEPS), min_size=1, max_size=4), seeds),
    any_epoch_can_be_set: (trees, st.lists(st.integers(0, STEPS), min_size=1, max_size=4)),
    a_sequence_is_resumed_by_last_epoch: (sequences(trees), st.integers(0, STEPS - 1)),
    wrapping_is_the_identity: (trees, st.lists(st.booleans(), max_size=4)),
}  # fmt: skip
every_law = pytest.mark.parametrize("law_of", LAWS, ids=lambda found: found.__name__)


@deprecated_epoch
@every_law
def test_laws(law_of: Callable[..., None]) -> None:
    quickly(given(*LAWS[law_of])(law_of))()


@deprecated_epoch
@pytest.mark.slow
@every_law
def test_laws_on_many_examples(law_of: Callable[..., None]) -> None:
    thoroughly(given(*LAWS[law_of])(law_of))()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_first_rate_is_exact_whatever_was_made_first(order: tuple[int, ...]) -> None:
    """Taking back what the parts did when they were made leaves no rounding."""
    draw = random.Random(0)
    for _ in range(50):
        lr, *shares = (draw.uniform(0.05, 1.0) for _ in range(4))
        optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(lr,))
        parts: dict[int, Any] = {}
        for k in order:
            parts[k] = OURS.ConstantLR(optimizer, shares[k], 3)
        OURS.SequentialLR(optimizer, [parts[k] for k in range(3)], [2, 4])
        assert rates(optimizer) == [lr * shares[0]]


def test_the_law_itself() -> None:
    """By hand, so that the reference is not only compared with what it judges."""
    first = Leaf("ConstantLR", {"factor": 0.5, "total_iters": 2})
    second = Leaf("ExponentialLR", {"gamma": 0.5})
    tree = Chain((Sequence((first, second), (3,)), second))
    shares = [0.5, 0.25, 0.25, 0.125, 0.03125]
    assert [factor(tree, t) for t in range(5)] == shares
