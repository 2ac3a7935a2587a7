"""Where torch's rates do not follow the formula: what torch does, and that ours follow it.

Each case names torch's issue where there is one. The first test of a case asserts torch's value, so
that we notice when torch changes; the second asserts the law.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.optim.lr_scheduler.cases import (
    EXAMPLES,
    KINDS,
    LIBRARIES,
    OPTIMIZERS,
    OURS,
    SINGLE,
    TORCH,
    Leaf,
    Library,
    Tree,
    both_libraries,
    chain,
    follow,
    identify,
    make_optimizer,
    rates,
    seq,
    torchs_faults,
    torchs_order_warning,
)

pytestmark = pytest.mark.slow


def run(library: Library, tree: Tree, steps: int, lr: float = 1.0) -> list[float]:
    """The rates of one group on thalweg's SGD; a warning is an error."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(lr,), momentum=0.9)
    return [row[0] for row in follow(optimizer, [tree.build(library, optimizer)], steps)]


def close(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-12, abs=1e-15)


@contextlib.contextmanager
def silently() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


CONSTANT = Leaf("ConstantLR", {"factor": 0.1, "total_iters": 3})
DECAY = Leaf("ExponentialLR", {"gamma": 0.5})
FACTOR = Leaf("ExponentialLR", {"gamma": 0.9})


# ------------------------------------------------------ pytorch #196243: wrapping changes the rates

INNER = seq([CONSTANT, DECAY], [5])
INNER_RATES = [0.1, 0.1, 0.1, 1.0, 1.0, 1.0, 0.5, 0.25, 0.125]


@torchs_faults
@torchs_order_warning
def test_torch_takes_a_step_too_many_for_each_level_of_nesting() -> None:
    assert run(TORCH, INNER, 8) == close(INNER_RATES)
    assert run(TORCH, seq([INNER], []), 7) == close([0.1, 0.1, 0.1, 1.0, 1.0, 0.5, 0.25, 0.125])
    assert run(TORCH, seq([seq([INNER], [])], []), 6) == close(
        [0.1, 0.1, 0.1, 1.0, 0.5, 0.25, 0.125]
    )


@pytest.mark.parametrize("depth", range(6))
@pytest.mark.parametrize(
    "tree",
    # A plateau's step takes a metric: it is no part of a composition, in torch neither.
    [INNER, chain(CONSTANT, DECAY), *(SINGLE[n] for n in SINGLE if n != "ReduceLROnPlateau")],
    ids=identify,
)
def test_wrapping_changes_nothing(tree: Tree, depth: int) -> None:
    wrapped, chained, mixed = tree, tree, tree
    for level in range(depth):
        wrapped = seq([wrapped], [])
        chained = chain(chained)
        mixed = chain(mixed) if level % 2 else seq([mixed], [])
    expected = run(OURS, tree, 60)
    for outer in (wrapped, chained, mixed):
        assert run(OURS, outer, 60) == expected


def test_a_sequence_in_a_sequence() -> None:
    """The inner one's epochs count from the outer one's milestone."""
    late = seq([FACTOR, seq([CONSTANT, DECAY], [4]), FACTOR], [2, 8])
    assert run(OURS, late, 10) == close([1.0, 0.9, 0.1, 0.1, 0.1, 1.0, 1.0, 0.5, 1.0, 0.9, 0.81])


@torchs_faults
def test_torch_cannot_begin_a_sequence_at_a_milestone() -> None:
    with pytest.raises(NotImplementedError):
        run(TORCH, seq([FACTOR, INNER], [2]), 3)


# ---------------------------- pytorch #67586, #132745: a chain, or a deprecated call, in a sequence

CHAINED = chain(CONSTANT, DECAY)
CHAINED_RATES = [0.1, 0.05, 0.025, 0.125, 0.0625]


@torchs_faults
def test_torch_cannot_begin_a_chain_at_a_milestone() -> None:
    with pytest.raises(NotImplementedError):
        run(TORCH, seq([FACTOR, CHAINED], [2]), 3)


