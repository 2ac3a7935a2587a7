"""What every optimizer with a rule takes beyond torch's options, by name."""

from collections.abc import Iterable
from typing import TypedDict

from thalweg.rule import Transform

Transforms = Iterable[Transform]


class Extras(TypedDict, total=False):
    """Arguments of every constructor, after torch's own; see :class:`thalweg.optim.Optimizer`.

    They are attributes of the optimizer, no options of its groups: a checkpoint has none of them.
    """

    transforms: Transforms
    nonfinite: str
    measure: Iterable[str]
    zero_grad_after: bool


EXTRAS = tuple(Extras.__annotations__)
