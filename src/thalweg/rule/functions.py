"""The functions a rule may use, each on symbols, tensors and floats alike.

>>> lerp(2.0, 4.0, 0.25)
2.5
>>> maximum(1.0, float("nan"))
nan
"""

from typing import Any

import torch

from thalweg.rule.operations import OPERATIONS
from thalweg.rule.scalars import Number
from thalweg.rule.symbols import SEVERAL, Level, Symbol

__all__ = [
    "abs",
    "atan",
    "clear",
    "clip",
    "dimensions",
    "exp",
    "expm1",
    "held",
    "is_at",
    "largest",
    "lerp",
    "log",
    "log1p",
    "logsumexp",
    "maximum",
    "mean",
    "measure",
    "minimum",
    "norm",
    "offer",
    "offered",
    "pick",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "stored",
    "sum",
    "tanh",
    "veto",
    "where",
]

SCOPES = ("unit", "tensor", *SEVERAL, "row")


def _apply(op: str, *args: Any) -> Any:
    for a in args:
        if isinstance(a, Symbol):
            return a.graph.record(op, *args)
    if any(isinstance(a, torch.Tensor) for a in args):
        return OPERATIONS[op].tensor(*args)
    result = OPERATIONS[op].scalar(*args)
    return Number(result) if any(isinstance(a, Number) for a in args) else result


def sqrt(x: Any) -> Any:
    """Square root, correctly rounded in kernels; NaN below zero."""
    return _apply("sqrt", x)


def exp(x: Any) -> Any:
    """e to the power x."""
    return _apply("exp", x)


def log(x: Any) -> Any:
    """Natural logarithm; -inf at zero, NaN below."""
    return _apply("log", x)


def log1p(x: Any) -> Any:
    """log(1 + x), exact near 0 too; -inf at -1, NaN below."""
    return _apply("log1p", x)


