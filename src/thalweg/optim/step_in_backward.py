"""Updating each parameter as soon as its gradient is there, and freeing the gradient.

The whole of a model's gradients then never exists at one time. Each parameter has an engine of its
own, whose groups and states are the optimizer's: counts, schedules and checkpoints are as without.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from thalweg.engine.engine import Engine, Measured
from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.state import OptimizerState
from thalweg.rule import Program, Rule
from thalweg.rule.symbols import SEVERAL

if TYPE_CHECKING:
    from thalweg.optim.optimizer import Optimizer


class StepsInBackward:
    """The hooks of :meth:`Optimizer.step_in_backward`.

    Args:
        optimizer: whose steps are made.
        model: its parameters get the hooks.

    Raises:
        ValueError: the optimizer holds a parameter that the model has not.
        RuntimeError: the update depends on other parameters' gradients, or is differentiable.
    """

    def __init__(self, optimizer: "Optimizer", model: torch.nn.Module) -> None:
        name = type(optimizer).__name__
        own = {id(p) for p in model.parameters()}
        held = [p for group in optimizer.param_groups for p in group["params"]]
        missing = [k for k, p in enumerate(held) if id(p) not in own]
        if missing:
            raise ValueError(
                f"{name}.step_in_backward: the optimizer holds {len(missing)} parameters that the "
                f"model has not, the first with number {missing[0]}, shape "
                f"{tuple(held[missing[0]].shape)}; pass the module that has all of them"
            )
        self._alone = [_Alone(optimizer, p) for p in {id(p): p for p in held}.values()]
        for each in self._alone:
            each.check()
        self._handles = [each.hook() for each in self._alone if each.param.requires_grad]

    @property
    def active(self) -> bool:
        """Whether the hooks are there."""
        return bool(self._handles)

    @property
    def measured(self) -> list[Measured]:
        """What the last step of each parameter has measured."""
        return [each for alone in self._alone for each in alone.engine.measured]

    def forget_engines(self) -> None:
        """Let the next step of each parameter make another engine."""
        for each in self._alone:
            each.forget_engine()

    def remove(self) -> None:
        """Take the hooks away: gradients are kept again, and ``step()`` uses them."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Alone:
    """An owner of one parameter, with the options and states of an optimizer."""

    def __init__(self, optimizer: "Optimizer", param: torch.Tensor) -> None:
        self.optimizer, self.param = optimizer, param
        self._view = _GroupOfOne(self._group(), param)
        self._engine: Engine | None = None

    def _group(self) -> dict[str, Any]:
        for group in self.optimizer.param_groups:
            if any(p is self.param for p in group["params"]):
                return group
        raise RuntimeError(
            f"{type(self.optimizer).__name__}: a parameter of shape {tuple(self.param.shape)} has "
            "left the optimizer, whose steps are made in the backward pass; call remove() of what "
            "step_in_backward has returned, and step_in_backward again"
        )

    def hook(self) -> Any:
        """Let the parameter be updated when its gradient has been accumulated."""
        register: Any = self.param.register_post_accumulate_grad_hook
        return register(self._step)

    def _step(self, param: torch.Tensor) -> None:
        with uninterrupted():  # or the next backward pass would add to a gradient that is used up
            self.engine.step()
            param.grad = None

    @property
    def engine(self) -> Engine:
        """The engine of this parameter."""
        if self._engine is None:
            self._engine = Engine(self.optimizer.step_rule, self)
        return self._engine

    def forget_engine(self) -> None:
        self._engine = None

    def check(self) -> None:
        """Raise where the update cannot be made in the backward pass."""
        name = type(self.optimizer).__name__
        if self._view.get("differentiable"):
            raise RuntimeError(
                f"{name}.step_in_backward: the group has differentiable=True, and autograd cannot "
                "record what it is carrying out; leave one of them out"
            )
        (slot,) = self.engine.look_at_slots()
        self.check_program(self.optimizer.step_rule, self.engine.preview(slot)[0])

    # ---- what the engine asks of an owner -----------------------------------------------------

    @property
    def param_groups(self) -> list[Any]:
        """The group with this parameter alone; another object where the optimizer's is."""
        if not any(group is self._view.group for group in self.optimizer.param_groups):
            self._view = _GroupOfOne(self._group(), self.param)
        return [self._view]

    @property
    def state(self) -> OptimizerState:
        return self.optimizer.state

    @property
    def fused(self) -> bool | None:
        return self.optimizer.fused

    def check_options(self, options: Mapping[str, Any]) -> None:
        self.optimizer.check_options(options)

    def sparse_gradient(self, options: Mapping[str, Any]) -> str:
        return self.optimizer.sparse_gradient(options)

    def dense_gradient(self, options: Mapping[str, Any]) -> None:
        self.optimizer.dense_gradient(options)

    def before_plan(self) -> None:
        self.optimizer.before_plan()

    def check_program(self, rule: Rule, program: Program) -> None:
        """Raise where the update depends on the gradients of other parameters."""
        sums = {r.detail for stage in program.stages for r in stage.reductions}
        wide = sorted(sums.intersection(SEVERAL))
        if wide:
            raise RuntimeError(
                f"{rule.name}: a sum over {wide[0]!r} needs the gradients of other parameters, "
                "which are not there together when steps are made in the backward pass; clip with "
                'over="tensor", and leave out nonfinite="skip" and "raise"'
            )


class _GroupOfOne(Mapping[str, Any]):
    """A parameter group as it is, but for its parameters, of which it shows one."""

    def __init__(self, group: dict[str, Any], param: torch.Tensor) -> None:
        self.group = group
        self._own: dict[str, Any] = {"params": [param]}
        names = group.get("param_names")
        if names:
            place = next(k for k, p in enumerate(group["params"]) if p is param)
            self._own["param_names"] = [names[place]]

    def __getitem__(self, key: str) -> Any:
        return self._own[key] if key in self._own else self.group[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.group)

    def __len__(self) -> int:
        return len(self.group)
