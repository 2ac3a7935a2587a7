"""Interrupted at any step and gone on with: the same rates and momenta, bit for bit."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.optim.lr_scheduler.cases import (
    CHAINABLE,
    EXAMPLES,
    KINDS,
    OPTIMIZERS,
    OURS,
    SETTINGS,
    TORCH,
    Leaf,
    Library,
    Tree,
    advance,
    assert_close,
    build_all,
    chain,
    deprecated_epoch,
    follow,
    make_optimizer,
    observe,
    rates,
    seq,
    subtracts,
    torchs_faults,
    wave,
)

STEPS = 60
WARMUP = Leaf("LinearLR", {"start_factor": 0.1, "total_iters": 7})
COSINE = Leaf("CosineAnnealingLR", {"T_max": 17})
NESTED = seq([WARMUP, chain(COSINE, EXAMPLES["StepLR"])], [7])
CASES: dict[str, tuple[Tree, ...]] = {
    **{name: (leaf,) for name, leaf in EXAMPLES.items()},
    "cosine-zero": (Leaf("CosineAnnealingLR", {"T_max": 6}),),
    "factor-zero": (Leaf("ConstantLR", {"factor": 0.0, "total_iters": 9}),),
    "polynomial-ends": (Leaf("PolynomialLR", {"total_iters": 20}),),
    "swalr-arrives": (Leaf("SWALR", {"swa_lr": [0.05, 0.2], "anneal_epochs": 10}),),
    "one-cycle-three": (
        Leaf("OneCycleLR", {"max_lr": 1.0, "total_steps": 70, "three_phase": True}),
    ),
    "cyclic-scaled": (SETTINGS["CyclicLR"][12],),
    "sequence": (seq([WARMUP, EXAMPLES["CosineAnnealingLR"], EXAMPLES["StepLR"]], [7, 30]),),
    "sequence-restarts": (seq([WARMUP, EXAMPLES["CosineAnnealingWarmRestarts"]], [7]),),
    "sequence-cyclic": (seq([WARMUP, EXAMPLES["CyclicLR"]], [7]),),
    "nested": (seq([WARMUP, seq([EXAMPLES["StepLR"], NESTED], [11]), WARMUP], [4, 40]),),
    "chain": (chain(WARMUP, EXAMPLES["ExponentialLR"], EXAMPLES["MultiStepLR"]),),
    "chain-nested": (
        chain(chain(NESTED, EXAMPLES["ExponentialLR"]), EXAMPLES["MultiplicativeLR"]),
    ),
    "pair": (CHAINABLE["LinearLR"], CHAINABLE["CosineAnnealingLR-eta"]),
    "pair-waves": (CHAINABLE["CosineAnnealingLR-waves"], CHAINABLE["ExponentialLR"]),
    "pair-composed": (NESTED, CHAINABLE["ExponentialLR"]),
    "pair-setter": (EXAMPLES["LambdaLR"], CHAINABLE["ExponentialLR"]),
    "plateau-first": (Leaf("ReduceLROnPlateau", {"patience": 1}), CHAINABLE["LinearLR"]),
    "plateau-last": (NESTED, Leaf("ReduceLROnPlateau", {"patience": 1, "factor": 0.7})),
}  # fmt: skip
# Checkpoints of every 7th step of 60, and of every one.
SWEEPS = [("float", 7), *(pytest.param(k, 1, marks=pytest.mark.slow) for k in KINDS)]
every_case = pytest.mark.parametrize("name", CASES)


def fresh(kind: str) -> Any:
    return make_optimizer(OPTIMIZERS["thalweg"], kind, momentum=0.9)


@functools.cache
def uninterrupted(name: str, kind: str) -> tuple[list[list[float]], list[bytes]]:
    """What each epoch begins with, and the checkpoint that is saved there."""
    optimizer = fresh(kind)
    schedulers = build_all(OURS, optimizer, CASES[name])
    seen, saved = [], []
    for step in range(STEPS + 1):
        seen.append(observe(optimizer))
        file = io.BytesIO()
        torch.save([optimizer.state_dict(), [s.state_dict() for s in schedulers]], file)
        saved.append(file.getvalue())
        advance(optimizer, schedulers, step)
    return seen, saved


Restore = Callable[[str, str, Any, list[Any]], tuple[Any, list[Any]]]


def optimizer_first(name: str, kind: str, own: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    optimizer = fresh(kind)
    schedulers = build_all(OURS, optimizer, CASES[name])
    optimizer.load_state_dict(own)
    load(schedulers, states)
    return optimizer, schedulers


def optimizer_last(name: str, kind: str, own: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    optimizer = fresh(kind)
    schedulers = build_all(OURS, optimizer, CASES[name])
    load(schedulers, states)
    optimizer.load_state_dict(own)
    return optimizer, schedulers


def before_construction(name: str, kind: str, own: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    optimizer = fresh(kind)
    optimizer.load_state_dict(own)
    schedulers = build_all(OURS, optimizer, CASES[name])
    load(schedulers, states)
    return optimizer, schedulers


def load(schedulers: list[Any], states: list[Any]) -> None:
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)


@pytest.mark.parametrize("restore", [optimizer_first, optimizer_last, before_construction])
@pytest.mark.parametrize(("kind", "stride"), SWEEPS)
@every_case
def test_from_a_checkpoint(name: str, kind: str, stride: int, restore: Restore) -> None:
    seen, saved = uninterrupted(name, kind)
    for k in range(0, STEPS + 1, stride):
        # weights_only: nothing but plain values and tensors is in the file.
        own, states = torch.load(io.BytesIO(saved[k]), weights_only=True)
        optimizer, schedulers = restore(name, kind, own, states)
        assert follow(optimizer, schedulers, STEPS - k, first=k) == seen[k:], f"saved at step {k}"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", [name for name, trees in CASES.items() if len(trees) > 1])
def test_schedulers_loaded_in_any_order(name: str, order: int) -> None:
    seen, saved = uninterrupted(name, "float")
    for k in (0, 7, 23, STEPS):
        own, states = torch.load(io.BytesIO(saved[k]), weights_only=True)
        optimizer = fresh("float")
        schedulers = build_all(OURS, optimizer, CASES[name])
        optimizer.load_state_dict(own)
        load(schedulers[::order], states[::order])
        assert follow(optimizer, schedulers, STEPS - k, first=k) == seen[k:]


@every_case
def test_the_schedulers_checkpoint_alone_restores_the_rates(name: str) -> None:
    seen, saved = uninterrupted(name, "float")
    for k in range(0, STEPS + 1, 9):
        _, states = torch.load(io.BytesIO(saved[k]), weights_only=True)
        optimizer = fresh("float")
        schedulers = build_all(OURS, optimizer, CASES[name])
        load(schedulers, states)
        assert observe(optimizer) == seen[k]
        assert follow(optimizer, schedulers, STEPS - k, first=k) == seen[k:]


@every_case
def test_last_rates_and_epochs_are_restored(name: str) -> None:
    _, saved = uninterrupted(name, "float")
    for k in (0, 1, 8, STEPS):
        own, states = torch.load(io.BytesIO(saved[k]), weights_only=True)
        optimizer, schedulers = before_construction(name, "float", own, states)
        for scheduler in schedulers:
            assert getattr(scheduler, "last_epoch", k) == k
        assert schedulers[-1].get_last_lr() == rates(optimizer)


@every_case
def test_a_state_dict_is_a_snapshot(name: str) -> None:
    """Going on changes neither the dict that was given out nor the one that was taken in."""
    optimizer = fresh("float64")
    schedulers = build_all(OURS, optimizer, CASES[name])
    follow(optimizer, schedulers, 12)
    states = [s.state_dict() for s in schedulers]
    frozen = pickle.dumps(states)
    follow(optimizer, schedulers, 12, first=12)
    assert same(states, pickle.loads(frozen))
    load(schedulers, states)
    assert same(states, pickle.loads(frozen))
    follow(optimizer, schedulers, 12, first=12)
    assert same(states, pickle.loads(frozen))


def same(a: Any, b: Any) -> bool:
    """Equal through lists, dicts and tensors."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    return bool(a == b)


