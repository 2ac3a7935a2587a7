"""The protocol around the rates: types, warnings, subclasses, copies, lifetimes."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import math
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from tests.optim.lr_scheduler.cases import (
    EXAMPLES,
    KINDS,
    LIBRARIES,
    LRS,
    NAMES,
    OPTIMIZERS,
    OURS,
    TORCH,
    Leaf,
    Library,
    Tree,
    advance,
    both_libraries,
    build_all,
    chain,
    deprecated_epoch,
    follow,
    identify,
    make_optimizer,
    momenta,
    observe,
    rates,
    seq,
    torchs_order_warning,
)
from thalweg.optim import lr_scheduler

WARMUP = Leaf("LinearLR", {"start_factor": 0.1, "total_iters": 7})
DECAY = Leaf("ExponentialLR", {"gamma": 0.9})
TREES: dict[str, Tree] = {
    **EXAMPLES,
    "SequentialLR": seq([WARMUP, DECAY], [7]),
    "ChainedScheduler": chain(WARMUP, DECAY),
}
every_class = pytest.mark.parametrize("name", NAMES)
both_optimizers = pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def ours(name: str, optimizer: Any) -> Any:
    return TREES[name].build(OURS, optimizer)


def caught(action: Callable[[], Any]) -> list[str]:
    """The messages of the warnings that an action gives."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        action()
    assert all(issubclass(w.category, UserWarning) for w in seen)
    return [str(w.message) for w in seen]


# ---------------------------------------------------------------------------------- names and types


@every_class
def test_signatures_are_torchs(name: str) -> None:
    """Names, order, kinds and defaults of the parameters, of the constructor and the methods."""

    def parameters(method: Any) -> list[tuple[Any, ...]]:
        own = inspect.signature(method).parameters.values()
        return [(p.name, p.kind, p.default) for p in own]

    mine, torchs = getattr(OURS, name), getattr(TORCH, name)
    assert parameters(mine.__init__) == parameters(torchs.__init__)
    for method in ("get_last_lr", "get_lr", "state_dict", "load_state_dict"):
        assert parameters(getattr(mine, method)) == parameters(getattr(torchs, method))
    # More may be accepted by step; what torch's accepts, in its order, must be.
    asked = parameters(torchs.step)
    assert [p[0] for p in parameters(mine.step)][: len(asked)] == [p[0] for p in asked]


@every_class
def test_trainers_take_them_for_torchs(name: str) -> None:
    scheduler = ours(name, make_optimizer(momentum=0.9))
    assert isinstance(scheduler, torch_schedulers.LRScheduler)
    assert isinstance(scheduler, OURS.LRScheduler)
    assert type(scheduler).__name__ == name
    is_plateau = isinstance(scheduler, torch_schedulers.ReduceLROnPlateau)
    assert is_plateau == (name == "ReduceLROnPlateau")