@torchs_faults
@torchs_order_warning
def test_torch_begins_a_sequence_with_the_second_rate_of_a_chain() -> None:
    assert run(TORCH, seq([CHAINED, FACTOR], [4]), 3) == close([0.05, 0.025, 0.0125, 0.0625])


def test_a_chain_as_any_part_of_a_sequence() -> None:
    assert run(OURS, CHAINED, 4) == close(CHAINED_RATES)
    assert run(OURS, seq([CHAINED, FACTOR], [4]), 5) == close([*CHAINED_RATES[:4], 1.0, 0.9])
    assert run(OURS, seq([FACTOR, CHAINED], [2]), 6) == close([1.0, 0.9, *CHAINED_RATES])
    both = seq([CHAINED, CHAINED, CHAINED], [2, 4])
    assert run(OURS, both, 6) == close([*CHAINED_RATES[:2], *CHAINED_RATES[:2], *CHAINED_RATES[:3]])


# ------------------------------------------------- pytorch #162591: SequentialLR and last_epoch = N


def resumed(library: Library, tree: Any, last_epoch: int, steps: int) -> list[float]:
    """The rates after epoch ``last_epoch`` of an optimizer whose present rate is of no use."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(0.777,), momentum=0.9)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    with silently():
        scheduler = tree.build(library, optimizer, last_epoch=last_epoch)
        return [row[0] for row in follow(optimizer, [scheduler], steps)]


@torchs_faults
def test_torch_resumes_a_sequence_from_its_beginning() -> None:
    assert resumed(TORCH, INNER, 6, 0) == close([0.1])


@pytest.mark.parametrize("last_epoch", range(12))
@pytest.mark.parametrize(
    "tree",
    [
        INNER,
        seq([FACTOR, INNER, CONSTANT], [2, 9]),
        seq([chain(INNER, FACTOR), DECAY], [7]),
        seq([FACTOR, chain(DECAY, EXAMPLES["CosineAnnealingLR"])], [3]),
        seq([EXAMPLES["LinearLR"], EXAMPLES["CosineAnnealingWarmRestarts"]], [4]),
    ],
    ids=identify,
)
def test_a_sequence_goes_on_after_any_epoch(tree: Tree, last_epoch: int) -> None:
    expected = run(OURS, tree, 20)[last_epoch + 1 :]
    assert resumed(OURS, tree, last_epoch, len(expected) - 1) == close(expected)


# ---------------------------------------------------- last_epoch = N of the other classes: no issue


@torchs_faults
@pytest.mark.parametrize(
    ("leaf", "last_epoch", "rate"),
    [
        # torch leaves the rate that it finds, ...
        (FACTOR, 3, 0.777),
        (Leaf("CosineAnnealingLR", {"T_max": 20}), 4, 0.777),
        # ... scales it, when the epoch to go on with is one that scales, ...
        (Leaf("StepLR", {"step_size": 5}), 4, 0.0777),
        (Leaf("SWALR", {"swa_lr": 0.1}), 5, 0.777),
        # ... and begins cycles where they are not.
        (Leaf("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 4}), 7, 1.0),
    ],
    ids=lambda value: identify(value) or "",
)
def test_torch_resumes_with_another_rate(leaf: Leaf, last_epoch: int, rate: float) -> None:
    assert resumed(TORCH, leaf, last_epoch, 0) == close([rate])


# ReduceLROnPlateau takes no last_epoch; OneCycleLR's rates are in the groups (test_resume).
@pytest.mark.parametrize(
    "name", [n for n in SINGLE if n not in ("ReduceLROnPlateau", "OneCycleLR")]
)
@pytest.mark.parametrize("last_epoch", [0, 1, 2, 6, 7, 11, 12, 13, 22, 27, 28, 40])
def test_every_class_goes_on_after_any_epoch(name: str, last_epoch: int) -> None:
    leaf = SINGLE[name]
    expected = run(OURS, leaf, 60)[last_epoch + 1 :]
    assert resumed(OURS, leaf, last_epoch, len(expected) - 1) == close(expected)


# ---------------------------------------------------- a factor is kept across a milestone: no issue


@torchs_faults
def test_torch_drops_an_outer_factor_at_a_milestone() -> None:
    found = run(TORCH, chain(FACTOR, seq([CONSTANT, DECAY], [5])), 6)
    assert found[4:6] == close([0.9**4, 1.0])


@pytest.mark.parametrize("first", [True, False])
def test_an_outer_factor_is_kept_across_milestones(first: bool) -> None:
    inner = seq([CONSTANT, DECAY, CONSTANT], [5, 9])
    tree = chain(FACTOR, inner) if first else chain(inner, FACTOR)
    alone = run(OURS, inner, 15)
    assert run(OURS, tree, 15) == close([rate * 0.9**t for t, rate in enumerate(alone)])


@pytest.mark.xfail(reason="a rate of zero does not tell what others have multiplied it by")
def test_an_outer_factor_is_kept_across_a_zero() -> None:
    inner = seq([Leaf("PolynomialLR", {"total_iters": 2}), CONSTANT], [4])
    alone = run(OURS, inner, 8)
    found = run(OURS, chain(FACTOR, inner), 8)
    assert found == close([rate * 0.9**t for t, rate in enumerate(alone)])


SETTER = Leaf("LambdaLR", {"lr_lambda": lambda epoch: 1.0 / (2.0 + epoch)})


@pytest.mark.parametrize("milestone", [1, 5])
def test_a_part_that_sets_the_rate_overwrites_at_its_milestone_too(milestone: int) -> None:
    """What is stepped before such a part has no effect on any of its epochs."""
    inner = seq([CONSTANT, SETTER], [milestone])
    alone = run(OURS, inner, 12)
    found = run(OURS, chain(FACTOR, inner), 12)
    assert found[milestone:] == close(alone[milestone:])
    found = run(OURS, chain(inner, FACTOR), 12)
    assert found[milestone:] == close([0.9 * rate for rate in alone[milestone:]])


BEGINS_LOW = Leaf("ConstantLR", {"factor": 0.25, "total_iters": 8})


def beside(library: Library, *trees: Tree) -> list[float]:
    """The rates where several are made, in this order, and stepped back to back."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,))
    schedulers = [tree.build(library, optimizer) for tree in trees]
    return [row[0] for row in follow(optimizer, schedulers, 12)]


