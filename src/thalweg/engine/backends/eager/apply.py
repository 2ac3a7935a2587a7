"""A rule called with tensors, as it stands: for what is computed beside a step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from thalweg.engine.backends.lowering.operands import real_parts
from thalweg.rule.operations import eager_dtype
from thalweg.rule.scalars import Number
from thalweg.rule.tracer import item_name, resolve

if TYPE_CHECKING:
    from thalweg.rule import Rule

Result = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, Any]]


def apply(
    rule: "Rule",
    p: torch.Tensor,
    g: torch.Tensor,
    states: Mapping[str, torch.Tensor],
    options: Mapping[str, Any],
    row: Mapping[str, Any],
) -> Result:
    """Run the rule on one parameter and return its new value, new state tensors and scalar states.

    Nothing is changed in place. Arithmetic is in the kernels' compute type: float32 for operands
    stored in 16 or 32 bits, float64 if any operand is float64.

    Args:
        rule: the rule.
        p: the parameter.
        g: its gradient, of the same shape.
        states: its state tensors.
        options: its group's options.
        row: ``step`` (that of this update) and the scalar states.
    """
    tensors = {"p": p, "g": g, **states}
    real = {name: real_parts(t) for name, t in tensors.items()}
    wide = any(t.dtype is torch.float64 for t in real.values())
    compute = torch.float64 if wide else torch.float32
    operands = {name: t.to(compute) for name, t in real.items()}
    s = EagerStates(rule, operands, row)
    before = eager_dtype.get()
    try:
        eager_dtype.set(compute)
        h = EagerHyperparameters(rule.name, options, row["step"])
        new = rule.update(operands["p"], operands["g"], s, h)
    finally:
        eager_dtype.set(before)
    if not isinstance(new, torch.Tensor):
        raise TypeError(f"{rule.name}: the rule must return the parameter's new value, got {new!r}")

    def own(value: Any, like: torch.Tensor) -> torch.Tensor:
        # What a rule hands on as it is (s.prev = g) must not change when the other is stored.
        handed_on = any(value is t for t in operands.values())
        value = (
            value.clone()
            if handed_on
            else torch.as_tensor(value, dtype=compute, device=like.device)
        )
        return stored_like(value, like)

    stored = {name: own(value, tensors[name]) for name, value in s._assigned_tensors.items()}
    return own(new, p), stored, s._assigned_scalars


class EagerHyperparameters:
    """``h`` on an eager run: numbers and switches as they are, tensors as tensors."""

    def __init__(self, rule: str, options: Mapping[str, Any], step: Any) -> None:
        self._rule = rule
        self._options = options
        self.step = Number(step)

    def __getattr__(self, name: str) -> Any:
        key, index = resolve(self._rule, name, self._options)
        value = self._options[key] if index is None else self._options[key][index]
        if isinstance(value, (tuple, list)):
            return tuple(getattr(self, item_name(key, i)) for i in range(len(value)))
        if isinstance(value, torch.Tensor):
            # 0-d: a lr of shape [1] must not reshape a 0-d parameter. Float64: so are the scalars
            # of a kernel, and a 0-d tensor leaves the dtype of the others as it is.
            value = value.reshape(())
            return value if value.device.type == "mps" else value.double()
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return Number(value) if is_number else value


class EagerStates:
    """``s`` on an eager run: what is assigned is kept aside until the update is whole.

    Takes all operands, and the row of scalar states.
    """

    def __init__(
        self, rule: "Rule", operands: Mapping[str, torch.Tensor], row: Mapping[str, Any]
    ) -> None:
        set_ = super().__setattr__
        set_("_rule", rule)
        numbers = {key: Number(value) for key, value in row.items()}
        set_("_given", {**numbers, **operands})
        set_("_assigned_tensors", {})
        set_("_assigned_scalars", {})

    def __getattr__(self, name: str) -> Any:
        self._rule.check_state(name)
        for values in (self._assigned_tensors, self._assigned_scalars, self._given):
            if name in values:
                return values[name]
        # The traced program found no use for it, so it was not prepared, and any value will do.
        return torch.zeros_like(self._given["p"])

    def __setattr__(self, name: str, value: Any) -> None:
        self._rule.check_state(name)
        scalar = self._rule.states[name].scalar
        (self._assigned_scalars if scalar else self._assigned_tensors)[name] = value


def stored_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Numbers rounded to another tensor's dtype, in its shape."""
    if like.is_complex():
        parts = value.to(like.dtype.to_real()).expand(*like.shape, 2)
        return torch.view_as_complex(parts.contiguous())
    return value.to(like.dtype).expand(like.shape)