@every_class
def test_attributes_of_torchs_are_there(name: str) -> None:
    """Every public attribute of torch's instance, with an equal value."""
    mine = ours(name, make_optimizer(momentum=0.9))
    torchs = TREES[name].build(TORCH, make_optimizer(momentum=0.9))
    follow(mine.optimizer, [mine], 9)
    follow(torchs.optimizer, [torchs], 9)
    private = {"optimizer", "anneal_func"}
    for key, value in vars(torchs).items():
        if not key.startswith("_") and key not in private:
            assert hasattr(mine, key), key
            found = getattr(mine, key)
            if isinstance(value, float) or (isinstance(value, list) and value):
                if callable(value[0] if isinstance(value, list) else value):
                    continue
                assert found == pytest.approx(value, rel=1e-12), key
            else:
                assert found == value, key
    assert mine._last_lr == pytest.approx(torchs._last_lr, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@every_class
def test_types_of_the_last_rates(name: str, kind: str) -> None:
    """As the group's: a float for a float, a Tensor of the same dtype for a Tensor."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind, momentum=0.9)
    scheduler = ours(name, optimizer)
    for step in range(12):
        last = scheduler.get_last_lr()
        assert isinstance(last, list)
        for lr, group in zip(last, optimizer.param_groups, strict=True):
            assert type(lr) is type(group["lr"])
            assert lr == group["lr"]
            assert not isinstance(lr, torch.Tensor) or lr.dtype == group["lr"].dtype
        advance(optimizer, [scheduler], step)


@both_libraries
def test_the_old_name_of_the_base_class(library: Library) -> None:
    if library is OURS:
        from thalweg.optim import lr_scheduler

        assert issubclass(lr_scheduler._LRScheduler, OURS.LRScheduler)
    else:
        assert issubclass(TORCH._LRScheduler, TORCH.LRScheduler)


def test_the_module_exports_what_torchs_does() -> None:
    import thalweg.optim.lr_scheduler as module

    assert set(torch_schedulers.__all__) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


# ----------------------------------------------------------------------------------------- warnings

NO_PLATEAU = [name for name in NAMES if name != "ReduceLROnPlateau"]
LEAVES = [n for n in NO_PLATEAU if n not in ("SequentialLR", "ChainedScheduler")]


@both_libraries
@pytest.mark.parametrize("name", LEAVES)
def test_get_lr_outside_of_a_step_warns(name: str, library: Library) -> None:
    scheduler = TREES[name].build(library, make_optimizer(momentum=0.9))
    (message,) = caught(scheduler.get_lr)
    assert "get_last_lr()" in message


# CosineAnnealingWarmRestarts, which is stepped within epochs too, does not check the order.
CHECK_ORDER = [n for n in NO_PLATEAU if n != "CosineAnnealingWarmRestarts"]


@both_libraries
@pytest.mark.parametrize("name", CHECK_ORDER)
def test_a_step_before_the_optimizers_warns_once(name: str, library: Library) -> None:
    scheduler = TREES[name].build(library, make_optimizer(momentum=0.9))
    messages = caught(scheduler.step)
    assert len(messages) == (2 if name == "ChainedScheduler" else 1), "one for each part"
    assert all("before `optimizer.step()`" in m and "Detected" in m for m in messages)
    assert caught(scheduler.step) == []


@both_libraries
@both_optimizers
@pytest.mark.parametrize("name", [n for n in LEAVES if n != "CosineAnnealingWarmRestarts"])
def test_a_replaced_optimizer_step_warns(name: str, cls: Any, library: Library) -> None:
    optimizer = make_optimizer(cls, momentum=0.9)
    scheduler = TREES[name].build(library, optimizer)
    optimizer.step = lambda: None
    (message,) = caught(scheduler.step)
    assert "overridden" in message


@both_libraries
@both_optimizers
@every_class
def test_the_right_order_does_not_warn(name: str, cls: Any, library: Library) -> None:
    optimizer = make_optimizer(cls, momentum=0.9)
    scheduler = TREES[name].build(library, optimizer)
    assert caught(lambda: follow(optimizer, [scheduler], 10)) == []


@both_libraries
@pytest.mark.parametrize("name", [n for n in LEAVES if n != "CosineAnnealingWarmRestarts"])
def test_an_epoch_given_to_step_warns(name: str, library: Library) -> None:
    optimizer = make_optimizer(momentum=0.9)
    scheduler = TREES[name].build(library, optimizer)
    optimizer.step()
    (message,) = caught(lambda: scheduler.step(3))
    assert "epoch parameter" in message
    assert "deprecat" in message


@pytest.mark.parametrize(
    "tree",
    [
        seq([WARMUP, DECAY], [7]),
        seq([seq([WARMUP, DECAY], [3]), chain(WARMUP, DECAY)], [7]),
        chain(seq([WARMUP, chain(DECAY)], [4]), DECAY),
    ],
    ids=identify,
)
def test_compositions_warn_of_nothing(tree: Tree) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    assert caught(lambda: follow(optimizer, [tree.build(OURS, optimizer)], 20)) == []


@both_libraries
def test_warnings_name_the_callers_line(library: Library) -> None:
    optimizer = make_optimizer()
    scheduler = library.ExponentialLR(optimizer, 0.9)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        scheduler.step()
        scheduler.get_lr()
    names = [w.filename for w in seen]
    assert names[0] == __file__
    if library is OURS:
        assert names == [__file__] * 2


# -------------------------------------------------------------------------------- errors of torch's


@both_libraries
@pytest.mark.parametrize("name", [n for n in NO_PLATEAU if n != "ChainedScheduler"])
@pytest.mark.parametrize("last_epoch", [0, 5])
def test_resuming_needs_the_first_rates(name: str, library: Library, last_epoch: int) -> None:
    optimizer = make_optimizer(momentum=0.9)
    tree = TREES[name]
    if isinstance(tree, Leaf):
        with pytest.raises(KeyError, match="initial_lr"):
            tree.build(library, optimizer, last_epoch=last_epoch)
    else:  # its parts note the first rates when they are made
        scheduler = tree.build(library, optimizer, last_epoch=last_epoch)
        assert scheduler.last_epoch == last_epoch + 1


def test_an_abstract_scheduler_is_torchs_error() -> None:
    for library in LIBRARIES.values():
        with pytest.raises(NotImplementedError):
            library.LRScheduler(make_optimizer())


# ----------------------------------------------------------------------------------------- print_lr


def printed(capsys: pytest.CaptureFixture[str], action: Callable[[], Any]) -> str:
    action()
    return capsys.readouterr().out


@every_class
def test_print_lr(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """torch removed it; scripts written for it before still call it."""
    scheduler = ours(name, make_optimizer(momentum=0.9))
    assert printed(capsys, lambda: scheduler.print_lr(False, 0, 0.25)) == ""
    expected = "Adjusting learning rate of group 1 to 2.5000e-01.\n"
    assert printed(capsys, lambda: scheduler.print_lr(True, 1, 0.25)) == expected
    expected = f"Epoch {7:5d}: adjusting".replace("adjusting", "Adjusting")
    assert printed(capsys, lambda: scheduler.print_lr(True, 0, 0.25, 7)).startswith(expected)
    lines = printed(capsys, scheduler.print_lr).splitlines()
    assert len(lines) == len(LRS)


# ---------------------------------------------------------------------- subclasses written by users


def subclasses(library: Library) -> dict[str, Callable[[Any], Any]]:
    """What users write, in torch's style, on either library's base class."""

    class Recursive(library.LRScheduler):  # type: ignore[name-defined, misc]
        def get_lr(self) -> list[Any]:
            if self._is_initial or self.last_epoch == 0:
                return [group["lr"] for group in self.optimizer.param_groups]
            return [group["lr"] * 0.9 for group in self.optimizer.param_groups]

    class Absolute(library.LRScheduler):  # type: ignore[name-defined, misc]
        def __init__(self, optimizer: Any, power: float, last_epoch: int = -1) -> None:
            self.power = power
            super().__init__(optimizer, last_epoch)

        def get_lr(self) -> list[Any]:
            return [base / (1 + self.last_epoch) ** self.power for base in self.base_lrs]

    class WithClosedForm(Recursive):
        def _get_closed_form_lr(self) -> list[Any]:
            return [base * 0.9**self.last_epoch for base in self.base_lrs]

    class OverridesStep(library.LRScheduler):  # type: ignore[name-defined, misc]
        def get_lr(self) -> list[Any]:
            return [base * (1 + self.last_epoch) for base in self.base_lrs]

        def step(self, epoch: Any = None) -> None:
            super().step(epoch)

    class OfOldBase(library._LRScheduler):  # type: ignore[name-defined, misc]
        def get_lr(self) -> list[Any]:
            return [base * math.exp(-self.last_epoch / 10) for base in self.base_lrs]

    return {
        "recursive": Recursive,
        "absolute": lambda optimizer: Absolute(optimizer, 0.5),
        "closed-form": WithClosedForm,
        "overrides-step": OverridesStep,
        "old-base": OfOldBase,
    }


OURS._LRScheduler = __import__("thalweg.optim.lr_scheduler", fromlist=["x"])._LRScheduler
STYLES = list(subclasses(TORCH))
every_style = pytest.mark.parametrize("style", STYLES)


@every_style
@pytest.mark.parametrize("kind", ["float", "float64"])
def test_a_users_subclass(style: str, kind: str) -> None:
    runs = []
    for library, cls in zip((TORCH, OURS), OPTIMIZERS.values(), strict=True):
        optimizer = make_optimizer(cls, kind)
        scheduler = subclasses(library)[style](optimizer)
        assert (scheduler.last_epoch, scheduler._step_count) == (0, 1)
        runs.append(follow(optimizer, [scheduler], 30))
        assert scheduler.get_last_lr() == rates(optimizer)
    assert runs[0] == runs[1]


@deprecated_epoch
@every_style
def test_a_users_subclass_stepped_to_an_epoch(style: str) -> None:
    runs = []
    for library in (TORCH, OURS):
        optimizer = make_optimizer()
        scheduler = subclasses(library)[style](optimizer)
        optimizer.step()
        scheduler.step(5)
        runs.append([scheduler.last_epoch, *follow(optimizer, [scheduler], 5)])
    assert runs[0] == runs[1]


def composed(outer: Library, inner: Callable[[Any], Any], cls: Any, how: str) -> list[list[float]]:
    """A scheduler of any origin within ``outer``'s compositions."""
    optimizer = make_optimizer(cls)
    if how == "first":
        scheduler = outer.SequentialLR(
            optimizer, [inner(optimizer), outer.StepLR(optimizer, 3)], [6]
        )
    elif how == "later":
        scheduler = outer.SequentialLR(
            optimizer, [outer.LinearLR(optimizer, 0.1, total_iters=6), inner(optimizer)], [6]
        )
    else:
        scheduler = outer.ChainedScheduler([inner(optimizer), outer.StepLR(optimizer, 4)])
    return follow(optimizer, [scheduler], 20)


@pytest.mark.parametrize("how", ["first", "later", "chained"])
@every_style
def test_a_users_subclass_in_our_compositions(style: str, how: str) -> None:
    if style == "recursive" and how == "later":
        # Without a closed form torch leaves what the part before has left.
        expected = composed(TORCH, subclasses(TORCH)["closed-form"], OPTIMIZERS["torch"], how)
    else:
        expected = composed(TORCH, subclasses(TORCH)[style], OPTIMIZERS["torch"], how)
    found = composed(OURS, subclasses(OURS)[style], OPTIMIZERS["thalweg"], how)
    assert [row[:2] for row in found] == [pytest.approx(row[:2], rel=1e-12) for row in expected]


@pytest.mark.parametrize(
    ("how", "style"),
    [
        (how, style)
        for how in ("first", "later", "chained")
        for style in STYLES
        # Without a closed form torch leaves what the part before has left: see the test above.
        if (how, style) != ("later", "recursive")
    ],
)
def test_torchs_own_subclass_in_our_compositions(style: str, how: str) -> None:
    """A scheduler of the user that derives from torch's base class."""
    expected = composed(TORCH, subclasses(TORCH)[style], OPTIMIZERS["torch"], how)
    found = composed(OURS, subclasses(TORCH)[style], OPTIMIZERS["thalweg"], how)
    assert [row[:2] for row in found] == [pytest.approx(row[:2], rel=1e-12) for row in expected]


IN_TORCHS = [
    name for name in EXAMPLES
    # These torch begins at the rate that it finds, or sets the base rate in the groups.
    if name not in ("ReduceLROnPlateau", "MultiplicativeLR", "SWALR", "OneCycleLR", "CyclicLR")
]  # fmt: skip


@pytest.mark.parametrize("how", ["first", "later", "chained"])
@pytest.mark.parametrize("name", IN_TORCHS)
def test_ours_in_torchs_compositions(name: str, how: str) -> None:
    def part(library: Library) -> Callable[[Any], Any]:
        return lambda optimizer: EXAMPLES[name].build(library, optimizer)

    expected = composed(TORCH, part(TORCH), OPTIMIZERS["torch"], how)
    found = composed(TORCH, part(OURS), OPTIMIZERS["thalweg"], how)
    assert [row[:2] for row in found] == [pytest.approx(row[:2], rel=1e-12) for row in expected]


@pytest.mark.parametrize("how", ["first", "later", "chained"])
@pytest.mark.parametrize("name", IN_TORCHS)
def test_torchs_in_our_compositions(name: str, how: str) -> None:
    def part(optimizer: Any) -> Any:
        return EXAMPLES[name].build(TORCH, optimizer)

    expected = composed(TORCH, part, OPTIMIZERS["torch"], how)
    found = composed(OURS, part, OPTIMIZERS["thalweg"], how)
    assert [row[:2] for row in found] == [pytest.approx(row[:2], rel=1e-12) for row in expected]


@pytest.mark.parametrize("style", ["absolute", "closed-form"])
def test_a_users_subclass_is_checkpointed(style: str) -> None:
    optimizer = make_optimizer()
    scheduler = subclasses(OURS)[style](optimizer)
    follow(optimizer, [scheduler], 7)
    saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    expected = follow(optimizer, [scheduler], 7)
    other = make_optimizer()
    other.load_state_dict(saved[0])
    loaded = subclasses(OURS)[style](other)
    loaded.load_state_dict(saved[1])
    assert follow(other, [loaded], 7) == expected


# ------------------------------------------------------------------------------- groups added later


def outcome(action: Callable[[], Any]) -> Any:
    try:
        action()
    except Exception as error:
        return type(error)
    return None


@every_class
def test_a_group_added_later(name: str) -> None:
    """ValueError where torch raises at the next step, with nothing changed.

    (torch raises KeyError where it misses an entry in the new group: OneCycleLR and SWALR.)
    """
    found, after = {}, {}
    for key, library in LIBRARIES.items():
        optimizer = make_optimizer(momentum=0.9)
        scheduler = TREES[name].build(library, optimizer)
        follow(optimizer, [scheduler], 3)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.3})
        before = observe(optimizer), getattr(scheduler, "last_epoch", 3)
        found[key] = outcome(lambda o=optimizer, s=scheduler: advance(o, [s], 3))
        if key == "thalweg" and found[key] is not None:
            assert (observe(optimizer), scheduler.last_epoch) == before
        after[key] = rates(optimizer)
    assert found["torch"] in (ValueError, KeyError, None)
    assert found["thalweg"] is (None if found["torch"] is None else ValueError)
    if found["torch"] is None:
        assert after["thalweg"] == pytest.approx(after["torch"], rel=1e-12)


