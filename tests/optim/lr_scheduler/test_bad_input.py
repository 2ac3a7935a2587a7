"""What is refused: torch's exception type where it has one, words to act on, nothing changed."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.ids import shown
from tests.optim.lr_scheduler.cases import (
    EXAMPLES,
    KINDS,
    NAMES,
    OPTIMIZERS,
    OURS,
    SINGLE,
    TORCH,
    Leaf,
    Library,
    Tree,
    chain,
    deprecated_epoch,
    follow,
    make_optimizer,
    rates,
    rests,
    seq,
)

NAN, INF = math.nan, math.inf


# ------------------------------------------------------------------------------- nothing is changed


def frozen(value: Any) -> Any:
    """A value to compare later, with tensors as their identity and contents."""
    if isinstance(value, torch.Tensor):
        return ("tensor", id(value), value.detach().tolist())
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(item) for item in value]
    if hasattr(value, "optimizer"):
        return snapshot(value)
    return value


def snapshot(scheduler: Any) -> dict[str, Any]:
    own = {key: value for key, value in vars(scheduler).items() if key != "optimizer"}
    return {"type": type(scheduler).__name__, **{k: frozen(v) for k, v in own.items()}}


def state_of(optimizer: Any) -> list[Any]:
    """Every key of every group, the defaults, and whether ``step`` was wrapped."""
    step = vars(optimizer).get("step")
    return [
        frozen(optimizer.param_groups),
        frozen(optimizer.defaults),
        step,
        sorted(vars(optimizer)),
    ]


def outcome(action: Callable[[], Any]) -> BaseException | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
        except Exception as error:
            return error
    return None


def assert_says(error: BaseException | None, expected: type, words: tuple[str, ...]) -> None:
    assert error is not None, "accepted"
    assert type(error) is expected, repr(error)
    message = str(error)
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


# ---------------------------------------------------------------------------- constructor arguments


@dataclass(frozen=True)
class Bad:
    """An argument that is refused, and how."""

    name: str
    options: dict[str, Any]
    argument: str
    error: type = ValueError
    value: str | None = None  # as it must be in the message; None: the argument's repr

    def __str__(self) -> str:
        return f"{self.name}-{self.argument}={self.options.get(self.argument)!r}"[:80]

    @property
    def words(self) -> tuple[str, ...]:
        given = self.options.get(self.argument)
        value = self.value
        if value is None:
            value = repr(given) if isinstance(given, str) else str(given)
        return (self.name, self.argument, value)


def bad(name: str, argument: str, *values: Any, error: type = ValueError, **more: Any) -> list[Bad]:
    """One for each value of the argument; the other options are the example's."""
    options = {**EXAMPLES[name].options, **more}
    return [Bad(name, {**options, argument: value}, argument, error) for value in values]


