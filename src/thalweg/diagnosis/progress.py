"""What a step changes, and whether the scheduler keeps pace."""

import copy
from collections.abc import Iterator
from typing import Any

import torch

from thalweg.diagnosis.finding import Finding, parameters, some
from thalweg.diagnosis.settings import NARROW
from thalweg.diagnosis.setup import Setup

# From this share on, elements that a step leaves as they are count as a mistake.
LOST = 0.5


def lost_updates(setup: Setup) -> Iterator[Finding]:
    """Elements whose update is below half a unit in the last place; a copy is stepped."""
    held = [p for p, _ in setup.held() if p.grad is not None and p.grad.layout is torch.strided]
    narrow = [p for p in held if p.dtype in NARROW]
    if not narrow:
        return
    optimizer, copies = _copied(setup, held)
    optimizer.step()
    names, shares = [], []
    for p in narrow:
        assert p.grad is not None
        moving = torch.ne(p.grad, 0)
        stayed = torch.eq(copies[id(p)].detach(), p.detach()) & moving
        share = float(stayed.sum()) / max(1, int(moving.sum()))
        if share > LOST:
            names.append(setup.name_of(p))
            shares.append(share)
    if names:
        yield Finding(
            "lost_updates",
            f"a step leaves {max(shares):.0%} of the elements of {names[0]} as they are, though "
            f"they have a gradient: updates of {parameters(len(names))} {some(names)} "
            "are too small for their dtype; keep float32 parameters and compute under "
            "torch.autocast",
        )


def _copied(setup: Setup, held: list[torch.Tensor]) -> tuple[Any, dict[int, torch.Tensor]]:
    """A copy of the optimizer, and its parameters by the ids of those they are copies of."""
    known: dict[int, Any] = {}
    gradients = {id(p): p.grad for p in held}
    optimizer = copy.deepcopy(setup.optimizer, known)
    copies = {key: known[key] for key in gradients}
    for key, g in gradients.items():
        copies[key].grad = g.clone() if g is not None else None
    return optimizer, copies


def used_in_backward(setup: Setup) -> Iterator[Finding]:
    """Hooks that may use up a gradient before the step sees it."""
    names = [
        found.name
        for found in setup.parameters
        if getattr(found.parameter, "_post_accumulate_grad_hooks", None)
    ]
    if names:
        yield Finding(
            "used_in_backward",
            f"hooks of {parameters(len(names))} run in the backward pass {some(names)}: "
            "where these update or drop the gradient, clipping after backward changes nothing; "
            "clip in the hook, each gradient by itself",
            wrong=False,
        )


def scheduler_of_another(setup: Setup) -> Iterator[Finding]:
    """A scheduler that sets the rates of another optimizer."""
    target = getattr(setup.scheduler, "optimizer", setup.optimizer)
    # Wrappers, as trainers have them, hand their optimizer's groups on.
    if target is not setup.optimizer and (
        getattr(target, "param_groups", None) is not setup.optimizer.param_groups
    ):
        yield Finding(
            "scheduler_of_another",
            "the scheduler sets the rates of another optimizer; make it anew after the optimizer",
        )


def scheduler_ahead(setup: Setup) -> Iterator[Finding]:
    """A scheduler that was stepped more often than the optimizer."""
    steps = getattr(setup.scheduler, "last_epoch", None)
    updates = _updates(setup.optimizer)
    if not isinstance(steps, int) or not updates or steps <= updates + 1:
        return
    times, rest = divmod(steps, updates)
    why = (
        f"{times} times as often, as by a trainer that steps it once for each of {times} processes"
        if times > 1 and rest == 0
        else "before the optimizer, for steps that were skipped, or more than once each"
    )
    yield Finding(
        "scheduler_ahead",
        f"the scheduler has made {steps} steps and the optimizer {updates} updates: it is stepped "
        f"{why}; step it once after each update",
    )


def _updates(optimizer: Any) -> int:
    """The number of updates made, to the parameter that had most; 0 where that is not known."""
    counts = [
        float(entry["step"])
        for entry in optimizer.state.values()
        if isinstance(entry, dict) and "step" in entry
    ]
    return int(max(counts, default=0)) or int(getattr(optimizer, "step_count", 0))


CHECKS = (lost_updates, used_in_backward, scheduler_of_another, scheduler_ahead)