def test_a_plateau_takes_in_a_group_added_later() -> None:
    seen = []
    for library in LIBRARIES.values():
        optimizer = make_optimizer()
        scheduler = library.ReduceLROnPlateau(optimizer, patience=0, min_lr=0.01)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.3})
        for _ in range(3):
            scheduler.step(1.0)
        seen.append(rates(optimizer))
        listed = library.ReduceLROnPlateau(make_optimizer(), patience=0, min_lr=[0.1, 0.1])
        added = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.3}
        listed.optimizer.add_param_group(added)
        with pytest.raises(RuntimeError, match="group"):
            follow(listed.optimizer, [listed], 30)  # torch's: once there is something to reduce
    assert seen[0] == seen[1]


# ----------------------------------------------------------------------------- lifetimes and copies


def freed(cls: Any, make: Callable[[Any], Any] | None) -> tuple[bool, bool]:
    """Whether an optimizer and its scheduler go at once, and with the collector of cycles."""
    gc.disable()
    gc.freeze()  # the collection below looks at what is made from here on
    try:
        optimizer = make_optimizer(cls, momentum=0.9)
        schedulers = [] if make is None else [make(optimizer)]
        follow(optimizer, schedulers, 3)
        alive = [weakref.ref(held) for held in (optimizer, *schedulers)]
        del optimizer, schedulers
        at_once = all(held() is None for held in alive)
        gc.collect()
        return at_once, all(held() is None for held in alive)
    finally:
        gc.unfreeze()
        gc.enable()


