"""ScheduledHyperparameters: any option, any group, set outright and resumed exactly."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import thalweg.optim as ours
from thalweg.optim.lr_scheduler import ScheduledHyperparameters
from thalweg.schedules import Constant, Cosine, Linear, Step, Table, Warmup

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

NAMESPACES = pytest.mark.parametrize("optim", [ours, torch.optim], ids=["thalweg", "torch"])


def adamw(optim: Any = ours, **options: Any) -> Any:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for p in params:
        p.grad = torch.full_like(p, 0.5)
    return optim.AdamW([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}], **options)


@NAMESPACES
def test_every_option_of_every_group_follows_its_schedule(optim: Any) -> None:
    optimizer = adamw(optim, betas=(0.9, 0.95))
    decay = Step(3, 0.5, start=0.1)
    scheduler = ScheduledHyperparameters(
        optimizer,
        lr=[0.1 * Warmup(4), 0.2 * Cosine(1, 0, 8)],
        weight_decay=decay,
        betas=(Linear(0.8, 0.9, 8), None),
        eps=1e-6,
    )
    for t in range(12):
        first, second = optimizer.param_groups
        assert (first["lr"], second["lr"]) == ((0.1 * Warmup(4))(t), (0.2 * Cosine(1, 0, 8))(t))
        for group in (first, second):
            assert group["weight_decay"] == decay(t)
            assert group["betas"] == (Linear(0.8, 0.9, 8)(t), 0.95)
            assert group["eps"] == 1e-6
        assert scheduler.last_epoch == t
        assert scheduler.get_last_lr() == [first["lr"], second["lr"]]
        optimizer.step()
        scheduler.step()


def test_a_group_can_be_left_alone() -> None:
    optimizer = adamw(weight_decay=0.3)
    scheduler = ScheduledHyperparameters(optimizer, weight_decay=[None, Linear(0, 1, 4)])
    optimizer.step()
    scheduler.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.25]
    assert scheduler.get_last_lr() == [1e-3, 0.5]


def test_the_step_uses_what_was_scheduled() -> None:
    scheduled, by_hand = adamw(), adamw()
    scheduler = ScheduledHyperparameters(
        scheduled, lr=Cosine(0.1, 0.01, 5), weight_decay=Linear(0, 0.5, 5), betas=(0.7, None)
    )
    for t in range(8):
        for group in by_hand.param_groups:
            group["lr"], group["weight_decay"] = Cosine(0.1, 0.01, 5)(t), Linear(0, 0.5, 5)(t)
            group["betas"] = (0.7, 0.999)
        scheduled.step()
        by_hand.step()
        scheduler.step()
    for group, other in zip(scheduled.param_groups, by_hand.param_groups, strict=True):
        assert torch.equal(group["params"][0], other["params"][0])


def test_momentum_of_sgd() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = ours.SGD([p], lr=0.1, momentum=0.5)
    scheduler = ScheduledHyperparameters(optimizer, momentum=Table((0.5, 0.7, 0.9)))
    seen = [optimizer.param_groups[0]["momentum"]]
    for _ in range(2):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["momentum"])
    assert seen == [0.5, 0.7, 0.9]


def test_tensors_stay_the_same_objects() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    lr, betas = torch.tensor(0.1), (torch.tensor(0.9), torch.tensor(0.99))
    optimizer = ours.Adam([p], lr=lr, betas=betas)
    ScheduledHyperparameters(optimizer, lr=0.25, betas=(0.5, None))
    (group,) = optimizer.param_groups
    assert group["lr"] is lr
    assert lr == 0.25
    assert group["betas"][0] is betas[0]
    assert betas[0] == 0.5
    assert betas[1] == 0.99


def build(optimizer: Any) -> ScheduledHyperparameters:
    return ScheduledHyperparameters(
        optimizer,
        lr=[0.1 * Warmup(5).then(Cosine(1, 0, 20)), 0.3 * Step(7)],
        weight_decay=Linear(0.1, 0.0, 30),
        betas=(Linear(0.8, 0.95, 40), 0.99),
    )


def options(optimizer: Any) -> list[tuple[Any, ...]]:
    return [(g["lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups]


def go_on(optimizer: Any, scheduler: Any, steps: int) -> list[Any]:
    found = []
    for _ in range(steps):
        found.append(options(optimizer))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "before it is built"])
def test_resumed_at_every_step(order: str) -> None:
    optimizer = adamw()
    scheduler = build(optimizer)
    whole = go_on(optimizer, scheduler, 60)
    optimizer = adamw()
    scheduler = build(optimizer)
    for k in range(60):
        saved = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
        fresh = adamw()
        if order == "before it is built":
            fresh.load_state_dict(saved[0])
        again = build(fresh)
        if order == "optimizer first":
            fresh.load_state_dict(saved[0])
        again.load_state_dict(saved[1])
        if order == "scheduler first":
            fresh.load_state_dict(saved[0])
        assert go_on(fresh, again, 60 - k) == whole[k:]
        go_on(optimizer, scheduler, 1)


def test_last_epoch_goes_on_after_it() -> None:
    optimizer = adamw()
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    scheduler = ScheduledHyperparameters(optimizer, last_epoch=3, lr=Linear(1, 0, 10))
    assert scheduler.last_epoch == 4
    assert optimizer.param_groups[0]["lr"] == Linear(1, 0, 10)(4)


def test_state_dict_is_plain_and_pickles() -> None:
    optimizer = adamw()
    scheduler = build(optimizer)
    pickle.loads(pickle.dumps(scheduler.state_dict()))
    again = pickle.loads(pickle.dumps(scheduler))
    assert again.schedules == scheduler.schedules
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)


BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("nothing", {}, ValueError, "no hyperparameter"),
    ("unknown", {"weight_decy": 0.1}, ValueError, "weight_decy.*did you mean weight_decay"),
    ("not there", {"momentum": 0.1}, ValueError, "momentum is no option"),
    ("params", {"params": 0.1}, ValueError, "params is no option"),
    ("bool option", {"amsgrad": 1.0}, ValueError, "amsgrad is False"),
    ("none option", {"foreach": 1.0}, ValueError, "foreach is None"),
    ("number for a tuple", {"betas": 0.9}, ValueError, "betas is a tuple of 2"),
    ("short tuple", {"betas": (0.9,)}, ValueError, "betas is a tuple of 2"),
    ("short list", {"lr": [0.1]}, ValueError, "lr has 1 entries for 2"),
    ("a function", {"lr": lambda t: 0.1}, TypeError, "lr must be a Schedule"),
    ("text", {"lr": "0.1"}, TypeError, "lr must be a Schedule"),
    ("true", {"lr": True}, TypeError, "lr must be a Schedule"),
    ("out of range", {"lr": -0.1}, ValueError, "lr must be >= 0, got -0.1"),
    ("beta out of range", {"betas": (1.0, None)}, ValueError, r"betas\[0\] must be"),
    ("second of two", {"weight_decay": 0.5, "eps": -1.0}, ValueError, "eps must be >= 0"),
]


@pytest.mark.parametrize(
    ("plans", "kind", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input_changes_nothing(
    plans: dict[str, Any], kind: type[Exception], message: str
) -> None:
    optimizer = adamw()
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(kind, match=message):
        ScheduledHyperparameters(optimizer, **plans)
    assert [dict(group) for group in optimizer.param_groups] == before
    assert "step" not in vars(optimizer)


def test_a_value_that_is_refused_later_changes_nothing() -> None:
    optimizer = adamw()
    scheduler = ScheduledHyperparameters(
        optimizer, weight_decay=Linear(0.5, 0, 4), lr=Linear(0.1, -0.1, 4)
    )
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    before, state = options(optimizer), scheduler.state_dict()
    with pytest.raises(ValueError, match="lr must be >= 0"):
        scheduler.step()
    assert options(optimizer) == before
    assert scheduler.state_dict() == state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("schedules"), "schedules"),
        (lambda s: s.update(schedules=[["lr"], ["lr"]]), "schedules"),
        (lambda s: s.update(_last_lr=[0.1]), "1 parameter groups"),
        (lambda s: s.update(step_size=3), "another scheduler"),
        (lambda s: s.update(_class="StepLR"), "StepLR"),
    ],
)
def test_another_state_dict_is_refused(change: Callable[[Any], Any], message: str) -> None:
    optimizer = adamw()
    scheduler = build(optimizer)
    saved, before = scheduler.state_dict(), options(optimizer)
    change(saved)
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(saved)
    assert options(optimizer) == before
    assert scheduler.last_epoch == 0


def test_group_added_later() -> None:
    optimizer = adamw()
    scheduler = ScheduledHyperparameters(optimizer, lr=Constant(0.1))
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    optimizer.step()
    with pytest.raises(ValueError, match="3 parameter groups"):
        scheduler.step()


def test_stepping_first_warns() -> None:
    scheduler = ScheduledHyperparameters(adamw(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheduler.step()
    assert ["Detected call of" in str(w.message) for w in caught] == [True]
    assert caught[0].filename == __file__