@pytest.mark.parametrize("tree", [seq([DECAY, CONSTANT], [4]), chain(DECAY), INNER], ids=identify)
def test_a_scheduler_made_after_a_composition_multiplies(tree: Tree) -> None:
    alone = zip(run(OURS, tree, 12), run(OURS, BEGINS_LOW, 12), strict=True)
    assert beside(OURS, tree, BEGINS_LOW) == close([rate * low for rate, low in alone])


def test_a_scheduler_made_before_a_chain_multiplies() -> None:
    """As in torch, where a chain does not touch the rates when it is made."""
    expected = [0.5**t * (0.25 if t < 8 else 1.0) for t in range(13)]
    for library in (TORCH, OURS):
        assert beside(library, BEGINS_LOW, chain(DECAY)) == close(expected)


@torchs_faults
def test_torch_resets_the_rate_when_a_sequence_is_made() -> None:
    """What was made before loses its factor, and takes it back later all the same."""
    found = beside(TORCH, BEGINS_LOW, seq([Leaf("StepLR", {"step_size": 99})], []))
    assert found == close([1.0] * 8 + [4.0] * 5)


@pytest.mark.parametrize("tree", [seq([DECAY, CONSTANT], [4]), chain(DECAY), INNER], ids=identify)
@pytest.mark.parametrize("low_is_first", [True, False])
def test_a_chain_multiplies_from_its_first_epoch(tree: Tree, low_is_first: bool) -> None:
    parts = [BEGINS_LOW, tree] if low_is_first else [tree, BEGINS_LOW]
    alone = zip(run(OURS, tree, 12), run(OURS, BEGINS_LOW, 12), strict=True)
    assert run(OURS, chain(*parts), 12) == close([rate * low for rate, low in alone])


