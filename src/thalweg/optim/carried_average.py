"""The average of the parameters that an optimizer's own step keeps up to date."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from thalweg.engine.interrupts import put_back_after
from thalweg.engine.modes import with_gradients
from thalweg.optim.averages import Tensors
from thalweg.optim.optimizer import Optimizer
from thalweg.rule import Rule
from thalweg.transforms import averaged


class CarriedAverage:
    """An average of the parameters that the optimizer's own step keeps up to date.

    This is the transform :func:`thalweg.transforms.averaged`, which has the formulas: added to an
    optimizer that there is already, unless it was built with it, and the averages read and swapped.

    Each parameter counts its own updates; one that was never updated has no average, and stands
    for itself. The average is part of ``optimizer.state`` and the options are part of every group,
    so checkpoints and copies of the optimizer carry both. Before such a checkpoint is loaded, the
    fresh optimizer must have the transform, or a ``CarriedAverage``; for a copy, make another one.

    Args:
        optimizer: an optimizer that has a rule: any of ``thalweg.optim`` but LBFGS, or your own.
        decay: of an exponential moving average, in [0, 1]; None for equal weights.
        start: updates to let pass before the first value is averaged, >= 0.
        every: average each ``every``-th update after that, >= 1.
        dtype: what to store the averages as, a real floating-point dtype; None: the parameter's.
        warmup: let a decay begin small.
        name: of one of several averages.

    Raises:
        TypeError: the optimizer has no rule, or start or every is no integer.
        ValueError: an option out of range, or the optimizer carries an average of other options in
            every group.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.

    >>> import torch, thalweg.optim as optim
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = optim.SGD([p], lr=1.0)
    >>> average = CarriedAverage(optimizer, decay=None)
    >>> for _ in range(3):
    ...     p.grad = torch.tensor([-1.0])
    ...     optimizer.step()
    >>> with average.swapped():
    ...     print(p.item())
    2.0
    >>> p.item()
    3.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        decay: float | None = 0.999,
        start: int = 0,
        every: int = 1,
        dtype: torch.dtype | None = None,
        warmup: bool = False,
        name: str = "",
    ) -> None:
        owner = type(optimizer).__name__
        if not isinstance(getattr(optimizer, "rule", None), Rule):
            raise TypeError(
                f"CarriedAverage: {owner} has no rule that an average can be folded into (LBFGS "
                "moves all parameters at once, several times in a step); use AveragedModel"
            )
        transform = averaged(decay, start, every, dtype, warmup, name)
        if not any(each.wrap == transform.wrap for each in optimizer.all_transforms):
            optimizer.add_transform(transform)
        found = [
            {key: group.get(key) for key in transform.options} for group in optimizer.param_groups
        ]
        if transform.options not in found:
            raise ValueError(
                f"CarriedAverage: {owner} carries an average of other options already, {found[0]}; "
                f"asked for {transform.options}. Ask for the same, or make a new optimizer"
            )
        self._options = tuple(transform.options)
        self._name = f"{name}_" if name else ""
        self.optimizer = optimizer

    def __repr__(self) -> str:
        options = ", ".join(
            f"{key.removeprefix(f'{self._name}average_')}={self.optimizer.param_groups[0][key]}"
            for key in self._options
        )
        return f"CarriedAverage({type(self.optimizer).__name__}, {options})"

    def of(self, parameter: torch.Tensor) -> torch.Tensor:
        """The average of one parameter, or the parameter itself where it has none yet."""
        entry = self.optimizer.state.get(parameter, {})
        average: torch.Tensor = entry.get(f"{self._name}average", parameter)
        return average if float(entry.get(f"{self._name}averaged_models", 0)) >= 1 else parameter

    def _towards(self, parameter: torch.Tensor, share: float) -> torch.Tensor:
        """The average, or what lies between the parameter and it."""
        average = self.of(parameter)
        if share == 1 or average is parameter:
            return average
        return torch.lerp(parameter.detach(), average.to(parameter.dtype), share)

    @with_gradients(False)
    def copy_to(self, module: Module, model: Module | None = None, share: float = 1.0) -> None:
        """Write the averages into a module's parameters, in place.

        Args:
            module: what to write to.
            model: the trained model, whose parameters the optimizer holds, where ``module`` is
                another one (a copy of it). Matched by name; its buffers are copied as they are.
            share: how far to go from a parameter to its average, 1 all the way.

        Raises:
            ValueError: the optimizer holds none of the model's parameters, or the module has other
                names or shapes than the model. Nothing is written then.
        """
        source = module if model is None else model
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not any(id(p) in held for p in source.parameters()):
            remedy = "; pass the trained model as `model`" if model is None else ""
            raise ValueError(
                f"CarriedAverage: the optimizer holds no parameter of this "
                f"{type(source).__name__}{remedy}"
            )
        targets, sources = _tensors_by_name(module), _tensors_by_name(source)
        for name in [*sources, *targets]:
            shapes = [tuple(t[name].shape) if name in t else None for t in (sources, targets)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"CarriedAverage: {name!r} has shape {shapes[0]} in the model and {shapes[1]} "
                    "in the module to write to (None: it is missing); pass a copy of the model"
                )
        for name, tensor in sources.items():
            value = self._towards(tensor, share)
            if value is not targets[name]:
                targets[name].copy_(value)

    @contextmanager
    def swapped(self, share: float = 1.0) -> Iterator[None]:
        """Let the parameters hold their averages inside a ``with`` block, and put them back after.

        Args:
            share: how far to go from a parameter to its average, 1 all the way. The speed runs of
                modded-nanoGPT evaluate at 0.65.

        ``step()`` inside the block is a ``RuntimeError``: what it does would be lost.
        """
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        changed = [p for p in dict.fromkeys(params) if self.of(p) is not p]
        originals = [p.detach().clone() for p in changed]
        hooks = self.optimizer._optimizer_step_pre_hooks
        refusal = RemovableHandle(hooks)  # there before the hook, so that it can be removed

        def put_back() -> None:
            _write(changed, originals)
            refusal.remove()

        with put_back_after(put_back):
            hooks[refusal.id] = _refuse_step
            _write(changed, [self._towards(p, share) for p in changed])
            yield


def _refuse_step(optimizer: Any, args: Any, kwargs: Any) -> NoReturn:
    raise RuntimeError(
        f"{type(optimizer).__name__}: step() inside CarriedAverage.swapped(), where the parameters "
        "hold their averages and are put back afterwards; step outside of it"
    )


@with_gradients(False)
def _write(targets: Tensors, values: Tensors) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _tensors_by_name(module: Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