@both_optimizers
@every_class
def test_nothing_keeps_the_optimizer_alive(name: str, cls: Any) -> None:
    """A scheduler adds no cycle: both are freed as early as the optimizer is without one."""
    assert freed(cls, lambda optimizer: ours(name, optimizer)) == (freed(cls, None)[0], True)


@both_optimizers
@every_class
def test_a_copied_optimizer_has_schedulers_of_its_own(name: str, cls: Any) -> None:
    optimizer = make_optimizer(cls, "float64", momentum=0.9)
    scheduler = ours(name, optimizer)
    follow(optimizer, [scheduler], 5)
    twin = copy.deepcopy(optimizer)
    kept = observe(twin)
    follow(optimizer, [scheduler], 5, first=5)
    assert observe(twin) == kept
    second = ours(name, twin)
    kept = observe(optimizer)
    follow(twin, [second], 9)
    assert observe(optimizer) == kept
    assert (second.optimizer, scheduler.optimizer) == (twin, optimizer)


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step:UserWarning")
@every_class
def test_a_scheduler_is_pickled_with_its_optimizer(name: str) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
    scheduler = ours(name, optimizer)
    follow(optimizer, [scheduler], 5)
    twin = pickle.loads(pickle.dumps(scheduler))
    assert type(twin) is type(scheduler)
    assert twin.optimizer is not optimizer
    assert rates(twin.optimizer) == rates(optimizer)
    expected = follow(optimizer, [scheduler], 9, first=5)
    assert follow(twin.optimizer, [twin], 9, first=5) == expected


