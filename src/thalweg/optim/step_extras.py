"""What a step does beside the update: non-finite gradients, measures, scaled gradients."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from thalweg.engine.interrupts import uninterrupted
from thalweg.engine.sums import VetoedError
from thalweg.names import nearest
from thalweg.optim.clearing import Clearable
from thalweg.optim.measured import Measures
from thalweg.optim.scaling import SCALE, UNSCALED, handed_over
from thalweg.ranges import flag, one_of
from thalweg.rule import Transform
from thalweg.transforms.clearing import CLEARED
from thalweg.transforms.measuring import SUMS, measuring
from thalweg.transforms.nonfinite import CHOICES, nonfinite_gradients

if TYPE_CHECKING:
    from thalweg.engine.engine import Engine
    from thalweg.engine.slots import Slot
    from thalweg.optim.optimizer import Optimizer
    from thalweg.optim.step_in_backward import StepsInBackward

NAMED = 3  # parameters that a message names


class StepExtras:
    """The part of an optimizer that puts more than its transforms around the rule.

    The sums and decisions become part of the optimizer's kernels, like transforms; but they are no
    options of the groups, and no checkpoint has them.

    Attributes:
        skipped_steps: how many steps were left out, by ``nonfinite="skip"`` or by a scaler.
    """

    param_groups: list[dict[str, Any]]
    skipped_steps: int = 0
    _nonfinite: str = "propagate"
    _measure: tuple[str, ...] = ()
    _zero_grad_after: bool = False
    _clearable: Clearable
    _unscales: bool = False
    _in_backward: "StepsInBackward | None" = None

    if TYPE_CHECKING:  # the optimizer's

        @property
        def _engine(self) -> Engine: ...

        @property
        def _name(self) -> str: ...

        def forget_engine(self) -> None: ...

    @property
    def nonfinite(self) -> str:
        """What becomes of a step with a gradient that is not finite; may be set between steps."""
        return self._nonfinite

    @nonfinite.setter
    def nonfinite(self, choice: str) -> None:
        one_of(self._name, "nonfinite", choice, CHOICES)
        self._check_rule("nonfinite", choice != "propagate")
        self.forget_engine()  # first: what ends this early must not leave the engine of before
        self._nonfinite = choice

    @property
    def zero_grad_after(self) -> bool:
        """Whether gradients are 0 after a step; may be set between steps."""
        return self._zero_grad_after

    @zero_grad_after.setter
    def zero_grad_after(self, wanted: bool) -> None:
        found = flag(self._name, "zero_grad_after", wanted)
        self._check_rule("zero_grad_after", found)
        self.forget_engine()
        self._zero_grad_after, self._clearable = found, Clearable()

    @property
    def measure(self) -> tuple[str, ...]:
        """The names of what is measured; may be set between steps."""
        return self._measure

    @measure.setter
    def measure(self, names: Iterable[str]) -> None:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(
                f"{self._name}: measure must be a tuple of names, got {names!r:.200}; write "
                f"({names!r:.100},)"
            )
        found = tuple(names)
        for name in found:
            if name not in SUMS:
                raise ValueError(
                    f"{self._name}: measure must name some of {', '.join(SUMS)}, got {name!r:.200}"
                    f"{nearest(str(name), SUMS)}"
                )
        self._check_rule("measure", bool(found))
        self.forget_engine()
        self._measure = found

    @property
    def measured(self) -> Measures:
        """What the last step has measured, by name; see :class:`Measures`."""
        if not self._measure:
            return Measures((), ())
        alone = self._in_backward.measured if self._in_backward is not None else ()
        return Measures(self._measure, [*self._engine.measured, *alone])

    def step_in_backward(self, model: torch.nn.Module) -> "StepsInBackward":
        """Update each parameter in the backward pass, when its gradient is there, and free it.

        The gradients of all parameters never exist together, which saves their memory. Values,
        states, step counts and checkpoints are those of ``step()`` after the backward pass.
        ``step()`` itself then finds no gradients and updates nothing. Call it all the same:
        schedulers look for it, and rules that keep no count (SGD) are counted by it.

        Each backward pass is a step: gradients are not accumulated over several. Hooks of the
        step are not called. The loss must not be scaled, as a ``GradScaler`` does. Parameters of a
        group that is added later are updated by ``step()``, and their gradients kept.

        Args:
            model: the module that has all of the optimizer's parameters.

        Returns:
            A handle, whose ``remove()`` ends it.

        Raises:
            ValueError: the optimizer holds a parameter that the model has not.
            RuntimeError: the update needs the gradients of other parameters: clipping by the norm
                of all, or ``nonfinite="skip"``; or the group has ``differentiable=True``; or it is
                switched on already. Nothing is changed.
            TypeError: the optimizer has no rule.

        Source: Lv et al., "Full Parameter Fine-tuning for Large Language Models with Limited
        Resources", 2023 (LOMO).

        >>> from thalweg import optim
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = optim.AdamW(model.parameters())
        >>> handle = optimizer.step_in_backward(model)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad is None, optimizer.step_count
        (True, 1)
        """
        from thalweg.optim.step_in_backward import StepsInBackward

        self._check_rule("step_in_backward", asked=True)
        if self._in_backward is not None and self._in_backward.active:
            raise RuntimeError(
                f"{self._name}.step_in_backward: steps are made in the backward pass already; "
                "remove() the first handle before"
            )
        self._in_backward = StepsInBackward(cast("Optimizer", self), model)
        # With its plan it would take the counts back at each step(), and all would plan anew.
        self.forget_engine()
        return self._in_backward

    def _check_rule(self, what: str, asked: bool) -> None:
        if asked and not hasattr(self, "rule"):
            raise TypeError(
                f"{self._name}: {what} is for optimizers with a rule; {self._name} moves all "
                "parameters at once, several times in a step"
            )

    def _around(self) -> Sequence[Transform]:
        """What is put around the rule and its transforms, the last of which sees g first."""
        unscaled = (UNSCALED,) if self._unscales else ()
        cleared = (CLEARED,) if self._zero_grad_after else ()
        skipped = nonfinite_gradients(self._nonfinite)
        return (*cleared, *measuring(self._measure), *skipped, *unscaled)

    def _step_once(self, count: Callable[[], None]) -> None:
        """Make the step, and see to gradients that are to be 0 after it."""
        if not self._zero_grad_after:
            self._step_or_not(count)
            return
        gradients = self._clearable.gradients(self._name, self.param_groups)
        with uninterrupted():  # or a step might be made, and its gradients not be done with
            if self._step_or_not(count):
                # The pass has written to memory of which autograd does not know.
                torch.autograd.graph.increment_version([g for g in gradients if not g.is_sparse])
                gradients = [g for g in gradients if g.is_sparse]
            for g in gradients:
                # Of a detached sparse tensor the elements would go, and those of the gradient stay.
                (g.detach() if g.requires_grad else g).zero_()

    def _step_or_not(self, count: Callable[[], None]) -> bool:
        """Make the step, unless a scaler or a non-finite gradient has it left out."""
        scaled = handed_over(self)
        if scaled is not None and self._in_backward is not None and self._in_backward.active:
            raise RuntimeError(
                f"{self._name}: the loss was scaled, and the backward pass has updated the "
                "parameters with scaled gradients; use step_in_backward without a GradScaler"
            )
        if scaled is not None and self._nonfinite == "raise":
            raise RuntimeError(
                f'{self._name}: nonfinite="raise" cannot be had with a GradScaler, whose scale is '
                'found by steps that overflow; use "propagate", or "skip"'
            )
        try:
            if scaled is not None and not scaled.finite:
                self.skipped_steps += 1
                return False
            if scaled is not None and not self._unscales:
                self.forget_engine()
                self._unscales = True  # and remains so, or a plan would be made for each change
            if self._unscales:
                self._engine.give(SCALE, 1.0 if scaled is None else scaled.scale)
            self._engine.step(count)
        except VetoedError as vetoed:
            if self._nonfinite == "raise":
                raise RuntimeError(_names_of(self._name, vetoed.parts)) from None
            self.skipped_steps += 1
            return False
        return True


def _names_of(owner: str, parts: Sequence[tuple["Slot", float]]) -> str:
    """A sentence that names the first parameters whose gradients are not finite."""
    first = ", ".join(
        f"{slot.gradient_name} ({int(count)} of {slot.numbers} elements)"
        for slot, count in parts[:NAMED]
    )
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return (
        f"{owner}: gradients are not finite: {first}{more}. Nothing was changed; lower the "
        'learning rate, clip the gradients, or pass nonfinite="skip"'
    )
