"""Creating the states that a parameter's program needs and the parameter does not have yet."""

from collections.abc import Iterable, Mapping

import torch

from thalweg.engine.formats import REAL_PARTS, Format, format_of
from thalweg.engine.layout import memory_order
from thalweg.engine.modes import outside_inference
from thalweg.engine.scalars import ScalarStates
from thalweg.engine.slots import Slot
from thalweg.engine.state import OptimizerState
from thalweg.rule import Program, Rule


@outside_inference
def prepare_state(
    rule: Rule, program: Program, slot: Slot, state: OptimizerState, scalars: ScalarStates
) -> None:
    """Create the states that the program uses and the parameter does not have yet.

    State tensors have the parameter's layout, and its dtype where the rule asks for no other; one
    of another layout (from a checkpoint of a contiguous model, say) is laid out anew. Under
    ``inference_mode`` they are ordinary tensors, too: later steps may be taken outside of it.
    """
    begun = slot.param in state
    slot.state = state[slot.param]
    fresh = not any(name in slot.state for name in ("step", *rule.states))
    if not begun or (fresh and (rule.counted or rule.kept_scalars)):
        scalars.begin(slot)
    elif not rule.counted and all(name in slot.state for name in _telling(rule, program)):
        # Without a saved count, a state that exists tells that this is not the first update.
        scalars.table[slot.index, 0] = max(scalars.table[slot.index, 0], 1.0)
    scalars.adopt(slot)
    for name in program.states:
        tensor = slot.state.peek(name)
        if tensor is None:
            if not rule.counted and name in _telling(rule, program):
                scalars.table[slot.index, 0] = 0.0
            value = rule.states[name].initial_value(slot.group)
            form = rule.states[name].format
            if form is None:
                tensor = _filled_like(slot.param, state_dtype(rule, name, slot), value)
                slot.state.put(name, tensor)
                continue
            for buffer, tensor in zip(form.buffers, form.create(slot.param, value), strict=True):
                slot.state.put(buffer.name(name), tensor)
            continue
        check_state(rule, name, slot, tensor)
        if memory_order(tensor) != memory_order(slot.param):
            like = torch.empty_like(slot.param, dtype=tensor.dtype, device=tensor.device)
            slot.state.put(name, like.detach().copy_(tensor))


def check_state(rule: Rule, name: str, slot: Slot, tensor: torch.Tensor) -> None:
    """Raise ``RuntimeError`` for a state tensor that cannot be the parameter's."""
    form, what = rule.states[name].format, f"{rule.name}: state {name!r} of {slot.name}"
    if tensor.shape != slot.param.shape:
        raise RuntimeError(
            f"{what} has shape {tuple(tensor.shape)}; it must have the parameter's. Delete the "
            "entry to start it anew"
        )
    if tensor.device != slot.param.device:
        raise RuntimeError(
            f"{what} is on {tensor.device}, the parameter on {slot.param.device}; move one of "
            "them, or delete the entry to start it anew"
        )
    if form is None and tensor.is_complex() != slot.param.is_complex():
        raise RuntimeError(
            f"{what} is {tensor.dtype}, the parameter {slot.param.dtype}; both must be complex, or "
            "neither. Delete the entry to start it anew"
        )
    if form is None and not (tensor.is_floating_point() or tensor.is_complex()):
        raise RuntimeError(
            f"{what} is {tensor.dtype}, which cannot hold it; it must be a floating-point dtype. "
            "Delete the entry to start it anew"
        )
    if form is not None and memory_order(tensor) != memory_order(slot.param):
        raise RuntimeError(
            f"{what} is stored in blocks along the memory of another layout than the parameter's. "
            "Delete the entry to start it anew"
        )


def formats_of(
    rule: Rule,
    slot: Slot,
    gradient: torch.Tensor,
    states: Mapping[str, torch.Tensor],
    names: Iterable[str],
) -> dict[str, Format | None]:
    """How ``p``, ``g`` and some states are stored, or will be; None where no format knows.

    Args:
        rule: the rule.
        slot: the parameter.
        gradient: its gradient.
        states: the states that there are.
        names: of the states.
    """
    found: dict[str, Format | None] = {
        "p": format_of(slot.param.dtype),
        "g": format_of(gradient.dtype),
    }
    for name in names:
        tensor = states.get(name)
        dtype = state_dtype(rule, name, slot) if tensor is None else tensor.dtype
        found[name] = rule.states[name].format or format_of(dtype)
    return found


def state_dtype(rule: Rule, name: str, slot: Slot) -> torch.dtype:
    """The dtype that a parameter's new state tensor gets."""
    own = slot.param.dtype
    return rule.states[name].stored_dtype(slot.group, own) or own


def _telling(rule: Rule, program: Program) -> list[str]:
    """The states whose absence tells that a parameter was never updated."""
    return [name for name in program.states if not rule.states[name].late]


def _filled_like(param: torch.Tensor, dtype: torch.dtype, value: float) -> torch.Tensor:
    tensor = torch.zeros_like(param.detach(), dtype=dtype, memory_format=torch.preserve_format)
    if value:
        (torch.view_as_real(tensor) if dtype in REAL_PARTS else tensor).fill_(value)
    return tensor
