"""Where a program of a loss is meant to end otherwise than on torch, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz.apart import Died, Outcome, Raised, Returned
from tests.fuzz.losses import CALLS, Program

CHANGED = "modified by an inplace operation"
OTHER_SIZES = ("fewer", "one")  # hooks that bring back something else than they were given
UNABLE = (
    "not implemented for 'BFloat16'",
    "Trying to use forward AD",
    "Batching rule not implemented",
    "derivative for",
)


UNWRITTEN = ("multi_margin_loss", "multilabel_margin_loss")


class Case(NamedTuple):
    """A program with what became of it."""

    program: Program
    ours: Outcome
    torchs: Outcome

    def only_torch_raises(self, *words: str) -> bool:
        """Whether torch raises with one of these words in its message, and thalweg returns."""
        return isinstance(self.ours, Returned) and _says(self.torchs, *words)

    def only_we_raise(self, *words: str) -> bool:
        """Whether thalweg raises so, and torch returns."""
        return isinstance(self.torchs, Returned) and _says(self.ours, *words)

    def both_return(self) -> bool:
        return isinstance(self.ours, Returned) and isinstance(self.torchs, Returned)


def _says(outcome: Outcome, *words: str) -> bool:
    return isinstance(outcome, Raised) and any(word in outcome.message for word in words)


def _without_its_weight(c: Case) -> bool:
    call = CALLS[c.program.call]
    modes = c.program.modes
    return call.name == "l1_loss" and "weight" in call.operands and "default_device" in modes


def _hook_of_other_sizes(c: Case) -> bool:
    return c.program.hook in OTHER_SIZES and c.program.use not in SINGLE


# Uses that do not run within hooks.
SINGLE = ("jacobian", "vmap", "jacrev", "hessian", "functionalize")

KNOWN: dict[str, Callable[[Case], bool]] = {
    "torch itself dies": lambda c: isinstance(c.torchs, Died),
    "torch's l1_loss forgets the weight in a torch function mode": _without_its_weight,
    "torch has no kernel or derivative of it": lambda c: c.only_torch_raises(*UNABLE),
    "torch's gradients do not fit what the hook brought back; ours refuse it, or need it not": (
        lambda c: _hook_of_other_sizes(c) and c.only_torch_raises("")
    ),
    "torch computes with what the hook brought back if it broadcasts; ours refuse it": (
        lambda c: _hook_of_other_sizes(c) and _says(c.ours, "came back as")
    ),
    "a sum's gradients are those of its forward pass, whatever a hook brings back": (
        lambda c: _hook_of_other_sizes(c) and c.both_return()
    ),
    "with hooks torch does not notice a change, and computes with what is there": (
        lambda c: c.program.hook is not None and c.program.between == "in_place" and c.both_return()
    ),
    "within vmap over nothing, torch does not divide by a number": lambda c: (
        c.program.rows == 0 and c.program.use == "hessian" and _says(c.ours, "index 0 out")
    ),
    "the mean of nothing is NaN, which ours meet once more on the way to second derivatives": (
        lambda c: c.program.rows == 0 and c.only_we_raise("returned nan values")
    ),
    "torch's value of no rows is memory that nobody wrote": (
        lambda c: c.program.rows == 0 and c.program.call.startswith(UNWRITTEN) and c.both_return()
    ),
    "torch's nll_loss does not take every layout": (
        lambda c: c.only_torch_raises("must be contiguous")
    ),
    "torch's constant gradient has no graph; the derivatives of ours are zero": (
        lambda c: c.program.use == "double" and c.only_torch_raises("does not require grad")
    ),
    "ours keep operands where torch keeps what it made of them": (
        lambda c: c.program.between.endswith("in_place") and c.only_we_raise(CHANGED)
    ),
    "torch takes views of negated views in forward mode": (
        lambda c: c.only_torch_raises("has_fw_view")
    ),
    "torch's jacrev divides by the number of elements": (
        lambda c: c.program.rows == 0 and c.only_torch_raises("division by zero")
    ),
    "what is saved within inference mode": lambda c: (
        "inference" in c.program.modes
        and (c.only_torch_raises("Inference tensors") or c.only_we_raise("Inference tensors"))
    ),
}


def known(program: Program, ours: Outcome, torchs: Outcome) -> str | None:
    """Why the two differ on purpose, if they may."""
    case = Case(program, ours, torchs)
    return next((reason for reason, holds in KNOWN.items() if holds(case)), None)
