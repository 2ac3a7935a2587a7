"""An optimizer of one's own from a rule: five lines, the same kernels."""

from collections.abc import Callable, Mapping
from typing import Any

from thalweg.optim.optimizer import MODES, Optimizer, Params
from thalweg.optim.ranges import NON_NEGATIVE, Ranges, nearest
from thalweg.rule import Initial, Rule, State, Update
from thalweg.rule.compose import maximizable


def optimizer(
    *,
    states: Mapping[str, State | Initial] | None = None,
    ranges: Ranges | None = None,
    **options: Any,
) -> Callable[[Update], type[Optimizer]]:
    """Turn a rule into an optimizer class with the rule's name.

    Args:
        states: each state's initial value, or a :class:`thalweg.rule.State`.
        ranges: what each numeric option may be; ``lr`` at least 0 where nothing is said.
        options: the options with their defaults, ``lr`` first: the constructor's arguments.

    Returns:
        A decorator: the class takes ``(params, lr=..., ...)`` and the options of every optimizer
        (see :class:`thalweg.optim.Optimizer`).

    Raises:
        TypeError: an option's name is one that every optimizer has.

    >>> import torch, thalweg
    >>> from thalweg.rule import lerp, sign
    >>> @thalweg.optimizer(lr=1e-4, betas=(0.9, 0.99), states={"exp_avg": 0.0})
    ... def Lion(p, g, s, h):
    ...     update = sign(lerp(s.exp_avg, g, 1 - h.beta1))
    ...     s.exp_avg = lerp(s.exp_avg, g, 1 - h.beta2)
    ...     return p - h.lr * update
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> p.grad = torch.tensor([2.0, -3.0])
    >>> Lion([p], lr=0.25).step()
    >>> p.tolist()
    [0.75, 1.25]
    """
    taken = sorted(set(options) & {*MODES, "params", "step"})
    if taken:
        raise TypeError(f"optimizer: every optimizer has {', '.join(taken)}; choose other names")
    checked: Ranges = ranges if ranges is not None else {"lr": NON_NEGATIVE}
    checked = {name: allowed for name, allowed in checked.items() if name in options}

    def make(update: Update) -> type[Optimizer]:
        name = update.__name__

        def construct(self: Optimizer, params: Params, *args: Any, **kwargs: Any) -> None:
            if len(args) > len(options):
                raise TypeError(
                    f"{name}: takes at most {len(options)} positional options "
                    f"({', '.join(options)}), got {len(args)}"
                )
            given = dict(zip(options, args, strict=False))
            for key in kwargs:
                if key in given:
                    raise TypeError(f"{name}: got two values for {key!r}")
            defaults = {**options, **MODES, **given, **kwargs}
            unknown = [key for key in kwargs if key not in options and key not in MODES]
            if unknown:
                raise TypeError(
                    f"{name}: unexpected option {unknown[0]!r}"
                    f"{nearest(unknown[0], [*options, *MODES])}"
                )
            Optimizer.__init__(self, params, defaults)

        attributes = {
            "rule": Rule(maximizable(update), states),
            "ranges": checked,
            "__init__": construct,
            "__doc__": update.__doc__,
            "__module__": update.__module__,
            "__qualname__": update.__qualname__,
        }
        return type(name, (Optimizer,), attributes)

    return make