WRONG_TYPE = ("0.5", None, [0.5])
NUMBERS = {  # those that must be a number
    "StepLR": ["step_size", "gamma"],
    "MultiStepLR": ["gamma"],
    "ConstantLR": ["factor", "total_iters"],
    "LinearLR": ["start_factor", "end_factor", "total_iters"],
    "ExponentialLR": ["gamma"],
    "PolynomialLR": ["total_iters", "power"],
    "CosineAnnealingLR": ["T_max", "eta_min"],
    "ReduceLROnPlateau": ["factor", "threshold", "eps"],
    "CyclicLR": ["gamma", "step_size_up"],
    "OneCycleLR": ["div_factor", "final_div_factor"],
}
BAD: list[Bad] = [
    *(
        item
        for name, arguments in NUMBERS.items()
        for argument in arguments
        for item in bad(name, argument, NAN, INF, -INF)
        # An infinite number of epochs is allowed: the schedule never ends. (StepLR never decays.)
        if not (argument in ("step_size", "total_iters", "T_max") and item.options[argument] == INF)
    ),
    *(
        Bad(name, {**EXAMPLES[name].options, argument: value}, argument, TypeError, "")
        for name, arguments in NUMBERS.items()
        for argument in arguments
        for value in ("0.5", None, {})
    ),
    *bad("StepLR", "step_size", 0, -1, -0.5),
    *bad("MultiStepLR", "milestones", [5, 2]),
    Bad("MultiStepLR", {"milestones": [-1, 3]}, "milestones", value="-1"),
    Bad("MultiStepLR", {"milestones": [NAN]}, "milestones", value="nan"),
    *bad("ConstantLR", "factor", -0.1, 1.5),
    *bad("ConstantLR", "total_iters", -1),
    *bad("LinearLR", "start_factor", 0.0, -0.1, 1.1),
    *bad("LinearLR", "end_factor", -0.1, 1.1),
    *bad("LinearLR", "total_iters", -1),
    *bad("PolynomialLR", "total_iters", -1),
    *bad("PolynomialLR", "power", -1.0),
    *bad("CosineAnnealingLR", "T_max", 0, -5),
    *bad("CosineAnnealingWarmRestarts", "T_0", 0, -1, 2.5),
    *bad("CosineAnnealingWarmRestarts", "T_mult", 0, -1, 1.5),
    *bad("CosineAnnealingWarmRestarts", "eta_min", NAN),
    Bad("CosineAnnealingWarmRestarts", {"T_0": 5, "eta_min": "0"}, "eta_min"),
    Bad("LambdaLR", {"lr_lambda": [rests]}, "lr_lambda", value="2"),
    Bad("LambdaLR", {"lr_lambda": 0.5}, "lr_lambda", TypeError, "float"),
    Bad("LambdaLR", {"lr_lambda": [rests, "x"]}, "lr_lambda", TypeError, "str"),
    Bad("MultiplicativeLR", {"lr_lambda": [rests] * 3}, "lr_lambda", value="3"),
    Bad("MultiplicativeLR", {"lr_lambda": 0.5}, "lr_lambda", TypeError, "float"),
    *bad("CyclicLR", "step_size_up", 0, -3),
    *bad("CyclicLR", "step_size_down", -3),
    *bad("CyclicLR", "mode", "square", ""),
    *bad("CyclicLR", "scale_mode", "epochs", scale_fn=rests),
    *(
        Bad("CyclicLR", {"base_lr": 0.1, "max_lr": 0.5, argument: [0.1] * 3}, argument, value="3")
        for argument in ("base_lr", "max_lr", "base_momentum", "max_momentum")
    ),
    *bad("OneCycleLR", "total_steps", 0, -4, 10.5),
    Bad("OneCycleLR", {"max_lr": 0.1}, "total_steps", value="epochs"),
    Bad("OneCycleLR", {"max_lr": 0.1, "epochs": 3}, "steps_per_epoch", value=""),
    Bad("OneCycleLR", {"max_lr": 0.1, "epochs": 0, "steps_per_epoch": 3}, "epochs"),
    Bad("OneCycleLR", {"max_lr": 0.1, "epochs": 2, "steps_per_epoch": -3}, "steps_per_epoch"),
    *bad("OneCycleLR", "pct_start", -0.1, 1.1, NAN),
    *bad("OneCycleLR", "anneal_strategy", "cubic"),
    *bad("OneCycleLR", "div_factor", 0),
    *bad("OneCycleLR", "final_div_factor", 0),
    *(
        Bad("OneCycleLR", {"max_lr": 1.0, "total_steps": 9, argument: [1] * 3}, argument, value="3")
        for argument in ("max_lr", "base_momentum", "max_momentum")
    ),
    *bad("SWALR", "anneal_strategy", "cubic"),
    *bad("SWALR", "anneal_epochs", -1, 2.5),
    *bad("SWALR", "swa_lr", NAN),
    Bad("SWALR", {"swa_lr": [0.1] * 3}, "swa_lr", value="3"),
    *bad("ReduceLROnPlateau", "factor", 1.0, 1.5, -0.1),
    *bad("ReduceLROnPlateau", "mode", "lowest"),
    *bad("ReduceLROnPlateau", "threshold_mode", "percent"),
    *bad("ReduceLROnPlateau", "patience", -1),
    *bad("ReduceLROnPlateau", "cooldown", -1),
    Bad("ReduceLROnPlateau", {"min_lr": [0.1] * 3}, "min_lr", value="3"),
    *bad("ReduceLROnPlateau", "min_lr", NAN),
]  # fmt: skip
# torch fails on these by chance of an operator, or of a division, not by a check of the argument.
CHANCE = (ZeroDivisionError, AttributeError, OverflowError)