# ---------------------------------------------------------------------------------- pickle and copy


def pickled(both: Any) -> Any:
    return pickle.loads(pickle.dumps(both))


# The copy's optimizer.step is a method again: see the test of that warning below.
@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step:UserWarning")
@pytest.mark.parametrize("duplicate", [pickled, copy.deepcopy])
@pytest.mark.parametrize("kind", ["float", pytest.param("float64", marks=pytest.mark.slow)])
@every_case
def test_pickled_and_copied_together(name: str, kind: str, duplicate: Callable[[Any], Any]) -> None:
    seen, _ = uninterrupted(name, kind)
    optimizer = fresh(kind)
    schedulers = build_all(OURS, optimizer, CASES[name])
    for k in range(STEPS):
        if k % 7 == 0:
            twin, twins = duplicate((optimizer, schedulers))
            assert all(scheduler.optimizer is twin for scheduler in twins)
            assert follow(twin, twins, STEPS - k, first=k) == seen[k:], f"copied at step {k}"
        assert observe(optimizer) == seen[k], "the original is left alone"
        advance(optimizer, schedulers, k)


@pytest.mark.parametrize("library", [TORCH, OURS])
def test_a_copy_made_before_the_first_step(library: Library) -> None:
    """torch's marks on optimizer.step are not copied, and it takes that for a step replaced."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    twin, scheduler = copy.deepcopy((optimizer, library.ExponentialLR(optimizer, 0.5)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        follow(twin, [scheduler], 2)
    assert bool(caught) == (library is TORCH)


# -------------------------------------------------------------------------- to and from torch's own

# Those that torch itself steps otherwise (test_faults): there is no common sequence to go on with.
APART = (
    "factor-zero",
    "sequence-cyclic",
    "nested",
    "chain-nested",
    "pair-composed",
    "plateau-last",
)
EXCHANGED = {name: trees for name, trees in CASES.items() if name not in APART}


@pytest.mark.parametrize("optimizer_last", [True, False])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("saver", ["torch", "thalweg"])
@pytest.mark.parametrize("name", EXCHANGED)
def test_exchange_with_torch(name: str, saver: str, stride: int, optimizer_last: bool) -> None:
    """A checkpoint of either library's schedulers is gone on with by the other's."""
    trees = EXCHANGED[name]
    first, second = (TORCH, OURS) if saver == "torch" else (OURS, TORCH)
    reference = make_optimizer(OPTIMIZERS["torch"], momentum=0.9)
    expected = follow(reference, build_all(TORCH, reference, trees), STEPS)
    saving = make_optimizer(OPTIMIZERS["torch"], momentum=0.9)
    schedulers = build_all(first, saving, trees)
    for k in range(STEPS):
        if k % stride == 0:
            own = copy.deepcopy(saving.state_dict())
            states = copy.deepcopy([s.state_dict() for s in schedulers])
            loading = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
            others = build_all(second, loading, trees)
            if not optimizer_last:
                loading.load_state_dict(own)
            load(others, states)
            if optimizer_last:
                loading.load_state_dict(own)
            found = follow(loading, others, STEPS - k, first=k)
            assert_close(found, expected[k:], 1e-12, span=subtracts(trees))
        advance(saving, schedulers, k)


@pytest.mark.parametrize("optimizer_last", [True, False])
@pytest.mark.parametrize("name", EXCHANGED)
def test_there_and_back(name: str, optimizer_last: bool) -> None:
    """Through torch's scheduler and back: what torch carries along is not taken for its own."""
    trees = EXCHANGED[name]
    seen, saved = uninterrupted(name, "float")
    own, states = torch.load(io.BytesIO(saved[9]), weights_only=True)
    middle = fresh("float")
    between = build_all(TORCH, middle, trees)
    load(between, states)
    middle.load_state_dict(own)
    follow(middle, between, 8, first=9)
    last = fresh("float")
    schedulers = build_all(OURS, last, trees)
    if not optimizer_last:
        last.load_state_dict(middle.state_dict())
    load(schedulers, copy.deepcopy([s.state_dict() for s in between]))
    if optimizer_last:
        last.load_state_dict(middle.state_dict())
    found = follow(last, schedulers, STEPS - 17, first=17)
    assert_close(found, seen[17:], 1e-12, span=subtracts(trees))


