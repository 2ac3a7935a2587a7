"""torch.optim and thalweg.optim, whose state dicts have one layout.

They differ in dtypes alone: thalweg counts in float64, torch in float32 (SparseAdam: an int).
"""

from collections.abc import Callable
from typing import Any

from thalweg.checkpoint.convert.library import (
    ABSENT,
    Group,
    Layout,
    Library,
    Options,
    Saved,
    same,
)
from thalweg.optim.lbfgs.state import LISTS, SCALARS, VECTORS
from thalweg.optim.optimizer import Optimizer
from thalweg.optim.options import MODES
from thalweg.transforms.shipped import missing_transform

# How a step is carried out is up to the optimizer that the state is for; what it does is not.
WAYS = tuple(MODES)


def library(own: Optimizer) -> Library:
    """The layout of the one optimizer, with the average that it may carry."""
    ways = tuple(way for way in WAYS if way in own.defaults)
    if hasattr(own, "rule"):
        states = list(own.composed_rule.states)
    else:
        states = [*SCALARS, *VECTORS, *LISTS]
    options = same(*(name for name in own.defaults if name not in ways))
    for name in options:
        if own.defaults[name] is None or isinstance(own.defaults[name], bool):
            options[name] = _if_saved(name)
    layout = Layout(
        options=options,
        idle=WAYS,
        states={name: name for name in states},
        refusals=(_transform_left(own),),
    )
    return Library("torch", {type(own).__name__: layout}, first_radam)


def first_radam(saved: Saved, target: str) -> bool:
    """Whether it can be a RAdam of torch 1.10, which had none of today's switches, or timm's alike.

    Their weight decay differs, so they are two only where there is some.
    """
    bare = saved.options() <= {"lr", "betas", "eps", "weight_decay", "initial_lr"}
    return target == "RAdam" and bare and any(group.get("weight_decay") for group in saved.groups)


def _if_saved(name: str) -> Callable[[Options], Any]:
    """Switches that a checkpoint of an older torch lacks stay as they are."""
    return lambda options: options.get(name, ABSENT)


def _transform_left(own: Optimizer) -> Callable[[Group], str | None]:
    def refusal(group: Group) -> str | None:
        missing = missing_transform(group.options, own.defaults)
        if missing is None:
            return None
        return (
            f"it has the states of the transform {missing}, for which this optimizer has no place: "
            f"thalweg's have one with transforms=[{missing}(...)]. Or save that of an optimizer "
            "without"
        )

    return refusal