@pytest.mark.parametrize("case", BAD, ids=shown)
def test_constructor_arguments(case: Bad) -> None:
    theirs = outcome(
        lambda: getattr(TORCH, case.name)(make_optimizer(momentum=0.9), **case.options)
    )
    if theirs is not None and not isinstance(theirs, CHANCE):
        assert type(theirs) is case.error, (
            f"the table expects another type than torch's: {theirs!r}"
        )
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], "float64", momentum=0.9)
    before = state_of(optimizer)
    error = outcome(lambda: getattr(OURS, case.name)(optimizer, **case.options))
    assert_says(error, case.error, case.words)
    assert state_of(optimizer) == before


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
@pytest.mark.parametrize("library", [TORCH, OURS])
def test_no_momentum_to_cycle(name: str, library: Library) -> None:
    optimizer = torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1)) for _ in range(1)], lr=0.5)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    before = state_of(optimizer)
    error = outcome(lambda: EXAMPLES[name].build(library, optimizer))
    assert type(error) is ValueError
    if library is OURS:
        assert_says(error, ValueError, (name, "cycle_momentum", "Adagrad"))
        assert state_of(optimizer) == before


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "ReduceLROnPlateau"])
@pytest.mark.parametrize("last_epoch", [-2, -10, 1.5, NAN])
def test_last_epoch(name: str, last_epoch: Any) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
    for group in optimizer.param_groups:
        group["initial_lr"] = 1.0
    before = state_of(optimizer)
    error = outcome(lambda: EXAMPLES[name].build(OURS, optimizer, last_epoch=last_epoch))
    assert_says(error, ValueError, (name, "last_epoch", str(last_epoch)))
    assert state_of(optimizer) == before


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "ReduceLROnPlateau"])
def test_resuming_without_the_first_rates_changes_nothing(name: str) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
    before = state_of(optimizer)
    error = outcome(lambda: EXAMPLES[name].build(OURS, optimizer, last_epoch=3))
    assert_says(error, KeyError, ("initial_lr", "param_groups[0]"))
    assert state_of(optimizer) == before


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("given", [None, torch.zeros(2), "SGD"], ids=["None", "Tensor", "str"])
def test_no_optimizer(name: str, given: Any) -> None:
    error = outcome(lambda: EXAMPLES[name].build(OURS, given))
    assert_says(error, TypeError, (type(given).__name__, "Optimizer"))


# ------------------------------------------------------------------------------------- compositions

STEP = Leaf("StepLR", {"step_size": 3})