@both_optimizers
def test_the_first_rates_are_noted_in_the_groups(cls: Any) -> None:
    """`initial_lr`, which torch's schedulers and checkpoints go by."""
    optimizer = make_optimizer(cls, "float64")
    OURS.LinearLR(optimizer, 0.1)
    assert [float(group["initial_lr"]) for group in optimizer.param_groups] == list(LRS)
    OURS.ConstantLR(optimizer, 0.5)
    assert [float(group["initial_lr"]) for group in optimizer.param_groups] == list(LRS)


# ---------------------------------------------------------------------------------- other machinery


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ReduceLROnPlateau"])
def test_with_a_gradient_scaler(name: str) -> None:
    """The scaler calls optimizer.step, and skips it where a gradient is infinite."""
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
    scheduler = ours(name, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)
    (first,) = optimizer.param_groups[0]["params"]
    for step in range(6):
        optimizer.zero_grad()
        loss = first.sum() * (math.inf if step == 3 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    reference = make_optimizer(OPTIMIZERS["torch"], momentum=0.9)
    expected = follow(reference, [TREES[name].build(TORCH, reference)], 6)[-1]
    assert observe(optimizer) == pytest.approx(expected, rel=1e-12)
    assert scaler.get_scale() == 2.0, "one step was skipped"


@both_libraries
@every_class
def test_steps_with_a_closure_are_counted(name: str, library: Library) -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"], momentum=0.9)
    scheduler = TREES[name].build(library, optimizer)
    arguments = (1.0,) if name == "ReduceLROnPlateau" else ()

    def run() -> None:
        assert optimizer.step(lambda: torch.tensor(3.5)) == 3.5
        scheduler.step(*arguments)

    assert caught(run) == []


def test_step_hooks_still_run() -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *a: calls.append("before"))
    scheduler = OURS.ExponentialLR(optimizer, 0.9)
    optimizer.register_step_post_hook(lambda *a: calls.append("after"))
    follow(optimizer, [scheduler], 2)
    assert calls == ["before", "after"] * 2


