"""The update inside a rule's result: x where the rule returns p - x.

``new - p`` would be that up to rounding, which is not small: where p is 1 and the update 1e-8, in
float32 nothing of it is left. So it is found in the expression that the rule has built.
"""

from collections.abc import Sequence
from typing import Any

import torch

from thalweg.rule.functions import where
from thalweg.rule.symbols import Level, Symbol

# In place of an update: p itself, to which nothing was added; and what is not p plus something.
NOTHING, UNRELATED = object(), object()


def update_of(new: Any, p: Any) -> Any:
    """What a rule has added to p: ``new`` is ``p + update_of(new, p)``, without rounding new first.

    Followed through sums, differences, products and quotients with a number, and ``where``; of
    ``p * (1 - c) - x`` it is ``-c * p - x``. Of a result that is not p plus something (an average,
    say, or what is clipped to bounds) it is ``new - p``.

    Args:
        new: what the rule returned.
        p: what it was called with; a tensor as :func:`followed` gives it, or else it is
            ``new - p``.

    >>> from thalweg.rule.equations import equations_of
    >>> from thalweg.rule.symbols import Graph
    >>> graph = Graph()
    >>> p, g = graph.load("p"), graph.load("g")
    >>> lr, c = graph.input("h.lr", 0.1), graph.input("h.c", 0.5)
    >>> equations_of([("update", update_of(p * (1 - c) - lr * g, p))])
    [('update', '-c * p - lr * g')]
    >>> p, x = followed(torch.ones(1)), torch.tensor([1e-9])
    >>> update_of(p - x, p), (p - x) - p
    (tensor([-1.0000e-09]), tensor([0.]))
    """
    if isinstance(new, Symbol):
        update = _update(new, p, {})
    elif new is p:
        update = NOTHING
    else:
        update = new.update if isinstance(new, Followed) and new.origin is p else UNRELATED
    if update is NOTHING:
        return p.graph.literal(0.0) if isinstance(p, Symbol) else torch.zeros_like(_plain(p))
    return new - p if update is UNRELATED else update


def followed(p: Any) -> Any:
    """p, such that :func:`update_of` finds what is added to it; a symbol is that as it is."""
    if isinstance(p, Symbol):
        return p
    result = _plain(p).as_subclass(Followed)
    result.plain, result.origin, result.update = _plain(p), result, NOTHING
    return result


class Followed(torch.Tensor):
    """A tensor that knows itself as another one plus an update.

    Attributes:
        plain: the tensor itself.
        origin: the other one.
        update: what was added to it, or ``NOTHING``.
    """

    plain: torch.Tensor
    origin: torch.Tensor
    update: Any

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        plain = tuple(map(_plain, args))
        result = function(*plain, **{key: _plain(x) for key, x in (kwargs or {}).items()})
        op, reflected = _SPELLED.get(getattr(function, "__name__", ""), ("", False))
        if not op or kwargs:
            return result
        if reflected:
            args, plain = args[::-1], plain[::-1]
        origin = next(x.origin for x in args if isinstance(x, Followed))
        updates = [
            x.update if isinstance(x, Followed) and x.origin is origin else UNRELATED for x in args
        ]
        update = _through(op, plain, updates, _plain(origin))
        if update is UNRELATED or not isinstance(result, torch.Tensor):
            return result
        moved = result.as_subclass(cls)
        moved.plain, moved.origin, moved.update = result, origin, update
        return moved


# How torch names the operations that an update is followed through; True: with swapped arguments.
_SPELLED = {
    **dict.fromkeys(("add", "__add__", "__radd__"), ("add", False)),
    **dict.fromkeys(("sub", "__sub__"), ("subtract", False)),
    **dict.fromkeys(("rsub", "__rsub__"), ("subtract", True)),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), ("multiply", False)),
    **dict.fromkeys(("div", "__truediv__"), ("divide", False)),
    "where": ("where", False),
}


def _plain(x: Any) -> Any:
    return x.plain if isinstance(x, Followed) else x


def _update(node: Symbol, p: Symbol, found: dict[Symbol, Any]) -> Any:
    if node is p:
        return NOTHING
    if node not in found:
        updates = [_update(argument, p, found) for argument in node.args]
        found[node] = _through(node.op, node.args, updates, p)
    return found[node]


def _through(op: str, args: Sequence[Any], updates: Sequence[Any], p: Any) -> Any:
    """The update of an operation's result, from those of its arguments."""
    related = [update is not UNRELATED for update in updates]
    if op == "add" and any(related):
        this = related.index(True)
        return _plus(updates[this], args[1 - this])
    if op == "subtract" and related[0]:
        return _minus(updates[0], args[1])
    if op == "multiply" and any(related):  # (p + u) * f = p + u * f + (f - 1) * p
        this = related.index(True)
        factor = args[1 - this]
        excess = _minus_one(factor)
        if excess is not UNRELATED:
            scaled = updates[this] if updates[this] is NOTHING else updates[this] * factor
            return _plus(scaled, excess * p)
    if op == "divide" and related[0]:  # (p + u) / d = p + (u - (d - 1) * p) / d
        excess = _minus_one(args[1])
        if excess is not UNRELATED:
            return _minus(updates[0], excess * p) / args[1]
    if op == "where" and all(related[1:]):
        return where(args[0], *(0.0 if u is NOTHING else u for u in updates[1:]))
    return UNRELATED


def _plus(update: Any, x: Any) -> Any:
    return x if update is NOTHING else update + x


def _minus(update: Any, x: Any) -> Any:
    return -x if update is NOTHING else update - x


def _minus_one(factor: Any) -> Any:
    """factor - 1 without rounding, at least in float64."""
    if isinstance(factor, (int, float)) or (
        isinstance(factor, torch.Tensor) and factor.ndim == 0 and factor.dtype is torch.float64
    ):
        return factor - 1
    if not isinstance(factor, Symbol):
        return UNRELATED
    one = [arg.op == "literal" and arg.value == 1.0 for arg in factor.args]
    if factor.op == "subtract" and one[0]:
        return -factor.args[1]
    if factor.op == "add" and any(one):
        return factor.args[1 - one.index(True)]
    return factor - 1.0 if factor.level is not Level.ELEMENT else UNRELATED