def composition_error(library: Library, build: Callable[[Library, Any], Any]) -> Any:
    """What building raises; for ours with everything as before."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], "float64")
    parts = [STEP.build(library, optimizer) for _ in range(3)]
    optimizer.parts = parts
    before = state_of(optimizer), [snapshot(part) for part in parts]
    error = outcome(lambda: build(library, optimizer))
    if library is OURS:
        assert (state_of(optimizer), [snapshot(part) for part in parts]) == before
    return error


def other() -> Any:
    return make_optimizer(OPTIMIZERS["thalweg"])


COMPOSITIONS: dict[str, tuple[Callable[[Library, Any], Any], type, tuple[str, ...]]] = {
    "seq-empty": (lambda lib, o: lib.SequentialLR(o, [], []), ValueError, ("SequentialLR", "no ")),
    "chain-empty": (
        lambda lib, o: lib.ChainedScheduler([], o), ValueError, ("ChainedScheduler", "no ")),
    "seq-few-milestones": (
        lambda lib, o: lib.SequentialLR(o, o.parts, [2]), ValueError, ("milestone", "3", "1")),
    "seq-many-milestones": (
        lambda lib, o: lib.SequentialLR(o, o.parts[:1], [2]), ValueError, ("milestone", "1")),
    "seq-negative-milestone": (
        lambda lib, o: lib.SequentialLR(o, o.parts[:2], [-2]), ValueError, ("milestones", "-2")),
    "seq-decreasing-milestones": (
        lambda lib, o: lib.SequentialLR(o, o.parts, [5, 3]), ValueError, ("milestones", "5, 3")),
    "seq-nan-milestone": (
        lambda lib, o: lib.SequentialLR(o, o.parts[:2], [NAN]), ValueError, ("milestones", "nan")),
    "seq-another-optimizer": (
        lambda lib, o: lib.SequentialLR(o, [o.parts[0], STEP.build(lib, other())], [2]),
        ValueError, ("SequentialLR", "StepLR", "1", "optimizer")),
    "chain-another-optimizer": (
        lambda lib, o: lib.ChainedScheduler([o.parts[0], STEP.build(lib, other())]),
        ValueError, ("ChainedScheduler", "StepLR", "1", "optimizer")),
    "chain-given-another-optimizer": (
        lambda lib, o: lib.ChainedScheduler(o.parts, other()),
        ValueError, ("ChainedScheduler", "StepLR", "0", "optimizer")),
    "seq-no-scheduler": (
        lambda lib, o: lib.SequentialLR(o, [o.parts[0], 0.5], [2]), TypeError, ("1", "optimizer")),
    "chain-no-scheduler": (
        lambda lib, o: lib.ChainedScheduler([o.parts[0], "x"]), TypeError, ("1", "optimizer")),
    "seq-plateau": (
        lambda lib, o: lib.SequentialLR(o, [o.parts[0], lib.ReduceLROnPlateau(o)], [2]),
        ValueError, ("SequentialLR", "ReduceLROnPlateau", "1")),
    "chain-plateau": (
        lambda lib, o: lib.ChainedScheduler([o.parts[0], lib.ReduceLROnPlateau(o)]),
        ValueError, ("ChainedScheduler", "ReduceLROnPlateau", "1")),
    "seq-torchs-plateau": (
        lambda lib, o: lib.SequentialLR(o, [TORCH.ReduceLROnPlateau(o)], []),
        ValueError, ("SequentialLR", "ReduceLROnPlateau", "0")),
}  # fmt: skip
# torch takes these and goes wrong later.
OURS_ALONE = ("seq-negative-milestone", "seq-decreasing-milestones", "seq-nan-milestone")


@pytest.mark.parametrize("case", COMPOSITIONS)
def test_compositions(case: str) -> None:
    build, expected, words = COMPOSITIONS[case]
    if case not in OURS_ALONE:
        assert type(composition_error(TORCH, build)) is expected
    assert_says(composition_error(OURS, build), expected, words)


def test_the_same_scheduler_twice() -> None:
    """Its epochs would be counted twice."""
    for build in (
        lambda lib, o: lib.SequentialLR(o, [o.parts[0], o.parts[0]], [3]),
        lambda lib, o: lib.ChainedScheduler([o.parts[0], o.parts[0]]),
    ):
        assert_says(composition_error(OURS, build), ValueError, ("twice",))


# -------------------------------------------------------------------------------------------- steps


def stepped(tree: Tree, steps: int = 3) -> Any:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], "float64", momentum=0.9)
    scheduler = tree.build(OURS, optimizer)
    follow(optimizer, [scheduler], steps)
    return scheduler


def assert_refuses(
    scheduler: Any, action: Callable[[], Any], error: type, words: tuple[str, ...]
) -> None:
    before = state_of(scheduler.optimizer), snapshot(scheduler)
    assert_says(outcome(action), error, words)
    assert (state_of(scheduler.optimizer), snapshot(scheduler)) == before


def is_nan(metric: Any) -> bool:
    return isinstance(metric, (float, torch.Tensor)) and bool(torch.as_tensor(metric).isnan().all())


@pytest.mark.parametrize(
    ("metric", "error"),
    [(NAN, ValueError), (torch.tensor(NAN), ValueError), ("low", ValueError), (None, TypeError),
     (torch.zeros(2), ValueError), ([1.0], TypeError)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("mode", ["min", "max"])
def test_metrics(metric: Any, error: type, mode: str) -> None:
    """NaN is no better and no worse than anything: torch counts it as a bad epoch, silently."""
    scheduler = stepped(Leaf("ReduceLROnPlateau", {"mode": mode}))
    if not is_nan(metric):
        torchs = TORCH.ReduceLROnPlateau(make_optimizer())
        assert type(outcome(lambda: torchs.step(metric))) is error
    words = ("metric",) if error is ValueError else ()
    assert_refuses(scheduler, lambda: scheduler.step(metric), error, words)


def test_one_cycle_past_its_end() -> None:
    leaf = Leaf("OneCycleLR", {"max_lr": 0.5, "total_steps": 8})
    scheduler = stepped(leaf, 8)
    assert_refuses(scheduler, scheduler.step, ValueError, ("OneCycleLR", "9", "8"))
    assert_refuses(scheduler, scheduler.step, ValueError, ("OneCycleLR", "9", "8"))


@pytest.mark.parametrize("outer", [seq, None])
def test_one_cycle_past_its_end_in_a_composition(outer: Any) -> None:
    leaf = Leaf("OneCycleLR", {"max_lr": 0.5, "total_steps": 8, "cycle_momentum": False})
    scheduler = stepped(seq([STEP, leaf], [2]) if outer else chain(STEP, leaf), 10 if outer else 8)
    assert_refuses(scheduler, scheduler.step, ValueError, ("OneCycleLR", "9", "8"))


@deprecated_epoch
@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "ReduceLROnPlateau"])
@pytest.mark.parametrize("epoch", [-1, -0.5, NAN])
def test_epochs_that_are_none(name: str, epoch: float) -> None:
    scheduler = stepped(EXAMPLES[name])
    words = (name, "epoch", str(epoch))
    assert_refuses(scheduler, lambda: scheduler.step(epoch), ValueError, words)


@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_functions_that_fail_at_a_step(name: str) -> None:
    """The user's own error, and the scheduler can be stepped again."""

    def fails(epoch: int) -> float:
        if epoch >= 4 and not mended:
            raise KeyError(epoch)
        return 0.5

    mended: list[bool] = []
    scheduler = stepped(Leaf(name, {"lr_lambda": fails}))
    assert_refuses(scheduler, scheduler.step, KeyError, ("4",))
    mended.append(True)
    scheduler.step()
    assert scheduler.last_epoch == 4


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("outer", ["sequence", "chain", "nested"])
def test_a_part_that_fails_leaves_a_composition_as_it_was(outer: str, begins: bool) -> None:
    """No part has gone on alone: the step can be repeated when the cause is mended."""

    def fails(epoch: int) -> float:
        if broken:
            raise KeyError(epoch)
        return 0.5

    broken: list[bool] = []
    part = Leaf("MultiplicativeLR" if outer == "chain" else "LambdaLR", {"lr_lambda": fails})
    decay = EXAMPLES["ExponentialLR"]
    tree = {
        "sequence": seq([decay, part], [4 if begins else 2]),
        "chain": chain(decay, part),
        "nested": chain(decay, seq([decay, part], [4 if begins else 2])),
    }[outer]
    scheduler = stepped(tree)
    broken.append(True)
    scheduler.optimizer.step()
    before = rates(scheduler.optimizer), epochs_of(scheduler)
    assert type(outcome(scheduler.step)) is KeyError
    assert (rates(scheduler.optimizer), epochs_of(scheduler)) == before
    broken.clear()
    scheduler.step()
    expected = stepped(tree, 4)
    assert rates(scheduler.optimizer) == rates(expected.optimizer)