@torchs_order_warning
def test_a_second_scheduler_does_not_wrap_step_again() -> None:
    optimizer = make_optimizer(OPTIMIZERS["thalweg"])
    OURS.ExponentialLR(optimizer, 0.9)
    wrapped = optimizer.step
    OURS.StepLR(optimizer, 3)
    TORCH.StepLR(optimizer, 3)
    assert optimizer.step is wrapped
    other = make_optimizer(OPTIMIZERS["thalweg"])
    TORCH.StepLR(other, 3)
    wrapped = other.step
    OURS.StepLR(other, 3)
    assert other.step is wrapped


def test_the_rates_are_used_by_the_step() -> None:
    """The kernel reads the group's rate anew at each step, float or Tensor."""
    for kind in KINDS:
        optimizer = make_optimizer(OPTIMIZERS["thalweg"], kind, lrs=(1.0,))
        (parameter,) = optimizer.param_groups[0]["params"]
        scheduler = OURS.ExponentialLR(optimizer, 0.5)
        start = parameter.item()
        for _ in range(4):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            scheduler.step()
        assert parameter.item() == start - (1 + 0.5 + 0.25 + 0.125)


@both_libraries
def test_a_chain_of_schedulers_under_way(library: Library) -> None:
    """It goes on with them where they are."""
    optimizer = make_optimizer(lrs=(1.0,))
    parts = [tree.build(library, optimizer) for tree in (WARMUP, DECAY)]
    begun = follow(optimizer, parts, 3)
    found = begun + follow(optimizer, [library.ChainedScheduler(parts)], 9)[1:]
    other = make_optimizer(lrs=(1.0,))
    expected = follow(other, [tree.build(library, other) for tree in (WARMUP, DECAY)], 12)
    assert [row[0] for row in found] == pytest.approx([row[0] for row in expected], rel=1e-12)


