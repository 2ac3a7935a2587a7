"""What may be updated, by which back end, and why not by another."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from thalweg.engine.backends import chain, find
from thalweg.engine.backends.base import Backend, Subject
from thalweg.engine.slots import Group, Slot
from thalweg.rule import Rule

# Where torch has fused kernels of its own.
TORCH_FUSES = ("cpu", "cuda", "hpu", "mps", "mtia", "xpu", "privateuseone")


class GradientPolicy(Protocol):
    """What an optimizer says about kinds of gradients."""

    def sparse_gradient(self, options: Group) -> str:
        """``"rows"`` to update the rows present, ``"dense"`` to fill the others with zeros."""

    def dense_gradient(self, options: Group) -> None:
        """Raise where a dense gradient is not supported."""


@dataclass(frozen=True)
class Choice:
    """How one parameter is updated, and why.

    Attributes:
        backend: the back end's name.
        reason: why this one.
    """

    backend: str
    reason: str


# Of parameters whose operands overlap with others: torch's operations, one parameter at a time.
OVERLAPPING = find("eager"), Choice("eager", "its memory overlaps with that of another operand")


def check_gradient(rule: Rule, owner: GradientPolicy, slot: Slot, g: torch.Tensor) -> None:
    """Refuse what cannot be updated, before anything is changed.

    Raises:
        RuntimeError: the parameter is no number, or an inference tensor; the gradient is on another
            device, of another shape, complex where the parameter is not, or of a layout that the
            optimizer does not take.
    """
    p, name, what = slot.param, rule.name, slot.gradient_name
    if not (p.is_floating_point() or p.is_complex()):
        raise RuntimeError(
            f"{name}: {slot.name} is {p.dtype}; only floating-point and complex parameters "
            "can be updated. Convert it, or leave it out of the optimizer"
        )
    if p.is_inference() and not torch.is_inference_mode_enabled():
        # torch's operations raise after they have written.
        raise RuntimeError(
            f"{name}: {slot.name} is an inference tensor, and inplace update to inference tensor "
            "outside InferenceMode is not allowed. Make a clone to get a normal tensor"
        )
    if g.device != p.device:
        raise RuntimeError(
            f"{name}: {what} is on {g.device}, the parameter on {p.device}; move one of them"
        )
    if g.shape != p.shape:
        raise RuntimeError(
            f"{name}: {what} has shape {tuple(g.shape)}; it must be the parameter's. "
            + ("Set it to None and run backward again" if slot.value is None else "Replace it")
        )
    if g.is_complex() != p.is_complex():
        raise RuntimeError(
            f"{name}: {what} is {g.dtype}, the parameter {p.dtype}; both must be complex, or "
            "neither. Convert one of them"
        )
    if g.is_sparse:
        if owner.sparse_gradient(slot.group) == "rows" and rule.every_row:
            raise RuntimeError(
                f"{name}: {what} is sparse, and would leave out the rows that it does not "
                "hold, which the rule changes too (a carried average does). Use dense "
                "gradients, or no carried average"
            )
    elif g.layout is torch.strided:
        owner.dense_gradient(slot.group)
    else:
        raise RuntimeError(
            f"{name}: {what} has layout {g.layout}; only dense and sparse COO tensors can be "
            "used. Call .to_dense() on it"
        )


def choose(rule: Rule, subject: Subject) -> tuple[Backend, Choice]:
    """The back end for a parameter: the first of those it may use that nothing keeps from it.

    ``fused=True`` asks for the best there is. ``fused=False`` asks for no kernel: the rule then
    runs on one tensor after another, or with ``foreach=True`` on lists of them.

    Raises:
        RuntimeError: ``fused=True``, and there is a kernel neither here nor in torch.
    """
    slot = subject.slot
    obstacles: list[str] = []
    for backend in chain():
        if (unwanted := _unwanted(backend.name, slot)) is not None:
            obstacles.append(unwanted)
            continue
        obstacle = backend.obstacle(subject)
        if obstacle is None:
            if backend.name == "cpu":
                return backend, Choice(backend.name, backend.reason)
            return backend, Choice(backend.name, obstacles[0] if obstacles else backend.reason)
        if backend.name == "cpu" and slot.fused and not _may_be_fused(slot):
            raise RuntimeError(
                f"{rule.name}: fused=True, but {slot.name} has no kernel: {obstacle}. Use "
                "fused=None to let it run without"
            )
        obstacles.append(obstacle)
    raise AssertionError("eager takes everything")


def _may_be_fused(slot: Slot) -> bool:
    """Whether torch's own classes take ``fused=True`` for a parameter."""
    device = slot.param.device.type
    return device in TORCH_FUSES and not slot.group.get("differentiable")


def warn_of_no_kernel(rule: Rule, choices: Iterable[tuple[Slot, Choice]]) -> None:
    """Warn where ``fused=True`` was asked for and the best there is is no kernel."""
    for reason in {c.reason for slot, c in choices if slot.fused and c.backend != "cpu"}:
        warnings.warn(
            f"{rule.name}: fused=True, but there is no kernel where {reason}; torch's operations "
            "do it",
            UserWarning,
            stacklevel=2,
        )


def _unwanted(backend: str, slot: Slot) -> str | None:
    """Why a parameter's options rule a back end out; None if they do not."""
    if backend == "cpu" and slot.fused is False:
        return "fused=False"
    if backend == "foreach" and slot.group.get("foreach") is False:
        return "foreach=False"
    return None