def epochs_of(scheduler: Any) -> list[Any]:
    parts = getattr(scheduler, "_schedulers", [])
    return [scheduler.last_epoch, scheduler._step_count, *map(epochs_of, parts)]


# The others move the rate that they find, of as many groups as there are (see test_contract).
SETTERS = ("LambdaLR", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "SWALR")


@pytest.mark.parametrize("name", SETTERS)
def test_a_step_after_a_group_was_added(name: str) -> None:
    scheduler = stepped(EXAMPLES[name])
    scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    assert_refuses(scheduler, scheduler.step, ValueError, (name, "group"))


# -------------------------------------------------------------------------------------- state dicts

TREES: dict[str, Tree] = {
    **EXAMPLES,
    "SequentialLR": seq([STEP, EXAMPLES["ExponentialLR"]], [2]),
    "ChainedScheduler": chain(STEP, EXAMPLES["ExponentialLR"]),
}


def saved(library: Library, tree: Tree, groups: int = 2) -> dict[str, Any]:
    optimizer = make_optimizer(lrs=(0.5, 0.02, 0.1)[:groups], momentum=0.9)
    scheduler = tree.build(library, optimizer)
    follow(optimizer, [scheduler], 3)
    found: dict[str, Any] = copy.deepcopy(scheduler.state_dict())
    return found


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("library", [TORCH, OURS], ids=["torch", "thalweg"])
def test_a_state_dict_of_another_class(source: str, target: str, library: Library) -> None:
    """All pairs of classes; saved by ours, and by torch's, which do not name their class."""
    if source == target:
        return
    if library is TORCH and {source, target} in ALIKE:
        return
    state = saved(library, TREES[source])
    scheduler = stepped(TREES[target])
    kept = frozen(state)
    words = (target, source) if library is OURS else (target,)
    assert_refuses(scheduler, lambda: scheduler.load_state_dict(state), ValueError, words)
    assert frozen(state) == kept