def test_schedulers_stepped_beside_a_sequence_keep_their_factor() -> None:
    """The same without a chain around them."""
    inner = seq([CONSTANT, DECAY], [5])
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,))
    schedulers = [inner.build(OURS, optimizer), FACTOR.build(OURS, optimizer)]
    found = [row[0] for row in follow(optimizer, schedulers, 12)]
    alone = run(OURS, inner, 12)
    assert found == close([rate * 0.9**t for t, rate in enumerate(alone)])


# ------------------------------------- parts that torch begins at the rate that they find: no issue


@torchs_faults
@pytest.mark.parametrize(
    ("leaf", "found"),
    [
        (Leaf("MultiplicativeLR", {"lr_lambda": lambda t: 0.5}), [0.405, 0.2025]),
        (Leaf("SWALR", {"swa_lr": 0.05, "anneal_epochs": 4}), [0.81, 0.6987005768508881]),
    ],
)
def test_torch_begins_some_parts_at_the_rate_it_finds(leaf: Leaf, found: list[float]) -> None:
    assert run(TORCH, seq([FACTOR, leaf], [3]), 4)[3:] == close(found)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "ReduceLROnPlateau"])
def test_every_part_begins_at_its_own_zero(name: str) -> None:
    """As if it were alone, from the base rate on; whatever the part before has left."""
    leaf = SINGLE[name]
    alone = run(OURS, leaf, 40)
    assert run(OURS, seq([FACTOR, leaf], [3]), 43)[3:] == close(alone)
    assert run(OURS, seq([FACTOR, leaf, leaf], [3, 13]), 53)[13:] == close(alone)


# -------------------------------------------------------------- pytorch #162359: Tensor rates alias


@both_libraries
@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("leaf", EXAMPLES.values(), ids=identify)
def test_tensor_rates_are_filled_and_never_aliased(library: Library, leaf: Leaf, kind: str) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind, momentum=0.9)
    given = [group["lr"] for group in optimizer.param_groups]
    scheduler = leaf.build(library, optimizer)
    follow(optimizer, [scheduler], 10)
    assert_apart(optimizer, scheduler, given)


@pytest.mark.parametrize(
    "tree", [INNER, seq([INNER, FACTOR], [4]), CHAINED, seq([FACTOR, CHAINED], [4])], ids=identify
)
def test_tensor_rates_of_compositions_are_never_aliased(tree: Tree) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], "float64")
    given = [group["lr"] for group in optimizer.param_groups]
    scheduler = tree.build(OURS, optimizer)
    follow(optimizer, [scheduler], 10)
    for one in (scheduler, *scheduler._schedulers):
        assert_apart(optimizer, one, given)


def assert_apart(optimizer: Any, scheduler: Any, given: list[torch.Tensor]) -> None:
    held = [group["lr"] for group in optimizer.param_groups]
    assert all(a is b for a, b in zip(held, given, strict=True)), "the same objects"
    before = [lr.clone() for lr in held]
    initial = [group["initial_lr"] for group in optimizer.param_groups if "initial_lr" in group]
    for other in [*initial, *getattr(scheduler, "base_lrs", []), *scheduler.get_last_lr()]:
        if isinstance(other, torch.Tensor):
            other.fill_(123.0)
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))


def test_what_get_last_lr_gives_is_the_callers_own() -> None:
    """torch hands out its own list, so that changing it changes the next answer."""
    for kind in KINDS:
        optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind)
        for tree in (FACTOR, CHAINED, INNER, EXAMPLES["ReduceLROnPlateau"]):
            scheduler = tree.build(OURS, optimizer)
            before = [float(lr) for lr in scheduler.get_last_lr()]
            handed = scheduler.get_last_lr()
            for lr in handed:
                if isinstance(lr, torch.Tensor):
                    lr.fill_(9.0)
            handed.clear()
            assert [float(lr) for lr in scheduler.get_last_lr()] == before


