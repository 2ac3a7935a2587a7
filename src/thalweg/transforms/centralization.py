"""Gradients without the mean of each unit."""

from functools import wraps
from typing import Any

from thalweg.ranges import flag
from thalweg.rule import Transform, Update, dimensions, mean, where


def centralizing(update: Update) -> Update:
    """The update that sees the gradient of each unit without its mean."""

    @wraps(update)
    def rule(p: Any, g: Any, s: Any, h: Any) -> Any:
        if not h.centralized:
            return update(p, g, s, h)
        return update(p, where(dimensions(g) > 1, g - mean(g, "unit"), g), s, h)

    return rule


def centralized(centralized: bool = True) -> Transform:
    """Take the mean off the gradient of each unit: of a row of a matrix, a filter of a convolution.

    ::

        g[i] <- g[i] - mean(g[i])    for each i of the first dimension, where there are two or more

    Vectors are left as they are. Of a matrix with one column nothing is left.

    Args:
        centralized: False leaves no trace in the kernel; for groups whose rows are no outputs.

    Source: Yong et al., "Gradient Centralization: A New Optimization Technique for Deep Neural
    Networks", 2020, equation 1.
    """
    return Transform(
        centralizing,
        options={"centralized": flag("centralized", "centralized", centralized)},
        name="centralized",
    )