# torch's state dicts of these have the same keys.
ALIKE = [{"LambdaLR", "MultiplicativeLR"}]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ReduceLROnPlateau"])
def test_a_state_dict_of_another_number_of_groups(name: str) -> None:
    tree = SINGLE.get(name, TREES[name])
    scheduler = stepped(TREES[name])
    state = saved(OURS, tree, groups=1)
    assert_refuses(
        scheduler, lambda: scheduler.load_state_dict(state), ValueError, (name, "1", "2")
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", [None, 3, "x", []], ids=str)
def test_no_state_dict(name: str, state: Any) -> None:
    scheduler = stepped(TREES[name])
    words = (name, type(state).__name__)
    assert_refuses(scheduler, lambda: scheduler.load_state_dict(state), TypeError, words)


REQUIRED: dict[str, tuple[str, ...]] = {
    "LambdaLR": ("last_epoch", "lr_lambdas"),
    "MultiplicativeLR": ("last_epoch", "lr_lambdas"),
    "StepLR": ("last_epoch", "step_size", "gamma"),
    "MultiStepLR": ("last_epoch", "milestones", "gamma"),
    "ConstantLR": ("last_epoch", "factor", "total_iters"),
    "LinearLR": ("last_epoch", "start_factor", "end_factor", "total_iters"),
    "ExponentialLR": ("last_epoch", "gamma"),
    "PolynomialLR": ("last_epoch", "total_iters", "power"),
    "CosineAnnealingLR": ("last_epoch", "T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": ("last_epoch", "T_0", "T_mult", "eta_min"),
    "CyclicLR": ("last_epoch", "max_lrs", "total_size", "step_ratio", "mode"),
    "OneCycleLR": ("last_epoch", "total_steps"),
    "SWALR": ("last_epoch", "anneal_epochs"),
    "ReduceLROnPlateau": ("last_epoch", "best", "num_bad_epochs", "cooldown_counter", "mode"),
    "SequentialLR": ("last_epoch", "_schedulers", "_milestones"),
    "ChainedScheduler": ("_schedulers",),
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in NAMES for key in REQUIRED[name]])
def test_a_state_dict_with_a_missing_key(name: str, key: str) -> None:
    """Each of those without which the sequence could not be gone on with."""
    state = saved(OURS, TREES[name])
    del state[key]
    scheduler = stepped(TREES[name])
    assert_refuses(scheduler, lambda: scheduler.load_state_dict(state), ValueError, (name, key))


def test_a_wrong_state_deep_inside_changes_nothing() -> None:
    """The last part's is another class's: the first part must not have been loaded."""
    tree = seq([STEP, chain(EXAMPLES["ExponentialLR"], EXAMPLES["LinearLR"])], [2])
    wrong = seq([STEP, chain(EXAMPLES["ExponentialLR"], EXAMPLES["ConstantLR"])], [2])
    state = saved(OURS, wrong)
    scheduler = stepped(tree, 5)
    assert_refuses(
        scheduler, lambda: scheduler.load_state_dict(state), ValueError, ("LinearLR", "ConstantLR")
    )
    shorter = saved(OURS, seq([STEP, chain(EXAMPLES["ExponentialLR"])], [2]))
    assert_refuses(
        scheduler, lambda: scheduler.load_state_dict(shorter), ValueError, ("ChainedScheduler",)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_constructor_leaves_the_rate_to_the_next(kind: str) -> None:
    """After a mistake the right call gives the right sequence."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind, momentum=0.9)
    for case in BAD:
        if case.error is ValueError:
            assert outcome(lambda c=case: getattr(OURS, c.name)(optimizer, **c.options)) is not None
    scheduler = OURS.ExponentialLR(optimizer, 0.5)
    reference = make_optimizer(OPTIMIZERS["thalweg"], kind, momentum=0.9)
    expected = follow(reference, [OURS.ExponentialLR(reference, 0.5)], 5)
    assert follow(optimizer, [scheduler], 5) == expected


def test_messages_are_sentences_for_the_user() -> None:
    """Each begins with the class that refuses, and none is longer than it has to be."""
    for case in BAD:
        optimizer = make_optimizer(momentum=0.9)
        message = str(outcome(lambda c=case, o=optimizer: getattr(OURS, c.name)(o, **c.options)))
        assert re.match(rf"{case.name}\b", message), message
        assert len(message) < 300
