"""What taking a state dict over needs of an optimizer that is given by a rule."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from thalweg.ranges import Ranges
from thalweg.rule import Rule, Transform

if TYPE_CHECKING:
    from thalweg.optim.state_dict.form import Groups, Saved
    from thalweg.optim.state_dict.matching import Match
    from thalweg.optim.state_dict.values import Entry, Misfits

Hooks = Mapping[int, Callable[..., Any]]


@runtime_checkable
class ChecksStates(Protocol):
    """An optimizer that checks the states of a state dict itself, as all of thalweg's do."""

    def checked_states(
        self, saved: "Saved", matched: "Match", groups: "Groups", misfits: "Misfits"
    ) -> "dict[torch.Tensor, Entry]":
        """The states that a state dict brings for each parameter; changes nothing."""


def checks_states(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer knows what states it has: by its rule, or by a method of its own.

    A class that is written by hand, with its own ``step``, does not.
    """
    from thalweg.optim.optimizer import Optimizer  # which stands above this

    return isinstance(optimizer, ChecksStates) and (
        hasattr(optimizer, "rule")
        or getattr(type(optimizer), "checked_states", None) is not Optimizer.checked_states
    )


class Owner(ChecksStates, Protocol):
    """An optimizer of thalweg's; see :class:`thalweg.optim.Optimizer`."""

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    @property
    def _optimizer_load_state_dict_pre_hooks(self) -> Hooks: ...

    @property
    def _optimizer_load_state_dict_post_hooks(self) -> Hooks: ...

    @property
    def state(self) -> Mapping[Any, Any]: ...

    @property
    def ranges(self) -> Ranges: ...

    @property
    def composed_rule(self) -> Rule: ...

    @property
    def added_transforms(self) -> Sequence[Transform]: ...

    @property
    def all_transforms(self) -> Sequence[Transform]: ...

    def normalize_options(self, group: dict[str, Any]) -> None: ...

    def check_options(self, group: Mapping[str, Any]) -> None: ...

    def forget_engine(self) -> None: ...

    def __setstate__(self, state: dict[str, Any]) -> None: ...