def test_groups_that_share_one_tensor_rate() -> None:
    """A default lr is one Tensor for every group; each is filled with the same rate."""
    lr = torch.tensor(1.0, dtype=torch.float64)
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = OPTIMIZERS["thalweg"]([{"params": [p]} for p in params], lr=lr)
    scheduler = OURS.ExponentialLR(optimizer, 0.5)
    for step in range(1, 6):
        optimizer.step()
        scheduler.step()
        assert rates(optimizer) == [0.5**step] * 3


# pytorch #195984: a rate that is a view is filled through it, and what was noted of it stays.
def test_a_rate_that_is_a_view() -> None:
    rates_of_all = torch.tensor([1.0, 7.0], dtype=torch.float64)
    optimizer = OPTIMIZERS["thalweg"]([torch.nn.Parameter(torch.zeros(1))], lr=rates_of_all[0])
    scheduler = INNER.build(OURS, optimizer)
    follow(optimizer, [scheduler], 6)
    assert rates_of_all.tolist() == [0.5, 7.0]
    assert float(optimizer.param_groups[0]["initial_lr"]) == 1.0


# -------------------------------------------------------------------------- OneCycleLR past its end

ONE_CYCLE = Leaf(
    "OneCycleLR",
    {"max_lr": 1.0, "total_steps": 12, "anneal_strategy": "linear", "cycle_momentum": False},
)


@torchs_faults
def test_torch_goes_below_the_lowest_rate_of_one_cycle() -> None:
    assert run(TORCH, ONE_CYCLE, 12)[-1] == pytest.approx(-0.1190, abs=1e-4)


@pytest.mark.parametrize("strategy", ["linear", "cos"])
@pytest.mark.parametrize("three_phase", [True, False])
def test_one_cycle_holds_its_last_rate(strategy: str, three_phase: bool) -> None:
    more = {"anneal_strategy": strategy, "three_phase": three_phase}
    found = run(OURS, Leaf("OneCycleLR", {**ONE_CYCLE.options, **more}), 12)
    assert found[12] == found[11] == pytest.approx(1 / 25 / 1e4, rel=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("pct_start", [0.0, 0.2, 0.5, 1.0])
def test_one_cycle_with_phases_of_no_width(total: int, pct_start: float) -> None:
    """torch divides by zero in some of these; the rates are those of the ends."""
    options = {**ONE_CYCLE.options, "total_steps": total, "pct_start": pct_start}
    found = run(OURS, Leaf("OneCycleLR", options), total)
    assert all(1 / 25 / 1e4 - 1e-15 <= rate <= 1.0 for rate in found)
    assert found[total] == pytest.approx(1 / 25 / 1e4, rel=1e-12)


# ---------------------------------------------------------------------------- limits of the options


@torchs_faults
def test_torch_divides_by_a_factor_of_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        run(TORCH, Leaf("ConstantLR", {"factor": 0.0, "total_iters": 2}), 3)


def test_a_factor_of_zero_ends() -> None:
    leaf = Leaf("ConstantLR", {"factor": 0.0, "total_iters": 2})
    assert run(OURS, leaf, 4) == [0.0, 0.0, 1.0, 1.0, 1.0]


ENDED = [  # what holds once no epochs are left
    (Leaf("ConstantLR", {"factor": 0.5, "total_iters": 0}), 1.0, 0.5),
    (Leaf("LinearLR", {"start_factor": 0.5, "end_factor": 0.75, "total_iters": 0}), 0.75, 0.5),
    (Leaf("PolynomialLR", {"total_iters": 0}), 0.0, 1.0),
]


@torchs_faults
@pytest.mark.parametrize(("leaf", "law", "torchs"), ENDED, ids=lambda v: identify(v) or "")
def test_torch_never_ends_what_takes_no_epochs(leaf: Leaf, law: float, torchs: float) -> None:
    assert run(TORCH, leaf, 3) == close([torchs] * 4)


@pytest.mark.parametrize(("leaf", "law", "torchs"), ENDED, ids=lambda v: identify(v) or "")
def test_what_takes_no_epochs_is_at_its_end(leaf: Leaf, law: float, torchs: float) -> None:
    assert run(OURS, leaf, 3) == close([law] * 4)


# ------------------------------------------------------- the boundaries of growing cycles: no issue


def restart(library: Library, epoch: int) -> float:
    optimizer = make_optimizer(lrs=(1.0,))
    scheduler = library.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=3)
    scheduler.step(epoch)
    return rates(optimizer)[0]