def expm1(x: Any) -> Any:
    """exp(x) - 1, exact near 0 too."""
    return _apply("expm1", x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    return _apply("tanh", x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), the logistic function; overflows for no x.

    0 where exp(-x) is inf: below -709.8, in float32 below -88.8.
    """
    return _apply("sigmoid", x)


def atan(x: Any) -> Any:
    """The angle between -pi / 2 and pi / 2 whose tangent is x."""
    return _apply("atan", x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)); overflows for no x.

    Written with ``where``, not with ``maximum`` and ``abs``: those have corners at 0, and the
    derivative of their sum would be wrong there.

    >>> softplus(0.0) == log(2.0), softplus(1000.0), softplus(-1000.0)
    (True, 1000.0, 0.0)
    """
    positive = x > 0
    return log1p(exp(where(positive, -x, x))) + where(positive, x, 0.0)


def held(x: Any) -> Any:
    """x, taken as a constant: nothing is differentiated through it."""
    return _apply("held", x)


def stored(x: Any) -> Any:
    """What is left of x when it has been stored as the parameter is; of a plain tensor x itself."""
    return _apply("stored", x)


def abs(x: Any) -> Any:
    """Absolute value."""
    return _apply("abs", x)


def sign(x: Any) -> Any:
    """-1, 0 or 1; 0 for NaN, as torch has it."""
    return _apply("sign", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two; NaN if either is, as torch has it."""
    return _apply("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two; NaN if either is, as torch has it."""
    return _apply("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``; both are computed."""
    return _apply("where", condition, a, b)


def clip(x: Any, lowest: Any, highest: Any) -> Any:
    """x held between two bounds; the upper one wins if they cross."""
    return minimum(maximum(x, lowest), highest)


def lerp(a: Any, b: Any, weight: Any) -> Any:
    """a + weight · (b - a), for a scalar weight, from the end that is nearer.

    Which end is a switch (``weight < 0.5``): a kernel holds one form. The far form,
    b - (b - a) · (1 - weight), reaches b exactly at weight 1.
    """
    difference = b - a
    if weight < 0.5:
        return a + weight * difference
    return b - difference * (1 - weight)


def sum(x: Any, over: str = "tensor") -> Any:
    """The sum of x over the parameter's tensor, those of its ``"group"``, or ``"all"`` of them.

    Over the ``"unit"`` it is over what has one index of the first dimension in common: the weights
    of one output, a row of a matrix, a filter of a convolution. A vector is one unit.

    In a loss, over the ``"row"``. Accumulated in float64. Splits the rule into stages: what it
    depends on is computed in one pass, the rest in the next.
    """
    if over not in SCOPES:
        raise ValueError(f"sum: over must be one of {SCOPES}, got {over!r}")
    if over == "row":
        differs = x.level is Level.ELEMENT if isinstance(x, Symbol) else isinstance(x, torch.Tensor)
        if not differs:
            raise TypeError(
                f"sum: {x!r} is the same for every element of the row; a sum over the row is of "
                "what differs from element to element"
            )
    return x.graph.reduce(x, over) if isinstance(x, Symbol) else _eager_sum(x, over)


def mean(x: Any, over: str = "tensor") -> Any:
    """The mean of x over what :func:`sum` sums over."""
    total = sum(x, over)
    if isinstance(x, Symbol):
        return total / x.graph.count(over, total.place)
    return total / sum(torch.ones_like(x), over)


def dimensions(x: Any) -> Any:
    """How many dimensions the parameter has: 1 for a vector, 2 for a matrix; x: p or g."""
    return x.graph.count("dimensions") if isinstance(x, Symbol) else x.ndim


def norm(x: Any, over: str = "tensor") -> Any:
    """The Euclidean norm, sqrt of the :func:`sum` of squares."""
    return sqrt(sum(x * x, over))


def veto(x: Any) -> None:
    """Leave the step out where x, a :func:`sum` over all tensors, is not 0.

    Nothing is stored then and nothing counted. It is decided before the first store of any
    parameter, which costs a pass of its own unless the rule has other sums beforehand. Called with
    tensors, the rule goes on.
    """
    if not isinstance(x, Symbol):
        return
    if x.op != "reduce" or x.detail != "all":
        raise TypeError(f'veto: a step is left out for a sum(..., over="all"), got {x!r}')
    x.graph.vetoes.append(x)


def clear(g: Any) -> None:
    """Let the gradient be 0 after the update; of a plain tensor nothing is changed."""
    if isinstance(g, Symbol):
        g.graph.cleared = True


def offer(name: str, x: Any) -> None:
    """Let x be measured under a name, by a transform around: nothing is computed if none does."""
    if isinstance(x, Symbol):
        x.graph.offers[name] = x


def offered(name: str, x: Any) -> Any:
    """What the rule has offered under a name so far, else 0; x: anything of the same trace."""
    return x.graph.offers.get(name, x.graph.literal(0.0)) if isinstance(x, Symbol) else 0.0


def measure(name: str, x: Any) -> None:
    """Sum x over the tensor beside the update; ``optimizer.measured`` has what comes of it."""
    if isinstance(x, Symbol):
        x.graph.measured[name] = x.graph.tensor_sum(x)


def largest(x: Any) -> Any:
    """The largest of the row; NaN if any is. Of several the derivative is shared evenly."""
    if isinstance(x, Symbol):
        return x.graph.largest(x)
    return torch.amax(x, -1, keepdim=True) if isinstance(x, torch.Tensor) else x


def logsumexp(x: Any) -> Any:
    """log(sum(exp(x))) over the row; overflows for no x."""
    top = held(largest(x))
    return top + log(sum(exp(x - top), over="row"))


def pick(x: Any, index: Any) -> Any:
    """The element of the row at an index."""
    if isinstance(x, Symbol):
        return x.graph.pick(x, index)
    return torch.gather(x.expand(*index.shape[:-1], x.shape[-1]), -1, index)


def is_at(x: Any, index: Any) -> Any:
    """Whether an element of x is the one at an index of its row: a condition."""
    if isinstance(x, Symbol):
        return x.graph.is_at(index)
    return torch.arange(x.shape[-1], device=x.device) == index


def _eager_sum(x: torch.Tensor, over: str) -> torch.Tensor:
    if over == "row":
        return torch.sum(x, -1, keepdim=True, dtype=torch.float64).to(x.dtype)
    if over == "unit":
        return unit_sum(x, torch.float64).to(x.dtype)
    return torch.sum(x, dtype=torch.float64).to(x.dtype)


def unit_sum(x: torch.Tensor, dtype: torch.dtype, inner: int = 0) -> torch.Tensor:
    """The sums over the units of a tensor, as one that broadcasts with it.

    Args:
        x: the tensor.
        dtype: what is added up in.
        inner: how many dimensions, the last ones, are no dimensions of the parameter.
    """
    if x.ndim == 0:
        return torch.sum(x, dtype=dtype)
    first = 0 if x.ndim - inner <= 1 else 1
    return torch.sum(x, tuple(range(first, x.ndim)), keepdim=True, dtype=dtype)