# -------------------------------------------------------------------------- functions and one cycle


def test_what_callable_objects_hold_is_restored() -> None:
    """Of plain functions nothing is saved, as with torch."""
    saved_with = EXAMPLES["LambdaLR"]
    optimizer = fresh("float")
    scheduler = saved_with.build(OURS, optimizer)
    state = copy.deepcopy(scheduler.state_dict())
    assert state["lr_lambdas"] == [None, {"base": 0.97}]
    other = fresh("float")
    loaded = OURS.LambdaLR(other, [wave, type(scheduler.lr_lambdas[1])(0.5)])
    loaded.load_state_dict(state)
    follow(other, [loaded], 3)
    assert rates(other)[1] == pytest.approx(0.02 * 0.97**3, rel=1e-12)


MOVED = ("sequence", "chain", "nested", "pair", "pair-waves", "pair-composed", "plateau-last")


@pytest.mark.parametrize("restore", [optimizer_first, optimizer_last, before_construction])
@pytest.mark.parametrize("name", [n for n in CASES if n in CHAINABLE or n in MOVED])
def test_a_rate_changed_by_hand_is_gone_on_with(name: str, restore: Restore) -> None:
    """The rate is part of the checkpoint: it is not the formula's any more."""
    optimizer = fresh("float")
    schedulers = build_all(OURS, optimizer, CASES[name])
    follow(optimizer, schedulers, 9)
    for group in optimizer.param_groups:
        group["lr"] *= 0.3
    follow(optimizer, schedulers, 3, first=9)
    own, states = copy.deepcopy((optimizer.state_dict(), [s.state_dict() for s in schedulers]))
    expected = follow(optimizer, schedulers, 20, first=12)
    assert follow(*restore(name, "float", own, states), 20, first=12) == expected


