"""A slot for each parameter: its group, its gradient, its state tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from thalweg.engine.formats import REAL_PARTS, Format
from thalweg.engine.state import ParameterState

Group = Mapping[str, Any]
Values = Sequence[Sequence[torch.Tensor]]


@dataclass(frozen=True)
class GradientKind:
    """What a plan depends on of a gradient.

    Attributes:
        dtype: of its elements.
        sparse: it has the COO layout.
        rows: it is sparse, and only the rows that it holds are updated.
    """

    dtype: torch.dtype
    sparse: bool = False
    rows: bool = False


class Slot:
    """One parameter of the owner.

    Attributes:
        index: its number among all parameters, and its row in :class:`ScalarStates`.
        group, name: its group and how to call it in messages.
        param: the parameter.
        value: the rule's second operand where the owner gives one, or None: the gradient.
        state: its entry of ``optimizer.state``.
        kind: of the gradient that it had last; None before the first.
        formats: how each operand is stored, once a unit is planned for it.
    """

    __slots__ = ("_fused", "formats", "group", "index", "kind", "name", "param", "state", "value")

    def __init__(
        self,
        index: int,
        group: Group,
        param: torch.Tensor,
        name: str,
        value: torch.Tensor | None,
        fused: bool | None,
    ) -> None:
        self._fused = fused
        self.index = index
        self.group = group
        self.param = param
        self.name = name
        self.value = value
        self.state: ParameterState | None = None
        self.kind: GradientKind | None = None
        self.formats: Mapping[str, Format] = {}

    @property
    def fused(self) -> bool | None:
        """The option of its group, or the owner's where the group has none."""
        fused: bool | None = self.group.get("fused", self._fused)
        return fused

    @property
    def gradient(self) -> torch.Tensor | None:
        """The rule's second operand as it is now: the given value, or the gradient if any."""
        return self.param.grad if self.value is None else self.value

    @property
    def numbers(self) -> int:
        """How many real numbers the parameter has: two for each complex element."""
        return self.param.numel() * (2 if self.param.dtype in REAL_PARTS else 1)

    def tensor(self, operand: str) -> torch.Tensor:
        """The parameter (``"p"``) or one of its state tensors, by the name of the buffer."""
        if operand == "p":
            return self.param
        assert self.state is not None
        found: torch.Tensor = self.state.peek(operand)
        return found

    def buffers(self, operand: str) -> list[torch.Tensor]:
        """The tensors that an operand is stored in, the main one first."""
        names = [buffer.name(operand) for buffer in self.formats[operand].buffers]
        return [self.tensor(name) for name in names]

    @property
    def gradient_name(self) -> str:
        """How to call the second operand in messages."""
        return f"the {'gradient' if self.value is None else 'value'} of {self.name}"


def slots_of(
    groups: Sequence[Group], values: Values | None = None, fused: bool | None = None
) -> list[Slot]:
    """A slot for each parameter, once.

    Args:
        groups: the owner's.
        values: parallel to the groups' parameters; None: their gradients.
        fused: the option of groups that do not give it.
    """
    slots: list[Slot] = []
    seen: set[int] = set()
    for number, group in enumerate(groups):
        names = group.get("param_names")
        for k, param in enumerate(group["params"]):
            if id(param) in seen:  # the optimizer has warned of the duplicate
                continue
            seen.add(id(param))
            place = f"parameter {k} of group {number}"
            name = f"{place} ({names[k]!r})" if names else place
            name = f"{name}, shape {tuple(param.shape)}"
            value = None if values is None else values[number][k]
            slots.append(Slot(len(slots), group, param, name, value, fused))
    return slots
