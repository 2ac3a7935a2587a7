"""An optimizer of one's own from a rule: five lines, the same kernels."""

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

from thalweg.names import nearest
from thalweg.optim.extras import Transforms
from thalweg.optim.optimizer import Optimizer, Params
from thalweg.optim.options import MODES, given, with_transforms
from thalweg.ranges import NON_NEGATIVE, Ranges
from thalweg.rule import Initial, Rule, State, Update, transformed
from thalweg.rule.transforms import checked_transforms
from thalweg.transforms import maximized


def optimizer(
    *,
    states: Mapping[str, State | Initial] | None = None,
    ranges: Ranges | None = None,
    transforms: Transforms = (),
    **options: Any,
) -> "Callable[[Update], type[Defined]]":
    """Turn a rule into an optimizer class with the rule's name.

    Args:
        states: each state's initial value, or a :class:`thalweg.rule.State`.
        ranges: what each numeric option may be; ``lr`` at least 0 where nothing is said.
        transforms: what stands around the rule in every optimizer of the class, of
            :mod:`thalweg.transforms` or your own. Their options become arguments, too.
        options: the options with their defaults, ``lr`` first: the constructor's arguments.

    Returns:
        A decorator: the class takes ``(params, lr=..., ...)``, the options of the transforms by
        name, and the options of every optimizer (see :class:`thalweg.optim.Optimizer`).

    Raises:
        TypeError: an option's name is one that every optimizer has; something is no transform.
        ValueError: an option or state of a transform is the rule's or another transform's already.

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
    around = (*checked_transforms("optimizer", transforms), maximized())
    taken = sorted(set(options) & {*MODES, "maximize", "transforms", "params", "step"})
    if taken:
        raise TypeError(f"optimizer: every optimizer has {', '.join(taken)}; choose other names")
    checked: Ranges = ranges if ranges is not None else {"lr": NON_NEGATIVE}
    everything = with_transforms("optimizer", MODES | options, around)
    signature = _signature(options, {k: v for k, v in everything.items() if k not in options})

    def make(update: Update) -> type[Defined]:
        rule = Rule(update, states)
        transformed(rule, around)  # raises where states clash
        attributes = {
            "rule": rule,
            "transforms": around,
            "ranges": {name: allowed for name, allowed in checked.items() if name in options},
            "__doc__": update.__doc__,
            "__module__": update.__module__,
            "__qualname__": update.__qualname__,
            "__signature__": signature,
        }
        return type(update.__name__, (Defined,), attributes)

    return make


class Defined(Optimizer):
    """The base of optimizers made by :func:`optimizer`; its constructor takes their options."""

    __signature__: ClassVar[Signature]

    def __init__(self, params: Params, *args: Any, **kwargs: Any) -> None:
        signature = self.__signature__
        try:
            bound = signature.bind(params, *args, **kwargs)
        except TypeError as error:
            known = [name for name in signature.parameters if name != "params"]
            hints = [nearest(key, known) for key in kwargs if key not in known]
            raise TypeError(f"{self._name}: {error}{''.join(hints)}") from None
        bound.apply_defaults()
        super().__init__(params, given(bound.arguments), bound.arguments["transforms"])


def _signature(options: Mapping[str, Any], by_name: Mapping[str, Any]) -> Signature:
    """``(params, lr=..., ..., *, foreach=None, ..., transforms=())``."""
    places = [Parameter("params", Parameter.POSITIONAL_OR_KEYWORD)]
    for key, default in options.items():
        places.append(Parameter(key, Parameter.POSITIONAL_OR_KEYWORD, default=default))
    for key, default in {**by_name, "transforms": ()}.items():
        places.append(Parameter(key, Parameter.KEYWORD_ONLY, default=default))
    return Signature(places)