@torchs_faults
def test_torch_misses_a_restart_by_a_rounding_of_a_logarithm() -> None:
    """Cycles of 1, 3, 9, 27, 81: the sixth begins at epoch 121, where torch ends the fifth."""
    assert restart(TORCH, 121) == pytest.approx(0.0)


@pytest.mark.parametrize("growth", [2, 3, 5])
@pytest.mark.parametrize("first", [1, 4, 7])
def test_every_restart_begins_at_the_base_rate(first: int, growth: int) -> None:
    optimizer = make_optimizer(lrs=(1.0,))
    scheduler = OURS.CosineAnnealingWarmRestarts(optimizer, T_0=first, T_mult=growth)
    begin, length = 0, first
    for _ in range(7):
        for into in (0, length / 2, length - 1):
            scheduler.step(begin + into)
            expected = (1 + math.cos(math.pi * into / length)) / 2
            assert rates(optimizer)[0] == pytest.approx(expected, rel=1e-12, abs=1e-16)
        begin, length = begin + length, length * growth


# ------------------------------------------------------- CyclicLR after another scheduler: no issue


def second_cycle(library: Library) -> list[float]:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,))
    library.ExponentialLR(optimizer, 0.9)
    leaf = Leaf(
        "CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, "step_size_up": 4, "cycle_momentum": False}
    )
    return [row[0] for row in follow(optimizer, [leaf.build(library, optimizer)], 8)]


@torchs_faults
def test_torch_begins_a_cycle_at_another_schedulers_base_rate() -> None:
    assert second_cycle(TORCH)[:2] == close([1.0, 0.2])


def test_a_cycle_begins_at_its_own_lowest_rate() -> None:
    assert second_cycle(OURS) == close([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1])


# -------------------------------------------------------------------------- float32 rates: no issue


def drift(library: Library) -> float:
    """Relative error of a float32 rate after 300 factors of 0.97."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], "float32", lrs=(1.0,))
    scheduler = library.ExponentialLR(optimizer, 0.97)
    follow(optimizer, [scheduler], 300)
    return abs(rates(optimizer)[0] / 0.97**300 - 1.0)


@torchs_faults
def test_torchs_float32_rates_drift() -> None:
    assert drift(TORCH) > 1e-6


def test_float32_rates_do_not_drift() -> None:
    assert drift(OURS) < 1e-7


# --------------------------------------- a checkpoint loaded before the scheduler is made: no issue


def rate_after_loading_first(library: Library) -> float:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,))
    scheduler = library.ConstantLR(optimizer, factor=0.5, total_iters=100)
    follow(optimizer, [scheduler], 10)
    saved = optimizer.state_dict(), scheduler.state_dict()
    fresh = make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,))
    fresh.load_state_dict(saved[0])
    library.ConstantLR(fresh, factor=0.5, total_iters=100).load_state_dict(saved[1])
    return rates(fresh)[0]


@torchs_faults
def test_torch_scales_a_loaded_rate_again() -> None:
    assert rate_after_loading_first(TORCH) == 0.25


def test_a_loaded_rate_is_the_saved_one() -> None:
    assert rate_after_loading_first(OURS) == 0.5


def test_both_libraries_are_what_the_tests_say() -> None:
    assert LIBRARIES["torch"].StepLR.__module__.startswith("torch.")
    assert LIBRARIES["thalweg"].StepLR.__module__.startswith("thalweg.")