OTHERWISE: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 1, "gamma": 0.2},
    "MultiStepLR": {"milestones": [1]},
    "ConstantLR": {"factor": 1.0},
    "LinearLR": {"total_iters": 2},
    "ExponentialLR": {"gamma": 0.1},
    "PolynomialLR": {"total_iters": 3},
    "CosineAnnealingLR": {"T_max": 3, "eta_min": 0.1},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 1, "eta_min": 0.1},
    "CyclicLR": {"base_lr": 0.2, "max_lr": 0.3, "step_size_up": 3, "mode": "triangular"},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 90, "three_phase": True, "pct_start": 0.4},
    "SWALR": {"swa_lr": 0.05, "anneal_epochs": 3, "anneal_strategy": "linear"},
    "ReduceLROnPlateau": {"factor": 0.1, "patience": 9, "mode": "max", "threshold": 0.5},
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_options_come_from_the_checkpoint(name: str) -> None:
    """As in torch: what the loading one was made with does not matter."""
    seen, saved = uninterrupted(name, "float")
    own, states = torch.load(io.BytesIO(saved[5]), weights_only=True)
    optimizer = fresh("float")
    scheduler = getattr(OURS, name)(optimizer, **OTHERWISE[name])
    optimizer.load_state_dict(own)
    scheduler.load_state_dict(states[0])
    assert follow(optimizer, [scheduler], STEPS - 5, first=5) == seen[5:]


@pytest.mark.parametrize("last_epoch", [0, 5, 20, 21, 44, 58])
@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_cycles_resumed_by_last_epoch(name: str, last_epoch: int) -> None:
    """From the optimizer's state, which has what OneCycleLR keeps in the groups."""
    seen, saved = uninterrupted(name, "float")
    optimizer = fresh("float")
    optimizer.load_state_dict(torch.load(io.BytesIO(saved[last_epoch]), weights_only=True)[0])
    scheduler = EXAMPLES[name].build(OURS, optimizer, last_epoch=last_epoch)
    found = follow(optimizer, [scheduler], STEPS - last_epoch - 1)
    assert found == seen[last_epoch + 1 :]


@deprecated_epoch
@pytest.mark.parametrize("name", ["ExponentialLR", "CosineAnnealingLR", "StepLR"])
def test_resumed_by_step_to_an_epoch(name: str) -> None:
    seen, _ = uninterrupted(name, "float")
    optimizer = fresh("float")
    scheduler = EXAMPLES[name].build(OURS, optimizer)
    optimizer.step()
    scheduler.step(17)
    assert follow(optimizer, [scheduler], STEPS - 17) == seen[17:]


@torchs_faults
def test_torchs_own_copies_are_resumed_by_neither_order() -> None:
    """The reason for saving the rates: torch's dict leaves them to the optimizer's."""
    optimizer = make_optimizer(lrs=(1.0,))
    scheduler = TORCH.ExponentialLR(optimizer, 0.5)
    follow(optimizer, [scheduler], 4)
    other = make_optimizer(lrs=(1.0,))
    loaded = TORCH.ExponentialLR(other, 0.5)
    loaded.load_state_dict(scheduler.state_dict())
    assert (loaded.get_last_lr(), rates(other)) == ([0.0625], [1.0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_one_that_has_loaded_has_the_same_attributes(name: str) -> None:
    """As torch's: whoever compares two schedulers compares these."""
    schedulers = [EXAMPLES[name].build(OURS, fresh("float")) for _ in range(2)]
    for step in range(5):
        advance(schedulers[0].optimizer, schedulers[:1], step)
    schedulers[1].load_state_dict(schedulers[0].state_dict())
    one, other = ({k: v for k, v in vars(s).items() if k != "optimizer"} for s in schedulers)
    assert one == other