@both_libraries
def test_integers_of_numpy(library: Library) -> None:
    """As they come out of a table of results."""
    optimizer = make_optimizer(lrs=(1.0,))
    optimizer.param_groups[0]["initial_lr"] = 1.0
    assert library.StepLR(optimizer, numpy.int64(3), last_epoch=numpy.int64(4)).last_epoch == 5
    assert library.MultiStepLR(optimizer, numpy.array([2, 4])).milestones == {2: 1, 4: 1}
    assert library.LinearLR(optimizer, total_iters=numpy.int32(4)).total_iters == 4


def test_a_rate_that_requires_its_gradient() -> None:
    """As in meta-learning: filled outside of its graph, where torch's raises."""
    lr = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = OURS.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert not scheduler.get_last_lr()[0].requires_grad
    assert lr.requires_grad
    assert lr.item() == 0.125


@both_libraries
@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_functions_of_other_kinds(name: str, library: Library) -> None:
    """A partial, a bound method: saved as nothing, or as what they hold."""
    for function in (functools.partial(math.pow, 0.5), Scale(0.5).at):
        optimizer = make_optimizer(lrs=(1.0,))
        scheduler = getattr(library, name)(optimizer, function)
        follow(optimizer, [scheduler], 2)
        other = make_optimizer(lrs=(1.0,))
        other.load_state_dict(optimizer.state_dict())
        loaded = getattr(library, name)(other, function)
        loaded.load_state_dict(scheduler.state_dict())
        other.load_state_dict(optimizer.state_dict())
        assert follow(other, [loaded], 3) == follow(optimizer, [scheduler], 3)


class Scale:
    def __init__(self, base: float) -> None:
        self.base = base

    def at(self, epoch: int) -> float:
        return self.base**epoch


@pytest.mark.parametrize("inner", ["SequentialLR", "ChainedScheduler"])
def test_our_compositions_in_torchs(inner: str) -> None:
    """As parts that begin at a milestone, and in a chain, where torch's own fail or forget."""
    optimizer = make_optimizer(lrs=(1.0,))
    first, part = DECAY.build(OURS, optimizer), ours(inner, optimizer)
    scheduler = TORCH.SequentialLR(optimizer, [first, part], [3])
    found = [row[0] for row in follow(optimizer, [scheduler], 15)]
    other = make_optimizer(lrs=(1.0,))
    alone = [row[0] for row in follow(other, [ours(inner, other)], 12)]
    assert found == pytest.approx([1.0, 0.9, 0.81, *alone], rel=1e-12)
    optimizer = make_optimizer(lrs=(1.0,))
    chained = TORCH.ChainedScheduler([ours(inner, optimizer), DECAY.build(OURS, optimizer)])
    found = [row[0] for row in follow(optimizer, [chained], 12)]
    assert found == pytest.approx([rate * 0.9**t for t, rate in enumerate(alone)], rel=1e-12)


def test_several_optimizers_do_not_share_schedulers() -> None:
    optimizers = [make_optimizer(OPTIMIZERS["thalweg"], lrs=(1.0,)) for _ in range(3)]
    schedulers = [OURS.ExponentialLR(o, 0.5) for o in optimizers]
    for count, (optimizer, scheduler) in enumerate(zip(optimizers, schedulers, strict=True)):
        follow(optimizer, [scheduler], count)
    assert [rates(o) for o in optimizers] == [[1.0], [0.5], [0.25]]


def test_momentum_is_left_alone_unless_asked_for() -> None:
    for name in ("CyclicLR", "OneCycleLR"):
        leaf = Leaf(name, {**EXAMPLES[name].options, "cycle_momentum": False})
        for cls in (OPTIMIZERS["thalweg"], OPTIMIZERS["torch"]):
            optimizer = make_optimizer(cls, momentum=0.7)
            follow(optimizer, build_all(OURS, optimizer, (leaf,)), 20)
            assert momenta(optimizer) == [0.7, 0.7]


