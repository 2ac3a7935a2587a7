"""An optimizer of one's own from a rule: five lines, the same kernels."""

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

from thalweg.names import nearest
from thalweg.optim.optimizer import MODES, Optimizer, Params
from thalweg.optim.ranges import Ranges
from thalweg.ranges import NON_NEGATIVE
from thalweg.rule import Initial, Rule, State, Update
from thalweg.rule.compose import maximizable


def optimizer(
    *,
    states: Mapping[str, State | Initial] | None = None,
    ranges: Ranges | None = None,
    **options: Any,
) -> "Callable[[Update], type[Defined]]":
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

    def make(update: Update) -> type[Defined]:
        attributes = {
            "rule": Rule(maximizable(update), states),
            "ranges": {name: allowed for name, allowed in checked.items() if name in options},
            "options": options,
            "__doc__": update.__doc__,
            "__module__": update.__module__,
            "__qualname__": update.__qualname__,
            "__signature__": _signature(options),
        }
        return type(update.__name__, (Defined,), attributes)

    return make


class Defined(Optimizer):
    """The base of optimizers made by :func:`optimizer`; its constructor takes their options."""

    options: ClassVar[dict[str, Any]]

    def __init__(self, params: Params, *args: Any, **kwargs: Any) -> None:
        try:
            given = _signature(self.options).bind(params, *args, **kwargs)
        except TypeError as error:
            known = [*self.options, *MODES]
            hints = [nearest(key, known) for key in kwargs if key not in known]
            raise TypeError(f"{self._name}: {error}{''.join(hints)}") from None
        given.apply_defaults()
        super().__init__(params, {k: v for k, v in given.arguments.items() if k != "params"})


def _signature(options: Mapping[str, Any]) -> Signature:
    """``(params, lr=..., ..., *, foreach=None, ...)``."""
    places = [Parameter("params", Parameter.POSITIONAL_OR_KEYWORD)]
    for key, default in options.items():
        places.append(Parameter(key, Parameter.POSITIONAL_OR_KEYWORD, default=default))
    for key, default in MODES.items():
        places.append(Parameter(key, Parameter.KEYWORD_ONLY, default=default))
    return Signature(places)