def test_a_list_of_minimums_is_missed_when_a_rate_is_reduced() -> None:
    """Not earlier, as with torch; and the scheduler is as before then."""
    for library in (torch.optim.lr_scheduler, lr_scheduler):
        optimizer = make_optimizer()
        groups = len(optimizer.param_groups)
        scheduler = library.ReduceLROnPlateau(optimizer, patience=1, min_lr=[0.01] * groups)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
        for metric in (1.0, 0.5, 0.5):
            scheduler.step(metric)
        with pytest.raises(RuntimeError, match="min_lr"):
            scheduler.step(0.5)
        if library is lr_scheduler:
            assert (scheduler.last_epoch, scheduler.num_bad_epochs) == (3, 1)


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_a_one_cycle_state_of_an_older_torch_loads(strategy: Any) -> None:
    """It held the annealing function itself, where today's holds its name."""

    def made(library: Any, anneal_strategy: Any) -> Any:
        return library.OneCycleLR(
            make_optimizer(), 0.5, total_steps=20, anneal_strategy=anneal_strategy
        )

    saved = made(torch.optim.lr_scheduler, strategy).state_dict()
    del saved["_anneal_func_type"]
    theirs = torch.optim.lr_scheduler.OneCycleLR
    saved["anneal_func"] = getattr(theirs, f"_annealing_{strategy}")
    scheduler, expected = made(lr_scheduler, "linear"), made(lr_scheduler, strategy)
    scheduler.load_state_dict(saved)
    for each in (scheduler, expected):
        for _ in range(9):
            each.optimizer.step()
            each.step()
    assert scheduler.get_last_lr() == expected.get_last_lr()
    saved["anneal_func"] = print
    with pytest.raises(ValueError, match="_anneal_func_type"):
        scheduler.load_state_dict(saved)


# What torch's classes let a user set between steps: attributes, one after another.
SET_BY_HAND: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("StepLR", {"step_size": 2}, {"last_epoch": 3, "gamma": 0.5, "step_size": 3}),
    ("MultiStepLR", {"milestones": [3, 6]}, {"last_epoch": 2, "gamma": 0.5}),
    ("ConstantLR", {"total_iters": 3}, {"last_epoch": 2}),
    ("LinearLR", {"total_iters": 9}, {"last_epoch": 2, "total_iters": 12, "end_factor": 0.5}),
    ("ExponentialLR", {"gamma": 0.5}, {"last_epoch": 4, "gamma": 0.75}),
    ("PolynomialLR", {"total_iters": 9}, {"last_epoch": 3, "total_iters": 12, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 9}, {"last_epoch": 3, "T_max": 14, "eta_min": 0.01}),
    (
        "CosineAnnealingWarmRestarts",
        {"T_0": 4, "T_mult": 2},
        {"T_cur": 2, "T_i": 9, "eta_min": 0.01, "last_epoch": 1, "T_mult": 3},
    ),
    ("LambdaLR", {"lr_lambda": lambda t: 1 / (t + 1)}, {"last_epoch": 4, "base_lrs": [3.0, 2.0]}),
    (
        "OneCycleLR",
        {"max_lr": 1.0, "total_steps": 20, "cycle_momentum": False},
        {"last_epoch": 9, "total_steps": 30},
    ),
    (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 4, "cycle_momentum": False},
        {"last_epoch": 2, "max_lrs": [2.0, 3.0], "base_lrs": [0.2, 0.1], "total_size": 6.0},
    ),
    ("ReduceLROnPlateau", {"patience": 3}, {"num_bad_epochs": 3, "factor": 0.5, "best": 0.0}),
]


@pytest.mark.parametrize(("name", "options", "changes"), SET_BY_HAND, ids=lambda v: str(v)[:24])
def test_attributes_set_between_steps_take_effect(
    name: str, options: dict[str, Any], changes: dict[str, Any]
) -> None:
    seen: list[list[Any]] = []
    for library in (torch.optim.lr_scheduler, lr_scheduler):
        scheduler = getattr(library, name)(make_optimizer(), **options)
        seen.append([])
        for attribute, value in [(None, None), *changes.items()]:
            if attribute is not None:
                setattr(scheduler, attribute, value)
            for _ in range(2):
                scheduler.optimizer.step()
                scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
                seen[-1] += rates(scheduler.optimizer)
    assert seen[1] == pytest.approx(seen[0], rel=1e-12)
